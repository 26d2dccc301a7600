"""SFT of the tiny model through TRL's trainer: it learns, it stops in time, and refuses what cannot work."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.support.training.scripted_agent import World
from tests.support.training.sft import samples_of, train
from thinkimg.api import SFT, Lora
from thinkimg.errors import UserError
from thinkimg.training.checkpoints import CheckpointCallback
from thinkimg.training.collator import Collator, Sample
from thinkimg.training.session import Session
from thinkimg.training.sft import TokenCount, train_sft


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


def loss_of(world: World, samples: list[Sample]) -> float:
    world.model.eval()
    with torch.no_grad():
        return float(world.model(**Collator(world.family, world.features, 0)(samples)).loss)


def test_a_few_steps_lower_the_loss_and_each_is_logged(tmp_path: Path) -> None:
    world = World()
    samples = samples_of(world)
    before = loss_of(world, samples)
    mean = train(world, samples, tmp_path, max_steps=20, args={"logging_steps": 5})
    after = loss_of(world, samples)
    assert after < before / 2
    assert after < mean < before
    lines = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [5, 10, 15, 20]
    assert {line["total_steps"] for line in lines} == {20}
    assert lines[-1]["loss"] < lines[0]["loss"]
    assert lines[0]["seconds"] < lines[-1]["seconds"]


def test_only_the_models_own_tokens_are_learned(tmp_path: Path) -> None:
    """The loss that TRL's trainer takes is the one of the collator's labels: the first step's equals ours."""
    world = World()
    samples = samples_of(world, 4)
    before = loss_of(world, samples)
    first = train(world, samples, tmp_path, max_steps=1, args={"logging_steps": 1})
    assert first == pytest.approx(before, rel=1e-3)


def test_the_same_seed_gives_the_same_model_and_another_does_not(tmp_path: Path) -> None:
    def weights(name: str, seed: int) -> torch.Tensor:
        world = World()
        (tmp_path / name).mkdir()
        train(world, samples_of(world), tmp_path / name, max_steps=3, seed=seed)
        return torch.cat([parameter.detach().flatten() for parameter in world.model.parameters()])

    first = weights("a", 1)
    assert torch.equal(first, weights("b", 1))
    assert not torch.equal(first, weights("c", 2))


def test_training_stops_when_its_time_is_over(tmp_path: Path) -> None:
    world = World()
    samples = samples_of(world)
    train(world, samples, tmp_path, max_seconds=8.0, args={"logging_steps": 1})
    seconds = [json.loads(line)["seconds"] for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert len(seconds) > 2
    assert seconds[-3] < 8.0, "no step began after its time (a step's line is written after it was decided to go on)"
    assert seconds[-1] > 7.9


def test_training_stops_at_the_first_step_that_has_enough_tokens(tmp_path: Path) -> None:
    world = World()
    samples = samples_of(world)  # 8 of them, 4 a step
    tokens = sum(len(sample.tokens) for sample in samples)
    counted = TokenCount(limit=2 * tokens)
    spec = SFT(batch_size=4, max_tokens={"fromStage": "rl"}, args={"bf16": False, "logging_steps": 1})
    train_sft(world.loaded, samples, spec, Session(tmp_path, callbacks=[counted]))
    assert counted.trained == 2 * tokens, "every sample twice, padding not counted"
    assert len((tmp_path / "log.jsonl").read_text().splitlines()) == 4


@pytest.mark.parametrize(("settings", "steps"), [({"epochs": 2.0}, 4), ({"max_steps": 3}, 3), ({}, 2)])
def test_epochs_or_steps_end_it(tmp_path: Path, settings: dict[str, Any], steps: int) -> None:
    world = World()
    train(world, samples_of(world), tmp_path, **settings, args={"logging_steps": 1})
    assert len((tmp_path / "log.jsonl").read_text().splitlines()) == steps


def weights_of(world: World) -> dict[str, torch.Tensor]:
    return {name: parameter.detach().clone() for name, parameter in world.model.named_parameters()}


def test_adapters_are_trained_and_merged_into_a_plain_model(tmp_path: Path) -> None:
    world = World()
    samples = samples_of(world)
    before, loss = weights_of(world), loss_of(world, samples)
    lora = Lora(rank=4, alpha=16.0, target_modules=["q_proj", "down_proj"])
    train(world, samples, tmp_path, max_steps=20, lora=lora)
    after = weights_of(world)
    assert after.keys() == before.keys()
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert {name.split(".")[-2] for name in changed} == {"q_proj", "down_proj"}
    assert all("language_model" in name for name in changed)
    for name in changed:  # of the rank that was asked for
        assert int(torch.linalg.matrix_rank(after[name] - before[name], rtol=1e-3)) <= 4
    assert loss_of(world, samples) < loss


def test_by_default_every_linear_layer_of_the_language_model_gets_adapters(tmp_path: Path) -> None:
    world = World()
    samples, before = samples_of(world), weights_of(world)
    train(world, samples, tmp_path, max_steps=2, lora=Lora())
    after = weights_of(world)
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    linear = {f"{name}.weight" for name, module in world.model.named_modules() if type(module) is torch.nn.Linear}
    assert changed == {name for name in linear if "language_model" in name}


def test_a_layer_that_is_not_there_is_refused(tmp_path: Path) -> None:
    world = World()
    with pytest.raises(UserError, match=r"no linear layer 'q_prj' that can be adapted .*; there are .*q_proj"):
        train(world, samples_of(world), tmp_path, max_steps=1, lora=Lora(target_modules=["q_prj"]))


def test_grouped_by_length_batches_need_less_padding(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[int] = []
    original = Collator.__call__

    def watched(self: Collator, samples: list[Sample]) -> dict[str, Any]:
        batch = original(self, samples)
        seen.append(int((batch["attention_mask"] == 0).sum()))
        return batch

    monkeypatch.setattr(Collator, "__call__", watched)

    def padding(grouped: bool) -> int:
        world = World()
        long, short = samples_of(world, 20), samples_of(world, 20)
        samples = [one for n in range(20) for one in (long[n], Sample(short[n].tokens[-6:], short[n].mask[-6:]))]
        seen.clear()
        train(world, samples, tmp_path / str(grouped), max_steps=10, length_grouping=grouped)
        return sum(seen)

    assert padding(True) < padding(False) / 2


def test_grouped_by_length_a_resumed_run_sees_what_it_would_have_seen(tmp_path: Path) -> None:
    def weights(folder: Path, steps: int, resume: Path | None = None) -> torch.Tensor:
        world = World()
        samples = [Sample(one.tokens[-6 - n :], one.mask[-6 - n :]) for n, one in enumerate(samples_of(world, 12))]
        block = SFT(
            learning_rate=1e-2, batch_size=4, max_steps=5, length_grouping=True,
            args={"bf16": False, "gradient_checkpointing": False, "lr_scheduler_type": "constant"},
        )  # fmt: skip
        looked = iter(range(1, 6))
        ending = CheckpointCallback(keep=9, asked=lambda: next(looked) == steps < 5)
        session = Session(folder, save_every=2, resume_from=resume, callbacks=[ending])
        train_sft(world.loaded, samples, block, session)
        return torch.cat([parameter.detach().flatten() for parameter in world.model.parameters()])

    whole = weights(tmp_path / "whole", 5)
    weights(tmp_path / "cut", 2)  # within the first epoch of three steps
    assert torch.equal(weights(tmp_path / "cut", 5, tmp_path / "cut" / "checkpoint-2"), whole)


def test_without_samples_there_is_nothing_to_train_on(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="nothing to train on"):
        train(World(), [], tmp_path, max_steps=1)


def test_a_batch_that_the_processes_cannot_share_is_refused(tmp_path: Path) -> None:
    world = World()
    with pytest.raises(UserError, match=r"sft\.batchSize: batchSize 4 is not a multiple of the 3 processes"):
        train(world, samples_of(world), tmp_path, max_steps=1, world_size=3)
