"""SFT and GRPO learn with each family, on a tiny model of transformers' own classes; where GRPO is refused."""

from pathlib import Path
from typing import Any

import pytest
import torch

from tests.support.models.family_models import ALL, GRPO, Built, build, picture_of
from tests.support.models.tiny_world import conversation, observe
from thinkimg.agent.agent import append_reply
from thinkimg.api import GRPO as GRPOBlock
from thinkimg.api import SFT
from thinkimg.errors import UserError
from thinkimg.message import TextBlock
from thinkimg.models.chat import SamplingParameters, TokenModel
from thinkimg.training.collator import Collator, encode_samples
from thinkimg.training.episodes import Episodes
from thinkimg.training.grpo import ToolGRPOTrainer, grpo_config
from thinkimg.training.rewards import BoundReward
from thinkimg.training.session import Session
from thinkimg.training.sft import train_sft
from thinkimg.trajectory import Task, Trajectory


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


@pytest.mark.parametrize("name", ALL)
def test_sft_learns(name: str, tmp_path: Path) -> None:
    world = build(name)
    trajectories = []
    for number in range(4):
        made = conversation(picture_of(number))
        made.add("assistant", TextBlock(text="see the bar"))
        observe(made, "is", picture_of(number + 4))
        made.add("assistant", TextBlock(text="the answer is red"))
        trajectories.append(made)
    samples, dropped = encode_samples(world.family, trajectories)
    assert not dropped
    batch = Collator(world.family, world.features, 0)(samples)
    with torch.no_grad():
        before = float(world.model.eval()(**batch).loss)
    here = {"bf16": False, "gradient_checkpointing": False}
    spec = SFT(learning_rate=3e-3, batch_size=2, max_steps=12, args=here)
    train_sft(world.loaded, samples, spec, Session(tmp_path))
    with torch.no_grad():
        assert float(world.model.eval()(**batch).loss) < 0.7 * before


class Talker:
    """An agent whose model's turns are sampled, with a picture between them."""

    def __init__(self, world: Built) -> None:
        self.model = TokenModel(world.family, world.generator)

    async def run(self, task: Task, seed: int, temperature: float = 1.0) -> Trajectory:
        made = conversation(*task.images, text=task.question)
        for turn in range(2):
            sampling = SamplingParameters(temperature, 6)
            append_reply(made, await self.model.reply(made, sampling, (seed + turn) % 2**63))
            if turn == 0:
                observe(made, "red", picture_of(seed % 11))
        made.status, made.answer = "answered", made.turns[-1].message.text
        return made


def trainer_of(world: Built, folder: Path, **changes: Any) -> ToolGRPOTrainer:
    spec = GRPOBlock(**({"max_steps": 2, "prompts_per_step": 2, "num_generations": 4, "learning_rate": 1e-3} | changes))
    tasks = [Task(f"t{n}", "what is the value", (picture_of(n),), "red") for n in range(4)]
    reward = BoundReward("length", lambda trajectory: float(sum(map(ord, trajectory.answer or "")) % 7))
    episodes = Episodes(Talker(world), tasks, [reward])
    return ToolGRPOTrainer(world.loaded, episodes, spec, grpo_config(spec, Session(folder)))


@pytest.mark.parametrize("micro_batch", [None, 2])
@pytest.mark.parametrize("name", GRPO)
def test_grpo_trains(name: str, micro_batch: int | None, tmp_path: Path) -> None:
    """With one forward pass for all rows (sorted by length), and with four."""
    world = build(name)
    trainer = trainer_of(world, tmp_path, micro_batch=micro_batch)
    before = {key: value.clone() for key, value in world.model.named_parameters()}
    trainer.train()
    assert all(row.masked is None and len(row.images) == 2 for row in trainer.rows)
    moved = {key for key, value in world.model.named_parameters() if not torch.equal(value, before[key])}
    assert any("visual" in key or "vision" in key for key in moved), "gradients reach the eyes"
    assert any("embed_tokens" in key for key in moved)
    trainer.close()


@pytest.mark.parametrize("name", GRPO)
def test_the_loss_sees_what_was_sampled(name: str, tmp_path: Path) -> None:
    """At the first step the policy's log-probabilities in TRL's batch are those of the sampling."""
    world = build(name)
    trainer = trainer_of(world, tmp_path)
    trainer.model.train()
    trainer._generate_and_score_completions([trainer.train_dataset[n // 4] for n in range(8)])
    for group in trainer.groups:
        for row, trajectory in zip(group.rows, group.trajectories, strict=True):
            own = torch.tensor(trajectory.mask)
            ids = torch.tensor([row.prompt + row.completion])
            inputs = {"input_ids": ids, **world.family.model_inputs(ids), **world.features(row.images)}
            with torch.no_grad():  # the head's bias suppresses here
                logits = world.model.eval()(**inputs).logits[0, :-1].float()
            plain = torch.log_softmax(logits, -1).gather(1, ids[0, 1:, None])[:, 0]
            torch.testing.assert_close(torch.tensor(trajectory.logprobs)[own], plain[own[1:]], atol=2e-4, rtol=0)
    trainer.close()


def test_grpo_is_refused_where_earlier_tokens_would_change(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="fewer tokens once the conversation holds a second"):
        trainer_of(build("llava_onevision"), tmp_path)
