"""Two corrections of transformers 5.17's GroundingDINO, both of the positions of words in a caption.

They were found by running the authors' code with the same weights (tests/integration); its results, and those of
transformers 4, are what the corrected network gives. Where a version is right already they change nothing.
"""

from typing import Any

import torch
from transformers.models.grounding_dino import modeling_grounding_dino as network

_masks_and_positions: Any = network.generate_masks_with_special_tokens_and_transfer_map
_position_embeddings: Any = network.GroundingDinoEncoderLayer.get_text_position_embeddings


def correct() -> None:
    """Put both in place, for every GroundingDINO of this process."""
    network.generate_masks_with_special_tokens_and_transfer_map = masks_and_positions
    network.GroundingDinoEncoderLayer.get_text_position_embeddings = position_embeddings  # type: ignore[method-assign, assignment]


def masks_and_positions(input_ids: Any) -> tuple[torch.Tensor, torch.Tensor]:
    """5.17 gives the full stop behind a phrase position 0; it follows the phrase's last word."""
    masks, positions = _masks_and_positions(input_ids)
    special = torch.isin(input_ids, torch.tensor(network.SPECIAL_TOKENS, device=input_ids.device))
    last = torch.arange(input_ids.shape[1], device=input_ids.device) == input_ids.shape[1] - 1
    ends_phrase = special & ~special.roll(1, dims=1) & ~last
    ends_phrase[:, 0] = False
    return masks, torch.where(ends_phrase, positions.roll(1, dims=1) + 1, positions)


def position_embeddings(
    layer: Any, text_features: torch.Tensor, text_position_embedding: Any, text_position_ids: torch.Tensor | None
) -> torch.Tensor:
    """5.17 rounds the sines of positions to whole numbers, because the positions are."""
    if text_position_ids is not None:
        text_position_ids = text_position_ids.float()
    found: torch.Tensor = _position_embeddings(layer, text_features, text_position_embedding, text_position_ids)
    return found.to(text_features.dtype)
