"""Runs of image placeholders: each image's own, found by its known length, so that neighbours stay apart."""

from collections.abc import Sequence

from thinkimg.trajectory import InvariantError


def collapse_runs(tokens: Sequence[int], placeholder: int, lengths: Sequence[int], frame: int = 0) -> list[int]:
    """`tokens` with each image's run of `lengths[n]` placeholders, and `frame` tokens on each side of it, replaced by
    one placeholder: what an engine takes that expands placeholders itself.

    Raises:
        InvariantError: runs and images do not agree.
    """
    kept: list[int] = []
    place, image = 0, 0
    while place < len(tokens):
        if tokens[place] != placeholder:
            kept.append(tokens[place])
            place += 1
            continue
        if image == len(lengths):
            raise InvariantError(f"a placeholder at token {place} belongs to none of the {len(lengths)} images")
        end = place + lengths[image]
        if any(token != placeholder for token in tokens[place:end]) or end + frame > len(tokens):
            raise InvariantError(f"image {image + 1} fills {lengths[image]} placeholders, at token {place} are fewer")
        if frame:
            del kept[-frame:]
        kept.append(placeholder)
        place, image = end + frame, image + 1
    if image < len(lengths):
        raise InvariantError(f"{len(lengths)} images, but placeholders of {image}")
    return kept
