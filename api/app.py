"""The application over its services: routes, handlers, gateway and background work, wired here and nowhere else.

Invariants
- A route without declared access keeps the application from starting.
- Each kind of work has threads of its own (``lanes.py``); the default ones are the readers'.
- Nothing on the import path of this module imports TensorFlow.
- Background work (ended leases, the event log's one reader) lives and ends with the application.

This module does not: make the services (``serving.py``), start processes, or run migrations.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from importlib.metadata import version
from typing import Any

import anyio.to_thread
from fastapi import Depends, FastAPI
from fastapi.routing import APIRoute, iter_route_contexts

from api import access, auth, docs_page, logging, openapi, problems
from api.events import Broadcaster
from api.gateway import Gateway
from api.lanes import READERS, Lane, Lanes
from api.limits import RateLimiter
from api.routes import auth as auth_routes
from api.routes import decisions, ledger, log, registry, runner, runs, service, training, users
from api.services import ApiOptions, Services
from governance.errors import GovernanceError

__all__ = ["ApiOptions", "Services", "create_app"]

_ROUTERS = (service, auth_routes, users, registry, training, runs, decisions, ledger, log, runner)
_PRUNE_S = 3600.0


def create_app(services: Services) -> FastAPI:
    """The application over ``services``, which it closes when it ends."""
    app = FastAPI(
        title="PySyTFF",
        version=version("pysytff-server"),
        summary="A policy and privacy-budget gate in front of TensorFlow Federated",
        lifespan=_lifespan,
        dependencies=[Depends(auth.require_gate)],
        redirect_slashes=False,
        docs_url=None,  # FastAPI's loads scripts from elsewhere
        redoc_url=None,
    )
    app.state.services = services
    app.state.limiter = RateLimiter(services.options.limits)
    app.state.lanes = Lanes(services.options.limits)
    app.state.broadcaster = Broadcaster(services)
    app.state.uploads = asyncio.Semaphore(1)
    for module in _ROUTERS:
        app.include_router(module.routes)
    access.check(api_routes(app))
    problems.install(app)
    openapi.install(app)
    docs_page.install(app)
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
    lane = app.state.lanes.background
    anyio.to_thread.current_default_thread_limiter().total_tokens = READERS
    tasks = [
        asyncio.create_task(broadcaster.run()),
        asyncio.create_task(_every(lane, services.options.lease_sweep_s, services.settlement.expire_leases)),
        asyncio.create_task(_every(lane, _PRUNE_S, services.identity.prune)),
    ]
    try:
        yield
    finally:
        broadcaster.close()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await anyio.to_thread.run_sync(services.close)


async def _every(lane: Lane, seconds: float, work: Callable[[], Any]) -> None:
    """Runs ``work`` again and again in a thread. What fails is logged and tried again: time does not stop for it."""
    while True:
        try:
            await lane.run(work)
        except GovernanceError as error:
            logging.logger().warning("background_work_failed", work=work.__name__, code=error.code)
        except Exception as error:
            logging.logger().error("background_work_failed", work=work.__name__, **logging.failure(error))
        await asyncio.sleep(seconds)
