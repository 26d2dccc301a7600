"""What only a GPU can show, in one file and at most eight minutes: random weights, no network, one JSON object.

    make gpu-check                              # on a machine with a GPU; exits with 2 where there is none
    python -m tests.gpu.gpu_check [--only NAME]

Each check runs in a process of its own with a time limit; one that fails or is too slow is reported as such and the
others go on. Exit code 0: all passed; 1: one did not; 2: there is no GPU, nothing was checked.
"""

import argparse
import asyncio
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

TOTAL_SECONDS = 480.0


# ---- the model ------------------------------------------------------------------------------------------------------


def save_model(folder: Path, dtype: torch.dtype = torch.bfloat16) -> tuple[Any, Any]:
    """A Qwen3-VL of about 0.4 billion random parameters, on the GPU, saved to `folder`: model and processor."""
    from transformers import Qwen3VLConfig, Qwen3VLForConditionalGeneration

    from tests.support.engine.talkers import WORDS
    from thinkimg.models import tiny

    tokenizer = tiny.build_tokenizer(WORDS)
    processor = tiny.build_processor(tokenizer)
    token = tokenizer.convert_tokens_to_ids
    text = {
        "vocab_size": 4096, "hidden_size": 1024, "intermediate_size": 3072, "num_hidden_layers": 24,
        "num_attention_heads": 16, "num_key_value_heads": 8, "head_dim": 128, "max_position_embeddings": 8192,
        "rope_parameters": {"rope_type": "default", "mrope_section": [24, 20, 20], "mrope_interleaved": True,
                            "rope_theta": 1e6},
        "tie_word_embeddings": True, "eos_token_id": token("<|im_end|>"), "pad_token_id": token("<|endoftext|>"),
        "bos_token_id": None,
    }  # fmt: skip
    vision = {
        "depth": 8, "hidden_size": 512, "intermediate_size": 1024, "num_heads": 8, "out_hidden_size": 1024,
        "patch_size": tiny.PATCH, "spatial_merge_size": 2, "temporal_patch_size": 2, "num_position_embeddings": 64,
        "deepstack_visual_indexes": [2, 4, 6],
    }  # fmt: skip
    config = Qwen3VLConfig(
        text_config=text, vision_config=vision, image_token_id=token("<|image_pad|>"),
        video_token_id=token("<|video_pad|>"), vision_start_token_id=token("<|vision_start|>"),
        vision_end_token_id=token("<|vision_end|>"), tie_word_embeddings=True,
    )  # fmt: skip
    torch.manual_seed(0)
    model = Qwen3VLForConditionalGeneration(config).to(dtype)
    tiny.save(folder, model, processor)
    model.name_or_path = str(folder)
    return model.to("cuda"), processor


def trainer_on_vllm(folder: Path, model: Any, processor: Any, turns: int = 3, **options: Any) -> Any:
    """Our GRPO trainer with the engine in its process, asleep while it trains; 16 tasks of 8 generations."""

    from tests.support.engine.talkers import Talker, loaded, task
    from thinkimg.api import GRPO
    from thinkimg.models.vllm.generator import VLLMGenerator
    from thinkimg.training.episodes import Episodes
    from thinkimg.training.grpo import ToolGRPOTrainer, grpo_config
    from thinkimg.training.rewards import BoundReward
    from thinkimg.training.session import Session

    whole = loaded(model, processor)
    generator = VLLMGenerator(whole.family)
    engine = {"use_vllm": True, "vllm_enable_sleep_mode": True, "vllm_gpu_memory_utilization": 0.4,
              "vllm_max_model_length": 4096}  # fmt: skip
    args = {"bf16": True} | options.pop("trl", {})
    spec = GRPO(max_steps=2, prompts_per_step=16, num_generations=8, micro_batch=16, learning_rate=1e-5, args=args)
    reward = BoundReward("length", lambda trajectory: float(len(trajectory.answer or "")))
    talker = Talker(whole.family, generator, turns=turns, tokens=64)
    episodes = Episodes(talker, [task(n) for n in range(32)], [reward], vllm=generator)
    return ToolGRPOTrainer(whole, episodes, spec, grpo_config(spec, Session(folder / "out", engine=engine)), **options)


# ---- the checks -----------------------------------------------------------------------------------------------------


def colocated_engine(folder: Path) -> dict[str, Any]:
    """vLLM in the trainer's process with sleep mode: two steps of GRPO, memory awake and asleep, completions per
    second, and how far the engine's bfloat16 log-probabilities are from the trainer's."""
    from thinkimg.training.step_log import StepRecord

    model, processor = save_model(folder / "model")
    trainer = trainer_on_vllm(folder, model, processor)
    free: dict[str, float] = {}
    awake = trainer.colocated._wake

    def measured(step: int) -> None:
        free["asleep"] = torch.cuda.mem_get_info()[0] / 2**30
        awake(step)
        free["awake"] = torch.cuda.mem_get_info()[0] / 2**30

    trainer.colocated._wake = measured
    trainer.train()
    trainer.model.train()
    began = time.perf_counter()
    inputs = [trainer.train_dataset[n // 8] for n in range(128)]
    with trainer.colocated.awake(trainer.state.global_step):
        began = time.perf_counter()
        tasks = [trainer.tasks[row["task"]] for row in inputs[::8]]
        trainer.groups = trainer.rollouts.train(tasks, 8, trainer.state.global_step, StepRecord())
        seconds = time.perf_counter() - began
    batch = super(type(trainer), trainer)._generate_and_score_completions(
        [{"prompt": group.task.question, "task": 0} for group in trainer.groups for _ in group.rows]
    )
    difference = []
    for row, logps in zip(trainer.rows, batch["old_per_token_logps"].float().cpu(), strict=True):
        own = torch.tensor(row.mask, dtype=torch.bool)
        difference.append((torch.tensor(row.logprobs) - logps[: len(row.mask)])[own].abs())
    found = torch.cat(difference)
    trainer.close()
    turns = sum(turn.role == "assistant" for group in trainer.groups for t in group.trajectories for turn in t.turns)
    result = {
        "completions_per_second": round(turns / seconds, 1),
        "tokens_per_second": round(len(found) / seconds),
        "free_gib_awake": round(free["awake"], 2),
        "free_gib_asleep": round(free["asleep"], 2),
        "bf16_logprob_difference_mean": float(found.mean()),
        "bf16_logprob_difference_p999": float(found.quantile(0.999)),
        "masked": sum(row.masked is not None for row in trainer.rows),
    }
    ok = result["masked"] == 0 and free["asleep"] > free["awake"] + 1 and float(found.mean()) < 0.05
    return result | {"ok": ok}


def zero3_lora(folder: Path) -> dict[str, Any]:
    """DeepSpeed ZeRO-3 with LoRA and the engine in the same process: one process, two steps; only adapters move."""
    try:
        import deepspeed  # noqa: F401
    except ImportError:
        return {"ok": False, "reason": "deepspeed is not installed"}
    from peft import LoraConfig

    os.environ |= {"RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "1", "MASTER_ADDR": "127.0.0.1"}
    os.environ.setdefault("MASTER_PORT", "29577")
    zero = {
        "zero_optimization": {"stage": 3, "stage3_gather_16bit_weights_on_model_save": True},
        "bf16": {"enabled": True},
        "train_micro_batch_size_per_gpu": "auto",
        "gradient_accumulation_steps": "auto",
        "gradient_clipping": "auto",
    }
    model, processor = save_model(folder / "model")
    lora = LoraConfig(r=8, target_modules=["q_proj", "v_proj"], task_type="CAUSAL_LM")
    trainer = trainer_on_vllm(folder, model, processor, peft_config=lora, trl={"deepspeed": zero})
    trainer.train()
    losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    kind = str(trainer.accelerator.distributed_type)
    partitioned = all(hasattr(weight, "ds_id") for weight in trainer.model.parameters())
    trainer.close()
    finite = bool(losses) and all(loss == loss for loss in losses)
    return {"ok": finite and partitioned, "losses": losses, "type": kind, "partitioned": partitioned}


def flash_attention(folder: Path) -> dict[str, Any]:
    """One forward and backward pass with the flash kernel alone allowed, in bfloat16, against plain float32."""
    from torch.nn.attention import SDPBackend, sdpa_kernel

    model, _ = save_model(folder / "model", torch.float32)
    ids = torch.randint(20, 300, (8, 2048), device="cuda")
    inputs = {"input_ids": ids, "labels": ids, "mm_token_type_ids": torch.zeros_like(ids, dtype=torch.int32)}

    def step(backend: Any) -> tuple[float, float]:
        model.zero_grad()
        torch.cuda.synchronize()
        began = time.perf_counter()
        with sdpa_kernel(backend):
            loss = model(**inputs).loss
            loss.backward()
        torch.cuda.synchronize()
        return float(loss), time.perf_counter() - began

    plain, _ = step(SDPBackend.MATH)
    model.to(torch.bfloat16)
    step(SDPBackend.FLASH_ATTENTION)
    flash, seconds = step(SDPBackend.FLASH_ATTENTION)
    _, slow = step(SDPBackend.MATH)
    return {
        "ok": abs(flash - plain) < 0.05 * abs(plain),
        "loss_float32_math": plain,
        "loss_bfloat16_flash": flash,
        "tokens_per_second_flash": round(ids.numel() / seconds),
        "tokens_per_second_math": round(ids.numel() / slow),
    }


def tool_batching(folder: Path) -> dict[str, Any]:
    """A tool server with SAM 2.1 (hiera-small's size, random weights) on the GPU: 64 calls at once on 64 pictures, in
    batches of one and of eight."""
    from transformers import (
        Sam2Config,
        Sam2HieraDetConfig,
        Sam2ImageProcessor,
        Sam2Model,
        Sam2Processor,
        Sam2VisionConfig,
    )

    backbone = Sam2HieraDetConfig(
        blocks_per_stage=[1, 2, 11, 2], global_attention_blocks=[7, 10, 13],
        window_positional_embedding_background_size=[7, 7],
    )  # fmt: skip
    Sam2Model(Sam2Config(vision_config=Sam2VisionConfig(backbone_config=backbone))).save_pretrained(folder / "sam2")
    Sam2Processor(Sam2ImageProcessor()).save_pretrained(folder / "sam2")
    rates = {size: asyncio.run(_calls_per_second(folder, size)) for size in (1, 8)}
    return {
        "ok": rates[8] > rates[1],
        "calls_per_second_unbatched": round(rates[1], 1),
        "calls_per_second_batches_of_8": round(rates[8], 1),
    }


async def _calls_per_second(folder: Path, batch: int) -> float:
    from tests.support.engine.talkers import picture
    from thinkimg.client import ToolClient
    from thinkimg.serving.config import ServerConfig
    from thinkimg.serving.supervisor import ServerSpec, Supervisor

    entry = {
        "name": "SAM",
        "backend": "transformers",
        "options": {"weights": str(folder / "sam2"), "device": "cuda"},
        "batching": {"max_size": batch, "max_wait_ms": 5},
    }
    spec = ServerSpec("sam", ServerConfig.model_validate({"tools": [entry]}))
    pictures = [picture(n, 640 + n, 480) for n in range(72)]
    with Supervisor([spec], folder / f"server-{batch}") as servers:
        async with ToolClient(servers.endpoints, timeout_seconds=120) as client:

            async def call(some: list[Any]) -> None:
                point = {"image": "img_1", "points": [[50.0, 50.0]]}
                await asyncio.gather(*(client.call("SAM", point, {"img_1": image}) for image in some))

            await call(pictures[:8])
            began = time.perf_counter()
            await call(pictures[8:])
            return 64 / (time.perf_counter() - began)


CHECKS: dict[str, tuple[Callable[[Path], dict[str, Any]], float]] = {
    "colocated_engine": (colocated_engine, 180),
    "zero3_lora": (zero3_lora, 180),
    "flash_attention": (flash_attention, 60),
    "tool_batching": (tool_batching, 60),
}
"""Each with its most seconds."""


# ---- running them ---------------------------------------------------------------------------------------------------


def in_a_process(name: str, seconds: float) -> dict[str, Any]:
    began = time.monotonic()
    command = [sys.executable, "-m", "tests.gpu.gpu_check", "--only", name]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=seconds)
        found = json.loads(done.stdout.strip().splitlines()[-1]) if done.returncode in (0, 1) and done.stdout else None
        result = found or {"ok": False, "reason": f"exit code {done.returncode}", "stderr": done.stderr[-2000:]}
    except (subprocess.TimeoutExpired, ValueError) as error:
        result = {"ok": False, "reason": str(error)[:500]}
    return {"seconds": round(time.monotonic() - began, 1), **result}


def here() -> dict[str, Any]:
    """What the figures belong to."""
    from importlib.metadata import PackageNotFoundError, version

    versions = {}
    for package in ("torch", "transformers", "trl", "vllm", "deepspeed", "peft"):
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            versions[package] = None
    properties = torch.cuda.get_device_properties(0)
    return {
        "gpu": properties.name,
        "gpus": torch.cuda.device_count(),
        "memory_gib": round(properties.total_memory / 2**30, 1),
        "cuda": torch.version.cuda,
        "versions": versions,
    }


def main() -> int:
    parser = argparse.ArgumentParser(description="What only a GPU can show.")
    parser.add_argument("--only", choices=CHECKS, help="one check, in this process")
    options = parser.parse_args()
    if not torch.cuda.is_available():
        print("gpu-check: torch sees no GPU here, so nothing was checked", file=sys.stderr)
        return 2
    if options.only:
        check, _ = CHECKS[options.only]
        with tempfile.TemporaryDirectory() as folder:
            result = check(Path(folder))
        print(json.dumps(result))
        return 0 if result["ok"] else 1
    began = time.monotonic()
    checks = {}
    for name, (_, seconds) in CHECKS.items():
        left = TOTAL_SECONDS - (time.monotonic() - began)
        checks[name] = in_a_process(name, min(seconds, left)) if left > 5 else {"ok": False, "reason": "no time left"}
        print(f"{name}: {'ok' if checks[name]['ok'] else 'NOT OK'}", file=sys.stderr)
    ok = all(check["ok"] for check in checks.values())
    print(json.dumps({"ok": ok, "seconds": round(time.monotonic() - began, 1), **here(), "checks": checks}, indent=1))
    return 0 if ok else 1


if __name__ == "__main__":
    sys.exit(main())
