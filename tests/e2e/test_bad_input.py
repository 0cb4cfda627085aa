"""What nobody should send: each gets a problem of its own, and the ledger is as it was."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import jwt
import pytest

from governance.tokens import AUDIENCE, ISSUER, AccessClaims, SigningKey
from tests.e2e.conftest import QuietNode
from tests.e2e.nodes import MODEL, DemoNode, Json

NOBODYS = "000000000000000000000000"


@pytest.fixture
def node(quiet: QuietNode) -> DemoNode:
    return quiet.node


def problem(answer: httpx.Response, status: int, code: str) -> Json:
    """A whole RFC 9457 document, and nothing of a stack trace."""
    found: Json = answer.json()
    assert (status, code) == (answer.status_code, found.get("code")), answer.text
    assert "application/problem+json" == answer.headers["Content-Type"]
    assert (f"urn:pysytff:problem:{code}", status, answer.headers["X-Request-ID"]) == (
        found["type"],
        found["status"],
        found["request_id"],
    )
    assert found["title"]
    assert found["detail"]
    assert "Traceback" not in answer.text
    return found


def refused_unwritten(node: DemoNode, body: Json | bytes, status: int, code: str) -> Json:
    """Submitted and previewed: the same problem, and nothing is written."""
    before = node.entries()
    sent: dict[str, Any] = {"content": body} if isinstance(body, bytes) else {"content": json.dumps(body).encode()}
    headers = {"Content-Type": "application/json", "Idempotency-Key": "bad-input"}
    answers = [node.sam.call("POST", f"/v1/train-requests{end}", headers=headers, **sent) for end in ("", ":preview")]
    first, second = (problem(answer, status, code) for answer in answers)
    assert first.get("errors") == second.get("errors")
    assert before == node.entries()
    return first


def model(*layers: Json, **changes: Any) -> Json:
    return MODEL | {"layers": list(layers)} | changes


FLATTEN: Json = {"type": "flatten"}
SOFTMAX: Json = {"type": "dense", "units": 10, "activation": "softmax"}


@pytest.mark.parametrize(
    ("document", "path", "words"),
    [
        pytest.param(
            model(FLATTEN, {"type": "lambda", "function": "lambda x: x"}, SOFTMAX),
            "model.layers[1].type",
            "code does not travel",
            id="Lambda layer",
        ),
        pytest.param(
            model(FLATTEN, {"type": "Lambda"}, SOFTMAX), "model.layers[1].type", "code does not travel", id="Lambda"
        ),
        pytest.param(
            {"class_name": "Sequential", "config": {"layers": [{"class_name": "Lambda", "config": {}}]}},
            "model",
            "translate it first",
            id="Keras' own JSON with a Lambda layer",
        ),
        pytest.param(
            model(FLATTEN, {"type": "quantum_dense"}, SOFTMAX), "model.layers[1].type", "one of", id="unknown class"
        ),
        pytest.param(
            model(FLATTEN, {"type": "os.system"}, SOFTMAX),
            "model.layers[1].type",
            "never by a module",
            id="foreign module path as type",
        ),
        pytest.param(
            model(FLATTEN, SOFTMAX | {"module": "evil.code"}), "model.layers[1]", "", id="foreign module path as key"
        ),
        pytest.param(
            model(FLATTEN, SOFTMAX | {"activation": "evil.code:run"}),
            "model.layers[1].activation",
            "",
            id="foreign function",
        ),
        pytest.param(
            model(FLATTEN, {"type": "dense", "units": 32_768}, {"type": "dense", "units": 32_768}, SOFTMAX),
            "model.layers[2]",
            "1,075,904,512 parameters",
            id="a billion parameters",
        ),
        pytest.param(
            model(FLATTEN, {"type": "dense", "units": 10**9}, SOFTMAX),
            "model.layers[1].units",
            "",
            id="a billion units",
        ),
        pytest.param(
            model(FLATTEN, {"type": "reshape", "target_shape": [7, 9]}, SOFTMAX),
            "model.layers[1]",
            "",
            id="mismatched shapes between layers",
        ),
        pytest.param(
            MODEL | {"input": {"shape": [64], "dtype": "float32"}},
            "model.input.shape",
            "the dataset's shape",
            id="another shape than the data's",
        ),
        pytest.param(
            model(FLATTEN, SOFTMAX | {"units": 9}), "model.layers", "at least 10 units", id="fewer classes than labels"
        ),
        pytest.param(model(SOFTMAX), "model.layers", "", id="an output for each pixel"),
        pytest.param(model(), "model.layers", "1 to 64 layers", id="no layers"),
        pytest.param(model(FLATTEN, *[SOFTMAX] * 64), "model.layers", "1 to 64 layers", id="too many layers"),
        pytest.param({}, "model.schema", "pysytff.model/1", id="nothing"),
    ],
)
def test_an_unfit_model_is_explained_and_writes_nothing(node: DemoNode, document: Json, path: str, words: str) -> None:
    found = refused_unwritten(node, node.request(model=document), 422, "invalid_model")
    told = {error["path"]: f"{error['message']} {error['hint']}" for error in found["errors"]}

    assert path in told or any(one.startswith(path) for one in told), told
    assert any(words in text for text in told.values()), told
    assert all(error["message"] and error["hint"] for error in found["errors"])


NUMBERS = ("rounds", "clients_per_round", "noise_multiplier", "clipping_norm", "client_learning_rate", "local_epochs")


@pytest.mark.parametrize("name", NUMBERS)
@pytest.mark.parametrize(
    "value", [0, -1, -0.5, 1e308, 10**15, "10", "", True, [1], {}], ids=lambda value: json.dumps(value)
)
def test_a_parameter_that_is_no_sensible_number_is_named_and_writes_nothing(
    node: DemoNode, name: str, value: Any
) -> None:
    found = refused_unwritten(node, node.request(**{name: value}), 422, "invalid_request")
    (error,) = [error for error in found["errors"] if error["path"] == name]

    assert error["message"]
    assert error["hint"]


@pytest.mark.parametrize("name", ["rounds", "noise_multiplier", "clipping_norm", "server_momentum"])
@pytest.mark.parametrize("text", ["NaN", "Infinity", "-Infinity", "1e999", "9" * 40])
def test_a_number_that_json_does_not_have_is_refused_and_writes_nothing(node: DemoNode, name: str, text: str) -> None:
    body = json.dumps(node.request(**{name: "HERE"})).replace('"HERE"', text).encode()
    found = refused_unwritten(node, body, 422, "invalid_request")

    assert found["errors"][0]["message"]


@pytest.mark.parametrize(
    ("changes", "path"),
    [
        ({"sigma": 1.0}, "sigma"),
        ({"round": 10}, "round"),
        ({"mechanism": "none"}, "mechanism"),
        ({"loss": "__import__('os')"}, "loss"),
        ({"on_exceed": "ignore"}, "on_exceed"),
        ({"no_clients": 2, "clients_per_round": 3}, ""),
        ({"max_noise_multiplier": 1.0, "noise_multiplier": 2.0}, ""),
        ({"purpose": ""}, "purpose"),
        ({"purpose": "re\u202esearch"}, "purpose"),
        ({"purpose": "x" * 1001}, "purpose"),
        ({"model": "a string"}, "model"),
        ({"train_data_id": "../../etc/passwd"}, "train_data_id"),
        ({"train_data_id": None}, "train_data_id"),
    ],
)
def test_a_field_that_is_unknown_or_unfit_is_named_and_writes_nothing(node: DemoNode, changes: Json, path: str) -> None:
    found = refused_unwritten(node, node.request(**changes), 422, "invalid_request")

    assert [path] == [error["path"] for error in found["errors"]]


def test_a_round_larger_than_the_pool_and_more_people_than_there_are_never_train(node: DemoNode) -> None:
    before = node.budget()
    answers = [
        node.sam.submit(node.request(**changes), f"too-many-{number}")
        for number, changes in enumerate(({"clients_per_round": 301}, {"no_clients": 301, "clients_per_round": 3}))
    ]

    assert [] == [answer.text for answer in answers if answer.status_code not in (403, 422)]
    assert before["committed_epsilon"] == node.budget()["committed_epsilon"]


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        pytest.param(b"", 422, "invalid_request", id="nothing"),
        pytest.param(b"{", 422, "invalid_request", id="half of it"),
        pytest.param(b"[]", 422, "invalid_request", id="a list"),
        pytest.param(b"null", 422, "invalid_request", id="null"),
        pytest.param(b"\xff\xfe{}", 422, "invalid_request", id="not UTF-8"),
        pytest.param(b'{"rounds": 1, "rounds": 2}', 422, "invalid_request", id="a field twice"),
        pytest.param(b'{"model": ' + b"[" * 5000 + b"]" * 5000 + b"}", 422, "invalid_request", id="too deep"),
        pytest.param(b'{"purpose": "\\ud800"}', 422, "invalid_request", id="half a surrogate pair"),
        pytest.param(b'{"purpose": "\\u0000"}', 422, "invalid_request", id="NUL"),
        pytest.param(b'"' + b"x" * 1024 * 1024 + b'"', 413, "body_too_large", id="more than a megabyte"),
    ],
)
def test_a_body_that_is_no_request_is_a_problem_and_writes_nothing(
    node: DemoNode, body: bytes, status: int, code: str
) -> None:
    refused_unwritten(node, body, status, code)


def test_another_media_type_is_a_problem_and_writes_nothing(node: DemoNode) -> None:
    before = node.entries()
    answer = node.sam.call("POST", "/v1/train-requests", data={"rounds": "10"}, headers={"Idempotency-Key": "form"})

    problem(answer, 415, "unsupported_media_type")
    assert before == node.entries()


def test_a_request_without_an_idempotency_key_is_a_problem_and_writes_nothing(node: DemoNode) -> None:
    before = node.entries()
    found = problem(node.sam.call("POST", "/v1/train-requests", json=node.request()), 422, "invalid_request")

    assert ["header.Idempotency-Key"] == [error["path"] for error in found["errors"]]
    assert before == node.entries()


@pytest.mark.parametrize(
    ("field", "status", "code"),
    [("train_data_id", 404, "not_found"), ("label_data_id", 422, "invalid_request"), ("project", 404, "not_found")],
)
def test_an_id_that_names_nothing_is_a_problem_and_writes_nothing(
    node: DemoNode, field: str, status: int, code: str
) -> None:
    found = refused_unwritten(node, node.request(**{field: f"ast_{NOBODYS}"}), status, code)

    if status == 422:
        assert [field] == [error["path"] for error in found["errors"]]


READS = ("/v1/runs/{}", "/v1/runs/{}/events", "/v1/runs/{}/result", "/v1/runs/{}/weights")


def test_someone_elses_run_looks_as_if_it_did_not_exist(quiet: QuietNode, node: DemoNode) -> None:
    run_id = node.sam.submit(node.request(), "not-eves").json()["run_id"]
    before = node.entries()
    for path in READS:
        theirs = problem(quiet.eve.call("GET", path.format(run_id)), 404, "not_found")
        nobodys = problem(quiet.eve.call("GET", path.format(f"run_{NOBODYS}")), 404, "not_found")
        assert theirs["detail"].replace(run_id, "") == nobodys["detail"].replace(f"run_{NOBODYS}", "")
    problem(quiet.eve.call("POST", f"/v1/runs/{run_id}:cancel"), 404, "not_found")
    assert run_id not in [run["id"] for run in quiet.eve.read("/v1/runs")["items"]]
    assert [] == quiet.eve.read("/v1/ledger/entries", run_id=run_id)["items"]

    assert "reserved" == node.run(run_id)["state"]
    assert before == node.entries()
    assert 200 == node.sam.call("POST", f"/v1/runs/{run_id}:cancel").status_code


def test_someone_elses_project_cannot_be_charged(quiet: QuietNode, node: DemoNode) -> None:
    (project, *_) = node.sam.read("/v1/projects")["items"]
    before = node.entries()
    problem(quiet.eve.submit(node.request(project=project["id"]), "sams-project"), 404, "not_found")

    assert before == node.entries()


def expired(node: DemoNode, token: str) -> str:
    """Genuine in every way, but from an hour ago."""
    claims = jwt.decode(token, options={"verify_signature": False})
    then = datetime.now(UTC) - timedelta(hours=1)
    key = SigningKey.load_or_create(node.folder / "secrets" / "token-signing-key")
    ours = AccessClaims(claims["sub"], claims["sid"], then + timedelta(hours=2))
    with node.sam.client.stream("GET", "/v1/auth/me", headers=bearer(key.sign_access(ours, then))) as answer:
        assert 200 == answer.status_code  # it is the expiry that makes the difference
    return key.sign_access(replace(ours, expires_at=then + timedelta(minutes=15)), then)


def changed_signature(_node: DemoNode, token: str) -> str:
    head, claims, signature = token.split(".")
    return f"{head}.{claims}.{signature[:-4]}{'AAAA' if signature[-4:] != 'AAAA' else 'BBBB'}"


def changed_claims(node: DemoNode, token: str) -> str:
    """The administrator's name under sam's signature."""
    head, claims, signature = token.split(".")
    document = json.loads(base64.urlsafe_b64decode(claims + "=="))
    document["sub"] = node.owner.read("/v1/auth/me")["id"]
    forged = base64.urlsafe_b64encode(json.dumps(document).encode()).decode().rstrip("=")
    return f"{head}.{forged}.{signature}"


def unsigned(_node: DemoNode, token: str) -> str:
    claims = jwt.decode(token, options={"verify_signature": False})
    return jwt.encode(claims | {"iss": ISSUER, "aud": AUDIENCE}, "", algorithm="none")


def other_key(_node: DemoNode, token: str) -> str:
    return jwt.encode(jwt.decode(token, options={"verify_signature": False}), "k" * 32, algorithm="HS256")


def refresh_token(node: DemoNode, _token: str) -> str:
    form = {"grant_type": "password", "username": node.sam.email, "password": "changethis"}
    answer: str = node.sam.client.post("/v1/auth/token", data=form).json()["refresh_token"]
    return answer


def bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


@pytest.mark.parametrize(
    "forge",
    [
        expired,
        changed_signature,
        changed_claims,
        unsigned,
        other_key,
        refresh_token,
        lambda *_: "garbage",
        lambda *_: "a.b.c",
        lambda *_: "pysr_" + "A" * 43,
        lambda *_: "x" * 5000,
    ],
)
def test_a_token_that_is_expired_or_not_ours_is_401_and_writes_nothing(
    node: DemoNode, forge: Callable[[DemoNode, str], str]
) -> None:
    before = node.entries()
    headers = bearer(forge(node, node.sam.token()))
    answers = [
        node.sam.client.get("/v1/datasets", headers=headers),
        node.sam.client.post("/v1/train-requests", headers=headers | {"Idempotency-Key": "k"}, json=node.request()),
    ]
    for answer in answers:
        problem(answer, 401, "unauthenticated")
        assert answer.headers["WWW-Authenticate"].startswith("Bearer")
    assert before == node.entries()


def test_no_token_at_all_is_401(node: DemoNode) -> None:
    problem(node.sam.client.get("/v1/runs"), 401, "unauthenticated")


def test_the_runners_credential_is_good_for_nothing_else(node: DemoNode) -> None:
    credential = (node.folder / "secrets" / "runner-credential").read_text().strip()
    for path in ("/v1/datasets", "/v1/runs", "/v1/ledger/entries", "/v1/users"):
        problem(node.sam.client.get(path, headers=bearer(credential)), 403, "forbidden")
    before = node.entries()
    answer = node.sam.client.post(
        "/v1/train-requests", headers=bearer(credential) | {"Idempotency-Key": "k"}, json=node.request()
    )
    problem(answer, 403, "forbidden")
    assert before == node.entries()


def test_a_researchers_token_claims_no_grant(node: DemoNode) -> None:
    problem(node.sam.call("POST", "/v1/runner/claim"), 403, "forbidden")
