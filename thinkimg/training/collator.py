"""Trajectories to batches. Encoding is that of the rollouts (`models.chat.encode_context`), never a chat template's."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from thinkimg.image import Image
from thinkimg.models.chat import Family, encode_context
from thinkimg.trajectory import InvariantError, Trajectory

IGNORED = -100


@dataclass(frozen=True)
class Sample:
    """Token ids, where loss is taken, and the images in the order of their placeholders."""

    tokens: list[int]
    mask: list[bool]
    images: tuple[Image, ...] = ()


def encode_trajectory(family: Family, trajectory: Trajectory) -> Trajectory:
    """Fill in the tokens of a trajectory that has none (synthesis, imported data); loss on the assistant's turns only.

    Raises:
        InvariantError: the record contradicts itself.
    """
    encoded = trajectory.model_copy(update={"turns": []})
    for turn in trajectory.turns:
        turn = turn.model_copy(update={"tokens": None, "mask": None, "logprobs": None})
        if turn.role == "assistant":
            for before, tokens in zip(
                (known for known in encoded.turns if known.tokens is None),
                encode_context(family, encoded),
                strict=True,
            ):
                before.tokens, before.mask = tokens, [False] * len(tokens)
            turn.tokens = family.encode_reply(turn.message.text)
            turn.mask = [True] * len(turn.tokens)
        encoded.turns.append(turn)
    encoded.check(family.image_token_id, family.image_tokens)
    return encoded


def encode_samples(family: Family, trajectories: Sequence[Trajectory]) -> tuple[list[Sample], dict[str, int]]:
    """Encode all; a sample that violates the invariant is left out, and its reason counted."""
    samples: list[Sample] = []
    dropped: dict[str, int] = {}
    for trajectory in trajectories:
        try:
            encoded = encode_trajectory(family, trajectory)
        except InvariantError as error:
            dropped[str(error)] = dropped.get(str(error), 0) + 1
            continue
        samples.append(Sample(encoded.tokens, encoded.mask, tuple(encoded.ordered_images)))
    return samples, dropped


class Collator:
    """Samples to the model's inputs, right-padded: `input_ids`, `attention_mask`, `labels` and what the family makes of
    the ids (`mm_token_type_ids`) of shape (batch, longest), and the features of all images in order."""

    def __init__(
        self, family: Family, features: Callable[[Sequence[Image]], dict[str, torch.Tensor]], pad_id: int
    ) -> None:
        self.family = family
        self.features = features
        self.pad_id = pad_id

    def __call__(self, samples: Sequence[Sample]) -> dict[str, Any]:
        width = max(len(sample.tokens) for sample in samples)
        ids = torch.full((len(samples), width), self.pad_id)
        attention = torch.zeros_like(ids)
        labels = torch.full_like(ids, IGNORED)
        for row, sample in enumerate(samples):
            length = len(sample.tokens)
            ids[row, :length] = torch.tensor(sample.tokens)
            attention[row, :length] = 1
            mask = torch.tensor(sample.mask)
            labels[row, :length][mask] = ids[row, :length][mask]
        batch = {"input_ids": ids, "attention_mask": attention, "labels": labels}
        batch |= self.family.model_inputs(ids)
        images = [image for sample in samples for image in sample.images]
        return batch | (self.features(images) if images else {})
