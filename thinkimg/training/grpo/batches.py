"""Parts of TRL's batch: rows with their images, without padding that they do not need."""

from collections.abc import Sequence
from typing import Any

import torch

_PER_IMAGE = ("pixel_values", "image_grid_thw")
_OF_TOKENS = ("mm_token_type_ids", "token_type_ids")


def select_rows(batch: dict[str, Any], rows: Sequence[int]) -> dict[str, Any]:
    """These rows of TRL's batch, their images with them, padding trimmed to what they need.

    `num_items_in_batch` stays, so that losses of parts that are normalised by it add up to the loss of the whole.
    """
    index = torch.tensor(rows, device=batch["prompt_ids"].device)
    kept = {
        name: value[index] if isinstance(value, torch.Tensor) and value.ndim and name not in _PER_IMAGE else value
        for name, value in batch.items()
    }
    if batch.get("num_images") is not None and "pixel_values" in batch:
        kept = without_empty_images(kept | _select_images(batch, rows))
    left = int(kept["prompt_mask"].any(0).long().argmax())
    width = int(kept["completion_mask"].any(0).sum())
    for name, value in kept.items():
        if name.startswith("prompt_"):
            kept[name] = value[:, left:]
        elif name in _OF_TOKENS:
            kept[name] = value[:, left : batch["prompt_ids"].shape[1] + width]
        elif isinstance(value, torch.Tensor) and value.ndim == 2 and name not in _PER_IMAGE:
            kept[name] = value[:, :width]
    return kept


def without_empty_images(batch: dict[str, Any]) -> dict[str, Any]:
    """A batch none of whose rows has an image has no image features at all: the vision tower takes no empty input."""
    if any(batch.get("num_images") or [True]):
        return batch
    return {name: value for name, value in batch.items() if name not in (*_PER_IMAGE, "num_images", "num_tiles")}


def own_tokens(batch: dict[str, Any]) -> torch.Tensor:
    """(rows, completion): 1 where the token is the model's own."""
    own: torch.Tensor = batch["completion_mask"]
    return own * batch["tool_mask"] if "tool_mask" in batch else own


def picture_inputs(batch: dict[str, Any]) -> dict[str, Any]:
    """What TRL's forward pass takes beside tokens."""
    return {name: batch[name] for name in (*_PER_IMAGE, *_OF_TOKENS, "num_images", "num_tiles") if name in batch}


def by_length(batch: dict[str, Any], rows: Sequence[int], buckets: int, tokens: int) -> list[list[int]]:
    """Cut rows into parts of like length, shortest first: at most `buckets` of equally many rows, and these again where
    one would have more than `tokens` tokens, padding included. A row that has more is a part of its own."""
    prompts, completions = (batch[f"{name}_mask"].sum(1).tolist() for name in ("prompt", "completion"))
    order = sorted(rows, key=lambda row: prompts[row] + completions[row])
    size = max(-(-len(order) // buckets), 1)
    parts: list[list[int]] = []
    for start in range(0, len(order), size):
        part: list[int] = []
        for row in order[start : start + size]:
            grown = [*part, row]
            width = max(prompts[one] for one in grown) + max(completions[one] for one in grown)
            if part and len(grown) * width > tokens:
                parts.append(sorted(part))
                grown = [row]
            part = grown
        parts.append(sorted(part))
    return parts


def _select_images(batch: dict[str, Any], rows: Sequence[int]) -> dict[str, Any]:
    counts = batch["num_images"]
    if "image_grid_thw" not in batch:  # tiles (InternVL); TRL counts them where a picture may have several
        tiles = batch["pixel_values"].split(batch.get("num_tiles", counts))
        kept = {"num_images": [counts[row] for row in rows], "pixel_values": torch.cat([tiles[row] for row in rows])}
        return kept | ({"num_tiles": [batch["num_tiles"][row] for row in rows]} if "num_tiles" in batch else {})
    grids = batch["image_grid_thw"].split(counts)
    patches = batch["pixel_values"].split([int(grid.prod(-1).sum()) for grid in grids])
    return {
        "num_images": [counts[row] for row in rows],
        "pixel_values": torch.cat([patches[row] for row in rows]),
        "image_grid_thw": torch.cat([grids[row] for row in rows]),
    }
