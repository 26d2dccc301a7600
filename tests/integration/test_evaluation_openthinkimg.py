"""OpenThinkIMG's own command and configuration, as its README has them, with paths and model replaced."""

import json
import os
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from PIL import Image as Pillow

from tests.support.evaluation.stub_endpoint import start
from tests.support.models import tiny_world
from thinkimg.errors import UserError
from thinkimg.openthinkimg.evaluation import main

COMMAND = r"""accelerate launch  --config_file  ${accelerate_config} \
-m tool_server.tf_eval \
--model qwen2vl \
--model_args pretrained=Qwen/Qwen2-VL-7B-Instruct \
--task_name chartgemma \
--verbosity INFO \
--output_path ./tool_server/tf_eval/scripts/logs/results/chartgemma/qwen2vl.jsonl \
--batch_size 2 \
--max_rounds 3 \
--stop_token <stop> 
"""

CONFIG = """- model_args:
    model: qwen2vl
    model_args: pretrained=Qwen/Qwen2-VL-7B-Instruct
    batch_size: 2
    max_rounds: 3
    stop_token: <stop>
  task_args:
    task_name: chartgemma
    resume_from_ckpt:
      chartgemma: ./tool_server/tf_eval/scripts/logs/ckpt/chartgemma/qwen2vl.jsonl
    save_to_ckpt:
      chartgemma: ./tool_server/tf_eval/scripts/logs/ckpt/chartgemma/qwen2vl.jsonl
  script_args:
    verbosity: INFO
    output_path: ./tool_server/tf_eval/scripts/logs/results/chartgemma/qwen2vl.jsonl
"""

MODEL = "Qwen/Qwen2-VL-7B-Instruct"
RESULTS = "tool_server/tf_eval/scripts/logs/results/chartgemma/qwen2vl.jsonl"
CKPT = "tool_server/tf_eval/scripts/logs/ckpt/chartgemma/qwen2vl.jsonl"


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model folder as `save_pretrained` writes it."""
    folder = tmp_path_factory.mktemp("model") / "tiny"
    tiny_world.untrained().save_pretrained(folder)
    tiny_world.processor().save_pretrained(folder)
    return folder


@pytest.fixture
def data(tmp_path: Path) -> str:
    """The test set's layout: a list of objects, pictures beside it."""
    Pillow.new("RGB", (64, 48), "teal").save(tmp_path / "a.png")
    rows = [
        {"image_path": "a.png", "question": f"How many, {n}?", "label": f"<answer> {n % 4} </answer>"} for n in range(6)
    ]
    (tmp_path / "test.json").write_text(json.dumps(rows))
    return str(tmp_path / "test.json")


@pytest.fixture
def endpoint() -> Iterator[str]:
    server, url = start()
    yield url
    server.shutdown()


def lines_of(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_the_readmes_command_runs_under_accelerate(tiny: Path, data: str, tmp_path: Path) -> None:
    (tmp_path / "accelerate.yaml").write_text("distributed_type: 'NO'\nuse_cpu: true\nnum_processes: 1\n")
    words = shlex.split(COMMAND.replace("\\\n", " ").replace("${accelerate_config}", "accelerate.yaml"))
    words[words.index("tool_server.tf_eval")] = "thinkimg.evaluation"
    words[words.index(f"pretrained={MODEL}")] = f"pretrained={tiny},max_new_tokens=8"  # it never ends by itself
    words[:1] = [sys.executable, "-m", "accelerate.commands.accelerate_cli"]
    words += ["--data", f"chartgemma={data}", "--num_sample", "2"]
    done = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True, timeout=800)
    assert done.returncode == 0, done.stdout + done.stderr
    (line,) = lines_of(tmp_path / RESULTS)
    assert (line["task_name"], line["model_name"], line["n"]) == ("chartgemma", str(tiny), 2)
    assert line["Acc"] == line["accuracy"]


def configured(endpoint: str, data: str, *changes: dict[str, Any]) -> list[dict[str, Any]]:
    """The README's entry once per change, its model behind an endpoint."""
    entries = []
    for change in changes or ({},):
        (entry,) = yaml.safe_load(CONFIG)
        entry["model_args"] |= {"model": "openai", "model_args": f"pretrained=stub,base_url={endpoint}"}
        entry["task_args"]["data"] = {"chartgemma": data}
        for group, values in change.items():
            entry[group] |= values
        entries.append(entry)
    return entries


def run(entries: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(entries))
    return main(["--config", "config.yaml"])


def test_the_readmes_file_runs_and_goes_on_from_its_checkpoint(
    endpoint: str, data: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    entries = configured(endpoint, data)
    (first,) = run(entries, tmp_path, monkeypatch)
    assert len(lines_of(tmp_path / CKPT)) == 6
    kept = (tmp_path / CKPT).read_text().splitlines()
    (tmp_path / CKPT).write_text("\n".join(kept[:4]) + "\n" + kept[4][:50])  # as a kill leaves it
    (second,) = run(entries, tmp_path, monkeypatch)
    assert second == first
    assert (tmp_path / CKPT).read_text().splitlines()[:4] == kept[:4]
    assert [line["Acc"] for line in lines_of(tmp_path / RESULTS)] == [first.accuracy] * 2


def test_every_entry_of_a_list_runs(endpoint: str, data: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    names = ["one", "two", "three"]
    changes = [
        {"script_args": {"output_path": f"{name}/out.jsonl"}, "task_args": {"resume_from_ckpt": {}, "save_to_ckpt": {}}}
        for name in names
    ]
    found = run(configured(endpoint, data, *changes), tmp_path, monkeypatch)
    assert len(found) == 3
    assert [len(lines_of(tmp_path / name / "out.jsonl")) for name in names] == [1, 1, 1]


def test_a_checkpoint_of_openthinkimg_itself_is_read(
    endpoint: str, data: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    theirs = [
        {
            "task_name": "chartgemma",
            "model_name": "stub",
            "results": {"idx": n, "results": {"final_answer": f' "{n % 4}"'}},
        }
        for n in range(5)
    ]
    (tmp_path / "old.jsonl").write_text("".join(json.dumps(line) + "\n" for line in theirs))
    change = {
        "task_args": {"resume_from_ckpt": {"chartgemma": "old.jsonl"}, "save_to_ckpt": {"chartgemma": "new.jsonl"}}
    }
    (found,) = run(configured(endpoint, data, change), tmp_path, monkeypatch)
    new = lines_of(tmp_path / "new.jsonl")
    assert [line["correct"] for line in new[:5]] == [True] * 5  # taken over, without the quotes, and scored
    assert [bool(line["turns"]) for line in new] == [False] * 5 + [True]
    assert found.n == 6


def test_ranks_share_the_questions(endpoint: str, data: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    found = []
    for rank in "01":
        monkeypatch.setenv("RANK", rank)
        found += run(configured(endpoint, data), tmp_path, monkeypatch)
    (results,) = found
    assert results.n == len(lines_of(tmp_path / CKPT)) == 6


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"model_args": {"batchsize": 1}}, r"config.yaml\[0\].model_args.batchsize: Extra inputs"),
        ({"model_args": {"model": "lmdeploy_models"}}, "use vllm_models"),
        ({"model_args": {"model": "qwen3"}}, "there are qwen2vl"),
        ({"model_args": {"model_args": "base_url=x"}}, "pretrained"),
        ({"model_args": {"model_args": "pretrained"}}, "not KEY=VALUE"),
        ({"task_args": {"task_name": "chartgem"}}, "there is no task 'chartgem'"),
    ],
)
def test_what_is_wrong_is_named(
    change: Any, message: str, endpoint: str, data: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(UserError, match=message):
        run(configured(endpoint, data, change), tmp_path, monkeypatch)
    assert not (tmp_path / RESULTS).exists()
    assert os.getcwd() == str(tmp_path)
