"""500 hostile requests to a tool server and to a gateway; `make soak` sends 10,000 to each. And: the fuzzer sees it."""

from pathlib import Path

import fuzz_gateway
import fuzz_servers
import pytest
from fuzz_requests import Bait, ToolsFace

from tests.support.serving.sample_servers import spec
from thinkimg.gateway.openai.request import ChatRequest

pytestmark = pytest.mark.timeout(1800)


def harmless(target: fuzz_servers.Target, folder: Path, kinds: int) -> None:
    findings = fuzz_servers.fuzz(target, 500, folder, seed=1, warm_up=100)
    assert findings.wrong == []
    assert findings.requests == 500
    assert findings.growth <= fuzz_servers.MAX_GROWTH
    assert len(findings.kinds) >= kinds, "every kind of request, but for one or two of the rarest"
    assert sum(count for status, count in findings.statuses.items() if status.startswith("4")) > 100


def test_hostile_requests_do_a_tool_server_no_harm(tmp_path: Path) -> None:
    harmless(fuzz_servers.tool_server(), tmp_path, kinds=12)


def test_hostile_requests_and_a_hostile_model_do_a_gateway_no_harm(tmp_path: Path) -> None:
    with fuzz_servers.gateway() as target:
        harmless(target, tmp_path, kinds=17)


def test_a_tool_that_follows_paths_and_addresses_is_found_out(tmp_path: Path) -> None:
    target = fuzz_servers.Target([spec("peeking", "peek")], ToolsFace({"Peek": {"path": "x"}}))
    findings = fuzz_servers.fuzz(target, 300, tmp_path, warm_up=1)
    found = "\n".join(findings.wrong)
    assert "touched: open (" in found
    assert "touched: socket.connect" in found
    assert "bait taken: the file was opened" in found
    assert "bait taken: a connection from" in found
    assert not findings.passed


def test_every_field_of_a_completion_is_sent_right_and_hostile() -> None:
    made_elsewhere = {"model", "messages", "stream", "tools", "tool_choice"}
    assert fuzz_gateway.RIGHT.keys() | made_elsewhere == ChatRequest.model_fields.keys()
    for field, values in fuzz_gateway.RIGHT.items():
        for value in values:
            ChatRequest.model_validate({"model": "m", "messages": [{}]} | ({} if value is None else {field: value}))


def test_a_request_is_the_same_again() -> None:
    bait = Bait("/tmp/bait", "http://127.0.0.1:1/")
    with fuzz_servers.gateway() as target:
        once, again = (
            [fuzz_servers.request_of(target.face, bait, 0, number) for number in range(60)] for _ in range(2)
        )
    assert once == again
    assert len(set(once)) > 50
