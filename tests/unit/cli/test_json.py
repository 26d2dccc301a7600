"""`--json`: standard output is exactly one JSON document, everything else is on standard error."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from PIL import Image as Pillow

from tests.support.cli.commands import EVERY_COMMAND, parse
from tests.support.cli.trained_stage import write_trained_stage
from tests.support.evaluation.stub_endpoint import start
from thinkimg.gateway.keys import add_key

pytestmark = pytest.mark.slow


def thinkimg(*words: str, folder: Path, code: int = 0) -> Any:
    """The document that a command printed."""
    command = [sys.executable, "-m", "thinkimg.cli", *words, "--json"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=200)
    assert done.returncode == code, done.stderr
    return json.loads(done.stdout)


def test_the_commands_that_a_script_reads_have_it() -> None:
    without = {words for words, command in EVERY_COMMAND.items() if "as_json" not in parse_parameters(words)}
    stream_or_stay = {"stage", "view", "serve", "up", "logs", "gateway", "play"}
    say_nothing = {"example", "suspend", "resume", "gateway keys remove"}
    print_one_word = {"gateway keys add"}
    assert without == stream_or_stay | say_nothing | print_one_word


def parse_parameters(words: str) -> set[str]:
    command, _ = parse(EVERY_COMMAND[words].examples[0])
    return {parameter.name for parameter in command.params}


def test_tools(tmp_path: Path) -> None:
    listed = thinkimg("tools", folder=tmp_path)
    assert {"name", "backends", "description"} == set(listed[0])
    assert "Crop" in {tool["name"] for tool in listed}
    assert thinkimg("tools", "Crop", folder=tmp_path)["function"]["name"] == "Crop"
    Pillow.new("RGB", (80, 40), "white").save(tmp_path / "chart.png")
    called = thinkimg("tools", "Crop", "box=[0,0,50,50]", "--image", "chart.png", folder=tmp_path)
    assert set(called) == {"text", "data"}


def test_gateway_keys(tmp_path: Path) -> None:
    add_key(tmp_path / "keys.json", "alice", calls_per_day=7)
    (key,) = thinkimg("gateway", "keys", "list", "--file", "keys.json", folder=tmp_path)
    assert (key["name"], key["calls_per_day"]) == ("alice", 7)
    assert "sha256" not in key


def test_eval_and_compare(tmp_path: Path) -> None:
    server, address = start()
    words = ["eval", "charts", "--backend", "openai", "--model-args", f"base_url={address}"]
    words += ["--data", "charts://?questions=20", "--model"]
    (found,) = thinkimg(*words, "one", "--out", "one", folder=tmp_path)
    assert (found["task"], found["model"], found["n"]) == ("charts", "one", 20)
    assert found == thinkimg(*words, "one", "--out", "one", folder=tmp_path)[0], "finished, and read again"
    thinkimg(*words, "two", "--out", "two", folder=tmp_path)
    server.shutdown()
    compared = thinkimg("compare", "one", "two", folder=tmp_path)
    by_format = subprocess.run(
        [sys.executable, "-m", "thinkimg.cli", "compare", "one", "two", "--format", "json"],
        cwd=tmp_path, capture_output=True, text=True, timeout=200,
    )  # fmt: skip
    assert compared == json.loads(by_format.stdout)


def test_synthesize(sample_url: str, tmp_path: Path) -> None:
    words = ["synthesize", "charts", "--server", sample_url, "--chain", "none=1", "--count", "12", "--out", "cold"]
    made = thinkimg(*words, folder=tmp_path)
    assert made["tasks"] == 12
    assert made["kept"] + sum(made["dropped"].values()) == 12


def test_export(tmp_path: Path) -> None:
    write_trained_stage(tmp_path / "demo", "sft")
    assert thinkimg("export", "demo/sft", "out", folder=tmp_path)["out"] == "out"
    assert (tmp_path / "out" / "README.md").exists()


def test_a_refusal_leaves_standard_output_empty(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "thinkimg.cli", "compare", "absent", "--json"],
        cwd=tmp_path, capture_output=True, text=True, timeout=100,
    )  # fmt: skip
    assert (done.returncode, done.stdout) == (2, "")


@pytest.mark.parametrize("words", ["compare a b --json --out t.csv", "status demo --watch --json"])
def test_two_meanings_at_once_are_refused(words: str, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "thinkimg.cli", *words.split()]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=100)
    assert done.returncode == 2
    assert "--json" in done.stderr
