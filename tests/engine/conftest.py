"""vLLM's tests need vLLM, which is no part of `make setup`: `make vllm-test` brings it. Elsewhere they are skipped."""

import importlib.util

import pytest

INSTALLED = importlib.util.find_spec("vllm") is not None


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    if INSTALLED:
        return
    skip = pytest.mark.skip(reason="vLLM IS NOT INSTALLED, so rollouts on it are untested here: run `make vllm-test`")
    for item in items:
        if "tests/engine" in str(item.path):
            item.add_marker(skip)
