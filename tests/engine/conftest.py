"""vLLM's tests need vLLM, which is no part of `make setup`: `make vllm-test` brings it. Elsewhere they are skipped."""

import importlib.util
from collections.abc import Iterator

import pytest

from thinkimg.jobs.runner.ports import free_port

INSTALLED = importlib.util.find_spec("vllm") is not None


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    if INSTALLED:
        return
    skip = pytest.mark.skip(reason="vLLM IS NOT INSTALLED, so rollouts on it are untested here: run `make vllm-test`")
    for item in items:
        if "tests/engine" in str(item.path):
            item.add_marker(skip)


@pytest.fixture(scope="module")
def own_port() -> Iterator[int]:
    """Where the only process of an engine's group meets itself: for this module, and not for what it starts later."""
    with pytest.MonkeyPatch.context() as patch:
        port = free_port()
        patch.setenv("MASTER_PORT", str(port))
        yield port
