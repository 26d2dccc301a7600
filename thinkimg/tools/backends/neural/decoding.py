"""What both SAM backends share in running a decoder: prompts of one kind go together."""

from collections.abc import Callable, Sequence

import torch

from thinkimg.tools.backends.segmentation import Mask, Prompt

AT_ONCE = 16
"""Prompts decoded together: bounds the memory of a call with many boxes."""

Decode = Callable[[torch.Tensor | None, torch.Tensor | None, bool], tuple[torch.Tensor, torch.Tensor]]
"""Boxes (n, 4) or points (n, p, 2), float32 in pixels of the encoded picture, and whether to give several masks
-> low-resolution logits (n, m, h, w) and scores (n, m)."""


def decode_prompts(
    prompts: Sequence[Prompt], decode: Decode, enlarge: Callable[[torch.Tensor], torch.Tensor]
) -> list[Mask]:
    """A mask per prompt, in order.

    A single point may mean a part or the whole, so that the decoder is asked for several masks and the best is taken;
    boxes and several points mean one thing.

    Args:
        enlarge: (m, 1, h, w) logits at low resolution -> bool (m, 1, height, width) at the picture's.
    """
    masks: dict[int, Mask] = {}
    for indices in _alike(prompts):
        for start in range(0, len(indices), AT_ONCE):
            part = indices[start : start + AT_ONCE]
            logits, scores = _best(*_run(part, prompts, decode))
            for index, logit, score in zip(part, logits, scores, strict=True):
                pixels = enlarge(logit[None, None].float())[0, 0].cpu().numpy()
                masks[index] = Mask(pixels, round(float(score), 4))
    return [masks[index] for index in range(len(prompts))]


def _alike(prompts: Sequence[Prompt]) -> list[list[int]]:
    """Indices of the prompts with a box, and of those with the same number of points."""
    groups: dict[int, list[int]] = {}
    for index, prompt in enumerate(prompts):
        groups.setdefault(0 if prompt.box else len(prompt.points), []).append(index)
    return list(groups.values())


def _run(indices: Sequence[int], prompts: Sequence[Prompt], decode: Decode) -> tuple[torch.Tensor, torch.Tensor]:
    first = prompts[indices[0]]
    if first.box is not None:
        return decode(torch.tensor([prompts[index].box for index in indices], dtype=torch.float32), None, False)
    points = torch.tensor([prompts[index].points for index in indices], dtype=torch.float32)
    return decode(None, points, len(first.points) == 1)


def _best(logits: torch.Tensor, scores: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """(n, m, h, w), (n, m) -> (n, h, w), (n,)."""
    chosen = scores.argmax(dim=1)
    rows = torch.arange(len(chosen), device=chosen.device)
    return logits[rows, chosen], scores[rows, chosen]
