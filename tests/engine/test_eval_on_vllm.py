"""`thinkimg eval --backend vllm`: the same greedy answers as transformers gives."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.engine.talkers import picture, save_tiny
from thinkimg.errors import UserError
from thinkimg.models.backends import find_model, make_model

QUESTIONS = 6


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("evaluated")
    save_tiny(made / "model")
    rows = []
    for number in range(QUESTIONS):
        (made / f"{number}.png").write_bytes(picture(number).data)
        rows.append({"id": f"q{number}", "question": "what is the value", "answer": "7", "image": f"{number}.png"})
    (made / "q.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (made / "mine.py").write_text(
        "from thinkimg.evaluation.tasks import EvaluationTask\nTASK = EvaluationTask('mine', data='q.jsonl')\n"
    )
    return made


def said(folder: Path, backend: str) -> list[list[str]]:
    """Texts of the model in each trajectory."""
    out = folder / backend
    command = [
        sys.executable, "-m", "thinkimg.cli", "eval", str(folder / "mine.py"), "--backend", backend, "--model",
        str(folder / "model"), "--out", str(out),
    ]  # fmt: skip
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=1200)
    assert done.returncode == 0, done.stdout[-3000:]
    lines = (out / "mine" / "trajectories.jsonl").read_text().splitlines()
    trajectories = [json.loads(line) for line in lines]
    assert len(trajectories) == QUESTIONS
    return [
        [block["text"] for turn in one["turns"] if turn["message"]["role"] == "assistant"
         for block in turn["message"]["content"] if block["type"] == "text"]
        for one in trajectories
    ]  # fmt: skip


def test_both_backends_give_the_same_answers(folder: Path) -> None:
    on_vllm = said(folder, "vllm")
    assert on_vllm == said(folder, "transformers")
    assert all(map(any, on_vllm))


def test_an_option_that_the_engine_does_not_have_is_the_users_error(folder: Path) -> None:
    with pytest.raises(UserError, match=r"--model-args: vLLM can load no model .*'wings'"):
        make_model(find_model(str(folder / "model"), "vllm"), "vllm", {"wings": 2})
