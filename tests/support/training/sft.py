"""A few trajectories to learn, and SFT of the tiny model on them."""

from pathlib import Path
from typing import Any

from tests.support.training.scripted_agent import World, picture
from thinkimg.api import SFT
from thinkimg.message import ImageBlock, TextBlock
from thinkimg.training.collator import Sample, encode_samples
from thinkimg.training.session import Session
from thinkimg.training.sft import train_sft
from thinkimg.trajectory import Trajectory


def samples_of(world: World, count: int = 8) -> list[Sample]:
    made = []
    for number in range(count):
        trajectory = Trajectory(question="?")
        shown = trajectory.add_image(picture(number))
        trajectory.add("user", ImageBlock(handle=shown), TextBlock(text="what is the value of the bar"))
        trajectory.add("assistant", TextBlock(text='{"thought": "see the bar", "actions": []}'))
        trajectory.add("tool", TextBlock(text=f"crop {number}"))
        trajectory.add("assistant", TextBlock(text=f"answer {number}"))
        made.append(trajectory)
    samples, dropped = encode_samples(world.family, made)
    assert not dropped
    return samples


def train(
    world: World,
    samples: list[Sample],
    folder: Path,
    seed: int = 0,
    max_seconds: float | None = None,
    world_size: int = 1,
    **block: Any,
) -> float:
    here = {"bf16": False, "gradient_checkpointing": False}  # whatever else this machine has
    given: dict[str, Any] = {"learning_rate": 3e-3, "batch_size": 4} | block
    given["args"] = here | given.get("args", {})
    session = Session(folder / "out", seed, world_size, log_folder=folder)
    return train_sft(world.loaded, samples, SFT(**given), session, max_seconds)
