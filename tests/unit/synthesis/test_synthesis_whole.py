"""Synthesis with real tools, some of whose calls fail: what is kept tells the truth, what is dropped is counted."""

import asyncio
import hashlib
import json
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from PIL import Image as Pillow

from tests.support.models.endpoint import Answer, completion, serve
from thinkimg.agent.agent import Agent, Limits
from thinkimg.agent.formats import OpenThinkIMG
from thinkimg.agent.replay import Replayed, replay
from thinkimg.api import Filters, Synthesize
from thinkimg.data.sharegpt import conversation_of, write_sharegpt
from thinkimg.errors import InfrastructureError, ModelError
from thinkimg.evaluation.scorers import RULES
from thinkimg.evaluation.tasks import TASKS
from thinkimg.image import Image
from thinkimg.jobs.synthesis import Options, run_synthesis
from thinkimg.jsonfile import read
from thinkimg.models.api import ApiModel
from thinkimg.results import SynthesisResults
from thinkimg.synthesis.opinion import ModelOpinion
from thinkimg.synthesis.planner import ScriptedPlanner
from thinkimg.synthesis.synthesize import Synthesis, refuse, repeated, synthesize
from thinkimg.tools.registry import load_tool
from thinkimg.trajectory import Trajectory, read_trajectories, write_trajectories
from thinkimg.trajectory.store import Store

CHAINS = {"zoom-ocr": 1.0, "ocr": 1.0, "point-line": 1.0, "point": 1.0, "none": 0.5}
TASKS_40 = list(repeated(list(TASKS["charts"].tasks("charts://?questions=20", "train")), 40))


class Outcome:
    cached = False

    def __init__(self, result: Any) -> None:
        self.result = result


class RealTools:
    """The tools themselves, in this process. A tenth of all calls is refused, a tenth is lost, decided by what is
    called; `failures` counts them."""

    def __init__(self, faults: bool = True) -> None:
        self.tools = {name: load_tool(name) for name in ("OCR", "ZoominSubplot", "Point", "DrawHorizontalLineByY")}
        self.schemas = {name: tool.schema for name, tool in self.tools.items()}
        self.faults = faults
        self.failures: Counter[str] = Counter()

    async def call(self, name: str, arguments: dict[str, Any], images: Mapping[str, Image]) -> Outcome:
        key = json.dumps([name, arguments, images[arguments["image"]].sha256])
        draw = hashlib.sha256(key.encode()).digest()[0] % 10 if self.faults else 9
        if draw == 0:
            self.failures["refused"] += 1
            raise ModelError("injected", kind="refused")
        if draw == 1:
            self.failures["lost"] += 1
            raise InfrastructureError("injected")
        return Outcome(await asyncio.to_thread(self.tools[name].run, arguments, images))


@pytest.fixture(scope="module")
def tools() -> RealTools:
    return RealTools()


def make(tools: RealTools, store: Store | None = None, **options: Any) -> Synthesis:
    agent = Agent(ScriptedPlanner(OpenThinkIMG(), CHAINS), tools, Limits(rounds=4))
    spec = Synthesize(concurrency=options.pop("concurrency", 16))
    return asyncio.run(synthesize(agent, TASKS_40, RULES["relaxed_normalised"].score, spec, 5, store=store, **options))


@pytest.mark.slow
def test_kept_trajectories_replay_to_the_same_and_every_drop_is_counted(tools: RealTools, tmp_path: Path) -> None:
    made = make(tools)
    assert len(made.kept) + made.dropped.total() == 40
    assert set(made.dropped) <= {"tool error", "ended: infrastructure", "wrong answer"}
    assert made.dropped["ended: infrastructure"] > 0
    assert made.dropped["tool error"] > 0
    assert tools.failures["lost"] >= made.dropped["ended: infrastructure"]
    write_trajectories(made.kept, tmp_path / "kept.jsonl")
    kept = list(read_trajectories(tmp_path / "kept.jsonl"))  # what a training would read
    assert sum(len(one.tool_results) for one in kept) > 15

    async def replayed() -> list[Replayed]:
        healthy = RealTools(faults=False)
        return [await replay(one, healthy) for one in kept]

    assert asyncio.run(replayed()) == [Replayed(len(one.tool_results), ()) for one in kept]


def test_replay_notices_what_is_not_true(tools: RealTools) -> None:
    one = next(one for one in make(tools).kept if one.meta["chain"] == "zoom-ocr")
    healthy = RealTools(faults=False)
    changed = one.model_copy(deep=True)
    changed.tool_results[-1].text += " 7"
    (difference,) = asyncio.run(replay(changed, healthy)).differences
    assert "then" in difference.what
    changed = one.model_copy(deep=True)
    changed.images["img_2"] = Image.from_pixels(Pillow.new("RGB", (9, 9)))
    assert asyncio.run(replay(changed, healthy)).differences[0].what == "another picture"


@pytest.mark.slow
def test_an_interrupted_synthesis_goes_on_and_tries_lost_ones_again(tools: RealTools, tmp_path: Path) -> None:
    class Interrupted(Exception):
        pass

    def stop(done: int) -> None:
        if done == 15:
            raise Interrupted

    with Store(tmp_path / "attempts.jsonl") as store, pytest.raises(Interrupted):
        make(tools, store, progress=stop, concurrency=1)
    with Store(tmp_path / "attempts.jsonl") as store:
        assert len(store) == 15
        before = tools.failures.total()
        made = make(tools, store)
    whole = make(tools)
    assert [one.answer for one in made.kept] == [one.answer for one in whole.kept]
    assert made.dropped == whole.dropped
    healed = RealTools(faults=False)
    with Store(tmp_path / "attempts.jsonl") as store:
        again = make(healed, store)
    assert again.dropped["ended: infrastructure"] == 0  # those alone were tried again
    assert again.dropped["tool error"] == made.dropped["tool error"]
    assert before > 0


def spoken(*answers: Answer) -> tuple[str | None, Trajectory, list[dict[str, Any]]]:
    one = make_one()
    with serve(*answers) as endpoint:
        opinion = ModelOpinion(ApiModel(endpoint.url, "m", retries=0, backoff_seconds=0))
        return asyncio.run(opinion(one)), one, endpoint.bodies


def make_one() -> Trajectory:
    agent = Agent(ScriptedPlanner(OpenThinkIMG(), {"ocr": 1.0}), RealTools(faults=False), Limits(rounds=4))
    return asyncio.run(agent.run(TASKS_40[0], seed=1))


def test_a_models_opinion_drops_and_its_words_are_kept() -> None:
    reason, one, bodies = spoken(completion("It guessed.\nVerdict: drop"))
    assert reason == "model's opinion"
    assert one.meta["opinion"].startswith("It guessed.")
    assert "OBSERVATION" in bodies[0]["messages"][0]["content"]
    assert spoken(completion("Fine. Verdict: keep"))[0] is None
    reason, _, bodies = spoken(completion("Well"))
    assert (reason, len(bodies)) == ("model gave no opinion", 3)
    assert spoken(Answer(500, {}))[0] == "model gave no opinion"


def test_rules_on_calls() -> None:
    one = make_one()
    assert refuse(Filters(min_tool_calls=2), one) == "too few tool calls"
    assert refuse(Filters(min_tool_calls=1), one) is None
    one.turns.insert(-1, one.turns[2])
    assert refuse(Filters(refuse_repeats=True), one) == "repeated call"


# ---- ShareGPT -------------------------------------------------------------------------------------------------------


def test_sharegpt_has_a_place_for_every_picture_and_none_in_what_was_read(tmp_path: Path) -> None:
    one = make_one()
    one.turns[3].message.tool_results[0].text = "it reads <image> here"
    document = conversation_of(one)
    assert [turn["from"] for turn in document["conversations"]] == ["system", "human", "gpt", "human", "gpt"]
    places = sum(turn["value"].count("<image>") for turn in document["conversations"])
    assert places == len(document["images"]) == 1
    assert write_sharegpt([one, one], tmp_path / "out" / "sharegpt.json") == 2
    written = json.loads((tmp_path / "out" / "sharegpt.json").read_text())
    assert written == [document, document]
    assert (tmp_path / "out" / document["images"][0]).read_bytes() == one.images["img_1"].data


# ---- the command ----------------------------------------------------------------------------------------------------


def test_a_planner_behind_an_endpoint_costs_what_it_costs(tmp_path: Path) -> None:
    text = '{"thought": "t", "actions": [{"name": "Terminate", "arguments": {"ans": "2"}}]}'
    with serve(completion(text, prompt_tokens=1000, completion_tokens=100)) as endpoint:
        options = Options(
            "charts", tmp_path / "out", planner="openai", planner_args={"base_url": endpoint.url, "model": "m"},
            data="charts://?questions=12", count=15, sharegpt=True, price=(2.0, 10.0),
        )  # fmt: skip
        found = run_synthesis(options)
        asked = len(endpoint.bodies)
        assert run_synthesis(options) == found  # nothing is asked again
        assert len(endpoint.bodies) == asked == 15
    assert found.kept + sum(found.dropped.values()) == found.tasks == 15
    assert found.cost == pytest.approx(15 * (1000 * 2 + 100 * 10) / 1e6)
    kept = list(read_trajectories(tmp_path / "out" / "cold-start.jsonl"))
    assert len(kept) == found.kept == len(json.loads((tmp_path / "out" / "sharegpt.json").read_text()))
    assert read(tmp_path / "out" / "synthesis.json", SynthesisResults) == found
    dropped = [
        one.meta["dropped"] for one in read_trajectories(tmp_path / "out" / "attempts.jsonl") if "dropped" in one.meta
    ]
    assert Counter(dropped) == found.dropped
