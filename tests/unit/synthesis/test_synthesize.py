"""Cold-start trajectories: planned, executed, filtered, with every reason counted."""

import asyncio
import re
from collections import Counter
from collections.abc import Mapping
from typing import Any

import pytest
from PIL import Image as Pillow

from thinkimg.agent.agent import Agent, Limits
from thinkimg.agent.formats import FORMATS, Call, OpenThinkIMG, Parsed
from thinkimg.agent.tools import NoTools
from thinkimg.api import Filters, Synthesize
from thinkimg.errors import InfrastructureError, ModelError, UserError
from thinkimg.image import Image
from thinkimg.models.chat import Reply, SamplingParameters
from thinkimg.synthesis.planner import CHAINS, ScriptedPlanner, scripted_texts
from thinkimg.synthesis.synthesize import Synthesis, synthesize
from thinkimg.tools.tool import ToolResult
from thinkimg.trajectory import Task, Trajectory

FORMAT = OpenThinkIMG()
PICTURE = Image.from_pixels(Pillow.new("RGB", (8, 8), "teal"))


class Result:
    cached = False

    def __init__(self, result: ToolResult) -> None:
        self.result = result


class Tools(NoTools):
    """Knows the planner's tools; `called` holds names and arguments."""

    def __init__(self, fails: str = "") -> None:
        self.fails = fails
        self.called: list[tuple[str, dict[str, Any]]] = []

    async def call(self, name: str, arguments: dict[str, Any], images: Mapping[str, Image]) -> Any:
        self.called.append((name, arguments))
        if name == self.fails:
            raise ModelError("nothing there", kind="refused")
        if name == "broken":
            raise InfrastructureError("gone")
        data = {"points": [{"x": 10.0, "y": 41.6}]} if name == "Point" else {}
        return Result(ToolResult(f"{name} ran", data, (PICTURE,) if name != "OCR" else ()))


class Says:
    """A planner with one script per task's id; the first turn of `slow` takes longest."""

    def __init__(self, scripts: Mapping[str, list[str]]) -> None:
        self.scripts = scripts
        self.seeds: dict[str, int] = {}
        self.under_way = self.most_under_way = 0

    async def reply(self, trajectory: Trajectory, sampling: SamplingParameters, seed: int) -> Reply:
        name = trajectory.meta["task"]
        self.seeds.setdefault(name, seed)
        self.under_way += 1
        self.most_under_way = max(self.most_under_way, self.under_way)
        await asyncio.sleep(0.03 if name == "slow" else 0.001)
        self.under_way -= 1
        script = self.scripts.get(name, self.scripts[""])
        return Reply(script[min(trajectory.rounds, len(script) - 1)], "stop")


def call(name: str) -> str:
    return FORMAT.write(Parsed("t", (Call(name, {"image": "img_1"}),)))


def answer(text: str) -> str:
    return FORMAT.write(Parsed("t", answer=text))


def task(name: str) -> Task:
    return Task(name, "?", (PICTURE,), reference="7")


async def same(trajectory: Trajectory) -> float:
    return float(trajectory.answer == trajectory.reference)


def run(planner: Any, names: list[str], filters: Filters | None = None, **options: Any) -> Synthesis:
    agent = Agent(planner, options.pop("tools", None) or Tools("bad"), Limits(rounds=3))
    spec = Synthesize(filters=filters or Filters(), concurrency=options.pop("concurrency", 16))
    work = synthesize(agent, [task(name) for name in names], same, spec, seed=0, **options)
    return asyncio.run(work)


SCRIPTS = {
    "": [call("OCR"), answer("7")],
    "wrong": [answer("8")],
    "clumsy": [call("bad"), answer("7")],
    "clumsy-and-wrong": [call("bad"), answer("8")],
    "endless": [call("OCR")],
    "gone": [call("broken")],
}


def test_every_dropped_trajectory_has_a_counted_reason() -> None:
    names = ["a", "wrong", "clumsy", "b", "endless", "gone", "clumsy-and-wrong", "c"]
    made = run(Says(SCRIPTS), names)
    assert [trajectory.meta["task"] for trajectory in made.kept] == ["a", "b", "c"]
    reasons = {"wrong answer": 1, "tool error": 2, "ended: rounds": 1, "ended: infrastructure": 1}
    assert made.dropped == Counter(reasons)
    assert len(made.kept) + made.dropped.total() == len(names)
    assert all(trajectory.correct for trajectory in made.kept)


@pytest.mark.parametrize(
    ("filters", "kept"),
    [
        (Filters(), ["a"]),
        (Filters(require_correct=False), ["a", "wrong"]),
        (Filters(max_tool_errors=1), ["a", "clumsy"]),
        (Filters(require_correct=False, max_tool_errors=1), ["a", "wrong", "clumsy", "clumsy-and-wrong"]),
    ],
)
def test_filters_are_chosen(filters: Filters, kept: list[str]) -> None:
    made = run(Says(SCRIPTS), ["a", "wrong", "clumsy", "clumsy-and-wrong", "endless"], filters)
    assert [trajectory.meta["task"] for trajectory in made.kept] == kept


def test_what_is_kept_stands_in_the_order_of_the_tasks_whatever_finished_first() -> None:
    names = ["slow", *(f"t{n}" for n in range(9))]
    assert [trajectory.meta["task"] for trajectory in run(Says(SCRIPTS), names).kept] == names


def test_so_many_run_at_once_and_no_more_and_progress_counts_them() -> None:
    planner = Says(SCRIPTS)
    seen: list[int] = []
    run(planner, [f"t{n}" for n in range(12)], concurrency=3, progress=seen.append)
    assert planner.most_under_way == 3
    assert seen == list(range(1, 13))


def test_a_tasks_seed_depends_on_its_name_not_on_its_place() -> None:
    forward, backward = Says(SCRIPTS), Says(SCRIPTS)
    run(forward, ["a", "b", "c"])
    run(backward, ["c", "b", "a"])
    assert forward.seeds == backward.seeds
    assert len(set(forward.seeds.values())) == 3


# ---- the scripted planner -------------------------------------------------------------------------------------------


def plan(chain: str, tools: Tools | None = None, **meta: Any) -> tuple[Trajectory, list[tuple[str, dict[str, Any]]]]:
    tools = tools or Tools()
    agent = Agent(ScriptedPlanner(FORMAT, {chain: 1.0}), tools, Limits(rounds=4))
    return asyncio.run(agent.run(Task("1", "?", (PICTURE,), "7", meta), seed=1)), tools.called


@pytest.mark.parametrize(
    ("chain", "called"),
    [
        ("none", []),
        ("ocr", [("OCR", {"image": "img_1"})]),
        ("zoom-ocr", [("ZoominSubplot", {"image": "img_1", "description": "North"}), ("OCR", {"image": "img_2"})]),
        ("point-line", [("Point", {"image": "img_1", "description": "May"}),
                        ("DrawHorizontalLineByY", {"image": "img_1", "y": 42})]),
    ],
)  # fmt: skip
def test_a_chain_is_executed_through_the_tools_and_ends_with_the_answer(chain: str, called: Any) -> None:
    made, really = plan(chain, panel="North", label="May")
    assert really == called
    assert (made.status, made.answer, made.meta["chain"]) == ("answered", "7", chain)


def test_a_chain_that_does_not_apply_is_not_drawn() -> None:
    made, really = plan("zoom")  # the question has no panel
    assert (made.meta["chain"], really, made.answer) == ("none", [], "7")


def test_after_a_failed_call_the_planner_answers() -> None:
    made, really = plan("point-line", Tools("Point"), label="May")
    assert [name for name, _ in really] == ["Point"]
    assert made.answer == "7"


def test_chains_are_drawn_by_their_weights() -> None:
    planner = ScriptedPlanner(FORMAT, {"ocr": 3.0, "none": 1.0, "zoom": 5.0})

    async def drawn(seed: int) -> str:
        trajectory = Trajectory(question="?", reference="7", meta={})
        await planner.reply(trajectory, SamplingParameters(), seed)
        return str(trajectory.meta["chain"])

    counts = Counter(asyncio.run(drawn(seed)) for seed in range(400))
    assert set(counts) == {"ocr", "none"}
    assert 0.65 < counts["ocr"] / 400 < 0.85


@pytest.mark.parametrize("format", FORMATS.values(), ids=FORMATS.keys())
def test_the_texts_for_a_tokenizer_are_those_that_the_planner_writes(format: Any) -> None:
    texts = scripted_texts(format, "@")
    written = set()
    for chain in CHAINS:
        agent = Agent(ScriptedPlanner(format, {chain: 1.0}), Tools(), Limits(rounds=4), format)
        made = asyncio.run(agent.run(Task("1", "?", (PICTURE,), "7733", {"panel": "North", "label": "May"}), seed=1))
        written |= {turn.message.text for turn in made.turns if turn.role == "assistant"}
    for text in written:
        for value in ("North", "May", "7733"):
            text = text.replace(value, "@")
        assert re.sub(r"img_\d", "img_@", text).replace('"y": 42', '"y": @') in texts


def test_an_answer_that_a_judge_could_not_judge_is_lost_and_not_wrong() -> None:
    async def broken(_: Trajectory) -> float:
        raise InfrastructureError("the judge is away")

    agent = Agent(Says(SCRIPTS), Tools("bad"), Limits(rounds=3))
    made = asyncio.run(synthesize(agent, [task("a")], broken, Synthesize(), seed=0))
    assert (len(made.kept), dict(made.dropped)) == (0, {"ended: infrastructure": 1})


def test_scripted_plans_of_several_pictures_are_refused_unless_they_look_at_none() -> None:
    asked = Task("1", "?", (PICTURE, PICTURE), "7", {"panel": "Sales"})
    formats = OpenThinkIMG()
    with pytest.raises(UserError, match="task 1 has 2 pictures, and scripted plans are of one"):
        asyncio.run(Agent(ScriptedPlanner(formats, {"zoom": 1.0}), Tools()).run(asked, seed=1))
    made = asyncio.run(Agent(ScriptedPlanner(formats, {"none": 1.0}), Tools()).run(asked, seed=1))
    assert made.answer == "7"
