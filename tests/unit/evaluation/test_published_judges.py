"""CharXiv's and ReachQA's judges: what they are asked, and what is made of their replies, against the published code
(`hack/record_verdicts.py`). Their own words are no part of ThinkIMG: others stand in for them here."""

import asyncio
import hashlib
import json
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import httpx
import pytest
from PIL import Image

from tests.support.models.endpoint import Answer, Endpoint, completion, serve, serving
from thinkimg import jsonl
from thinkimg.errors import InfrastructureError, UserError
from thinkimg.evaluation import official, published
from thinkimg.evaluation.options import Options
from thinkimg.evaluation.published_judges import CharxivJudge, CharxivWords, ReachqaJudge
from thinkimg.evaluation.roles import role_of
from thinkimg.evaluation.run import run_evaluation
from thinkimg.evaluation.shown import show
from thinkimg.models.api import ApiModel, to_messages
from thinkimg.models.chat import Reply, SamplingParameters
from thinkimg.results import EvaluationResults
from thinkimg.trajectory import Trajectory

JUDGED = Path(__file__).parent / "verdicts" / "judged"
WORDS = json.loads((JUDGED / "words.json").read_text(encoding="utf-8"))
GROUPS = json.loads((JUDGED / "charxiv_groups.json").read_text(encoding="utf-8"))
CHARXIV_MODEL = official.CHARXIV_JUDGE.model


def rows(name: str) -> list[dict[str, Any]]:
    return list(jsonl.read(JUDGED / f"{name}.jsonl"))


def charxiv_constants() -> dict[str, Any]:
    return {
        name: {int(key) if key.isdigit() else key: text for key, text in value.items()}
        if isinstance(value, dict)
        else value
        for name, value in WORDS["charxiv"].items()
    }


class Scripted:
    """A model that says `replies`, the last one again and again."""

    def __init__(self, replies: Sequence[str]) -> None:
        self.replies = replies
        self.messages: list[list[dict[str, Any]]] = []
        self.tokens: list[int] = []
        self.settings: list[dict[str, Any]] = []

    async def reply(self, trajectory: Trajectory, sampling: SamplingParameters, seed: int) -> Reply:
        self.messages.append(to_messages(trajectory))
        self.tokens.append(sampling.max_tokens)
        sent = {"temperature": sampling.temperature, "seed": seed, **sampling.extra}
        self.settings.append({name: value for name, value in sent.items() if value is not None})
        return Reply(self.replies[min(len(self.messages), len(self.replies)) - 1], "stop")


def charxiv_answers(row: dict[str, Any]) -> list[Trajectory]:
    meta = {"template": row["template"]} if "template" in row else {}
    if not meta:
        meta = {"answer_type": row["kind"], "raw_question": row["question"]}
    return [
        Trajectory(question="?", answer=response, reference=truth, meta=dict(meta))
        for response, truth in row["answers"]
    ]


def charxiv_verdicts(row: dict[str, Any], model: Any, constants: dict[str, Any]) -> list[float]:
    judge, answers = CharxivJudge(model, CharxivWords.of(constants)), charxiv_answers(row)
    if judge.group_of(answers[0].meta) is None:
        return [asyncio.run(judge.score(answers[0]))]
    return asyncio.run(judge.score_group(answers))


def test_charxivs_judge_is_asked_and_read_as_charxiv_does() -> None:
    found = rows("charxiv")
    assert sum(len(row["answers"]) for row in found) > 200
    for row in found:
        model = Scripted(row["replies"])
        verdicts = charxiv_verdicts(row, model, charxiv_constants())
        assert verdicts == row["verdicts"], row
        assert model.messages == [[{"role": "user", "content": row["prompt"]}]] * len(row["tokens"]), row
        assert model.tokens == row["tokens"], row
        assert all(settings == row["settings"] for settings in model.settings)
        assert row["model"] == CHARXIV_MODEL


def test_reachqas_judge_is_asked_and_read_as_reachqa_does() -> None:
    found = rows("reachqa")
    assert len(found) > 200
    for row in found:
        model = Scripted(row["replies"])
        said = Trajectory(question=row["question"], answer=row["answer"], reference=row["reference"])
        judge = ReachqaJudge(model, WORDS["reachqa"]["Answer_Judge_Prompt"])
        assert [asyncio.run(judge.score(said))] == row["verdicts"], row
        system, user = {"role": "system", "content": row["system"]}, {"role": "user", "content": row["prompt"]}
        assert model.messages == [[system, user]]
        assert (model.tokens, model.settings) == (row["tokens"], [row["settings"]])
        assert row["model"] == official.REACHQA_JUDGE.model


def test_a_request_holds_what_the_published_code_sends_and_nothing_else() -> None:
    one, other = rows("charxiv")[0], rows("reachqa")[0]
    with serve(completion(one["replies"][0])) as endpoint:
        charxiv_verdicts(one, ApiModel(endpoint.url, CHARXIV_MODEL), charxiv_constants())
    with serve(completion(other["replies"][0])) as second:
        model = ApiModel(second.url, official.REACHQA_JUDGE.model)
        said = Trajectory(question=other["question"], answer=other["answer"], reference=other["reference"])
        asyncio.run(ReachqaJudge(model, WORDS["reachqa"]["Answer_Judge_Prompt"]).score(said))
    for row, (body,) in ((one, endpoint.bodies), (other, second.bodies)):
        messages = body.pop("messages")
        assert body == {"model": row["model"], "max_tokens": row["tokens"][0], **row["settings"]}
        assert messages[-1] == {"role": "user", "content": row["prompt"]}


@pytest.mark.parametrize("judge", [official.CHARXIV_JUDGE, official.REACHQA_JUDGE], ids=lambda judge: judge.repository)
def test_in_its_own_words_it_is_asked_the_same(judge: official.PublishedJudge) -> None:
    if not (published.FOLDER.expanduser() / judge.path).is_file():
        pytest.skip(f"{judge.url} is not on this machine; hack/record_verdicts.py compares them where it is")
    constants = published.constants_of(judge)
    for row in rows("charxiv" if judge is official.CHARXIV_JUDGE else "reachqa"):
        model = Scripted(row["replies"])
        if judge is official.CHARXIV_JUDGE:
            charxiv_verdicts(row, model, constants)
        else:
            said = Trajectory(question=row["question"], answer=row["answer"], reference=row["reference"])
            asyncio.run(ReachqaJudge(model, constants["Answer_Judge_Prompt"]).score(said))
        assert hashlib.sha256(model.messages[0][-1]["content"].encode()).hexdigest() == row["sha256"], row


# ---- the source -----------------------------------------------------------------------------------------------------

SOURCE = b"import nothing_of_this_is_run\nWORDS = 'a \\lambda'\nMADE = str(1)\nraise SystemExit\n"


def judge_of(data: bytes) -> official.PublishedJudge:
    return official.PublishedJudge("o/r", "c0ffee", "src/a.py", "f", "m", hashlib.sha256(data).hexdigest())


def test_the_source_is_fetched_once_and_only_its_constants_are_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []

    def get(url: str, **_: Any) -> httpx.Response:
        asked.append(url)
        return httpx.Response(200, content=SOURCE, request=httpx.Request("GET", url))

    monkeypatch.setattr(published.httpx, "get", get)
    for _ in range(2):
        assert published.constants_of(judge_of(SOURCE), tmp_path) == {"WORDS": "a \\lambda"}
    assert asked == ["https://raw.githubusercontent.com/o/r/c0ffee/src/a.py"]


def test_another_file_or_none_is_refused_with_the_remedy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def get(url: str, **_: Any) -> httpx.Response:
        raise httpx.ConnectError("no network")

    monkeypatch.setattr(published.httpx, "get", get)
    path = tmp_path / "o+r/c0ffee/src/a.py"
    with pytest.raises(UserError, match=f"no network.*save it as {re.escape(str(path))}, or ask the judge"):
        published.constants_of(judge_of(SOURCE), tmp_path)
    path.parent.mkdir(parents=True)
    path.write_bytes(SOURCE + b"#")
    with pytest.raises(UserError, match="whose SHA-256 is"):
        published.constants_of(judge_of(SOURCE), tmp_path)


# ---- an evaluation --------------------------------------------------------------------------------------------------


class JudgeEndpoint(Endpoint):
    """Says that every answer is right, and keeps the names in the known answers of each request; None: it is down."""

    def __init__(self) -> None:
        super().__init__([])
        self.companies: list[list[str]] = []
        self.down_after: int | None = None

    def choose(self, body: dict[str, Any]) -> Answer:
        if self.down_after is not None and len(self.companies) >= self.down_after:
            return Answer(503, {"error": {"message": "down"}})
        self.companies.append(re.findall(r"Ground Truth \d+: (.*)", body["messages"][0]["content"]))
        keys = [f"{key}_T{n}" for n in range(1, len(self.companies[-1]) + 1) for key in ("extract_answer", "score")]
        return completion(json.dumps(dict.fromkeys(keys, 1)))


@pytest.fixture
def judge() -> Iterator[JudgeEndpoint]:
    endpoint = JudgeEndpoint()
    with serving(endpoint):
        yield endpoint


@pytest.fixture
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Fourteen figures in CharXiv's form; the known answer names the question."""
    monkeypatch.setattr(published, "constants_of", lambda judge: charxiv_constants())
    Image.new("RGB", (30, 20), "white").save(tmp_path / "a.png")
    with (tmp_path / "data.jsonl").open("w") as file:
        for one in GROUPS["figures"]:
            row: dict[str, Any] = {"figure_id": one["figure"], "image": "a.png", "subplot_loc": "the plot"}
            for number, template in enumerate(one["templates"], 1):
                row |= {f"descriptive_q{number}": template, f"descriptive_a{number}": f"{one['figure']}-d{number}"}
            file.write(json.dumps(row) + "\n")
    return tmp_path / "data.jsonl"


def said(answer: str) -> Answer:
    return completion(json.dumps({"thought": "", "actions": [{"name": "Terminate", "arguments": {"ans": answer}}]}))


def evaluate(data: Path, model: Endpoint, judge: Endpoint, who: str = CHARXIV_MODEL, **options: Any) -> Any:
    asked = {"base_url": model.url, "backoff_seconds": 0, "retries": 0}
    judging = {"base_url": judge.url, "model": who, "retries": 0, **options.pop("judging", {})}
    chosen = {"servers": (), "concurrency": 1, "scorers": ["official", "charxiv"], **options}
    found = run_evaluation(
        Options(
            ["charxiv_descriptive"], "m", data.parent / "out", "openai", asked, data=str(data), judge=judging, **chosen
        )
    )
    return found[0]


def test_five_answers_of_a_template_are_judged_at_once_in_the_order_of_the_data(
    data: Path, judge: JudgeEndpoint, capsys: pytest.CaptureFixture[str]
) -> None:
    with serve(said("x")) as model:
        results: EvaluationResults = evaluate(data, model, judge)
        assert sorted(judge.companies) == sorted(GROUPS["companies"])
        score = results.scores["charxiv_judge"]
        assert (results.n, results.accuracy, score.mean) == (56, 1.0, 1.0)
        assert (score.role, score.judged_by) == ("official", f"{CHARXIV_MODEL} {judge.url}")
        show(results)
        assert f"charxiv_judge (official, by {CHARXIV_MODEL} {judge.url}, decides): 100.0 %" in capsys.readouterr().out

        again = evaluate(data, model, judge)
        assert again == results
        assert (len(model.bodies), len(judge.companies)) == (56, len(GROUPS["companies"])), "nothing is asked twice"

        other = evaluate(data, model, judge, "gpt-4.1-mini")
        assert (other.scores["charxiv_judge"].role, other.scores["charxiv"].role) == ("judged", "normalised")
        assert (len(model.bodies), len(judge.companies)) == (56, 2 * len(GROUPS["companies"]))


def test_a_judge_that_is_down_costs_no_answer(data: Path, judge: JudgeEndpoint) -> None:
    judge.down_after = 3
    with serve(said("x")) as model:
        with pytest.raises(InfrastructureError, match="down"):
            evaluate(data, model, judge)
        assert not (data.parent / "out/charxiv_descriptive/results.json").exists()
        judge.down_after = None
        assert evaluate(data, model, judge).accuracy == 1.0
        assert len(model.bodies) == 56
    assert sorted(judge.companies) == sorted(GROUPS["companies"]), "what was judged is not judged again"


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"shard": "0/2"}, "charxiv_judge asks about 5 answers at a time"),
        ({"judging": {"extra": {"top_p": 0.5}}}, r"extra\.top_p: charxiv_judge is asked as the benchmark asks"),
    ],
)
def test_what_would_be_another_judge_is_refused(data: Path, judge: JudgeEndpoint, options: Any, words: str) -> None:
    with serve(said("x")) as model, pytest.raises(UserError, match=words):
        evaluate(data, model, judge, **options)
    assert model.bodies == []


@pytest.mark.parametrize(
    ("scorer", "task", "judges", "role"),
    [
        ("charxiv_judge", "charxiv", ["gpt-4o-2024-05-13 https://api.openai.com/v1"], "official"),
        ("charxiv_judge", "charxiv", ["gpt-4o-2024-08-06 https://api.openai.com/v1"], "judged"),
        ("charxiv_judge", "charxiv", ['gpt-4o-2024-05-13 https://a/v1 {"extra": {"stop": "x"}}'], "judged"),
        ("charxiv_judge", "charxiv", ["gpt-4o-2024-05-13 https://a/v1", "mine https://b/v1"], "judged"),
        ("charxiv_judge", "charxiv", [], "judged"),
        ("charxiv_judge", "reachqa", ["gpt-4o-2024-05-13 https://api.openai.com/v1"], "judged"),
        ("reachqa_judge", "reachqa", ["gpt-4o-2024-08-06 https://api.openai.com/v1"], "official"),
        ("judge", "reachqa", ["gpt-4o-2024-08-06 https://api.openai.com/v1"], "judged"),
        ("judge", "", ["anybody https://a/v1"], "judged"),
    ],
)
def test_a_verdict_is_official_where_words_reading_and_model_are_the_benchmarks(
    scorer: str, task: str, judges: list[str], role: str
) -> None:
    assert role_of(scorer, task, judges) == role
