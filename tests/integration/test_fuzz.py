"""500 hostile requests to a tool server; `make soak` sends 10,000. And: the fuzzer would have seen it."""

import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
sys.path[:0] = [str(ROOT / "hack"), str(ROOT / "tests" / "unit" / "serving")]

import fuzz_servers  # noqa: E402
from fuzz_requests import Bait, ToolsFace  # noqa: E402
from sample_servers import spec  # noqa: E402

pytestmark = pytest.mark.timeout(900)


def test_hostile_requests_do_no_harm(tmp_path: Path) -> None:
    server, face = fuzz_servers.tool_server()
    findings = fuzz_servers.fuzz(server, face, 500, tmp_path, seed=1, warm_up=100)
    assert findings.wrong == []
    assert findings.requests == 500
    assert findings.growth <= fuzz_servers.MAX_GROWTH
    assert len(findings.kinds) == 12, "every kind of request was sent"
    assert sum(count for status, count in findings.statuses.items() if status.startswith("4")) > 100


def test_a_tool_that_follows_paths_and_addresses_is_found_out(tmp_path: Path) -> None:
    face = ToolsFace({"Peek": {"path": "x"}})
    findings = fuzz_servers.fuzz(spec("peeking", "peek"), face, 300, tmp_path, warm_up=1)
    found = "\n".join(findings.wrong)
    assert "it touched: open (" in found
    assert "it touched: socket.connect" in found
    assert "bait taken: the file was opened" in found
    assert "bait taken: a connection from" in found
    assert not findings.passed


def test_a_request_is_the_same_again() -> None:
    _, face = fuzz_servers.tool_server()
    bait = Bait("/tmp/bait", "http://127.0.0.1:1/")
    once, again = ([fuzz_servers.request_of(face, bait, 0, number) for number in range(60)] for _ in range(2))
    assert once == again
    assert len(set(once)) > 50
