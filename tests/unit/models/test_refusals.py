"""What real endpoints said instead of an answer: evaluation and synthesis end with the other questions answered and the
right counts; wrong settings end at once."""

import asyncio
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from tests.support.agent.scripted import picture
from tests.support.evaluation.refusals import QUESTIONS, SETTINGS, Case, Stub, Wrong, play
from tests.support.models.endpoint import Answer, completion, serve, serving
from thinkimg import jsonl
from thinkimg.agent.agent import Agent, Limits
from thinkimg.agent.tools import NoTools
from thinkimg.api import Filters, Synthesize
from thinkimg.errors import InfrastructureError, UserError
from thinkimg.evaluation.evaluate import Settings, evaluate
from thinkimg.evaluation.judge import JudgeScorer
from thinkimg.evaluation.options import Options
from thinkimg.evaluation.run import run_evaluation
from thinkimg.evaluation.scorers import RULES
from thinkimg.evaluation.shown import show
from thinkimg.evaluation.summary import row_of, summary_of
from thinkimg.jsonfile import read
from thinkimg.models.api import ApiModel
from thinkimg.results import AnswerRow, EvaluationResults
from thinkimg.synthesis.synthesize import Synthesis, synthesize
from thinkimg.trajectory import Task, Trajectory
from thinkimg.trajectory.store import Store

RULE = RULES["relaxed_normalised"]
OTHERS = 8


def tasks(cases: tuple[Case, ...] = QUESTIONS, others: int = OTHERS) -> list[Task]:
    """A question for each case, and others that nothing is wrong with."""
    asked = [Task(case.name, f"<{case.name}> How many?", (picture(),), "7") for case in cases]
    return [*asked, *(Task(f"other {n}", "How many?", (picture(),), "7") for n in range(others))]


def agent(url: str, **options: Any) -> Agent:
    model = ApiModel(url, "m", backoff_seconds=0.001, **{"retries": 2, **options})
    return Agent(model, NoTools(), Limits(rounds=2))


def evaluated(url: str, asked: list[Task], folder: Path, **options: Any) -> list[dict[str, Any]]:
    """The records of an evaluation, and of the same once more."""

    async def run() -> list[str]:
        with Store(folder / "t.jsonl") as store:
            return await evaluate(agent(url, **options), asked, [RULE], store, Settings("m", "t", concurrency=8))

    asyncio.run(run())
    return list(jsonl.read(folder / "t.jsonl"))


def test_the_stub_plays_what_was_reported() -> None:
    assert len(QUESTIONS) + len(SETTINGS) >= 25
    assert all("#" in case.source or case.source.startswith("https://") for case in (*QUESTIONS, *SETTINGS))
    assert len({case.name for case in QUESTIONS}) == len(QUESTIONS)
    kinds = Counter(case.ends for case in QUESTIONS)
    assert min(kinds.values()) >= 9


def test_evaluation_goes_on_and_counts(tmp_path: Path) -> None:
    with play() as stub:
        records = {record["meta"]["task"]: record for record in evaluated(stub.url, tasks(), tmp_path)}
        asked = len(stub.bodies)
        evaluated(stub.url, tasks(), tmp_path)
        assert len(stub.bodies) == asked, "what is refused is not asked again"
    for case in QUESTIONS:
        record = records[case.name]
        assert record["status"] == case.ends, f"{case.name}: {record['meta'].get('error')}"
        assert record["correct"] is (case.ends == "answered")
        assert record["meta"].get("refusal", "") == case.reason, case.name
    figures = summary_of(row_of(record) for record in records.values()).figures()
    counts = Counter(case.ends for case in QUESTIONS)
    assert (figures.refused, figures.context_full, figures.infrastructure) == (counts["refused"], counts["tokens"], 0)
    assert figures.n == len(QUESTIONS) + OTHERS
    assert figures.accuracy == (counts["answered"] + OTHERS) / figures.n
    assert figures.bounds is None


def test_synthesis_keeps_the_others_and_counts() -> None:
    with play() as stub:
        spec = Synthesize(concurrency=8, filters=Filters(min_tool_calls=0))
        made: Synthesis = asyncio.run(synthesize(agent(stub.url), tasks(), RULE.score, spec, 1))
    counts = Counter(case.ends for case in QUESTIONS)
    assert len(made.kept) == counts["answered"] + OTHERS
    assert made.dropped == {"ended: refused": counts["refused"], "ended: tokens": counts["tokens"]}


@pytest.mark.parametrize("wrong", SETTINGS, ids=lambda wrong: wrong.name)
def test_wrong_settings_end_at_once_and_name_the_field(wrong: Wrong, tmp_path: Path) -> None:
    with serve(wrong.answer) as endpoint:
        with pytest.raises(UserError) as caught:
            evaluated(endpoint.url, tasks((), 3), tmp_path)
        assert caught.value.field == wrong.field
        assert len(endpoint.bodies) <= 6, "three questions under way, and what decides on each"
    assert not list(jsonl.read(tmp_path / "t.jsonl"))


def test_what_is_not_known_is_decided_by_one_question_of_text(tmp_path: Path) -> None:
    unknown = next(case for case in QUESTIONS if case.name == "gemini says nothing")
    with play() as stub:
        evaluated(stub.url, tasks((unknown,) * 1, 0), tmp_path)
        probes = [body for body in stub.bodies if body["messages"] == [{"role": "user", "content": "Say yes."}]]
        assert len(probes) == 1
        assert {**probes[0], "messages": None} == {**stub.bodies[0], "messages": None} | {"seed": probes[0]["seed"]}


def test_an_endpoint_that_takes_no_question_ends_the_evaluation(tmp_path: Path) -> None:
    unknown = next(case for case in QUESTIONS if case.name == "gemini says nothing")

    class Blind(Stub):
        def choose(self, body: dict[str, Any]) -> Answer:
            return unknown.answer if "image_url" in str(body) else completion("yes")

    blind = Blind(())
    with serving(blind), pytest.raises(UserError, match="no question was answered, and 8 were refused with"):
        evaluated(blind.url, tasks((), 20), tmp_path)


def test_nobody_listening_is_said_however_few_questions_there_are(tmp_path: Path) -> None:
    with serve(completion("x")) as endpoint:
        gone = endpoint.url
    with pytest.raises(InfrastructureError, match=r"none of 2 questions was answered.*ConnectError"):
        evaluated(gone, tasks((), 2), tmp_path, retries=0)


def test_a_refused_row_counts_as_wrong_and_a_lost_one_does_not_count() -> None:
    rows = [AnswerRow(id=str(n), status=status, correct=status == "answered", scores={"s": float(status == "answered")})
            for n, status in enumerate(("answered", "answered", "refused", "tokens", "infrastructure"))]  # fmt: skip
    figures = summary_of(rows).figures()
    assert (figures.n, figures.accuracy, figures.bounds) == (4, None, (0.4, 0.6))
    assert (figures.refused, figures.context_full) == (1, 1)


def test_a_judge_that_refuses_gives_no_verdict() -> None:
    azure = QUESTIONS[0].answer
    with serve(azure) as endpoint:
        judge = JudgeScorer(ApiModel(endpoint.url, "judge", retries=0))
        with pytest.raises(InfrastructureError, match="the judge does not take the answer"):
            asyncio.run(judge.score(Trajectory(question="?", reference="7", answer="7")))


# ---- the commands ----------------------------------------------------------------------------------------------------


def questions_of(folder: Path, cases: tuple[Case, ...]) -> Path:
    """The tasks as a user has them: a file and its picture."""
    (folder / "p.png").write_bytes(picture().data)
    asked = tasks(cases, 2)
    rows = ({"id": one.id, "question": one.question, "answer": "7", "image": "p.png"} for one in asked)
    jsonl.write(rows, folder / "q.jsonl")
    return folder / "q.jsonl"


def options(url: str, folder: Path, **arguments: Any) -> Options:
    address = {"base_url": url, "backoff_seconds": 0.001, **arguments}
    return Options(["chartgemma"], "m", folder / "out", "openai", address, data=str(folder / "q.jsonl"), concurrency=4)


def test_the_command_shows_what_was_refused_beside_the_score(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    chosen = tuple(case for case in QUESTIONS if case.name in ("azure", "openai", "vllm's number", "openai's pace"))
    questions_of(tmp_path, chosen)
    with play() as stub:
        (results,) = run_evaluation(options(stub.url, tmp_path))
    show(results)
    printed = capsys.readouterr().out
    assert "6 questions" in printed
    assert "relaxed_normalised (normalised, decides): 50.0 %, 2 refused, 1 context full" in printed
    written = read(tmp_path / "out" / "chartgemma" / "results.json", EvaluationResults)
    assert (written.n, written.accuracy, written.refused, written.context_full) == (6, 0.5, 2, 1)
    by_name = {row["id"]: row["status"] for row in jsonl.read(tmp_path / "out" / "chartgemma" / "items.jsonl")}
    assert by_name["azure"] == by_name["vllm's number"] == "refused"
    assert by_name["openai"] == "tokens"


def test_a_truncated_picture_is_refused_by_name_and_never_sent(tmp_path: Path) -> None:
    questions_of(tmp_path, ())
    whole = picture(300, 200).data
    (tmp_path / "p.png").write_bytes(whole[: len(whole) - 40])
    with play() as stub:
        with pytest.raises(UserError, match=r"task other 0: a picture cannot be shown to the model: .*truncated"):
            run_evaluation(options(stub.url, tmp_path))
        assert not stub.bodies


@pytest.mark.slow
def test_a_closed_port_ends_the_commands_with_70_and_the_reason(tmp_path: Path) -> None:
    with serve(completion("x")) as endpoint:
        gone = endpoint.url
    questions_of(tmp_path, ())
    where = ["--data", str(tmp_path / "q.jsonl"), "--out", str(tmp_path / "out")]
    model = [f"base_url={gone}", "retries=0"]
    evaluated = ["eval", "chartgemma", "--model", "m", *(word for one in model for word in ("--model-args", one))]
    planned = [word for one in ("model=m", *model) for word in ("--planner-args", one)]
    for command in (evaluated, ["synthesize", "chartgemma", "--no-tools", "--planner", "openai", *planned]):
        done = subprocess.run(
            [sys.executable, "-m", "thinkimg.cli", *command, *where], capture_output=True, text=True, timeout=200
        )
        assert done.returncode == 70, done.stderr
        assert "ConnectError" in done.stderr or "answered none of 2" in done.stderr
        assert done.stdout == ""
