"""Which role may call which route: the one table. ``auth.py`` enforces it on every request.

Invariants
- A route that is not listed here is refused, and the application does not start with one (``check``).
- Roles say what one may try; what one may *see* is decided below, in governance, and looks like 404.
- A runner's credential opens the runner's routes and nothing else; nobody else's opens those.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from governance.model import Role

Access = frozenset[Role] | None  # None: public

PUBLIC: Access = None
PEOPLE = frozenset({Role.RESEARCHER, Role.OWNER, Role.AUDITOR, Role.ADMIN})
ADMIN = frozenset({Role.ADMIN})
OWNER = frozenset({Role.OWNER})
RESEARCHER = frozenset({Role.RESEARCHER})
RUNNER = frozenset({Role.RUNNER})

ACCESS: Mapping[tuple[str, str], Access] = {
    ("GET", "/"): PUBLIC,
    ("GET", "/v1/health"): PUBLIC,
    ("GET", "/v1/ready"): PUBLIC,
    ("POST", "/v1/auth/token"): PUBLIC,
    ("POST", "/v1/auth/logout"): PEOPLE,
    ("GET", "/v1/auth/me"): PEOPLE,
    ("POST", "/v1/users/accept"): PUBLIC,
    ("GET", "/v1/users"): ADMIN | {Role.AUDITOR},
    ("POST", "/v1/users"): ADMIN,
    ("POST", "/v1/users/{user_id}:disable"): ADMIN,
    ("POST", "/v1/runner-credentials"): ADMIN,
    ("DELETE", "/v1/runner-credentials/{credential_id}"): ADMIN,
    ("GET", "/v1/projects"): PEOPLE,
    ("POST", "/v1/projects"): RESEARCHER | OWNER | ADMIN,
    ("GET", "/v1/projects/{project_id}"): PEOPLE,
    ("POST", "/v1/projects/{project_id}/members"): RESEARCHER | OWNER | ADMIN,
    ("GET", "/v1/populations"): PEOPLE,
    ("POST", "/v1/populations"): OWNER,
    ("GET", "/v1/populations/{population_id}"): PEOPLE,
    ("GET", "/v1/populations/{population_id}/quotas"): PEOPLE,
    ("PUT", "/v1/populations/{population_id}/quotas"): OWNER,
    ("GET", "/v1/datasets"): PEOPLE,
    ("POST", "/v1/datasets"): OWNER,
    ("GET", "/v1/datasets/{dataset_id}"): PEOPLE,
    ("POST", "/v1/train-requests"): RESEARCHER,
    ("POST", "/v1/train-requests:preview"): RESEARCHER,
    ("GET", "/v1/runs"): PEOPLE,
    ("GET", "/v1/runs/{run_id}"): PEOPLE,
    ("POST", "/v1/runs/{run_id}:cancel"): RESEARCHER | OWNER | ADMIN,
    ("POST", "/v1/runs/{run_id}:resolve"): ADMIN,
    ("GET", "/v1/runs/{run_id}/events"): PEOPLE,
    ("GET", "/v1/runs/{run_id}/result"): PEOPLE,
    ("GET", "/v1/runs/{run_id}/weights"): PEOPLE,
    ("GET", "/v1/runs/{run_id}/statement"): PEOPLE,
    ("GET", "/v1/decisions/{decision_id}"): PEOPLE,
    ("GET", "/v1/decisions/{decision_id}/explanation"): PEOPLE,
    ("GET", "/v1/ledger/entries"): PEOPLE,
    ("GET", "/v1/ledger/budget"): PEOPLE,
    ("GET", "/v1/ledger/odometer"): PEOPLE,
    ("GET", "/v1/ledger/remaining"): PEOPLE,
    ("GET", "/v1/ledger/export"): OWNER | ADMIN | {Role.AUDITOR},
    ("GET", "/v1/ledger/checkpoint"): PEOPLE,
    ("GET", "/v1/ledger/keys"): PEOPLE,
    ("GET", "/v1/ledger/proofs/inclusion"): PEOPLE,
    ("GET", "/v1/ledger/proofs/consistency"): PEOPLE,
    ("POST", "/v1/runner/claim"): RUNNER,
    ("POST", "/v1/runner/grants/{grant_id}/heartbeat"): RUNNER,
    ("POST", "/v1/runner/grants/{grant_id}/debit"): RUNNER,
    ("POST", "/v1/runner/grants/{grant_id}/progress"): RUNNER,
    ("POST", "/v1/runner/grants/{grant_id}/fail"): RUNNER,
    ("PUT", "/v1/runner/grants/{grant_id}/result"): RUNNER,
    ("POST", "/v1/runner/reports"): RUNNER,
}


def check(routes: Iterable[tuple[str, str]]) -> None:
    """Raises ``RuntimeError`` unless routes and table are the same."""
    found = set(routes)
    if found != set(ACCESS):
        raise RuntimeError(f"routes without access: {found - set(ACCESS)}; access without route: {set(ACCESS) - found}")
