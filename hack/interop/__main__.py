"""lmms-eval drives the gateway's endpoint, `thinkimg eval lmms:` runs the same task, and `thinkimg eval` reads the same
questions by itself: three scores that must be equal. An MCP host and the `openai` client run too. `make interop`.

Everything is local: a task of twelve pictures, a model that looks (`looker`), tools, a gateway.
"""

import argparse
import json
import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import datasets
import yaml
from looker import COLORS, Judge, Looker
from PIL import Image

from thinkimg.evaluation.lmms.process import PYTHON

ROOT = Path(__file__).parents[2]
HOST = Path(__file__).with_name("host.py")
sys.path.append(str(ROOT / "hack"))
from local_http import serving  # noqa: E402

TASK, JUDGED = "interop_colours", "interop_judged"
QUESTIONS = ("Which colour has the picture?", "What colour is shown?")
INSTRUCTION = "Answer with one word."
UTILS = f"""
import os
import random

import requests


def doc_to_visual(doc):
    return [doc["image"].convert("RGB")]


def doc_to_text(doc):
    return doc["question"] + "\\n{INSTRUCTION}"


def process_results(doc, results):
    return {{"accuracy": float(results[0].strip().lower() == doc["answer"])}}


def ask_judge(doc, results):
    # Draws in some cases, and asks a judge in the others; like many tasks, it takes a failure for a no.
    if doc["answer"] in ("green", "blue"):
        return {{"accuracy": float(random.random() < 0.5)}}
    messages = [{{"role": "user", "content": f"Is {{results[0]}} the same as {{doc['answer']}}?"}}]
    try:
        said = requests.post(os.environ["INTEROP_JUDGE"], json={{"messages": messages}}, timeout=10).json()
        return {{"accuracy": float(said["choices"][0]["message"]["content"] == "yes")}}
    except Exception:
        return {{"accuracy": 0.0}}
"""
OURS = f"""
from thinkimg.data.questions import Question
from thinkimg.evaluation.tasks import EvaluationTask


def questions(row):
    text = row.text("question") + "\\n{INSTRUCTION}"
    yield Question(str(row.number), text, row.text("answer"), row.pictures("image"))


TASK = EvaluationTask("colours", data="test.parquet", questions=questions, scorer="exact")
"""


def write_task(folder: Path) -> None:
    """A task of lmms-eval's form, and one of ours, on the same parquet file."""
    rows = [
        {"image": Image.new("RGB", (60 + number, 40), color), "question": question, "answer": name}
        for number, question in enumerate(QUESTIONS)
        for name, color in COLORS.items()
    ]
    text = datasets.Value("string")
    features = datasets.Features({"image": datasets.Image(), "question": text, "answer": text})
    datasets.Dataset.from_list(rows, features=features).to_parquet(folder / "test.parquet")
    rows[0]["image"].save(folder / "picture.png")
    (folder / "utils.py").write_text(UTILS)
    (folder / "colours.py").write_text(OURS)
    config = {
        "dataset_path": "parquet",
        "dataset_kwargs": {"data_files": {"test": str(folder / "test.parquet")}},
        "test_split": "test",
        "output_type": "generate_until",
        "doc_to_target": "answer",
        "generation_kwargs": {"max_new_tokens": 512, "temperature": 0},
        "metric_list": [{"metric": "accuracy", "aggregation": "mean", "higher_is_better": True}],
        "metadata": {"version": 1.0},
    }
    for name, scoring in ((TASK, "process_results"), (JUDGED, "ask_judge")):
        functions = {"doc_to_visual": "doc_to_visual", "doc_to_text": "doc_to_text", "process_results": scoring}
        lines = "".join(f"{field}: !function utils.{function}\n" for field, function in functions.items())
        (folder / f"{name}.yaml").write_text(yaml.safe_dump({"task": name, **config}) + lines)


@contextmanager
def up(folder: Path, model: str) -> Iterator[str]:
    """Tools and a gateway with the model behind it; the gateway's address."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    looker = {"name": "looker", "base_url": model, "model": "inner", "format": "openthinkimg"}
    config = {
        "services": [{"name": "light", "tools": [{"name": "Crop"}]}],
        "gateway": {"port": port, "models": [looker]},
    }
    (folder / "tools.yaml").write_text(yaml.safe_dump(config))
    log = folder / "up.log"
    with log.open("wb") as output:
        process = subprocess.Popen(_thinkimg("up", "tools.yaml"), cwd=folder, stdout=output, stderr=output)
    try:
        while "all 2 ready" not in log.read_text():
            if process.poll() is not None:
                raise SystemExit(log.read_text())
            time.sleep(0.2)
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait(60)


def through_the_gateway(python: str, folder: Path, gateway: str) -> float:
    """lmms-eval's own program and its own model for endpoints."""
    model = f"model_version=looker,base_url={gateway}/v1,num_concurrent=2"
    command = [python, "-m", "lmms_eval", "--model", "openai", "--model_args", model, "--tasks", TASK]
    command += ["--include_path", str(folder), "--batch_size", "1", "--output_path", str(folder / "lmms")]
    _run(command, folder, {"OPENAI_API_KEY": "none", "HF_HUB_OFFLINE": "1"})
    found = list((folder / "lmms").rglob("*results.json"))
    if not found:  # it ends with 0 whatever happens
        raise SystemExit(f"lmms-eval wrote no results: {(folder / 'stderr.log').read_text()[-4000:]}")
    return float(json.loads(found[0].read_text())["results"][TASK]["accuracy,none"])


def evaluated(
    folder: Path, task: str, model: str, gateway: str, out: str = "ours", judge: str = "", key: str = ""
) -> dict[str, Any]:
    """`thinkimg eval` with the same model, and the gateway's tools."""
    environment = {"HF_HUB_OFFLINE": "1", "INTEROP_JUDGE": judge, "JUDGE_API_KEY": key}
    arguments = ["--backend", "openai", "--model", "inner", "--model-args", f"base_url={model}", "--json"]
    arguments += ["--server", gateway, "--tool", "Crop", "--out", str(folder / out)]
    (results,) = json.loads(_run(_thinkimg("eval", task, *arguments), folder, environment))
    return dict(results)


def judged(folder: Path, model: str, gateway: str) -> dict[str, Any]:
    """A task with a judge and a draw: refused without a key, recorded with one, replayed without the judge."""
    task = f"lmms:{folder / JUDGED}.yaml"
    try:
        evaluated(folder, task, model, gateway, "refused", "http://127.0.0.1:1/judge")
        refused = ""
    except SystemExit as error:
        refused = " ".join(str(error).split())
    with serving(Judge) as address:
        first = evaluated(folder, task, model, gateway, "judged", f"{address}/judge", "secret")
    for name in ("results.json", "items.jsonl", "trajectories.jsonl"):  # all is asked and scored again
        (folder / "judged" / f"lmms:{JUDGED}" / name).unlink()
    again = evaluated(folder, task, model, gateway, "judged", f"{address}/judge")
    return {
        "refused": refused[refused.find("error") :],
        "recorded": first["accuracy"],
        "replayed": again["accuracy"],
        "same": first == again,
    }


def _thinkimg(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "thinkimg.cli", *arguments]


def _run(command: list[str], folder: Path, environment: dict[str, str]) -> str:
    log = folder / "stderr.log"
    with log.open("w") as errors:
        done = subprocess.run(
            command, cwd=folder, env={**os.environ, **environment}, stdout=subprocess.PIPE, stderr=errors, text=True
        )
    if done.returncode:
        raise SystemExit(f"{' '.join(command)}\n{done.stdout[-4000:]}{log.read_text()[-4000:]}")
    return done.stdout


def main() -> None:
    asked = argparse.ArgumentParser()
    asked.add_argument("--lmms", required=True, help="Python of an environment with lmms-eval")
    asked.add_argument("--agents", required=True, help="Python of an environment with openai-agents")
    given = asked.parse_args()
    os.environ[PYTHON] = given.lmms
    with tempfile.TemporaryDirectory() as temporary, serving(Looker) as address:
        folder, model = Path(temporary), f"{address}/v1"
        write_task(folder)
        with up(folder, model) as gateway:
            host = json.loads(
                _run([given.agents, str(Path(__file__).with_name("host.py")), gateway, "picture.png"], folder, {})
            )
            theirs = through_the_gateway(given.lmms, folder, gateway)
            within = evaluated(folder, f"lmms:{folder / TASK}.yaml", model, gateway)
            own = evaluated(folder, str(folder / "colours.py"), model, gateway)
            judge = judged(folder, model, gateway)
    scores = {
        "lmms-eval through the gateway": theirs,
        "thinkimg eval lmms:": within["lmms_eval"][TASK]["accuracy,none"],
        "thinkimg eval lmms:, of its own records": within["accuracy"],
        "thinkimg eval, own reading": own["accuracy"],
    }
    checks = {
        "equal scores": len(set(scores.values())) == 1 and 0 < theirs < 1,
        "every answer used a tool": within["tool_calls_per_answer"] == own["tool_calls_per_answer"] == 1,
        "openai client": (host["openai"]["answer"], host["openai"]["streamed"]) == ("Red", "Red"),
        "usage of all turns": (host["openai"]["tokens"], host["openai"]["streamed_tokens"]) == (220, 220),
        "a judge is refused without a key": "neither a key in the environment" in judge["refused"],
        "a judge is replayed, a draw repeated": judge["same"] and 0 < judge["recorded"] < 1,
        "MCP host": "Crop" in host["mcp"]["tools"]
        and host["mcp"]["answer"] == "Red"
        and len(host["mcp"]["items"]) == 3,
    }
    print(json.dumps({"scores": scores, "judge": judge, "hosts": host, "checks": checks}, indent=2))
    raise SystemExit(0 if all(checks.values()) else 1)


if __name__ == "__main__":
    main()
