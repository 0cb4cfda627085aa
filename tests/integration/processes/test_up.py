"""A whole node with its real policy engine, API and runner: up, and down whichever way it ends."""

from __future__ import annotations

import os
import signal
import socket
import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.integration.processes.nodes import CHECKOUT, Node, is_ready, pysytff_server, wait_gone, wait_until

DIGITS_POLICY = CHECKOUT / "policies" / "demo" / "digits.rego"


@pytest.fixture
def start(node: Path) -> Iterator[Callable[..., Node]]:
    nodes: list[Node] = []

    def start_node(*options: str) -> Node:
        nodes.append(Node(node, *options))
        return nodes[-1]

    yield start_node
    for started in nodes:
        if started.process.poll() is None:
            started.process.terminate()
            started.process.communicate(timeout=60)


def test_up_is_ready_with_engine_api_and_runner_and_a_termination_ends_all_with_status_0(
    start: Callable[..., Node],
) -> None:
    node = start().wait_up()
    children = node.descendants()

    assert is_ready(node.url)
    assert all(node.child(of) in children for of in ("run --server", "api.cli serve", "-m runner"))
    node.process.terminate()
    assert (0, "") == node.ended()
    wait_gone(children)


def test_no_process_is_left_when_up_is_killed(start: Callable[..., Node]) -> None:
    node = start().wait_up()
    children = node.descendants()
    node.process.kill()
    node.process.communicate()

    wait_gone(children)


@pytest.mark.parametrize(("of", "name"), [("api.cli serve", "API"), ("-m runner", "runner")])
def test_a_killed_child_ends_the_node_and_is_named(start: Callable[..., Node], of: str, name: str) -> None:
    node = start().wait_up()
    children = node.descendants()
    os.kill(node.child(of), signal.SIGKILL)
    status, errors = node.ended()

    assert (1, True) == (status, f"error: {name} ended by signal SIGKILL" in errors)
    wait_gone(children)


def test_a_policy_engine_that_crashes_is_revived(start: Callable[..., Node]) -> None:
    node = start().wait_up()
    os.kill(node.child("run --server"), signal.SIGKILL)
    node.wait_line("serves policies of revision")

    wait_until(lambda: is_ready(node.url), "the node decides again")


def test_a_policy_that_is_activated_meanwhile_is_served(start: Callable[..., Node], node: Path) -> None:
    running = start().wait_up()
    activated = pysytff_server(node, "policy", "activate", str(DIGITS_POLICY), "--id", "digits")
    assert (0, "") == (activated.returncode, activated.stderr)
    running.wait_line("serves policies of revision 2-")

    wait_until(lambda: is_ready(running.url), "the node decides by the new policies")


def test_a_second_up_of_the_same_node_is_refused(start: Callable[..., Node]) -> None:
    first = start().wait_up()
    status, errors = start().ended()

    assert (1, True) == (status, f"is running already, as process {first.process.pid}" in errors)
    assert is_ready(first.url)


def test_a_port_in_use_is_said_before_anything_is_started(start: Callable[..., Node]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        status, errors = start("--port", str(port)).ended()

    assert (1, f"error: cannot listen on 127.0.0.1 port {port}: Address already in use") == (
        status,
        errors[: errors.find(";")],
    )


def test_policy_files_that_were_edited_but_not_activated_do_not_start(node: Path, start: Callable[..., Node]) -> None:
    # The same, seen from the other side: what is in force is another set than what lies on disk.
    with sqlite3.connect(node / "node.sqlite3") as database:
        database.execute(
            "INSERT INTO policy_activations (sequence, revision, digests, activated_at) "
            "SELECT 2, '2-other', '{\"organisation\": \"sha256:other\"}', activated_at FROM policy_activations"
        )
    status, errors = start().ended()

    assert (1, True) == (status, "are not those in force (2-other)" in errors)
