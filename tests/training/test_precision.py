"""A model that was loaded in bfloat16 learns as one in float32 does: its weights are float32 while it is trained,
however many processes share them; what samples and what computes the loss computes in one type."""

import os
import subprocess
import sys
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from peft import get_peft_model

from tests.support import REPOSITORY
from tests.support.training.batches import gradients, prepare
from tests.support.training.scripted_agent import ScriptedAgent, World, answer_length, tasks
from thinkimg.api import GRPO, Lora
from thinkimg.training.adapters import adapted_layers, kept_by_rounding, lora_config, merge_adapters
from thinkimg.training.colocated import merged_parameters
from thinkimg.training.episodes import Episodes
from thinkimg.training.grpo import ToolGRPOTrainer, grpo_config
from thinkimg.training.rewards import BoundReward
from thinkimg.training.session import Session

ONE = ["dapo-float32-0", "dapo-bf16-0", "dapo+lora-float32-0", "dapo+lora-bf16-0", "sft-float32-0", "sft-bf16-0"]
TWO = ["dapo-bf16-1", "dapo-bf16-2", "dapo-bf16-3", "dapo+lora-bf16-3", "sft-bf16-2"]

pytestmark = pytest.mark.timeout(3600)  # eleven trainings in the first test's fixture


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder for each run of `tests.support.training.moving`."""
    folder = tmp_path_factory.mktemp("moving")
    environment = {**os.environ, "DS_ACCELERATOR": "cpu", "CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1"}
    two = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    for launch, names in (([], ONE), (two, TWO)):
        command = [sys.executable, *launch, "-m", "tests.support.training.moving", str(folder), *names]
        done = subprocess.run(command, capture_output=True, text=True, timeout=1700, env=environment, cwd=REPOSITORY)
        assert done.returncode == 0, done.stderr[-4000:]
    return folder


def update(folder: Path) -> dict[str, torch.Tensor]:
    """How far the optimiser moved each float32 weight."""
    found = torch.load(folder / "masters.pt")
    assert {tensor.dtype for tensor in found["after"].values()} == {torch.float32}
    return {name: after.double() - found["before"][name].double() for name, after in found["after"].items()}


@pytest.mark.parametrize("run", [name for name in (*ONE, *TWO) if "bf16" in name])
def test_weights_loaded_in_bfloat16_move_as_in_float32(run: str, runs: Path) -> None:
    expected, found = update(runs / f"{run.partition('-')[0]}-float32-0"), update(runs / run)
    one = torch.cat([expected[name].flatten() for name in expected])
    other = torch.cat([found[name].flatten() for name in expected])
    assert float(one.norm()) > 0
    assert float(one @ other / one.norm() / other.norm()) >= 0.9
    assert float(other.norm() / one.norm()) == pytest.approx(1, abs=0.05)
    assert float((other[one != 0] != 0).double().mean()) >= 0.99


@pytest.mark.parametrize("run", ["dapo-bf16-3", "sft-bf16-2"])
def test_after_zero_the_model_is_its_masters_rounded_once(run: str, runs: Path) -> None:
    left = torch.load(runs / run / "masters.pt")
    for name, master in left["after"].items():
        assert torch.equal(left["model"][name], master.to(torch.bfloat16)), name


# ---- one type to compute in ------------------------------------------------------------------------------------------


def bfloat16_trainer(folder: Path, world: World, **block: Any) -> ToolGRPOTrainer:
    world.model.to(torch.bfloat16)
    args = {"bf16": True, "lr_scheduler_type": "constant", **block.pop("args", {})}
    given: dict[str, Any] = {"max_steps": 20, "prompts_per_step": 2, "num_generations": 2, "loss_type": "grpo"} | block
    spec = GRPO(**given, args=args)
    episodes = Episodes(ScriptedAgent(world), tasks(4), [BoundReward("length", answer_length)])
    return ToolGRPOTrainer(world.loaded, episodes, spec, grpo_config(spec, Session(folder)))


@pytest.mark.parametrize("lora", [None, Lora(rank=4, alpha=8.0)])
def test_sampled_and_recomputed_log_probabilities_stay_together_while_weights_move(
    lora: Lora | None, tmp_path: Path
) -> None:
    """A stale cast would show: at this rate the weights of step 20 are far from those of step 1."""
    trainer = bfloat16_trainer(tmp_path, World(), lora=lora, learning_rate=1e-3)
    apart: list[float] = []
    generate = trainer._generate_and_score_completions

    def watched(inputs: list[dict[str, Any]]) -> dict[str, Any]:
        batch = generate(inputs)
        apart.append(mean_difference(trainer, batch))
        return batch

    trainer._generate_and_score_completions = watched  # type: ignore[method-assign]
    before = {name: p.detach().clone() for name, p in trainer.model.named_parameters() if p.requires_grad}
    trainer.train()
    trainer.close()
    after = {name: p.detach() for name, p in trainer.model.named_parameters()}
    moved = max(float((after[name] - before[name]).abs().max()) for name in before)
    assert moved > 5e-3
    assert len(apart) == 20
    assert max(apart[0], apart[-1]) <= 0.02, apart


def mean_difference(trainer: ToolGRPOTrainer, batch: dict[str, Any]) -> float:
    """Between the log-probabilities of the model's own tokens as sampled and as the loss computes them, in nats."""
    ids = torch.cat([batch["prompt_ids"], batch["completion_ids"]], 1)
    mask = torch.cat([batch["prompt_mask"], batch["completion_mask"]], 1)
    width = batch["completion_ids"].shape[1]
    pictures = {name: batch[name] for name in ("pixel_values", "image_grid_thw", "num_images", "mm_token_type_ids")}
    with torch.no_grad():
        computed, _, _ = trainer._get_per_token_logps_and_entropies(trainer.model, ids, mask, width, **pictures)
    found = []
    for row, again in zip(trainer.rows, computed.float(), strict=True):
        own = torch.tensor(row.mask, dtype=torch.bool)
        found.append((torch.tensor(row.logprobs) - again[: len(row.mask)])[own].abs())
    return float(torch.cat(found).mean())


@pytest.mark.parametrize("lora", [None, Lora(rank=4, alpha=8.0)])
def test_gradient_checkpointing_changes_no_gradient(lora: Lora | None, tmp_path: Path) -> None:
    found = []
    for checkpointing in (False, True):
        torch.manual_seed(0)
        trainer = bfloat16_trainer(tmp_path, World(), lora=lora, args={"gradient_checkpointing": checkpointing})
        trainer.model.train()
        trainer.create_optimizer()
        trainer.model = trainer.accelerator.prepare_model(trainer.model)
        found.append(gradients(trainer, prepare(trainer, 2)))
        trainer.close()
    plain, checkpointed = found
    assert plain.keys() == checkpointed.keys()
    assert all(torch.allclose(plain[name], checkpointed[name], rtol=1e-3, atol=1e-6) for name in plain)
    assert any(float(gradient.abs().sum()) for gradient in plain.values())
    assert {gradient.dtype for gradient in plain.values()} == {torch.float32}


@pytest.mark.parametrize(("lora", "runs"), [(Lora(rank=4), 1), (None, 2), (Lora(rank=4, target_modules=["qkv"]), 2)])
def test_a_frozen_vision_tower_runs_once_per_pass_and_has_no_graph(
    lora: Lora | None, runs: int, tmp_path: Path
) -> None:
    """Checkpointing computes a tower that learns a second time in the backward pass."""
    trainer = bfloat16_trainer(tmp_path, World(), lora=lora, args={"gradient_checkpointing": True})
    trainer.model.train()
    trainer.model.gradient_checkpointing_enable()  # as transformers does when the training begins
    trainer.create_optimizer()
    batch = prepare(trainer, 2)
    tower = trainer.accelerator.unwrap_model(trainer.model).get_encoder("image")
    passes: list[bool] = []
    blocks: list[None] = []
    tower.register_forward_hook(lambda module, given, out: passes.append(out.pooler_output.requires_grad))
    tower.blocks[0].register_forward_pre_hook(lambda *_: blocks.append(None))
    found = gradients(trainer, batch)
    trainer.close()
    assert set(passes) == {runs == 2}
    assert len(blocks) == len(passes) * runs
    assert any(float(gradient.abs().sum()) for gradient in found.values())


def test_a_frozen_base_stays_bfloat16_below_float32_adapters(tmp_path: Path) -> None:
    world = World()
    trainer = bfloat16_trainer(tmp_path, world, lora=Lora(rank=4))
    types = {(p.requires_grad, p.dtype) for p in trainer.model.parameters()}
    trainer.close()
    assert types == {(False, torch.bfloat16), (True, torch.float32)}


# ---- what becomes of the masters -------------------------------------------------------------------------------------


def adapted(change: float) -> Any:
    """The tiny model in bfloat16 with adapters that have learnt a change of about this size."""
    model = World().model.to(torch.bfloat16)
    config = lora_config(model, Lora(rank=4, alpha=4.0))
    assert config is not None
    with_adapters = get_peft_model(model, config)
    torch.manual_seed(0)
    for layer in adapted_layers(with_adapters):
        torch.nn.init.normal_(layer.lora_B["default"].weight, std=change)
    return with_adapters


def test_merging_rounds_once_and_says_when_little_is_left(caplog: pytest.LogCaptureFixture) -> None:
    large, small = adapted(0.1), adapted(1e-6)
    assert kept_by_rounding(large) > 0.98
    assert kept_by_rounding(small) < 0.5
    merge_adapters(large)
    assert not caplog.records
    merge_adapters(small)
    assert "of what the adapters learned" in caplog.text


def test_the_engine_gets_merged_weights_and_the_base_stays_as_it_is() -> None:
    model = adapted(0.1)
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    within = SimpleNamespace(gather_params=lambda parameters: nullcontext())
    generation = SimpleNamespace(model=model, _dist=within, _fix_param_name_to_vllm=lambda name: name)
    given = {name: tensor.clone() for name, tensor in merged_parameters(generation)}
    assert all(torch.equal(p, before[name]) for name, p in model.named_parameters())
    merge_adapters(model)
    merged = dict(model.get_base_model().named_parameters())
    assert given.keys() == merged.keys()
    assert all(torch.equal(given[name], merged[name]) for name in merged)


def test_a_model_is_saved_as_it_was_loaded(tmp_path: Path) -> None:
    from transformers import AutoModelForImageTextToText

    world = World()
    world.model.to(torch.bfloat16)
    loaded = world.loaded
    world.model.to(torch.float32)
    with torch.no_grad():
        for parameter in world.model.parameters():
            parameter.add_(1e-3)
    expected = {name: p.detach().to(torch.bfloat16) for name, p in world.model.named_parameters()}
    loaded.save(tmp_path)
    again = AutoModelForImageTextToText.from_pretrained(tmp_path)
    assert {p.dtype for p in again.parameters()} == {torch.bfloat16}
    assert all(torch.equal(p, expected[name]) for name, p in again.named_parameters())
