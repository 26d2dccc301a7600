"""Trajectories as ShareGPT conversations, which most SFT programs read: LLaMA-Factory, ms-swift and OpenThinkIMG's own.

    {"id": …, "conversations": [{"from": "system" | "human" | "gpt", "value": …}, …], "images": ["images/….png", …]}

`<image>` in a value stands where a picture is; the pictures are listed in the order of these places. The same text in
what a user or a tool wrote is broken up, so that it takes no picture.
"""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from thinkimg.message import ImageBlock, Message, TextBlock, ToolResultBlock
from thinkimg.trajectory import Trajectory, save_images

PLACE = "<image>"
_FROM = {"system": "system", "user": "human", "tool": "human", "assistant": "gpt"}


def conversation_of(trajectory: Trajectory) -> dict[str, Any]:
    """One trajectory; pictures by the names that `write_sharegpt` gives them."""
    shown = [f"images/{image.sha256}{image.suffix}" for image in trajectory.ordered_images]
    turns = [{"from": _FROM[turn.role], "value": _value(turn.message)} for turn in trajectory.turns]
    return {"id": trajectory.id, "conversations": turns, "images": shown}


def _value(message: Message) -> str:
    parts = []
    for block in message.content:
        if isinstance(block, ImageBlock):
            parts.append(PLACE)
        elif isinstance(block, TextBlock | ToolResultBlock):
            parts.append(block.text.replace(PLACE, "< image >"))
    return "".join(parts)


def write_sharegpt(trajectories: Iterable[Trajectory], path: Path) -> int:
    """A JSON list at `path`, pictures beside it in `images/`; returns how many conversations there are."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial, count = path.with_name(path.name + ".partial"), 0
    with partial.open("w", encoding="utf-8") as file:
        file.write("[")
        for trajectory in trajectories:
            save_images(trajectory.images.values(), path.parent / "images")
            file.write((",\n" if count else "\n") + json.dumps(conversation_of(trajectory), ensure_ascii=False))
            count += 1
        file.write("\n]\n")
    partial.replace(path)
    return count
