"""The API process: settings → services → application → uvicorn, on a socket that is bound already.

Invariants
- Whoever starts the API binds the socket first (``up.listen``), so a port in use is found before anything starts, and
  the API listens on exactly that port. A child gets it as a file descriptor.
- It waits a bounded time for open answers when it ends.

This module does not: own the policy engine or the runner (``up.py`` does).
"""

from __future__ import annotations

import os
import socket
import threading

import uvicorn

from api import checkpointer, logging, node, witness_client
from api.app import ApiOptions, Services, create_app
from api.errors import NodeError
from api.settings import Settings
from governance.admission import Admission
from governance.audit.reader import Audit
from governance.clamping import warm_up
from governance.identity import Identity
from governance.ledger.database import Database
from governance.policy.opa import PolicyEngine
from governance.queries import Queries
from governance.registry import Registry
from governance.results import ResultStore
from governance.settlement import Settlement
from governance.tokens import SigningKey
from governance.transparency import Transparency

LAST_ANSWERS_S = 5


def inherited(descriptor: int) -> socket.socket:
    return socket.socket(fileno=descriptor)


def compose(settings: Settings) -> Services:
    """Everything the API calls. ``settings`` names a policy engine that runs."""
    if settings.opa_url is None:
        raise NodeError("the API needs PYSYTFF_OPA_URL and PYSYTFF_OPA_TOKEN; `pysytff-server up` provides them")
    database = Database.open(settings.database_url)
    results = ResultStore(settings.results_dir)
    witnesses = witness_client.configured(settings.witnesses, settings.ledger_dir / checkpointer.WITNESSES)
    registry = Registry(database)
    engine = PolicyEngine(settings.opa_url, node.opa_token(settings), timeout_s=settings.opa_timeout_s)
    return Services(
        database=database,
        registry=registry,
        admission=Admission(database, engine),
        settlement=Settlement(database, results),
        queries=Queries(database, results),
        audit=Audit(database),
        identity=Identity(database, registry, SigningKey.load_or_create(settings.token_key_file)),
        engine=engine,
        transparency=Transparency(database, settings.ledger_dir, [one.key for one in witnesses]),
        options=ApiOptions(allowed_hosts=settings.host_names, secure_cookies=settings.secure_cookies),
    )


def serve(settings: Settings, listener: socket.socket) -> None:
    """Returns when a signal has ended it and the open answers are done, or their time is up."""
    os.umask(0o077)
    logging.configure(level=settings.log_level)
    services = compose(settings)
    config = uvicorn.Config(
        create_app(services),
        log_config=None,  # one structured line a request, from the gateway
        access_log=False,
        server_header=False,
        proxy_headers=bool(settings.trusted_proxies),
        forwarded_allow_ips=settings.trusted_proxies or None,
        timeout_graceful_shutdown=LAST_ANSWERS_S,
    )
    threading.Thread(target=warm_up, name="warm-up", daemon=True).start()
    # Nothing is answered before the log was checked; a ledger that does not fit what was signed is closed by then.
    with checkpointer.running(settings, services.database):
        uvicorn.Server(config).run(sockets=[listener])
