"""What a step's loss holds in memory: the activations of one part, and never the logits of all tokens."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from tests.support.training.batches import gradients, prepare
from tests.support.training.scripted_agent import ScriptedAgent, World
from thinkimg.api import SFT, ImportanceCorrection
from thinkimg.training.collator import Sample
from thinkimg.training.session import Session
from thinkimg.training.sft import train_sft

VOCABULARY = 151_936


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


class Saved:
    """Most bytes that autograd held for backward passes at one time, weights left out."""

    def __init__(self, model: Any) -> None:
        self.weights = {p.untyped_storage().data_ptr() for p in model.parameters()}
        self.held: dict[int, int] = {}
        self.now = self.peak = 0

    @contextmanager
    def watching(self) -> Iterator[None]:
        with torch.autograd.graph.saved_tensors_hooks(lambda tensor: Held(self, tensor), lambda held: held.tensor):
            yield

    def count(self, tensor: torch.Tensor, more: int) -> None:
        storage = tensor.untyped_storage()
        if storage.data_ptr() in self.weights:
            return
        before = self.held.get(storage.data_ptr(), 0)
        self.held[storage.data_ptr()] = before + more
        if before == 0 or before + more == 0:
            self.now += more * storage.nbytes()
            self.peak = max(self.peak, self.now)


class Held:
    """A tensor that is kept for a backward pass, until it is let go."""

    def __init__(self, saved: Saved, tensor: torch.Tensor) -> None:
        self.saved, self.tensor = saved, tensor
        saved.count(tensor, 1)

    def __del__(self) -> None:
        self.saved.count(self.tensor, -1)


def test_four_parts_need_less_than_half_of_the_memory_of_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("thinkimg.training.grpo.loss.LENGTH_BUCKETS", 1)
    world = World()
    trainer = world.trainer(ScriptedAgent(world, max_tokens=16), tmp_path, num_generations=8)
    batch = prepare(trainer, 2)
    whole = int(batch["prompt_mask"].shape[1] + batch["completion_mask"].shape[1]) * 16
    peaks = {}
    for parts in (1, 4):
        trainer.tokens_per_pass = whole // parts
        saved = Saved(trainer.model)
        with saved.watching():
            found = gradients(trainer, batch)
        assert any(grad.any() for grad in found.values())
        peaks[parts] = saved.peak
    trainer.close()
    assert peaks[4] < 0.5 * peaks[1]


class Largest(TorchDispatchMode):
    """Elements of the largest tensor that is made."""

    elements = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        made = func(*args, **(kwargs or {}))
        sizes = [leaf.numel() for leaf in tree_leaves(made) if isinstance(leaf, torch.Tensor)]
        self.elements = max([self.elements, *sizes])
        return made


def wide_world() -> World:
    world = World()
    world.model.resize_token_embeddings(VOCABULARY)
    return world


def test_no_pass_of_rl_makes_the_logits_of_all_tokens(tmp_path: Path) -> None:
    world = wide_world()
    trainer = world.trainer(
        ScriptedAgent(world), tmp_path, num_generations=4, beta=0.1, importance_correction=ImportanceCorrection()
    )
    with Largest() as policy:
        batch = prepare(trainer, 2)  # log-probabilities of when it was sampled, and of the reference
    assert {"old_per_token_logps", "ref_per_token_logps"} <= batch.keys()
    tokens = batch["completion_ids"].numel()
    with Largest() as update:
        gradients(trainer, batch)
    trainer.close()
    assert 0 < policy.elements < tokens * VOCABULARY / 3
    assert 0 < update.elements < tokens * VOCABULARY / 3


def test_nor_does_a_pass_of_sft(tmp_path: Path) -> None:
    world = wide_world()
    before = world.model.get_output_embeddings().weight.detach().clone()
    tokens = world.family.encode_reply("what is the value of the bar " * 10)
    samples = [Sample(tokens, [True] * len(tokens)) for _ in range(4)]
    block = SFT(max_steps=1, batch_size=4, args={"gradient_checkpointing": False, "bf16": False})
    with Largest() as largest:
        train_sft(world.loaded, samples, block, Session(tmp_path))
    assert not torch.equal(before, world.model.get_output_embeddings().weight)
    assert 0 < largest.elements < 4 * len(tokens) * VOCABULARY / 3
