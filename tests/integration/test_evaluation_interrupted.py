"""`thinkimg eval` killed, run twice at once, and in shards: the same results as undisturbed."""

import json
import os
import random
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from PIL import Image as Pillow

from tests.support.evaluation.stub_endpoint import start

QUESTIONS = 400


@pytest.fixture(scope="module")
def endpoint() -> Iterator[str]:
    server, url = start()
    yield url
    server.shutdown()


@pytest.fixture(scope="module")
def questions(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("questions")
    for number in range(4):
        Pillow.new("RGB", (30, 20), (number * 60, 0, 0)).save(folder / f"{number}.png")
    rows = [
        {
            "id": f"q{n}",
            "question": f"How many, {n}?",
            "answer": str(n % 4),
            "image": f"{n % 4}.png",
            "kind": "ab"[n % 2],
        }
        for n in range(QUESTIONS)
    ]
    (folder / "q.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (folder / "mine.py").write_text(
        "from thinkimg.evaluation.tasks import EvaluationTask\nTASK = EvaluationTask('mine', data='q.jsonl')\n"
    )
    return folder


def begin(endpoint: str, questions: Path, out: Path, *more: str) -> "subprocess.Popen[str]":
    command = [sys.executable, "-m", "thinkimg.cli", "eval", str(questions / "mine.py"), "--backend", "openai"]
    command += [
        "--model",
        "stub",
        "--model-args",
        f"base_url={endpoint}",
        "--concurrency",
        "4",
        "--out",
        str(out),
        *more,
    ]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def finished(process: "subprocess.Popen[str]") -> str:
    output, _ = process.communicate(timeout=300)
    assert process.returncode == 0, output
    return output


@pytest.fixture(scope="module")
def undisturbed(endpoint: str, questions: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("undisturbed")
    assert f"mine: stub, {QUESTIONS} questions" in finished(begin(endpoint, questions, out))
    return out / "mine"


def same_answers(folder: Path, expected: Path) -> None:
    for name in ("results.json", "items.jsonl"):
        assert (folder / name).read_bytes() == (expected / name).read_bytes(), name
    lines, wanted = ((one / "trajectories.jsonl").read_text().splitlines() for one in (folder, expected))
    keys = ("id", "question", "answer", "status", "rewards", "images")
    assert [[json.loads(line)[key] for key in keys] for line in lines] == [
        [json.loads(line)[key] for key in keys] for line in wanted
    ]
    assert len({json.loads(line)["id"] for line in lines}) == QUESTIONS
    assert sorted(path.name for path in (folder / "images").iterdir() if "partial" not in path.name) == sorted(
        path.name for path in (expected / "images").iterdir()
    )


def test_killed_ten_times_it_ends_with_the_same_results(
    endpoint: str, questions: Path, undisturbed: Path, tmp_path: Path
) -> None:
    chance, sizes = random.Random(os.environ.get("THINKIMG_KILL_SEED", "7")), []
    store = tmp_path / "out" / "mine" / "trajectories.jsonl"
    for _ in range(10):
        process = begin(endpoint, questions, tmp_path / "out", "--concurrency", "4")  # slowly, not to finish
        before = store.stat().st_size if store.exists() else 0
        deadline = time.monotonic() + 300
        while (not store.exists() or store.stat().st_size <= before) and time.monotonic() < deadline:
            assert process.poll() is None, process.communicate()
            time.sleep(0.005)
        time.sleep(chance.uniform(0, 0.15))
        process.send_signal(signal.SIGKILL)
        process.communicate()
        sizes.append(store.stat().st_size)
    assert sizes == sorted(sizes)
    assert sizes[0] > 0
    assert not (tmp_path / "out" / "mine" / "results.json").exists()  # it was never finished before
    finished(begin(endpoint, questions, tmp_path / "out"))
    same_answers(tmp_path / "out" / "mine", undisturbed)


def test_a_second_process_is_refused_and_shards_are_not(
    endpoint: str, questions: Path, undisturbed: Path, tmp_path: Path
) -> None:
    first = begin(endpoint, questions, tmp_path / "one", "--concurrency", "4")
    while not (tmp_path / "one" / "mine" / "trajectories.jsonl").exists():
        assert first.poll() is None
        time.sleep(0.01)
    second = begin(endpoint, questions, tmp_path / "one")
    output, _ = second.communicate(timeout=300)
    assert second.returncode == 2
    assert "another process is writing this output" in output
    assert "--shard I/N" in output
    finished(first)
    same_answers(tmp_path / "one" / "mine", undisturbed)

    shards = [begin(endpoint, questions, tmp_path / "three", "--shard", f"{number}/3") for number in range(3)]
    for process in shards:
        finished(process)
    same_answers(tmp_path / "three" / "mine", undisturbed)
    whole = begin(endpoint, questions, tmp_path / "three")
    output, _ = whole.communicate(timeout=300)
    assert whole.returncode == 2
    assert "shards = 3" in output


def test_a_finished_evaluation_asks_nothing_again_and_is_scored_anew(questions: Path, tmp_path: Path) -> None:
    server, url = start()
    finished(begin(url, questions, tmp_path, "--limit", "20"))
    server.shutdown()
    server.server_close()  # nobody is there, and nobody is asked
    before = (tmp_path / "mine" / "items.jsonl").read_bytes()
    output = finished(begin(url, questions, tmp_path, "--limit", "20", "--scorer", "relaxed", "--scorer", "exact"))
    assert re.search(r"relaxed \(.*decides\): ", output)
    assert "nothing is asked: all 20 answers are there" in output
    results = json.loads((tmp_path / "mine" / "results.json").read_text())
    assert list(results["scores"]) == ["relaxed", "exact"]
    finished(begin(url, questions, tmp_path, "--limit", "20"))
    assert (tmp_path / "mine" / "items.jsonl").read_bytes() == before


def test_an_endpoint_that_is_down_ends_it(questions: Path, tmp_path: Path) -> None:
    process = begin("http://127.0.0.1:9/v1", questions, tmp_path, "--model-args", "retries=0")
    output, _ = process.communicate(timeout=300)
    assert process.returncode == 70
    assert "run the same command again to go on" in output
