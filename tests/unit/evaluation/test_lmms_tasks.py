"""lmms-eval's tasks with our agent in between. lmms-eval itself is asked by `make interop`; here a process speaks its
worker's lines."""

import importlib.util
import json
import sys
from pathlib import Path
from typing import Any

import httpx
import httpx2
import pytest
import requests

from tests.support.models.endpoint import completion, serve
from thinkimg.errors import UserError
from thinkimg.evaluation.lmms import LmmsTask
from thinkimg.evaluation.options import Options
from thinkimg.evaluation.run import run_evaluation
from thinkimg.evaluation.shown import show
from thinkimg.evaluation.tasks import find_task
from thinkimg.results import EvaluationResults

ROOT = Path(__file__).parents[3]
WORKER = ROOT / "thinkimg/evaluation/lmms/worker"


def said(answer: str) -> Any:
    actions = [{"name": "Terminate", "arguments": {"ans": answer}}]
    return completion(json.dumps({"thought": "", "actions": actions}))


@pytest.fixture
def harness(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    script = tmp_path / "python"
    script.write_text(f'#!/bin/sh\nexec {sys.executable} {ROOT}/tests/support/evaluation/fake_harness.py "$@"\n')
    script.chmod(0o755)
    monkeypatch.setenv("LMMS_EVAL_PYTHON", str(script))


def evaluate(tmp_path: Path, url: str, task: str = "lmms:colours", **options: Any) -> EvaluationResults:
    arguments = {"base_url": url, "backoff_seconds": 0, "retries": 0}
    chosen = Options([task], "m", tmp_path / "out", "openai", arguments, servers=(), concurrency=1, **options)
    (results,) = run_evaluation(chosen)
    return results


@pytest.mark.usefixtures("harness")
def test_lmms_evals_questions_are_asked_scored_and_aggregated_by_it(tmp_path: Path) -> None:
    with serve(said("red"), said("green")) as endpoint:
        results = evaluate(tmp_path, endpoint.url, limit=2, seed=3)
        again = evaluate(tmp_path, endpoint.url, limit=2, seed=3)
    assert len(endpoint.bodies) == 2, "nothing is asked twice"
    shown, text = endpoint.bodies[0]["messages"][1]["content"]
    assert (shown["type"], text["text"]) == ("image_url", "Which colour?")
    assert (results.n, results.accuracy, results.scores["right"].mean) == (2, 0.5, 0.5)
    assert results.lmms_eval == {"colours": {"right,none": 0.5}}
    assert again == results
    arguments = json.loads((tmp_path / "out/lmms:colours/arguments.json").read_text())
    assert arguments[:2] == ["--seed", "3"]
    assert arguments[-2:] == ["--limit", "2"]


@pytest.mark.usefixtures("harness")
def test_of_a_group_every_task_is_asked_and_told_by_itself(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with serve(said("red"), said("blue"), said("green"), said("green")) as endpoint:
        results = evaluate(tmp_path, endpoint.url, "lmms:all-colours")
    assert len(endpoint.bodies) == 4
    assert {kind: (found.n, found.accuracy) for kind, found in results.by_kind.items()} == {
        "colours": (2, 1.0),
        "more-colours": (2, 0.5),
    }
    assert (results.n, results.accuracy, results.scores["right"].mean) == (4, 0.75, 0.75)
    shares = {"colours": 1.0, "more-colours": 0.5, "all-colours": 0.75}
    assert results.lmms_eval == {name: {"right,none": share} for name, share in shares.items()}
    show(results)
    printed = capsys.readouterr().out
    for name, share in shares.items():
        assert f"  lmms-eval, {name}: right,none = {share:g}\n" in printed


@pytest.mark.usefixtures("harness")
def test_an_answer_that_no_judge_scored_is_lost_and_nothing_is_aggregated(tmp_path: Path) -> None:
    down = said("the judge is down")
    with serve(down, said("blue"), down) as endpoint:
        results = evaluate(tmp_path, endpoint.url)
    assert (results.infrastructure, results.accuracy, results.lmms_eval) == (1, None, {})


@pytest.mark.usefixtures("harness")
@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"task": "lmms:nothing"}, "has no task 'nothing'"),
        ({"task": "lmms:judged"}, "neither a key in the environment .* --judge replies=FILE"),
        ({"task": "lmms:errors"}, "lmms:errors: of its metric wer less is better"),
        ({"task": "lmms:colours-and-errors"}, "lmms:errors: of its metric wer less is better"),
        ({"task": "lmms:colours-and-lengths"}, "colours has right, lengths has anls.*: lmms:colours lmms:lengths"),
        ({"scorers": ["exact"]}, "scored by lmms-eval"),
        ({"judge": {"model": "x"}}, "replies=FILE"),
        ({"data": "somewhere"}, "leave --data and --split out"),
    ],
)
def test_what_cannot_be_is_refused_before_anything_is_asked(tmp_path: Path, options: Any, words: str) -> None:
    with serve(said("red")) as endpoint:
        with pytest.raises(UserError, match=words):
            evaluate(tmp_path, endpoint.url, **options)
        assert endpoint.bodies == []


def test_without_an_environment_the_remedy_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LMMS_EVAL_PYTHON", str(tmp_path / "none"))
    with pytest.raises(UserError, match="make lmms-setup"):
        next(find_task("lmms:chartqa").tasks())


def test_a_file_of_ones_own_is_called_by_its_name() -> None:
    assert LmmsTask("tasks/mine.yaml").name == "lmms:mine"


@pytest.mark.usefixtures("harness")
def test_the_list_says_what_is_known_and_nothing_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from thinkimg.evaluation.tasks import listing

    info = tmp_path / "cache/org___colours/default/0.0.0/abc/dataset_info.json"
    info.parent.mkdir(parents=True)
    info.write_text(json.dumps({"splits": {"test": {"num_examples": 7}}}))
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "cache"))
    rows = listing.cached_rows()
    shown = list(listing.lines([*listing.ours(rows), *listing.lmms_evals(rows)]))
    assert shown[-1].split() == ["lmms:colours", "right", "7", "org/colours", "test"]
    by_name = {line.split()[0]: line.split() for line in shown}
    assert by_name["charts"][1:3] == ["relaxed_normalised", "1200"]
    assert by_name["chartqa"][2] == "-"


# ---- judges ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def judges(monkeypatch: pytest.MonkeyPatch) -> Any:
    """The module as the worker has it; what it lays around clients is taken away again."""
    spec = importlib.util.spec_from_file_location("judges", WORKER / "judges.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    for client in (httpx.Client, httpx.AsyncClient, httpx2.Client, httpx2.AsyncClient, requests.Session):
        monkeypatch.setattr(client, "send", client.send)
    return module


@pytest.mark.parametrize("library", [httpx, requests])
def test_judges_are_recorded_and_replayed_without_them(tmp_path: Path, judges: Any, library: Any) -> None:
    replies = str(tmp_path / "judge.jsonl")
    with serve(completion("Yes.")) as endpoint:
        url = f"{endpoint.url}/chat/completions"
        recording = judges.Judges(replies, key=True)
        recording.listen()
        recording.listening = True
        first = library.post(url, json={"ask": 1}).json()
        assert library.post(url, json={"ask": 1}).json() == first
    assert len(endpoint.bodies) == 1
    replaying = judges.Judges(replies, key=False)
    recording.listening = False
    replaying.listen()
    replaying.listening = True
    assert library.post(url, json={"ask": 1}).json() == first
    with pytest.raises(judges.NoJudge):
        library.post(url, json={"ask": 2})


def test_a_judge_that_fails_is_told_from_a_wrong_answer(judges: Any) -> None:
    listening = judges.Judges(None, key=True)
    listening.listen()
    listening.listening = True
    with pytest.raises(httpx.ConnectError):
        httpx.post("http://127.0.0.1:1/v1/chat/completions", json={})
    assert "does not answer" in listening.failed
