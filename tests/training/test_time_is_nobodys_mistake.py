"""A generator and a tool that sleep longer than every limit: no reward of 0, no wrong answer, and it is said."""

import asyncio
import json
import random
from pathlib import Path
from typing import Any

import pytest

from tests.support.agent.scripted import InProcess, wait
from tests.support.training.scripted_agent import World, tasks
from thinkimg.agent.agent import Agent, Limits
from thinkimg.api import GRPO, Reward
from thinkimg.errors import InfrastructureError
from thinkimg.evaluation.evaluate import Settings, evaluate
from thinkimg.evaluation.report import write_report
from thinkimg.evaluation.scorers import find_rule
from thinkimg.evaluation.summary import row_of, summarise
from thinkimg.jsonfile import write
from thinkimg.models.chat import TokenModel
from thinkimg.models.generator import Generation, GenerationRequest
from thinkimg.results import RunResults
from thinkimg.training.episodes import Episodes
from thinkimg.training.grpo import train_grpo
from thinkimg.training.rewards import make_rewards
from thinkimg.training.session import Session
from thinkimg.trajectory import read_trajectories
from thinkimg.trajectory.store import Store
from thinkimg.viewer.page import write_page

FOREVER = 600.0
LIMIT = 0.3


class Sleepy:
    """Sleeps for ever, calls a tool that does, or answers, each as the seed has it."""

    def __init__(self, world: World, sleeps: float) -> None:
        self.family, self.sleeps = world.family, sleeps

    async def generate(self, request: GenerationRequest) -> Generation:
        chance = random.Random(request.seed)
        drawn = chance.random()
        if drawn < self.sleeps / 2:
            await asyncio.sleep(FOREVER)
        called = {"name": "wait", "arguments": {"seconds": FOREVER}}
        answered = {"name": "Terminate", "arguments": {"ans": str(chance.randrange(2))}}
        action = called if drawn < self.sleeps else answered
        tokens = self.family.encode_reply(json.dumps({"thought": "", "actions": [action]}))
        return Generation(tokens, [0.0] * len(tokens), "stop")


def agent(world: World, sleeps: float) -> Agent:
    limits = Limits(rounds=2, tokens_per_turn=200, seconds=LIMIT)
    return Agent(TokenModel(world.family, Sleepy(world, sleeps)), InProcess(wait), limits)


def train(world: World, sleeps: float, folder: Path) -> None:
    spec = GRPO(
        max_steps=2, prompts_per_step=2, num_generations=4, resample_limit=1, rewards=[Reward(name="accuracy")]
    )  # fmt: skip
    rewards = make_rewards(spec.rewards, lambda answer, reference: float(int(answer) == int(reference) % 2))
    train_grpo(world.loaded, Episodes(agent(world, sleeps), tasks(4), rewards), spec, Session(folder, seed=3))


def test_in_training_what_hangs_is_lost_and_the_others_are_learnt_from(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("thinkimg.training.step_log.TRAJECTORIES_EVERY", 1)
    train(World(), 0.3, tmp_path)
    log = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    made = [one for file in sorted((tmp_path / "trajectories").glob("*.jsonl")) for one in read_trajectories(file)]
    lost = [one for one in made if one.status == "infrastructure"]
    assert 0 < len(lost) == sum(line["lost"] for line in log) < len(made) == 16
    assert all(one.meta["attempt"] == 1 for one in lost), "tried again"
    assert {(one.meta["error"], one.rewards == {}, one.correct) for one in lost} == {
        (f"hung: nothing has moved for {LIMIT:g} s", True, None)
    }
    others = [one for one in made if one not in lost]
    assert all(one.status == "answered" and one.rewards for one in others)
    rewarded = sum(line["reward"] * (8 - line["lost"]) for line in log)
    assert rewarded == pytest.approx(sum(one.rewards["accuracy"] for one in others), abs=1e-3)


def test_a_training_of_remnants_ends_as_a_failure_of_the_infrastructure(tmp_path: Path) -> None:
    with pytest.raises(InfrastructureError, match="of 8 trajectories of step 1 were lost to the infrastructure"):
        train(World(), 0.9, tmp_path)


def ask(world: World, file: Path, sleeps: float, count: int = 12) -> list[Any]:
    async def work() -> list[Any]:
        with Store(file) as store:
            settings = Settings("v-toolrl", "table", temperature=1.0, seed=4, again=1)
            names = await evaluate(
                agent(world, sleeps), tasks(count), [find_rule("relaxed_normalised")], store, settings
            )
            store.put_in_order(names)
            return [row_of(store.record(name)) for name in names]

    return asyncio.run(work())


def test_in_an_evaluation_what_hangs_is_not_wrong_and_table_and_page_say_so(tmp_path: Path, caplog: Any) -> None:
    world, file = World(), tmp_path / "stages" / "table" / "v-toolrl" / "greedy.jsonl"
    first = ask(world, file, 0.4)
    figures = summarise(first)
    lost = figures.infrastructure
    assert 0 < lost < 12
    assert f"{lost} of 12 answers are lost to the infrastructure" in caplog.text
    assert figures.accuracy is None
    right = sum(row.correct for row in first)
    assert figures.bounds == (right / 12, (right + lost) / 12)

    write(tmp_path / "results.json", RunResults(models={"v-toolrl": figures}))
    report = write_report(tmp_path)
    shown = f"incomplete, {100 * right / 12:.1f} – {100 * (right + lost) / 12:.1f} %"
    for text in ((tmp_path / "results.md").read_text(), write_page(tmp_path, report).read_text()):
        assert shown in text
        assert f"Lost to the infrastructure, so neither right nor wrong: answers of V-ToolRL {lost}." in text

    again = ask(world, file, 0.0)  # nothing sleeps any more: those alone are asked
    assert summarise(again).infrastructure == 0
    assert [row for row in again if row.id in {one.id for one in first if one.status == "answered"}] == [
        row for row in first if row.status == "answered"
    ]
