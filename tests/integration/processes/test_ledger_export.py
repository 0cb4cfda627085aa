"""``pysytff-server ledger export``: the log of a node on disk, as an auditor's verifier reads it."""

from __future__ import annotations

import json
from pathlib import Path

from tests.integration.processes.nodes import pysytff_server as run


def test_the_whole_log_is_written_and_nothing_else(tmp_path: Path) -> None:
    folder, out = tmp_path / "node", tmp_path / "to the auditor"
    assert 0 == run(folder, "init").returncode

    done = run(folder, "ledger", "export", "--out", str(out))

    assert (0, "") == (done.returncode, done.stderr)
    lines = (out / "ledger.jsonl").read_bytes().splitlines()
    assert list(range(len(lines))) == [json.loads(line)["index"] for line in lines]
    assert f"{out / 'ledger.jsonl'}: {len(lines)} entries" in done.stdout
    written = {file.name for file in out.iterdir()}
    assert {"ledger.jsonl"} == written - {"ledger.jsonl.checkpoint"}
    assert ("ledger.jsonl.checkpoint" in written) == ("has signed no checkpoint" not in done.stdout)


def test_a_place_that_cannot_be_written_is_named_and_left_as_it_is(tmp_path: Path) -> None:
    folder, out = tmp_path / "node", tmp_path / "file"
    assert 0 == run(folder, "init").returncode
    out.write_text("a file")

    done = run(folder, "ledger", "export", "--out", str(out))

    assert (1, "a file") == (done.returncode, out.read_text())
    assert f"error: the export cannot be written to {out}: " in done.stderr
