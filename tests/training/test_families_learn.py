"""SFT and GRPO learn with each family, on a tiny model of transformers' own classes; where GRPO is refused."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.support.models.family_models import ALL, GRPO, Built, build, from_scratch, picture_of
from tests.support.models.tiny_world import conversation, observe
from thinkimg.agent.agent import append_reply
from thinkimg.api import GRPO as GRPOBlock
from thinkimg.api import SFT, ImportanceCorrection, Lora
from thinkimg.errors import UserError
from thinkimg.message import TextBlock
from thinkimg.models.backends import find_model
from thinkimg.models.chat import SamplingParameters, TokenModel
from thinkimg.models.pretrained import load_model
from thinkimg.training.adapters import lora_config
from thinkimg.training.collator import Collator, encode_samples
from thinkimg.training.episodes import Episodes
from thinkimg.training.grpo import ToolGRPOTrainer, grpo_config
from thinkimg.training.rewards import BoundReward
from thinkimg.training.session import Session
from thinkimg.training.sft import train_sft
from thinkimg.training.whole import make_whole
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
    """An agent whose model's turns are sampled, with pictures between them: `shape` says of a seed how many turns there
    are and how many pictures come between two."""

    def __init__(self, world: Built, shape: Callable[[int], tuple[int, int]] = lambda seed: (2, 1)) -> None:
        self.model = TokenModel(world.family, world.generator)
        self.shape = shape

    async def run(self, task: Task, seed: int, temperature: float = 1.0) -> Trajectory:
        made = conversation(*task.images, text=task.question)
        turns, pictures = self.shape(seed)
        for turn in range(turns):
            sampling = SamplingParameters(temperature, 6)
            append_reply(made, await self.model.reply(made, sampling, (seed + turn) % 2**63))
            if turn < turns - 1:
                observe(made, "red", *(picture_of((seed + turn + k) % 11) for k in range(pictures)))
        made.status, made.answer = "answered", made.turns[-1].message.text
        return made


def trainer_of(
    world: Built, folder: Path, tasks: Sequence[Task] = (), talker: Talker | None = None, **changes: Any
) -> ToolGRPOTrainer:
    spec = GRPOBlock(**({"max_steps": 2, "prompts_per_step": 2, "num_generations": 4, "learning_rate": 1e-3} | changes))
    tasks = tasks or [Task(f"t{n}", "what is the value", (picture_of(n),), "red") for n in range(4)]
    reward = BoundReward("length", lambda trajectory: float(sum(map(ord, trajectory.answer or "")) % 7))
    episodes = Episodes(talker or Talker(world), tasks, [reward])
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


@pytest.mark.parametrize("name", ["qwen3_5", "qwen3_vl_moe"])
def test_adapters_reach_linear_attention_and_experts(name: str, tmp_path: Path) -> None:
    """They learn there, sampling and loss agree with them on, and the merged model speaks as the adapted one did. The
    checkpoint with the adapter alone is a model, too."""
    world = build(name)
    world.save(tmp_path / "base")
    lora = Lora(rank=4)
    trainer = trainer_of(world, tmp_path, lora=lora, importance_correction=ImportanceCorrection())
    trainer.train()
    trainer.model.train()
    batch = trainer._generate_and_score_completions([trainer.train_dataset[n // 4] for n in range(8)])
    own = (batch["tool_mask"] * batch["completion_mask"]).bool()
    recorded = batch["sampling_per_token_logps"]
    torch.testing.assert_close(recorded[own], batch["old_per_token_logps"][own], atol=1e-5, rtol=0)
    trainer.model.save_pretrained(tmp_path / "adapter")
    said = trainer.groups[0].trajectories[0]
    before = {key: value.clone() for key, value in build(name).model.named_parameters()}
    trainer.close()
    make_whole(trainer, world.loaded)
    changed = {key for key, value in world.model.named_parameters() if not torch.equal(value, before[key])}
    parts = ["linear_attn.in_proj_qkv"] if name == "qwen3_5" else ["experts.gate_up_proj", "experts.down_proj"]
    assert all(any(part in key for key in changed) for part in parts)
    assert not any("visual" in key or "embed" in key for key in changed)
    loaded = load_model(find_model(str(tmp_path / "adapter"))).model
    for model in (world.model, loaded):
        own = torch.tensor(said.mask)
        plain = from_scratch(world._replace(model=model), said.tokens, said.ordered_images)
        torch.testing.assert_close(torch.tensor(said.logprobs)[own], plain[own[1:]], atol=1e-5, rtol=0)


def test_adapters_of_experts_take_no_dropout() -> None:
    model = build("qwen3_vl_moe").model
    with pytest.raises(UserError, match=r"lora\.dropout: adapters of experts"):
        lora_config(model, Lora(dropout=0.1))
    config = lora_config(model, Lora(dropout=0.1, target_modules=["q_proj"]))
    assert config is not None
    assert not config.target_parameters
    named = lora_config(model, Lora(target_modules=["down_proj"]))
    assert named is not None
    assert named.target_parameters == [f"model.language_model.layers.{n}.mlp.experts.down_proj" for n in range(2)]


@pytest.mark.parametrize("name", GRPO)
def test_the_loss_sees_what_was_sampled(name: str, tmp_path: Path) -> None:
    """Recorded log-probabilities against those that the trainer computes anew in its padded batch: one to three turns,
    one to five pictures, in the question and from tools; at the first step, and after one that moved the weights."""
    world = build(name)
    talker = Talker(world, shape=lambda seed: (1 + seed % 3, seed % 7 % 3))
    tasks = [Task(f"t{n}", "what is the value", tuple(picture_of(n + k) for k in range(1 + n))) for n in range(4)]
    trainer = trainer_of(
        world, tmp_path, tasks, talker, prompts_per_step=4, max_steps=1, importance_correction=ImportanceCorrection()
    )
    for step in range(2):
        if step:
            trainer.train()
        trainer.model.train()
        batch = trainer._generate_and_score_completions([trainer.train_dataset[n // 4] for n in range(16)])
        shapes = {
            (sum(turn.role == "assistant" for turn in t.turns), len(t.images))
            for g in trainer.groups
            for t in g.trajectories
        }
        assert {turns for turns, _ in shapes} == {1, 2, 3}
        assert {1, 2, 3, 4, 5} <= {pictures for _, pictures in shapes}
        own = (batch["tool_mask"] * batch["completion_mask"]).bool()
        recorded, computed = batch["sampling_per_token_logps"][own], batch["old_per_token_logps"][own]
        worst = float((recorded - computed).abs().max())
        print(f"\n{name}, step {step}: {len(recorded)} tokens, largest difference {worst:.1e}")
        assert worst < 1e-5
    trainer.close()


def test_grpo_is_refused_where_earlier_tokens_would_change(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="fewer tokens once the conversation holds a second"):
        trainer_of(build("llava_onevision"), tmp_path)
