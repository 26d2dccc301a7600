"""The checks: random weights, no network, each in a process of its own. A check gets an empty folder and a size of
model, and gives figures with `ok` among them."""

import asyncio
import json
import os
import resource
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import torch

from tests.support.gpu.models import written_and_loaded
from tests.support.gpu.tiers import Check
from thinkimg.models.generator import GenerationRequest

BATCH = {"tiny": 4, "small": 64, "2b": 32}
"""Requests or rollouts at once."""
MINUTES_OF_A_REHEARSAL = 30


def gpu() -> bool:
    return torch.cuda.is_available()


# ---- with torch and transformers alone ------------------------------------------------------------------------------


def rollouts(folder: Path, size: str) -> dict[str, Any]:
    """Generation in this process, in the type that is the default here: tokens per second, and how far recorded
    log-probabilities are from those of one pass over the whole sequence."""
    from tests.support.engine.talkers import picture

    whole = written_and_loaded(folder / "model", size)
    family, generator = whole.family, whole.chat.generator
    image = picture(1, 640, 480)
    prompt = [
        *family.encode_reply("what is the value of the bar"),
        *[family.image_token_id] * family.image_tokens(image),
    ]
    new = 16 if size == "tiny" else 128
    requests = [GenerationRequest(prompt, [image], new, 1.0, seed) for seed in range(BATCH[size])]
    generator.generate_batch(requests[:1])
    began = time.perf_counter()
    made = generator.generate_batch(requests)
    seconds = time.perf_counter() - began
    ids = torch.tensor([[*prompt, *made[0].tokens]], device=whole.model.device)
    features = {name: tensor.to(ids.device) for name, tensor in whole.features([image]).items()}
    whole.model.eval()
    with torch.no_grad():
        logits = whole.model(input_ids=ids, **family.model_inputs(ids), **features).logits[0].float()
    logits[:, list(family.suppressed_ids)] = -torch.inf
    again = torch.log_softmax(logits[len(prompt) - 1 : -1], -1).gather(1, ids[0, len(prompt) :, None])[:, 0].cpu()
    difference = (again - torch.tensor(made[0].logprobs)).abs()
    bound = 1e-4 if whole.model.dtype == torch.float32 else 0.05
    return {
        "ok": float(difference.mean()) < bound,
        "dtype": str(whole.model.dtype).removeprefix("torch."),
        "tokens_per_second": round(sum(len(one.tokens) for one in made) / seconds, 1),
        "logprob_difference_mean": float(difference.mean()),
        "logprob_difference_largest": float(difference.max()),
    }


def flash_attention(folder: Path, size: str) -> dict[str, Any]:
    """One forward and backward pass with the flash kernel alone allowed, in bfloat16, against plain float32."""
    from torch.nn.attention import SDPBackend, sdpa_kernel

    model = written_and_loaded(folder / "model", size, dtype=torch.float32).model
    rows = 2 if size == "2b" else 8
    ids = torch.randint(20, 300, (rows, 2048), device=model.device)
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


# ---- with TRL ------------------------------------------------------------------------------------------------------


def trainer_on(folder: Path, size: str, vllm: bool = False, **options: Any) -> Any:
    """Our GRPO trainer with the manifest's defaults, on three-turn trajectories of anything with a picture per turn;
    rewards are the lengths of the answers. `options`: of the block, and `peft_config`."""
    from tests.support.engine.talkers import Talker, task
    from thinkimg.api import GRPO
    from thinkimg.models.vllm.generator import VLLMGenerator
    from thinkimg.training.episodes import Episodes
    from thinkimg.training.grpo import ToolGRPOTrainer, grpo_config
    from thinkimg.training.rewards import BoundReward
    from thinkimg.training.session import Session

    whole = written_and_loaded(folder / "model", size)
    generator = VLLMGenerator(whole.family) if vllm else whole.chat.generator
    engine = {"use_vllm": True, "vllm_enable_sleep_mode": True, "vllm_gpu_memory_utilization": 0.4,
              "vllm_max_model_length": 4096} if vllm else {}  # fmt: skip
    peft = {"peft_config": options.pop("peft_config")} if "peft_config" in options else {}
    groups = max(2, BATCH[size] // 8)
    block = {"max_steps": 2, "prompts_per_step": groups, "num_generations": 8, "learning_rate": 1e-6, "micro_batch": 8}
    spec = GRPO(**(block | options))
    reward = BoundReward("length", lambda trajectory: float(len(trajectory.answer or "")))
    talker = Talker(whole.family, generator, turns=3, tokens=8 if size == "tiny" else 64)
    tasks = [task(number) for number in range(2 * groups)]
    episodes = Episodes(talker, tasks, [reward], vllm=generator if vllm else None)
    return ToolGRPOTrainer(whole, episodes, spec, grpo_config(spec, Session(folder / "out", engine=engine)), **peft)


def moving_weights(folder: Path, size: str) -> dict[str, Any]:
    """Three steps of RL at the default learning rate, 1e-6, from the model as it is loaded by default: which share of
    the matrices' entries has moved. In bfloat16 alone it would be one in a hundred."""
    trainer = trainer_on(folder, size, max_steps=3)
    before = {name: weight.detach().cpu().clone() for name, weight in _matrices(trainer.model)}
    trainer.train()
    after = dict(_matrices(trainer.model))
    moved = sum(int((after[name].detach().cpu() != weight).sum()) for name, weight in before.items())
    share = moved / sum(weight.numel() for weight in before.values())
    losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    trainer.close()
    dtypes = sorted({str(weight.dtype).removeprefix("torch.") for weight in before.values()})
    return {"ok": share > 0.99, "share_moved": round(share, 5), "dtypes": dtypes, "losses": losses}


def _matrices(model: Any) -> list[tuple[str, Any]]:
    """Of the first and the last text layer."""
    named = [(name, weight) for name, weight in model.named_parameters() if name.endswith("proj.weight")]
    text = [(name, weight) for name, weight in named if "language_model.layers" in name]
    numbers = sorted({int(name.split("language_model.layers.")[1].split(".")[0]) for name, _ in text})
    kept = {f"layers.{number}." for number in (numbers[0], numbers[-1])}
    return [(name, weight) for name, weight in text if any(part in name for part in kept)]


def step_memory(folder: Path, size: str) -> dict[str, Any]:
    """The most memory of a step of RL of all weights: above what loading took, and in all. On a CPU the process's own
    peak."""
    trainer = trainer_on(folder, size, max_steps=1)
    loaded = _allocated_gib()
    if gpu():
        torch.cuda.reset_peak_memory_stats()
    trainer.train()
    peak = torch.cuda.max_memory_allocated() / 2**30 if gpu() else _allocated_gib()
    seconds = [entry.get("rollout/seconds") for entry in trainer.state.log_history if "rollout/seconds" in entry]
    rows = len(trainer.rows)
    trainer.close()
    return {"ok": True, "gib_loaded": round(loaded, 2), "gib_peak": round(peak, 2), "rollouts": rows,
            "seconds_of_rollouts": seconds}  # fmt: skip


def _allocated_gib() -> float:
    if gpu():
        return torch.cuda.memory_allocated() / 2**30
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


def zero3_lora(folder: Path, size: str) -> dict[str, Any]:
    """DeepSpeed ZeRO-3 with LoRA in one process, two steps; only adapters move. vLLM samples where it is installed."""
    from peft import LoraConfig

    from tests.support.gpu.tiers import missing

    os.environ |= {"RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "1", "MASTER_ADDR": "127.0.0.1"}
    os.environ.setdefault("MASTER_PORT", "29577")
    zero = {
        "zero_optimization": {"stage": 3, "stage3_gather_16bit_weights_on_model_save": True},
        "bf16": {"enabled": True},
        "train_micro_batch_size_per_gpu": "auto",
        "gradient_accumulation_steps": "auto",
        "gradient_clipping": "auto",
    }
    lora = LoraConfig(r=8, target_modules=["q_proj", "v_proj"], task_type="CAUSAL_LM")
    trainer = trainer_on(folder, size, vllm=not missing("vllm"), peft_config=lora, args={"deepspeed": zero})
    trainer.train()
    losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    kind = str(trainer.accelerator.distributed_type)
    partitioned = all(hasattr(weight, "ds_id") for weight in trainer.model.parameters())
    trainer.close()
    finite = bool(losses) and all(loss == loss for loss in losses)
    return {"ok": finite and partitioned, "losses": losses, "type": kind, "partitioned": partitioned}


# ---- with an engine -------------------------------------------------------------------------------------------------


def colocated_engine(folder: Path, size: str) -> dict[str, Any]:
    """vLLM in the trainer's process with sleep mode: two steps of GRPO, memory awake and asleep, completions per
    second, and how far the engine's bfloat16 log-probabilities are from the trainer's."""
    from thinkimg.training.step_log import StepRecord

    trainer = trainer_on(folder, size, vllm=True)
    free: dict[str, float] = {}
    awake = trainer.colocated._wake

    def measured(step: int) -> None:
        free["asleep"] = torch.cuda.mem_get_info()[0] / 2**30
        awake(step)
        free["awake"] = torch.cuda.mem_get_info()[0] / 2**30

    trainer.colocated._wake = measured
    trainer.train()
    trainer.model.train()
    tasks = trainer.tasks[: len(trainer.groups)]
    with trainer.colocated.awake(trainer.state.global_step):
        began = time.perf_counter()
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


# ---- tools, and all of it -------------------------------------------------------------------------------------------


def tool_batching(folder: Path, size: str) -> dict[str, Any]:
    """A tool server with SAM 2.1 (hiera-small's size, random weights): 64 calls at once on 64 pictures, in batches of
    one and of eight. On a CPU two calls, and batches need not be faster."""
    from transformers import (
        Sam2Config,
        Sam2HieraDetConfig,
        Sam2ImageProcessor,
        Sam2Model,
        Sam2Processor,
        Sam2VisionConfig,
    )

    blocks = [1, 1, 1, 1] if size == "tiny" else [1, 2, 11, 2]
    backbone = Sam2HieraDetConfig(
        blocks_per_stage=blocks, global_attention_blocks=[] if size == "tiny" else [7, 10, 13],
        window_positional_embedding_background_size=[7, 7],
    )  # fmt: skip
    Sam2Model(Sam2Config(vision_config=Sam2VisionConfig(backbone_config=backbone))).save_pretrained(folder / "sam2")
    Sam2Processor(Sam2ImageProcessor()).save_pretrained(folder / "sam2")
    calls = 64 if gpu() else 2
    rates = {batch: asyncio.run(_calls_per_second(folder, batch, calls)) for batch in (1, 8)}
    return {
        "ok": rates[8] > rates[1] or not gpu(),
        "calls_per_second_unbatched": round(rates[1], 2),
        "calls_per_second_batches_of_8": round(rates[8], 2),
    }


async def _calls_per_second(folder: Path, batch: int, calls: int) -> float:
    from tests.support.engine.talkers import picture
    from thinkimg.client import ToolClient
    from thinkimg.serving.config import ServerConfig
    from thinkimg.serving.supervisor import ServerSpec, Supervisor

    entry = {
        "name": "SAM",
        "backend": "transformers",
        "options": {"weights": str(folder / "sam2"), "device": "cuda" if gpu() else "cpu"},
        "batching": {"max_size": batch, "max_wait_ms": 5},
    }
    spec = ServerSpec("sam", ServerConfig.model_validate({"tools": [entry]}))
    pictures = [picture(n, 640 + n, 480) for n in range(calls + (8 if gpu() else 1))]
    with Supervisor([spec], folder / f"server-{batch}") as servers:
        async with ToolClient(servers.endpoints, timeout_seconds=120) as client:

            async def call(some: list[Any]) -> None:
                point = {"image": "img_1", "points": [[50.0, 50.0]]}
                await asyncio.gather(*(client.call("SAM", point, {"img_1": image}) for image in some))

            await call(pictures[calls:])
            began = time.perf_counter()
            await call(pictures[:calls])
            return calls / (time.perf_counter() - began)


def rehearsal(folder: Path, size: str) -> dict[str, Any]:
    """`make rehearsal` here: Qwen2-VL-2B's exact shape, or a small one for the size tiny."""
    small = ["--small"] if size == "tiny" else []
    command = [sys.executable, "-m", "rehearsal", "--run", str(folder / "run"), *small]
    done = subprocess.run(command, capture_output=True, text=True)
    written = folder / "run" / "rehearsal.json"
    if not written.exists():
        return {"ok": False, "stderr": done.stderr[-2000:]}
    found: dict[str, Any] = json.loads(written.read_text())
    return found


CHECKS: dict[str, Check] = {
    "rollouts": Check(rollouts, 120),
    "flash_attention": Check(flash_attention, 60, gpu=True),
    "moving_weights": Check(moving_weights, 120, ("plain", "training")),
    "step_memory": Check(step_memory, 120, ("plain", "training")),
    "tool_batching": Check(tool_batching, 90, ("plain", "serving")),
    "zero3_lora": Check(zero3_lora, 180, ("plain", "training", "deepspeed"), gpu=True),
    "colocated_engine": Check(colocated_engine, 180, ("plain", "training", "vllm"), gpu=True),
    "rehearsal": Check(rehearsal, 60 * MINUTES_OF_A_REHEARSAL, ("plain", "training", "serving", "tools"), asked=True),
}
