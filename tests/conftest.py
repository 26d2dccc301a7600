"""How tests run side by side, as `make test` and `make test-fast` start them: docs/guides/tests.md."""

from __future__ import annotations

import os
import signal

import httpx
import hypothesis
import pytest
from xdist.remote import Producer

pytest.register_assert_rewrite("tests.support")

from tests.support.side_by_side import ByFile  # noqa: E402

# An example takes as long as a busy machine lets it.
hypothesis.settings.register_profile("tests", deadline=None)
hypothesis.settings.load_profile("tests")

# So does a server: what is asked without a timeout would otherwise fail after httpx's 5 seconds.
httpx._config.DEFAULT_TIMEOUT_CONFIG.connect = httpx._config.DEFAULT_TIMEOUT_CONFIG.read = 120

MOST_WORKERS = 8
"""Each takes 1.5 GB when it has torch and a tiny model in memory."""


def pytest_configure(config: pytest.Config) -> None:
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        # A shell has started us in the background, and what tests start would not hear their Ctrl-C either.
        signal.signal(signal.SIGINT, signal.default_int_handler)
    if hasattr(config, "workerinput"):
        # Otherwise every worker, and every process that it starts, computes with as many threads as there are cores.
        os.environ.setdefault("OMP_NUM_THREADS", "1")


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers(config: pytest.Config) -> int | None:
    """`-n logical`: as many as there are cores. `-n auto`: one more, as much of the whole suite waits, for processes,
    pods and clocks."""
    if "PYTEST_XDIST_AUTO_NUM_WORKERS" in os.environ:
        return None  # which pytest-xdist reads
    cores = len(os.sched_getaffinity(0))
    return min(MOST_WORKERS, cores if config.option.numprocesses == "logical" else cores + 1)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> ByFile:
    return ByFile(config, log)
