"""Commands of ``pysytff-server`` as a person runs them: what they print, write and refuse."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest

from tests.integration.processes.nodes import pysytff_server as run


def test_init_shows_a_password_and_keeps_folder_and_secrets_to_its_owner(tmp_path: Path) -> None:
    folder = tmp_path / "node"
    made = run(folder, "init", "--email", "Admin@Example.org")

    assert (0, "") == (made.returncode, made.stderr)
    assert "admin     admin@example.org" in made.stdout
    password = made.stdout.split("password  ")[1].split()[0]
    assert len(password) >= 20
    assert 0o700 == stat.S_IMODE(folder.stat().st_mode)
    secrets = list((folder / "secrets").iterdir())
    names = {"log-signing-key", "log-signing-key.lock", "opa-token", "runner-credential", "token-signing-key"}
    assert names == {file.name for file in secrets}
    assert {0o600} == {stat.S_IMODE(file.stat().st_mode) for file in secrets}
    assert password.encode() not in (folder / "node.sqlite3").read_bytes()


def test_init_leaves_an_existing_node_as_it_is(tmp_path: Path) -> None:
    folder = tmp_path / "node"
    assert run(folder, "init").returncode == 0
    before = (folder / "secrets" / "token-signing-key").read_bytes()
    again = run(folder, "init")

    assert (1, f"error: {folder} holds a node already, and it stays as it is\n") == (again.returncode, again.stderr)
    assert before == (folder / "secrets" / "token-signing-key").read_bytes()


def test_init_does_not_move_into_a_folder_of_other_things(tmp_path: Path) -> None:
    folder = tmp_path / "home"
    folder.mkdir(mode=0o755)
    (folder / "thesis.txt").touch()
    made = run(folder, "init")

    assert (1, f"error: {folder} holds other things (thesis.txt); name an empty or new folder\n") == (
        made.returncode,
        made.stderr,
    )
    assert 0o755 == stat.S_IMODE(folder.stat().st_mode)


@pytest.mark.parametrize(
    ("arguments", "variables", "said"),
    [
        (("up",), {}, "there is no node at"),
        (("policy", "list"), {"PYSYTFF_PORT": "many"}, "PYSYTFF_PORT: Input should be a valid integer"),
        (("migrate",), {"DATABASE_URL": "mysql://h/d"}, "'mysql' is not supported; use sqlite:///FILE or postgresql"),
        (("up", "--demo", "--host", "0.0.0.0"), {}, "a demo node has passwords that everybody knows"),
        (("user", "invite", "x@example.org", "--role", "boss"), {}, "'boss' is no role of a person"),
        (("policy", "activate", "--id", "digits"), {}, "FILE and --id go together"),
        (("runner",), {}, "runner-credential cannot be read: No such file or directory"),
        (
            ("serve",),
            {"PYSYTFF_OPA_URL": "http://127.0.0.1:1"},
            "PYSYTFF_OPA_URL and PYSYTFF_OPA_TOKEN are set together",
        ),
    ],
)
def test_what_a_person_does_wrong_ends_in_an_error_without_a_traceback(
    tmp_path: Path, arguments: tuple[str, ...], variables: dict[str, str], said: str
) -> None:
    answer = run(tmp_path / "node", *arguments, **variables)

    assert (1, True) == (answer.returncode, answer.stderr.startswith("error: "))
    assert said in answer.stderr
    assert "Traceback" not in answer.stderr


def test_a_policy_that_is_unfit_is_refused_with_its_place(tmp_path: Path) -> None:
    rego = tmp_path / "mine.rego"
    rego.write_text(
        "package owners.mine\n\ndefault allow := false\n\nallow if input.request.ronds <= 5\n\n"
        'deny contains {"code": "never", "message": "never", "field": "rounds"} if false\n\n'
        'limits := {"max_rounds": 5}\n'
    )
    answer = run(tmp_path / "node", "policy", "check", str(rego), "--id", "mine")

    assert (1, "") == (answer.returncode, answer.stdout)
    assert "ronds" in answer.stderr


def test_an_operator_can_invite_and_can_give_a_new_password(tmp_path: Path) -> None:
    folder = tmp_path / "node"
    assert run(folder, "init", "--email", "admin@example.org").returncode == 0
    invited = run(folder, "user", "invite", "rosa@example.org", "--role", "researcher")
    renewed = run(folder, "user", "password", "admin@example.org")
    unknown = run(folder, "user", "password", "nobody@example.org")

    assert (0, True) == (invited.returncode, "pysi_" in invited.stdout)
    assert (0, True) == (renewed.returncode, "new password of admin@example.org: " in renewed.stdout)
    assert (1, "error: no active account has the e-mail address nobody@example.org\n") == (
        unknown.returncode,
        unknown.stderr,
    )
