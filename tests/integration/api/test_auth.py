"""Logging in over HTTP, and what a credential is worth."""

from __future__ import annotations

from typing import Any

import pytest

from governance.model import Role

from .conftest import PASSWORD, MakeNode, Node


def login(node: Node, **form: str) -> Any:
    return node.client.post("/v1/auth/token", data={"grant_type": "password"} | form)


def test_a_login_answers_tokens_and_who_one_is(node_on_each: Node) -> None:
    node = node_on_each
    answer = login(node, username="researcher@example.org", password=PASSWORD)
    body = answer.json()
    assert (200, "bearer", 900, "researcher", node.ids["researcher"]) == (
        answer.status_code,
        body["token_type"],
        body["expires_in"],
        body["role"],
        body["principal_id"],
    )


def test_me_tells_who_i_am(node: Node) -> None:
    assert {
        "id": node.ids["owner"],
        "email": "owner@example.org",
        "role": "owner",
        "display_name": "Owner",
    } == node.call("owner", "GET", "/v1/auth/me").json()


def test_a_refresh_token_works_once_and_its_reuse_ends_the_session(node_on_each: Node) -> None:
    node = node_on_each
    first = login(node, username="researcher@example.org", password=PASSWORD).json()
    form = {"grant_type": "refresh_token", "refresh_token": first["refresh_token"]}
    second = node.client.post("/v1/auth/token", data=form)
    assert 200 == second.status_code
    assert 401 == node.client.post("/v1/auth/token", data=form).status_code
    node.tokens["thief"] = second.json()["access_token"]
    assert 401 == node.call("thief", "GET", "/v1/auth/me").status_code


def test_a_logout_ends_the_session(node: Node) -> None:
    assert 204 == node.call("researcher", "POST", "/v1/auth/logout").status_code
    assert 401 == node.call("researcher", "GET", "/v1/auth/me").status_code


def test_wrong_password_and_unknown_account_look_the_same(node: Node) -> None:
    def seen(username: str) -> dict[str, Any]:
        body: dict[str, Any] = login(node, username=username, password="wrong").json()
        return {name: value for name, value in body.items() if name != "request_id"}

    assert seen("researcher@example.org") == seen("nobody@example.org")


def test_too_many_failures_answer_429_with_retry_after(node: Node) -> None:
    answers = [login(node, username="researcher@example.org", password="wrong") for _ in range(6)]
    assert ([401] * 5 + [429], "throttled", "1") == (
        [answer.status_code for answer in answers],
        answers[-1].json()["code"],
        answers[-1].headers["Retry-After"],
    )


def test_a_device_that_logged_in_gets_a_proof_as_a_cookie(node: Node) -> None:
    cookie = login(node, username="researcher@example.org", password=PASSWORD).headers["Set-Cookie"]
    assert all(part in cookie for part in ("pysytff_device=", "HttpOnly", "SameSite=strict", "Path=/v1/auth"))


def test_the_device_cookie_is_no_credential(node: Node) -> None:
    login(node, username="researcher@example.org", password=PASSWORD)
    node.tokens["cookie"] = node.client.cookies["pysytff_device"]
    assert 401 == node.call("cookie", "GET", "/v1/auth/me").status_code


@pytest.mark.parametrize(
    "header",
    ["", "Bearer", "Bearer ", "Bearer x.y.z", "Basic YTpi", "Bearer pysr_nothing", "Bearer " + "a" * 10_000],
)
def test_an_unfit_credential_is_401_and_names_the_scheme(node: Node, header: str) -> None:
    answer = node.client.get("/v1/auth/me", headers={"Authorization": header})
    assert (401, "Bearer", "unauthenticated") == (
        answer.status_code,
        answer.headers["WWW-Authenticate"],
        answer.json()["code"],
    )


def test_an_unsigned_token_is_refused(node: Node) -> None:
    _, payload, _ = node.tokens["admin"].split(".")
    node.tokens["forged"] = f"eyJhbGciOiJub25lIiwidHlwIjoiSldUIn0.{payload}."
    assert 401 == node.call("forged", "GET", "/v1/auth/me").status_code


def test_disabling_a_user_ends_their_session_at_once(node_on_each: Node) -> None:
    node = node_on_each
    path = f"/v1/users/{node.ids['researcher']}:disable"
    assert 204 == node.call("admin", "POST", path).status_code
    assert 401 == node.call("researcher", "GET", "/v1/auth/me").status_code
    assert 401 == login(node, username="researcher@example.org", password=PASSWORD).status_code


def test_an_invited_user_accepts_and_logs_in(node_on_each: Node) -> None:
    node = node_on_each
    body = {"email": "New@Example.org", "role": "auditor", "display_name": "New"}
    invited = node.call("admin", "POST", "/v1/users", json=body)
    assert 201 == invited.status_code
    accept = {"invitation_token": invited.json()["invitation_token"], "password": PASSWORD}
    assert [204, 401] == [
        node.client.post("/v1/users/accept", json=accept).status_code,
        node.client.post("/v1/users/accept", json=accept).status_code,
    ]
    assert "auditor" == login(node, username="new@example.org", password=PASSWORD).json()["role"]
    assert (
        "active"
        == {one["email"]: one["status"] for one in node.call("auditor", "GET", "/v1/users").json()["items"]}[
            "new@example.org"
        ]
    )


def test_a_revoked_runner_credential_is_401(node: Node) -> None:
    made = node.call("admin", "POST", "/v1/runner-credentials", json={"name": "gpu-1"}).json()
    node.tokens["gpu"] = made["credential"]
    assert 204 == node.call("gpu", "POST", "/v1/runner/claim").status_code
    assert 204 == node.call("admin", "DELETE", f"/v1/runner-credentials/{made['id']}").status_code
    assert 401 == node.call("gpu", "POST", "/v1/runner/claim").status_code


def test_no_user_can_be_made_a_runner(node: Node) -> None:
    body = {"email": "r@example.org", "role": "runner", "display_name": "R"}
    assert 422 == node.call("admin", "POST", "/v1/users", json=body).status_code


def test_a_busy_stranger_gets_429_and_a_user_at_the_same_address_does_not(make_node: MakeNode, sqlite_url: str) -> None:
    from api.limits import Limits

    node = make_node(sqlite_url, limits=Limits(anonymous="3/minute"))
    node.join("researcher", Role.RESEARCHER)
    answers = [node.client.get("/v1/auth/me").status_code for _ in range(5)]
    assert [401, 401, 401, 429, 429] == answers
    assert 200 == node.call("researcher", "GET", "/v1/auth/me").status_code


def test_a_busy_principal_gets_429_and_another_does_not(make_node: MakeNode, sqlite_url: str) -> None:
    from api.limits import Limits

    node = make_node(sqlite_url, limits=Limits(principal="2/minute"))
    node.join("researcher", Role.RESEARCHER)
    node.join("owner", Role.OWNER)
    assert [200, 200, 429] == [node.call("researcher", "GET", "/v1/auth/me").status_code for _ in range(3)]
    assert 200 == node.call("owner", "GET", "/v1/auth/me").status_code
