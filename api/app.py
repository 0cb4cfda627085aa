"""The composition root: settings → services → application.

Invariants
- Everything is wired here and nowhere else; a route without declared access keeps the application from starting.
- Nothing on the import path of this module imports TensorFlow.
- Background work (ended leases, the event log's one reader) lives and ends with the application.

This module does not: start processes or make folders (``cli.py``, ``node.py``), or run migrations.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from importlib.metadata import version
from typing import Any
from urllib.parse import urlsplit

import anyio.to_thread
from fastapi import Depends, FastAPI
from fastapi.routing import APIRoute, iter_route_contexts

from api import access, auth, logging, openapi, problems
from api.events import Broadcaster
from api.gateway import Gateway
from api.limits import RateLimiter
from api.routes import auth as auth_routes
from api.routes import ledger, registry, runner, runs, service, training, users
from api.services import LOOPBACK_HOSTS, ApiOptions, Services
from api.settings import Settings
from governance.admission import Admission
from governance.errors import GovernanceError
from governance.identity import Identity
from governance.ledger.database import Database
from governance.policy.opa import PolicyEngine
from governance.queries import Queries
from governance.registry import Registry
from governance.results import ResultStore
from governance.settlement import Settlement
from governance.tokens import SigningKey

__all__ = ["ApiOptions", "Services", "build_services", "create_app"]

_ROUTERS = (service, auth_routes, users, registry, training, runs, ledger, runner)
_PRUNE_S = 3600.0


def build_services(settings: Settings) -> Services:
    """Opens what the service needs. ``up`` and ``serve`` start the policy engine and pass its address.

    Raises ``ValueError`` without an engine, ``StorageError`` for an unfit database or key file.
    """
    if settings.opa_url is None or settings.opa_token is None:
        raise ValueError("no policy engine: set PYSYTFF_OPA_URL and PYSYTFF_OPA_TOKEN, or start `pysytff-server serve`")
    key = SigningKey.load_or_create(settings.token_key_file)
    database = Database.open(settings.database_url)
    registry = Registry(database)
    results = ResultStore(settings.results_dir)
    engine = PolicyEngine(settings.opa_url, settings.opa_token.get_secret_value(), timeout_s=settings.opa_timeout_s)
    return Services(
        database=database,
        registry=registry,
        admission=Admission(database, engine),
        settlement=Settlement(database, results),
        queries=Queries(database, results),
        identity=Identity(database, registry, key),
        engine=engine,
        options=options_of(settings),
    )


def options_of(settings: Settings) -> ApiOptions:
    """On loopback with nothing in front, only loopback's names are answered: a web page cannot rebind its own to us.

    Elsewhere a proxy or the network decides who gets here, and a bearer token (never a cookie) is asked of everybody.
    """
    own = urlsplit(settings.own_url)
    name = f"[{own.hostname}]" if ":" in (own.hostname or "") else (own.hostname or "")
    direct = settings.on_loopback and not settings.trusted_proxies
    return ApiOptions(allowed_hosts=(*LOOPBACK_HOSTS, name) if direct else ("*",), secure_cookies=own.scheme == "https")


def create_app(services: Services) -> FastAPI:
    """The application over ``services``, which it closes when it ends."""
    app = FastAPI(
        title="PySyTFF",
        version=version("pysytff-server"),
        summary="A policy and privacy-budget gate in front of TensorFlow Federated",
        lifespan=_lifespan,
        dependencies=[Depends(auth.gate)],
        redirect_slashes=False,
        redoc_url=None,
    )
    app.state.services = services
    app.state.limiter = RateLimiter(services.options.limits)
    app.state.broadcaster = Broadcaster(services)
    app.state.uploads = asyncio.Semaphore(1)
    for module in _ROUTERS:
        app.include_router(module.routes)
    access.check(api_routes(app))
    problems.install(app)
    openapi.install(app)
    app.add_middleware(Gateway, options=services.options)
    return app


def api_routes(app: FastAPI) -> list[tuple[str, str]]:
    """Every (method, path) that the application routes, apart from the documentation's."""
    return [
        (method, context.path)
        for context in iter_route_contexts(app.routes)
        if isinstance(context.original_route, APIRoute) and context.path is not None
        for method in sorted(context.methods or ())
    ]


@contextlib.asynccontextmanager
async def _lifespan(app: FastAPI) -> AsyncIterator[None]:
    services: Services = app.state.services
    broadcaster: Broadcaster = app.state.broadcaster
    tasks = [
        asyncio.create_task(broadcaster.run()),
        asyncio.create_task(_every(services.options.lease_sweep_s, services.settlement.expire_leases)),
        asyncio.create_task(_every(_PRUNE_S, services.identity.prune)),
    ]
    try:
        yield
    finally:
        broadcaster.close()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await anyio.to_thread.run_sync(services.close)


async def _every(seconds: float, work: Callable[[], Any]) -> None:
    """Runs ``work`` in a thread again and again. What fails is logged and tried again: time does not stop for it."""
    while True:
        try:
            await anyio.to_thread.run_sync(work)
        except GovernanceError as error:
            logging.logger().warning("background_work_failed", work=work.__name__, code=error.code)
        except Exception as error:
            logging.logger().error("background_work_failed", work=work.__name__, **logging.failure(error))
        await asyncio.sleep(seconds)
