"""An outside harness asks model and tools together, through the gateway's OpenAI endpoint: its score is ours.

The harness is the official `openai` client with a recorded suite (questions and references in a file, as any harness
has them) and a scorer of its own.
"""

import base64
import json
import os
from collections.abc import Iterator
from pathlib import Path

import openai
import pytest
from PIL import Image as Pillow

from tests.support.evaluation.stub_endpoint import start
from tests.support.gateway.gateways import run_gateway
from tests.support.serving.sample_servers import spec
from thinkimg.evaluation.options import Options
from thinkimg.evaluation.run import run_evaluation
from thinkimg.serving import Supervisor

QUESTIONS = 60


@pytest.fixture(scope="module")
def suite(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("suite")
    for number in range(3):
        Pillow.new("RGB", (60, 40), (number * 80, 10, 10)).save(folder / f"{number}.png")
    rows = [
        {"id": f"q{n}", "question": f"How many, {n}?", "answer": str(n % 4), "image": f"{n % 3}.png"}
        for n in range(QUESTIONS)
    ]
    (folder / "suite.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (folder / "suite.py").write_text(
        "from thinkimg.evaluation.tasks import EvaluationTask\nTASK = EvaluationTask('suite', data='suite.jsonl')\n"
    )
    return folder


@pytest.fixture(scope="module")
def tools(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[str]]:
    with Supervisor([spec("tools", "Crop")], tmp_path_factory.mktemp("servers"), ready_seconds=240) as servers:
        yield servers.endpoints


def ask_through(gateway: str, suite: Path) -> dict[str, str]:
    """What a harness does: every question to the one endpoint, with its picture; question -> answer."""
    client = openai.OpenAI(base_url=f"{gateway}/v1", api_key="none", max_retries=0, timeout=60)
    answers = {}
    for line in (suite / "suite.jsonl").read_text().splitlines():
        row = json.loads(line)
        picture = base64.b64encode((suite / row["image"]).read_bytes()).decode()
        content = [
            {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{picture}"}},
            {"type": "text", "text": row["question"]},
        ]
        reply = client.chat.completions.create(
            model="thinker",
            temperature=0,
            messages=[{"role": "user", "content": content}],  # type: ignore[list-item, misc]
        )
        answers[row["id"]] = reply.choices[0].message.content or ""
    return answers


def test_a_harness_on_the_gateway_gets_our_score(suite: Path, tools: list[str], tmp_path: Path) -> None:
    server, upstream = start()
    model = {"name": "thinker", "base_url": upstream, "model": "stub"}
    servers = [{"url": url} for url in tools]
    try:
        with run_gateway(tmp_path / "gateway", dict(os.environ), servers=servers, models=[model]) as gateway:
            theirs = ask_through(gateway.url, suite)
        options = Options(
            [str(suite / "suite.py")], "stub", tmp_path / "ours", "openai", {"base_url": upstream}, servers=tools
        )
        (ours,) = run_evaluation(options)
    finally:
        server.shutdown()
    items = [json.loads(line) for line in (tmp_path / "ours" / "suite" / "items.jsonl").read_text().splitlines()]
    assert {item["id"]: item["answer"] for item in items} == theirs
    references = {item["id"]: item["reference"] for item in items}
    score = sum(theirs[name] == reference for name, reference in references.items()) / QUESTIONS
    assert score == ours.accuracy
    assert 0 < score < 1
    assert ours.tools["Crop"] > 10  # the tools were used on both ways, or the answers would differ
