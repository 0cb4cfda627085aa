"""One worker_binary for all tests of a process that train: it takes longer to load TensorFlow than to train."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from runner.executor import Executor


@pytest.fixture(scope="session")
def tff_runtime(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Executor]:
    with (tmp_path_factory.mktemp("executor") / "worker_binary.log").open("wb") as log:
        executor = Executor.start(log)
        try:
            from runner.training import use_executor

            executor.wait_ready()
            use_executor(executor)
            yield executor
        finally:
            executor.stop()
