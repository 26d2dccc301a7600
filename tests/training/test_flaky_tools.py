"""RL with tools that fail: real servers, real time-outs, a server that is killed. The policy's words are scripted, the
training is real."""

import json
import os
import random
import signal
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import TrainerCallback

from tests.support.serving.sample_servers import ENVIRONMENT, SAMPLE_TOOLS
from tests.support.training.scripted_agent import World, tasks
from thinkimg.agent.agent import Agent, Limits
from thinkimg.api import GRPO, Reward
from thinkimg.client import ToolClient
from thinkimg.models.chat import TokenModel
from thinkimg.models.generator import Generation, GenerationRequest
from thinkimg.serving import ServerConfig, ServerSpec, Supervisor
from thinkimg.training.episodes import Episodes
from thinkimg.training.grpo import ToolGRPOTrainer, train_grpo
from thinkimg.training.rewards import make_rewards
from thinkimg.training.session import Session
from thinkimg.trajectory import Trajectory, read_trajectories

TIMEOUT = 1.0


class CallsThenAnswers:
    """Calls Sleep once, in a share of cases for longer than the client waits, and answers 0, 1 or 2."""

    def __init__(self, world: World, share: float) -> None:
        self.family, self.share = world.family, share

    async def generate(self, request: GenerationRequest) -> Generation:
        chance = random.Random(request.seed)
        if request.tokens.count(self.family.stop_ids[0]) <= 2:  # after system and user
            seconds = 2.5 * TIMEOUT if chance.random() < self.share else 0.0
            action: dict[str, Any] = {"name": "Sleep", "arguments": {"seconds": seconds}}
        else:
            action = {"name": "Terminate", "arguments": {"ans": str(chance.randrange(3))}}
        tokens = self.family.encode_reply(json.dumps({"thought": "", "actions": [action]}))
        return Generation(tokens, [0.0] * len(tokens), "stop")


@pytest.fixture
def supervisor(tmp_path: Path) -> Iterator[Supervisor]:
    config = ServerConfig.model_validate({"tools": [{"entry_point": f"{SAMPLE_TOOLS}:sleep"}], "workers": 32})
    spec = ServerSpec("sleep", config, ENVIRONMENT)
    with ExitStack() as stack:
        yield stack.enter_context(Supervisor([spec], tmp_path / "servers", ready_seconds=300))


class Run:
    """A training, its log, its dump of all trajectories, and what the loss was given."""

    def __init__(
        self,
        endpoints: list[str],
        folder: Path,
        monkeypatch: pytest.MonkeyPatch,
        share: float,
        callbacks: Sequence[TrainerCallback] = (),
        timeout: float = TIMEOUT,
    ) -> None:
        torch.set_num_threads(1)
        world = World()
        self.batches: list[dict[str, Any]] = []
        original = ToolGRPOTrainer._generate_and_score_completions

        def watched(trainer: ToolGRPOTrainer, inputs: list[dict[str, Any]]) -> dict[str, Any]:
            self.batches.append(original(trainer, inputs))
            return self.batches[-1]

        monkeypatch.setattr(ToolGRPOTrainer, "_generate_and_score_completions", watched)
        client = ToolClient(endpoints, timeout_seconds=timeout, retries=1)
        model = TokenModel(world.family, CallsThenAnswers(world, share))
        agent = Agent(model, client, Limits(rounds=2, tokens_per_turn=200))
        monkeypatch.setattr("thinkimg.training.step_log.TRAJECTORIES_EVERY", 1)
        spec = GRPO(
            max_steps=3, prompts_per_step=4, num_generations=4, learning_rate=1e-3, resample_limit=1,
            rewards=[Reward(name="accuracy")],
        )  # fmt: skip
        rewards = make_rewards(spec.rewards, lambda answer, reference: float(int(answer) == int(reference) % 3))
        episodes = Episodes(agent, tasks(12), rewards, client.connect, client.close)
        train_grpo(world.loaded, episodes, spec, Session(folder, seed=3, callbacks=callbacks))
        self.log = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
        files = sorted((folder / "trajectories").glob("step-*.jsonl"))
        self.dump: list[Trajectory] = [one for file in files for one in read_trajectories(file)]

    def completions(self) -> set[tuple[int, ...]]:
        """Own tokens of every row that has a loss."""
        found = set()
        for batch in self.batches:
            own = (batch["tool_mask"] * batch["completion_mask"]).bool()
            for ids, mask, advantage in zip(batch["completion_ids"], own, batch["advantages"], strict=True):
                if mask.any() and advantage != 0:
                    found.add(tuple(ids[mask].tolist()))
        return found


def own(trajectory: Trajectory) -> tuple[int, ...]:
    return tuple(token for turn in trajectory.turns if turn.role == "assistant" for token in turn.tokens or ())


def test_no_trajectory_that_the_infrastructure_spoilt_is_in_the_loss(
    supervisor: Supervisor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = Run(supervisor.endpoints, tmp_path / "run", monkeypatch, share=0.2)
    assert len(run.dump) == 3 * 16
    spoilt = [one for one in run.dump if one.status == "infrastructure"]
    kept = [one for one in run.dump if one.status != "infrastructure"]
    assert spoilt, "an attempt with the same seed fails alike"
    for one in spoilt:
        assert one.meta["masked"] == "infrastructure"
        assert one.rewards == {}
        assert own(one) not in run.completions()
    assert all(one.status == "answered" and one.rewards for one in kept)
    assert run.completions() <= {own(one) for one in kept}
    assert run.completions(), "the others are trained on"
    assert sum(line["masked_by"].get("infrastructure", 0) for line in run.log) == len(spoilt)
    assert sum(line["resampled"] for line in run.log) == sum(one.meta["attempt"] for one in run.dump) >= len(spoilt)
    assert all(line["errors"] == {} for line in run.log), "a time-out is no mistake of the model"


def test_a_tool_server_that_is_killed_neither_ends_the_run_nor_counts_against_the_model(
    supervisor: Supervisor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    killed = []

    class Killer(TrainerCallback):
        """Before the rollouts of the second step."""

        def on_step_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            if state.global_step == 1:
                for pid in supervisor.pids.values():
                    os.kill(pid, signal.SIGKILL)
                    killed.append(pid)

    run = Run(supervisor.endpoints, tmp_path / "run", monkeypatch, share=0.0, callbacks=[Killer()], timeout=60.0)
    assert killed
    assert [line["step"] for line in run.log] == [1, 2, 3]
    assert all(line["errors"] == {} for line in run.log)
    assert all(one.status == "answered" for one in run.dump if one.meta.get("masked") is None)
    assert run.log[2]["masked"] == 0, "the server is back"
