"""``python -m benchmarks.server DESCRIPTOR``: ``pysytff-server serve`` with rates that a benchmark does not reach."""

from __future__ import annotations

import sys
from dataclasses import replace

from api import serving
from api.services import Services
from api.settings import Settings, load

_RATE = "100000000/minute"
_compose = serving.compose


def _unlimited(settings: Settings) -> Services:
    services = _compose(settings)
    limits = replace(
        services.options.limits, anonymous=_RATE, login=_RATE, principal=_RATE, submissions=_RATE, runner=_RATE
    )
    return replace(services, options=replace(services.options, limits=limits))


if __name__ == "__main__":
    serving.compose = _unlimited
    serving.serve(load(), serving.inherited(int(sys.argv[1])))
