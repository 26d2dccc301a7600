"""What the SAM backends share in running a decoder: prompts of one kind go together."""

from collections.abc import Callable, Sequence

import numpy as np

from thinkimg.tools.backends.segmentation import Mask, Prompt

AT_ONCE = 16
"""Prompts decoded together: bounds the memory of a call with many boxes."""

Decode = Callable[[np.ndarray | None, np.ndarray | None, bool], tuple[np.ndarray, np.ndarray]]
"""Boxes (n, 4) or points (n, p, 2), float32 in pixels of the picture, and whether to give several masks
-> low-resolution logits (n, m, h, w) and scores (n, m), float32."""


def decode_prompts(
    prompts: Sequence[Prompt], decode: Decode, enlarge: Callable[[np.ndarray], np.ndarray]
) -> list[Mask]:
    """A mask per prompt, in order.

    A single point may mean a part or the whole, so that the decoder is asked for several masks and the best is taken;
    boxes and several points mean one thing.

    Args:
        enlarge: logits (h, w) at low resolution -> bool (height, width) at the picture's.
    """
    masks: dict[int, Mask] = {}
    for indices in _alike(prompts):
        for start in range(0, len(indices), AT_ONCE):
            part = indices[start : start + AT_ONCE]
            logits, scores = _run(part, prompts, decode)
            for row, index in enumerate(part):
                best = int(scores[row].argmax())
                masks[index] = Mask(enlarge(logits[row, best]), round(float(scores[row, best]), 4))
    return [masks[index] for index in range(len(prompts))]


def _alike(prompts: Sequence[Prompt]) -> list[list[int]]:
    """Indices of the prompts with a box, and of those with the same number of points."""
    groups: dict[int, list[int]] = {}
    for index, prompt in enumerate(prompts):
        groups.setdefault(0 if prompt.box else len(prompt.points), []).append(index)
    return list(groups.values())


def _run(indices: Sequence[int], prompts: Sequence[Prompt], decode: Decode) -> tuple[np.ndarray, np.ndarray]:
    first = prompts[indices[0]]
    if first.box is not None:
        return decode(np.array([prompts[index].box for index in indices], np.float32), None, False)
    points = np.array([prompts[index].points for index in indices], np.float32)
    return decode(None, points, len(first.points) == 1)
