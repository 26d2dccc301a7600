"""Detection by a text: what a backend is. No torch here."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from thinkimg.errors import ModelError
from thinkimg.image import Image
from thinkimg.tools.vision.geometry import Box


@dataclass(frozen=True)
class Query:
    """What is looked for.

    Attributes:
        phrases: in lower case, at least one.
        box_threshold: least score of a box, 0 to 1.
        text_threshold: least score of a word that belongs to a box's label.
    """

    phrases: tuple[str, ...]
    box_threshold: float
    text_threshold: float

    @property
    def caption(self) -> str:
        """The form in which the model was trained to read it: `a bar. a legend.`"""
        return ". ".join(self.phrases) + "."


@dataclass(frozen=True)
class Detection:
    """A labelled box, in pixels of the picture, not rounded; `score` is 0 to 1."""

    label: str
    box: Box
    score: float


class Detector(Protocol):
    """A loaded backend; thread-safe."""

    details: dict[str, str]

    def detect(self, requests: Sequence[tuple[Image, Query]]) -> list[list[Detection] | ModelError]:
        """Per request its boxes, the best first, or why the model cannot be asked that.

        Raises:
            ImageDecodeError: a picture is broken.
        """


def read_phrases(query: str) -> tuple[str, ...]:
    """Phrases are separated by full stops, commas, semicolons or lines.

    Raises:
        ModelError: there is none.
    """
    phrases = tuple(" ".join(part.lower().split()) for part in re.split(r"[.,;\n]", query))
    phrases = tuple(phrase for phrase in phrases if phrase)
    if not phrases:
        raise ModelError(f'GroundingDINO: argument "query" names nothing: {query[:60]!r}. Expected: "a bar. a legend".')
    return phrases
