"""How tests run side by side: `pytest -n auto`, as `make test` and `make test-fast` start it. See tests/README.md."""

from __future__ import annotations

import os

import pytest
from xdist.remote import Producer
from xdist.scheduler import LoadFileScheduling

pytest.register_assert_rewrite("tests.support")

MOST_WORKERS = 8
"""Each takes 1.5 GB when it has torch and a tiny model in memory."""


def pytest_configure(config: pytest.Config) -> None:
    if hasattr(config, "workerinput"):
        # Otherwise every worker, and every process that it starts, computes with as many threads as there are cores.
        os.environ.setdefault("OMP_NUM_THREADS", "1")


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers(config: pytest.Config) -> int:
    """One more than there are cores: much of the suite waits, for processes, pods and clocks."""
    return min(MOST_WORKERS, len(os.sched_getaffinity(0)) + 1)


class ByFile(LoadFileScheduling):
    """The tests of a file go to one worker, in the order of `testpaths`; those of tests/cluster all go to the same: one
    control plane, and a last file that looks at what the others did with it."""

    def __init__(self, config: pytest.Config, log: Producer) -> None:
        super().__init__(config, log)
        config.option.loadscopereorder = False  # it would put files with many tests first, which are not the long ones

    def _split_scope(self, nodeid: str) -> str:
        return "tests/cluster" if nodeid.startswith("tests/cluster/") else super()._split_scope(nodeid)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> ByFile:
    return ByFile(config, log)
