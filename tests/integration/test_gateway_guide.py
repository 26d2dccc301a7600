"""docs/guides/gateway.md, step by step: its file, its commands, its clients, against what `thinkimg up` starts."""

import base64
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image as Pillow

ROOT = Path(__file__).parents[2]

from tests.support.models.endpoint import completion, serve  # noqa: E402
from thinkimg.image import Image  # noqa: E402

GUIDE = (ROOT / "docs" / "guides" / "gateway.md").read_text()
CALL = '<tool_call>\n{"name": "Crop", "arguments": {"image": "img_1", "box": [0, 0, 50, 100]}}\n</tool_call>'
OWN_CALL = '<tool_call>\n{"name": "units_in_stock", "arguments": {"product": "bolts"}}\n</tool_call>'


def blocks(kind: str) -> list[str]:
    return re.findall(rf"<!-- {kind} -->\n```\w+\n(.*?)```", GUIDE, re.DOTALL)


PYTHON = blocks("python: gateway")


class Guide:
    """The guide's folder, with its port and its model's address replaced by such as are free here."""

    def __init__(self, folder: Path, model: str) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self._port = str(probe.getsockname()[1])
        self._model = model
        self.folder = folder
        self.environment = {**os.environ, "COLUMNS": "200"}
        self.environment["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"

    def here(self, text: str) -> str:
        return text.replace("8700", self._port).replace("http://127.0.0.1:8000/v1", self._model)

    def run(self, *command: str) -> str:
        done = subprocess.run(
            command, cwd=self.folder, env=self.environment, capture_output=True, text=True, timeout=600
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def python(self, code: str) -> str:
        return self.run(sys.executable, "-c", self.here(code))


@pytest.fixture(scope="module")
def guide(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Guide]:
    """Everything up, a key in the environment."""
    said = (f"I look at the left half.\n{CALL}", "The blue one.", OWN_CALL, "Forty bolts are left.")
    with serve(*map(completion, said)) as model:
        guide = Guide(tmp_path_factory.mktemp("gateway-guide"), model.url)
        (tools,) = blocks(r"file: tools\.yaml")
        (guide.folder / "tools.yaml").write_text(guide.here(tools))
        Pillow.new("RGB", (400, 300), "white").save(guide.folder / "chart.png")
        (keys,) = blocks("shell: keys")
        guide.environment["THINKIMG_KEY"] = guide.run("bash", "-ec", keys).strip()
        log = guide.folder / "up.log"
        with log.open("wb") as output:
            command = ["thinkimg", "up", "tools.yaml"]
            up = subprocess.Popen(command, cwd=guide.folder, env=guide.environment, stdout=output, stderr=output)
        try:
            deadline = time.monotonic() + 600
            while "all 3 ready" not in log.read_text():
                assert up.poll() is None, log.read_text()
                assert time.monotonic() < deadline, log.read_text()
                time.sleep(0.1)
            yield guide
            up.send_signal(signal.SIGTERM)
            assert up.wait(60) == 0
        finally:
            up.kill()
            up.wait()


def test_the_guide_has_an_example_for_each_face() -> None:
    words = ("ToolClient", "openai", "tool_calls", "ClientSession", "worker_generate")
    for word, example in zip(words, PYTHON, strict=True):
        assert word in example


def test_the_tool_client(guide: Guide) -> None:
    assert guide.python(PYTHON[0]).startswith("200 300 ")


def test_an_openai_client_gets_the_answer_and_the_trace(guide: Guide) -> None:
    answer, *trace = guide.python(PYTHON[1]).splitlines()
    assert answer == "answer: The blue one."
    assert [line.split()[0] for line in trace] == ["assistant", "tool", "assistant"]
    assert "Crop" in trace[0]


def test_the_callers_own_tool_is_called_and_its_result_read(guide: Guide) -> None:
    called, answer = guide.python(PYTHON[2]).splitlines()
    assert called == "called: units_in_stock {'product': 'bolts'}"
    assert answer == "answer: Forty bolts are left."


def test_an_mcp_client_gets_pictures(guide: Guide) -> None:
    tools, content = guide.python(PYTHON[3]).splitlines()
    assert {"Crop", "DrawHorizontalLineByY"} <= set(re.findall(r"\w+", tools))
    assert content == "['text', 'text', 'image']"


def test_openthinkimgs_client(guide: Guide) -> None:
    listed, called = guide.python(PYTHON[4]).splitlines()
    assert "crop" in listed
    assert re.fullmatch(r"0 .+ \d+ bytes of JPEG", called)


@pytest.mark.skipif(shutil.which("curl") is None, reason="there is no curl here")
def test_curl(guide: Guide) -> None:
    (command,) = blocks("shell: gateway")
    listed, called = json_documents(guide.run("bash", "-ec", guide.here(command)))
    assert "Crop" in [tool["name"] for tool in listed["tools"]]
    assert "200x300 pixels" in called["text"]
    crop = Image.from_bytes(base64.b64decode(called["images"][0]["data"]))
    assert (crop.width, crop.height) == (200, 300)


def json_documents(text: str) -> list[Any]:
    """One after another, with nothing between them but spaces."""
    found, decoder = [], json.JSONDecoder()
    while text := text.lstrip():
        document, end = decoder.raw_decode(text)
        found.append(document)
        text = text[end:]
    return found
