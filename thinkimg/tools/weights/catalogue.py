"""The weights that our backends take when no others are named."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType


@dataclass(frozen=True)
class Digest:
    """What a file is known by.

    Attributes:
        sha256: hex.
        size: bytes.
    """

    sha256: str
    size: int


@dataclass(frozen=True)
class Weights:
    """One entry.

    Attributes:
        source: `org/name` of the Hugging Face hub, or a file of such a repository, as `options.weights` takes it.
        tool, backend: who takes them by default.
        licence: SPDX, as the authors state it in the repository of their code or on the page of the weights.
        files: path in the repository -> digest, for files whose digest was copied from a source that can be read. For
            the others the first download records what came, and says so; a later one must be the same.
        digests_from: address of that source.
    """

    source: str
    tool: str
    backend: str
    licence: str
    files: Mapping[str, Digest] = field(default_factory=dict)
    digests_from: str = ""


TEXT_ENCODER = "google-bert/bert-base-uncased"
"""Of the backend `groundingdino`, beside its weights."""

CATALOGUE: tuple[Weights, ...] = (
    Weights("IDEA-Research/grounding-dino-tiny", "GroundingDINO", "transformers", "Apache-2.0"),
    Weights("ShilongLiu/GroundingDINO/groundingdino_swint_ogc.pth", "GroundingDINO", "groundingdino", "Apache-2.0"),
    Weights(TEXT_ENCODER, "GroundingDINO", "groundingdino", "Apache-2.0"),
    Weights("facebook/sam2.1-hiera-small", "SAM", "transformers", "Apache-2.0"),
    Weights("ybelkada/segment-anything/checkpoints/sam_vit_b_01ec64.pth", "SAM", "segment-anything", "Apache-2.0"),
    Weights("depth-anything/Depth-Anything-V2-Small-hf", "EstimateDepth", "transformers", "Apache-2.0"),
)
"""Of several for one backend the first is its `options.weights`."""

DEFAULTS: Mapping[tuple[str, str], str] = MappingProxyType(
    {(entry.tool, entry.backend): entry.source for entry in reversed(CATALOGUE)}
)
"""(tool, backend) -> source."""
