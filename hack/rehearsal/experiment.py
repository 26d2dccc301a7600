"""The rehearsal itself: `thinkimg run` on a made checkpoint, killed after RL's first step and started again; then the
result is exported and read by others."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import yaml

from rehearsal.checkpoint import ROOT, write_checkpoint
from rehearsal.measure import Meter
from rehearsal.shapes import Shape
from thinkimg.jobs.layout import Run
from thinkimg.training.checkpoints import complete_checkpoints
from thinkimg.trajectory import Trajectory, read_trajectories

TOKENS = 48
"""Of a turn, at most."""
STAGES = {"cold-start": "cold start", "sft": "SFT, one step", "v-toolrl": "RL until it is killed"}
CALLS = ["ZoominSubplot", "Crop"]
LARGEST_DIFFERENCE = 1e-3
"""Of recorded and recomputed log-probabilities, and of logits; all in float32."""
LEAST_MOVED = 0.9
"""Of the weights of query projections, which adapters change: in float32 nothing of a step is rounded away."""


class Failed(Exception):
    """The rehearsal did not do what it is to do; says what."""


def rehearse(shape: Shape, folder: Path, meter: Meter) -> dict[str, Any]:
    """The whole of it, in an empty folder; figures beside seconds and memory.

    Raises:
        Failed: a program ended with another code than it should, or what it left is not what it should be.
    """
    meter.begin("checkpoint")
    found: dict[str, Any] = {"parameters": write_checkpoint(shape, folder / "base")}
    (folder / "job.yaml").write_text(manifest(shape.pixels))
    run = Run(folder / "run")
    rl = run.stage("v-toolrl")
    _run_and_kill(folder, run, meter, lambda: bool(complete_checkpoints(rl)))
    first = next((rl / "trajectories").glob("step-000001.jsonl"))
    made = first.stat().st_mtime_ns
    meter.begin("RL, resumed")
    _run_to_the_end(folder)
    found |= _check_rollouts(list(read_trajectories(first)))
    steps = [json.loads(line) for line in (rl / "log.jsonl").read_text().splitlines()]
    if [step["step"] for step in steps] != [1, 2] or first.stat().st_mtime_ns != made:
        raise Failed("RL did not go on after its first step, but began again")
    found["steps"] = [{key: step[key] for key in ("seconds", "seconds_rollout", "loss", "grad_norm")} for step in steps]
    meter.begin("export")
    _program(folder, "export.log", "thinkimg.cli", "export", run.model("v-toolrl"), folder / "exported")
    meter.begin("plain transformers: log-probabilities")
    found["logprobs"] = _compared(folder, "recomputed", run.model("sft"), first)
    meter.begin("plain transformers: logits")
    found["moved"] = _compared(folder, "plain", folder / "exported", first, folder / "logits.pt", folder / "base")
    if found["moved"]["share_of_weights"] < LEAST_MOVED:
        raise Failed(f"training changed {found['moved']['share_of_weights']:.0%} of the exported weights")
    meter.begin("own load: logits")
    found["logits"] = _compared(folder, "own", folder / "exported", first, folder / "logits.pt")
    return found


def manifest(pixels: int) -> str:
    """A cold start of one trajectory, a step of SFT, two of RL; adapters in both, since the optimiser of all weights
    would need 35 GB. Every picture is shown at so many pixels."""
    lora = {"rank": 8, "alpha": 16}
    args = {"gradient_checkpointing": True}
    tools = {"crop": {"tool": "Crop"}, "zoom": {"tool": "ZoominSubplot", "backend": "layout"}}
    documents: list[dict[str, Any]] = [
        {"apiVersion": "thinkimg.dev/v1alpha1", "kind": "VisionTool", "metadata": {"name": name}, "spec": spec}
        for name, spec in tools.items()
    ]
    stages = [
        {"name": "cold-start", "type": "Synthesize",
         "synthesize": {"trajectories": 1, "planner": {"chains": {"zoom": 1.0}}}},
        {"name": "sft", "type": "SFT",
         "sft": {"maxSteps": 1, "batchSize": 1, "learningRate": 1e-4, "lora": lora, "args": args}},
        {"name": "v-toolrl", "type": "GRPO", "from": "sft",
         "grpo": {"maxSteps": 2, "promptsPerStep": 1, "numGenerations": 2, "microBatch": 1, "learningRate": 1e-4,
                  "lora": lora, "args": args, "rewards": [{"name": "rehearsal.rewards:first_wins"}]}},
    ]  # fmt: skip
    spec = {
        "model": {"uri": "base", "minPixels": pixels, "maxPixels": pixels},
        "tools": [{"name": name} for name in tools],
        "data": {"train": {"uri": "charts://?questions=2&difficulty=1"}},
        "agent": {"format": "hermes", "prompt": "compact", "maxRounds": len(CALLS) + 1, "maxTokensPerTurn": TOKENS,
                  "maxSecondsPerTrajectory": 3600},
        "checkpoint": {"everySteps": 1, "keep": 2},
        "stages": stages,
    }  # fmt: skip
    job = {"apiVersion": "thinkimg.dev/v1alpha1", "kind": "ToolRLJob", "metadata": {"name": "rehearsal"}, "spec": spec}
    return yaml.safe_dump_all([*documents, job], sort_keys=False)


# ---- the run --------------------------------------------------------------------------------------------------------


def _environment() -> dict[str, str]:
    """No network, rollouts in the trainer's process, and the reward's module where a stage finds it. What takes a
    megabyte is given back when it is freed: by default the C library learns to keep blocks of up to 32 MiB, which are
    those of a layer, and a third of the model's size stays in holes between them."""
    paths = [str(ROOT / "hack"), os.environ.get("PYTHONPATH", "")]
    return os.environ | {
        "HF_HUB_OFFLINE": "1",
        "MALLOC_MMAP_THRESHOLD_": str(2**20),
        "PYTHONPATH": os.pathsep.join(filter(None, paths)),
        "THINKIMG_ENGINE": "transformers",
    }


def _command(folder: Path) -> list[str]:
    return [sys.executable, "-m", "thinkimg.cli", "run", str(folder / "job.yaml"), "--run", str(folder / "run")]


def _run_and_kill(folder: Path, run: Run, meter: Meter, enough: Callable[[], bool]) -> None:
    """Start the run, and kill it with all its processes as soon as there is `enough`."""
    log = folder / "run.log"
    with log.open("w") as file:
        process = psutil.Popen(_command(folder), env=_environment(), stdout=file, stderr=file)
        try:
            while process.poll() is None and not enough():
                stage = next((name for name in STAGES if run.done(name) is None), None)
                meter.begin(STAGES.get(stage or "", "the run's end"))
                time.sleep(0.1)
        finally:
            _kill(process)
    if not enough() or run.done("v-toolrl") is not None:
        raise Failed(f"the run ended before it was killed; the end of {log}:\n{_tail(log)}")


def _kill(process: Any) -> None:
    try:
        everybody = [process, *process.children(recursive=True)]
    except psutil.NoSuchProcess:
        return
    for each in everybody:
        try:
            each.kill()
        except psutil.NoSuchProcess:
            continue
    psutil.wait_procs(everybody, timeout=30)


def _run_to_the_end(folder: Path) -> None:
    _await(_command(folder), folder / "run-2.log")


def _program(folder: Path, log: str, module: str, *arguments: object) -> None:
    _await([sys.executable, "-m", module, *map(str, arguments)], folder / log)


def _compared(folder: Path, *arguments: object) -> dict[str, Any]:
    """What `rehearsal.compare` says, in a process of its own: the trainer has ended long before."""
    log = folder / f"{arguments[0]}.log"
    _program(folder, log.name, "rehearsal.compare", *arguments)
    found: dict[str, Any] = json.loads(log.read_text().splitlines()[-1])
    if found.get("largest", 0.0) > LARGEST_DIFFERENCE:
        raise Failed(f"{arguments[0]}: {found['largest']} is more than {LARGEST_DIFFERENCE} apart")
    return found


def _await(command: list[str], log: Path) -> None:
    with log.open("w") as file:
        code = subprocess.run(command, env=_environment(), stdout=file, stderr=subprocess.STDOUT).returncode
    if code:
        raise Failed(f"{' '.join(command[2:5])} ended with exit code {code}; the end of {log}:\n{_tail(log)}")


def _tail(log: Path) -> str:
    return "\n".join(log.read_text(errors="replace").splitlines()[-25:])


# ---- what it left ---------------------------------------------------------------------------------------------------


def _check_rollouts(rollouts: list[Trajectory]) -> dict[str, Any]:
    """Every rollout as the script has it: three turns, tools that really gave pictures, another reward for each."""
    for rollout in rollouts:
        results = rollout.tool_results
        turns = [sum(turn.mask or []) for turn in rollout.turns if turn.role == "assistant"]
        broken = [result.text for result in results if result.error is not None]
        if [result.name for result in results] != CALLS or broken or rollout.status != "answered":
            raise Failed(f"a rollout did not go as scripted: {rollout.status}, {broken or results}")
        if len(rollout.images) != len(CALLS) + 1 or max(turns) > TOKENS:
            raise Failed(f"a rollout has {len(rollout.images)} pictures and turns of {turns} tokens")
    rewards = sorted(sum(rollout.rewards.values()) for rollout in rollouts)
    if rewards != [0.0, 1.0]:
        raise Failed(f"the rewards of the group are {rewards}")
    return {"rollouts": len(rollouts), "tokens": [len(rollout.tokens) for rollout in rollouts]}
