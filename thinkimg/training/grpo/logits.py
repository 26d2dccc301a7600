"""Tokens that are impossible in the loss, as they are in sampling."""

from collections.abc import Sequence
from typing import Any

import torch

from thinkimg.errors import UserError

SUPPRESSED_LOGIT = -1e4
"""Added to suppressed logits: probability exactly 0 in float32, yet finite, so that TRL's kernel never forms a NaN."""


def suppress_logits(model: Any, ids: Sequence[int]) -> None:
    """Give the LM head a fixed bias that makes `ids` impossible, in sampling and in TRL's fused loss alike.

    The bias is a buffer that is never saved. Undone by `restore_logits`.

    Raises:
        UserError: the head has a bias of its own.
    """
    restore_logits(model)
    head = model.get_output_embeddings()
    if head.bias is not None:
        raise UserError("models whose LM head has a bias are not supported", "model")
    bias = torch.zeros(head.weight.shape[0], dtype=head.weight.dtype, device=head.weight.device)
    bias[list(ids)] = SUPPRESSED_LOGIT
    del head._parameters["bias"]
    head.register_buffer("bias", bias, persistent=False)


def restore_logits(model: Any) -> None:
    """Undo `suppress_logits`."""
    head = model.get_output_embeddings()
    if "bias" in head._buffers:
        del head._buffers["bias"]
        head.register_parameter("bias", None)
