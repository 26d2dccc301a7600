"""What `thinkimg -h` says, and what happens to words that it does not know."""

import importlib.metadata
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import typer
from PIL import Image as Pillow
from typer.testing import CliRunner

from tests.support.cli.commands import EVERY_COMMAND, parse
from thinkimg.cli.app import app

HEAVY = ("torch", "transformers", "fastapi", "uvicorn", "starlette", "numpy", "PIL", "pydantic", "httpx", "kubernetes")


def thinkimg(*words: str, **variables: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "thinkimg.cli", *words], capture_output=True, text=True, timeout=60,
        env={**os.environ, "COLUMNS": "80", "TERM": "dumb", "NO_COLOR": "1", **variables},
    )  # fmt: skip


def leaves() -> dict[str, object]:
    """The commands as Typer knows them, by their words."""
    found: dict[str, object] = {}

    def walk(command: object, words: tuple[str, ...]) -> None:
        for name, child in getattr(command, "commands", {}).items():
            found[" ".join((*words, name))] = child
            walk(child, (*words, name))

    walk(typer.main.get_command(app), ())
    return found


def test_every_command_is_known_with_an_example() -> None:
    groups = {"gateway keys", "weights"}
    assert set(leaves()) - groups == set(EVERY_COMMAND)
    assert all(command.examples for command in EVERY_COMMAND.values())


EXAMPLES = [(words, example) for words, command in EVERY_COMMAND.items() for example in command.examples]


@pytest.mark.parametrize(("words", "example"), EXAMPLES, ids=[example for _, example in EXAMPLES])
def test_an_example_parses(words: str, example: str) -> None:
    command, _ = parse(example)
    assert example.startswith(f"thinkimg {words}")
    assert command.name in (words.rpartition(" ")[2], "add"), "the gateway's examples show how its keys are made"


def test_an_example_with_a_wrong_option_would_be_noticed() -> None:
    with pytest.raises(Exception, match="No such option"):
        parse("thinkimg run job.yaml --no-such-option")
    with pytest.raises(Exception, match="No such command"):
        parse("thinkimg runn job.yaml")


@pytest.mark.parametrize("words", EVERY_COMMAND)
@pytest.mark.parametrize("asked", ["-h", "--help"])
def test_help_ends_with_examples_and_says_what_every_option_is(words: str, asked: str) -> None:
    done = CliRunner().invoke(app, [*words.split(), asked], env={"COLUMNS": "300", "TERM": "dumb"})
    assert done.exit_code == 0
    assert done.output.rstrip().splitlines()[-1].strip() == EVERY_COMMAND[words].examples[-1]
    for parameter in leaves()[words].params:  # type: ignore[attr-defined]
        assert getattr(parameter, "help", None), f"{words}: {parameter.name} has no help"


def test_the_first_page_lists_the_commands_in_groups_that_fit_80_columns() -> None:
    done = thinkimg("-h")
    assert done.returncode == 0
    listed: dict[str, list[str]] = {}
    for line in done.stdout.splitlines():
        if line.startswith("╭─ "):
            listed[group := line.strip("╭─╮ ")] = []
        elif line.startswith("│ "):
            listed[group].append(line.split()[1])
    listed.pop("Options")
    names = sorted(name for names in listed.values() for name in names)
    assert names == sorted([*(name for name in EVERY_COMMAND if " " not in name), "weights"]), "one line each"
    assert all(len(names) > 2 for names in listed.values())


def test_help_waits_for_nothing_heavy() -> None:
    program = (
        "import json, sys\n"
        "from thinkimg.cli import main\n"
        "sys.argv = ['thinkimg', '--help']\n"
        "try:\n    main()\nexcept SystemExit:\n    print(json.dumps(sorted(sys.modules)), file=sys.stderr)\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)
    loaded = {name.partition(".")[0] for name in json.loads(done.stderr)}
    assert "typer" in loaded
    assert loaded.isdisjoint(HEAVY)


def test_without_words_it_shows_its_help() -> None:
    done = thinkimg()
    assert "Usage: thinkimg" in done.stdout
    assert "run" in done.stdout


def test_the_version() -> None:
    assert thinkimg("--version").stdout.strip() == importlib.metadata.version("thinkimg")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["rnu"], "Did you mean 'run'"),
        (["gateway", "keys", "lsit", "--file", "f"], "Did you mean 'list'"),
        (["run", "job.yaml", "--sed", "1"], "--seed"),
        (["run"], "Missing argument"),
        (["run", "job.yaml", "--seed", "x"], "--seed"),
        (["eval", "charts", "--model", "m", "--out", "o", "--limit", "0"], "--limit"),
        (["eval", "charts", "--model", "m", "--out", "o", "--format", "x"], "--format"),
        (["eval", "charts", "--model", "m", "--out", "o", "--prompt", "x"], "--prompt"),
        (["eval", "chart", "--model", "m", "--out", "o"], "there is no task 'chart'"),
        (["compare", "a", "--format", "x"], "--format"),
        (["synthesize", "charts", "--out", "o", "--chain", "ocr=x"], "--chain"),
        (["status", "demo", "--watch", "--json"], "--watch"),
        (["replay", "absent.jsonl", "--server", "http://127.0.0.1:1"], "absent.jsonl"),
    ],
)
def test_wrong_words_are_refused_with_a_hint(words: list[str], said: str, tmp_path: Path) -> None:
    done = thinkimg(*words, THINKIMG_HOME=str(tmp_path))
    assert done.returncode == 2
    assert said in done.stderr
    assert "Traceback" not in done.stderr
    assert done.stdout == ""


@pytest.mark.parametrize(
    ("typed", "offered"),
    [
        ("thinkimg r", {"run", "replay", "results", "resume"}),
        ("thinkimg tools Cr", {"Crop"}),
        ("thinkimg serve OCR Poi", {"Point"}),
        ("thinkimg eval charxiv_r", {"charxiv_reasoning"}),
        ("thinkimg synthesize charxiv_r", {"charxiv_reasoning"}),
        ("thinkimg eval charts --scorer jud", {"judge"}),
        ("thinkimg eval charts --format h", {"hermes"}),
        ("thinkimg eval charts --prompt c", {"compact"}),
        ("thinkimg stage {manifest} v-", {"v-toolrl"}),
        ("thinkimg ask Q --model {run}/v", {"{run}/v-toolrl"}),
        ("thinkimg export {run}/v", {"{run}/v-toolrl"}),
        ("thinkimg gateway keys remove --file {keys} al", {"alice"}),
    ],
)
def test_the_shell_completes(typed: str, offered: set[str], tmp_path: Path) -> None:
    from thinkimg.gateway.keys import add_key

    manifest = Path(__file__).parents[3] / "manifests" / "toolrljob-cpu.yaml"
    (tmp_path / "demo" / "stages" / "v-toolrl" / "model").mkdir(parents=True)
    (tmp_path / "demo" / "stages" / "v-toolrl" / "model" / "config.json").write_text("{}")
    add_key(tmp_path / "keys.json", "alice")
    places = {"manifest": str(manifest), "run": str(tmp_path / "demo"), "keys": str(tmp_path / "keys.json")}
    line = typed.format(**places)
    done = thinkimg(_THINKIMG_COMPLETE="complete_bash", COMP_WORDS=line, COMP_CWORD=str(len(line.split()) - 1))
    assert set(done.stdout.split()) == {name.format(**places) for name in offered}


def test_completion_can_be_installed() -> None:
    done = thinkimg("--show-completion", "bash", _TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION="1")
    assert "_THINKIMG_COMPLETE=complete_bash" in done.stdout


def test_an_example_is_a_picture_that_is_not_written_over(tmp_path: Path) -> None:
    path = tmp_path / "chart.png"
    assert CliRunner().invoke(app, ["example", str(path)]).exit_code == 0
    assert Pillow.open(path).size == (1000, 700)
    path.write_text("mine")
    again = thinkimg("example", str(path))
    assert again.returncode == 2
    assert "--force" in again.stderr
    assert path.read_text() == "mine"


def test_the_page_of_a_gateway_elsewhere_is_opened_with_its_key() -> None:
    opened = thinkimg("play", "--gateway", "https://tools.example.com/", "--no-browser", THINKIMG_KEY="ti-1-2")
    assert opened.stdout == "https://tools.example.com/play#key=ti-1-2\n"
    refused = thinkimg("play", "--gateway", "https://tools.example.com", "--tool", "OCR", "--no-browser")
    assert refused.returncode == 2
    assert "--gateway" in refused.stderr
