"""PySyTFF for researchers: find datasets, ask for governed and private training, get models.

``import pysytff as sy``; then ``domain = sy.login(email=…, port=8081)`` and ``sy.tff.train_model(…)``.
"""

from pysytff import errors, keras, tff
from pysytff._version import __version__
from pysytff.domain import Domain, login
from pysytff.models import Decision
from pysytff.runs import Run, RunResult

__all__ = ["Decision", "Domain", "Run", "RunResult", "__version__", "errors", "keras", "login", "tff"]
