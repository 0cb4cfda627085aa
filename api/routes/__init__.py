"""The routes, one module for each group. A route turns HTTP into one call of governance and its answer into JSON."""

from __future__ import annotations

from fastapi import APIRouter

from api.gated_route import GatedRoute


def router(tag: str) -> APIRouter:
    return APIRouter(route_class=GatedRoute, tags=[tag], redirect_slashes=False)
