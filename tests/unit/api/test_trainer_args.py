"""`args` of training stages: what passes on to TRL, what is refused, and that our list is TRL's."""

from __future__ import annotations

import runpy
from pathlib import Path
from typing import Any

import pytest

from tests.support.api.manifest_examples import JOB, changed, refusals, setting
from thinkimg.api.v1alpha1 import parse_manifest
from thinkimg.api.v1alpha1.trainer_args import OWNED, known_args

ROOT = Path(__file__).parents[3]
TRL = known_args()["trl"]


def test_known_arguments_pass_unchanged() -> None:
    args = {"warmup_steps": 5, "weight_decay": 0, "bf16": True, "optim": "adamw_torch", "lr_scheduler_kwargs": {"a": 1}}
    job = parse_manifest(changed(JOB, setting("spec.stages.1.sft.args", args))).job()
    assert job.spec.stage("sft").sft is not None
    assert job.spec.stages[1].sft.args == args  # type: ignore[union-attr]


SFT = "spec.stages[1].sft.args"
GRPO = "spec.stages[2].grpo.args"
REFUSED: list[tuple[str, str, Any, str]] = [
    (
        "sft",
        "warmup_step",
        1,
        f'{SFT}.warmup_step: "warmup_step" is not an argument of SFTConfig in TRL {TRL}. Did you mean',
    ),
    (
        "sft",
        "warmupSteps",
        1,
        f'{SFT}.warmupSteps: "warmupSteps" is not an argument of SFTConfig in TRL {TRL}. Did you mean',
    ),
    ("sft", "epsilon_high", 1, f'{SFT}.epsilon_high: "epsilon_high" is not an argument of SFTConfig'),
    (
        "sft",
        "qqqqqqq",
        1,
        f'{SFT}.qqqqqqq: "qqqqqqq" is not an argument of SFTConfig in TRL {TRL}. TRL\'s documentation',
    ),
    ("sft", "warmup_steps", "many", f"{SFT}.warmup_steps: expected float, got 'many'."),
    ("sft", "dataloader_num_workers", 1.5, f"{SFT}.dataloader_num_workers: expected int, got 1.5."),
    ("sft", "dataloader_num_workers", True, f"{SFT}.dataloader_num_workers: expected int, got True."),
    ("sft", "bf16", "yes", f"{SFT}.bf16: expected bool or null, got 'yes'."),
    ("sft", "output_dir", "x", f'{SFT}.output_dir: "output_dir" is set by ThinkIMG itself. Remove it: ThinkIMG writes'),
    ("sft", "report_to", "wandb", f'{SFT}.report_to: "report_to" is set by ThinkIMG itself. Use spec.reportTo.'),
    ("sft", "max_steps", 3, f'{SFT}.max_steps: "max_steps" is set by ThinkIMG itself. Use maxSteps of the stage.'),
    ("sft", "save_steps", 3, f'{SFT}.save_steps: "save_steps" is set by ThinkIMG itself. Use spec.checkpoint.'),
    (
        "sft",
        "max_length",
        3,
        f'{SFT}.max_length: "max_length" is set by ThinkIMG itself. Remove it: a trajectory is never',
    ),
    (
        "grpo",
        "num_generations",
        3,
        f'{GRPO}.num_generations: "num_generations" is set by ThinkIMG itself. Use grpo.numG',
    ),
    ("grpo", "use_vllm", True, f'{GRPO}.use_vllm: "use_vllm" is set by ThinkIMG itself. Remove it: ThinkIMG chooses'),
    ("grpo", "beta", 0.1, f'{GRPO}.beta: "beta" is set by ThinkIMG itself. Use grpo.beta.'),
    ("grpo", "mask_truncated_completions", True, f"{GRPO}.mask_truncated_completions: "),
    ("grpo", "packing", True, f'{GRPO}.packing: "packing" is not an argument of GRPOConfig'),
]


@pytest.mark.parametrize(("block", "name", "value", "said"), REFUSED, ids=[f"{c[0]} {c[1]}={c[2]}" for c in REFUSED])
def test_an_argument_is_refused(block: str, name: str, value: Any, said: str) -> None:
    index = {"sft": 1, "grpo": 2}[block]
    (refusal,) = refusals(changed(JOB, setting(f"spec.stages.{index}.{block}.args", {name: value})))
    assert refusal.startswith(said)


def test_the_share_of_a_process_follows_from_the_stage() -> None:
    changes = [
        setting("spec.stages.1.nodes", 2),
        setting("spec.stages.2.grpo.args", {"gradient_accumulation_steps": 8}),
    ]
    sft, grpo = (parse_manifest(changed(JOB, *changes)).job().spec.stage(name) for name in ("sft", "rl"))
    assert sft.sft is not None
    assert grpo.grpo is not None
    assert sft.sft.rows_per_pass(sft.world_size) == 2
    assert grpo.grpo.rows_per_pass(grpo.world_size) == 4
    other = parse_manifest(changed(JOB, setting("spec.stages.2.grpo.microBatch", 4))).job().spec.stage("rl").grpo
    assert other is not None
    assert other.rows_per_pass(1) == 4


@pytest.mark.parametrize("trainer", ["sft", "grpo"])
def test_what_we_own_exists_in_trl(trainer: str) -> None:
    everywhere = known_args()["sft"] | known_args()["grpo"]
    assert [name for name in OWNED[trainer] if name not in everywhere] == []


def test_our_list_is_that_of_the_installed_trl() -> None:
    pytest.importorskip("trl")
    generator = runpy.run_path(str(ROOT / "hack" / "generate_trainer_args.py"))
    assert generator["TARGET"].read_text() == generator["generate"](), "run: python hack/generate_trainer_args.py"
