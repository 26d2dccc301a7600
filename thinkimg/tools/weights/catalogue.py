"""The weights that our backends take when no others are named."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

_HUB = "https://huggingface.co"


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
    """One entry. Licences and digests stand here only where they were copied from a source that can be read.

    Attributes:
        source: `org/name` of the Hugging Face hub, or a file of such a repository, as `options.weights` takes it.
        tool, backend: who takes them by default.
        licence: SPDX, as it is stated at `licence_from`; "" where it is not known here.
        licence_from: address of that statement: the page of the weights, or what their authors say in their code's
            repository.
        files: path in the repository -> digest. For other files the first download records what came, and says so; a
            later one must be the same.
        digests_from: address at which the digests are stated.
    """

    source: str
    tool: str
    backend: str
    licence: str = ""
    licence_from: str = ""
    files: Mapping[str, Digest] = field(default_factory=dict)
    digests_from: str = ""


TEXT_ENCODER = "google-bert/bert-base-uncased"
"""Of the backend `groundingdino`, beside its weights."""

CATALOGUE: tuple[Weights, ...] = (
    Weights(
        "IDEA-Research/grounding-dino-tiny",
        "GroundingDINO",
        "transformers",
        "Apache-2.0",
        f"{_HUB}/IDEA-Research/grounding-dino-tiny/tree/a2bb814dd30d776dcf7e30523b00659f4f141c71",
    ),
    Weights(
        "ShilongLiu/GroundingDINO/groundingdino_swint_ogc.pth",
        "GroundingDINO",
        "groundingdino",
        "Apache-2.0",
        f"{_HUB}/ShilongLiu/GroundingDINO/tree/84311ae61139581d0e62eca0bad610ad14e70aef",
        {
            "groundingdino_swint_ogc.pth": Digest(
                "3b3ca2563c77c69f651d7bd133e97139c186df06231157a64c507099c52bc799", 693_997_677
            )
        },
        f"{_HUB}/ShilongLiu/GroundingDINO/commit/84311ae61139581d0e62eca0bad610ad14e70aef",
    ),
    Weights(
        TEXT_ENCODER,
        "GroundingDINO",
        "groundingdino",
        "Apache-2.0",
        f"{_HUB}/google-bert/bert-base-uncased/tree/f584a14f45f850d60d0036d54f3e4dfdb3d52075",
    ),
    Weights(
        "facebook/sam2.1-hiera-small",
        "SAM",
        "transformers",
        "Apache-2.0",
        "https://github.com/facebookresearch/sam2/blob/05d9e57fb3945b10c861046c1e6749e2bfc258e3/README.md#license",
    ),
    Weights(
        "ybelkada/segment-anything/checkpoints/sam_vit_b_01ec64.pth",
        "SAM",
        "segment-anything",
        "Apache-2.0",
        f"{_HUB}/ybelkada/segment-anything/tree/3ff6daf6f2cb3e2df8af749d9923a559ac9b0714/checkpoints",
        # The page states the size in MB; in bytes, of the file with this SHA-256, it is in commit
        # d401202bc7a12ffcf56557bd3f2c38d1a154f4e8 of sam-hq-team/sam-hq-training.
        {
            "checkpoints/sam_vit_b_01ec64.pth": Digest(
                "ec2df62732614e57411cdcf32a23ffdf28910380d03139ee0f4fcbe91eb8c912", 375_042_383
            )
        },
        f"{_HUB}/ybelkada/segment-anything/blob/7790786db131bcdc639f24a915d9f2c331d843ee/checkpoints/"
        "sam_vit_b_01ec64.pth",
    ),
    Weights(
        "depth-anything/Depth-Anything-V2-Small-hf",
        "EstimateDepth",
        "transformers",
        "Apache-2.0",
        f"{_HUB}/depth-anything/Depth-Anything-V2-Small-hf/tree/870a35c76c2bc1d82fbde922d95015496cb7dd6c",
    ),
)
"""Of several for one backend the first is its `options.weights`."""

DEFAULTS: Mapping[tuple[str, str], str] = MappingProxyType(
    {(entry.tool, entry.backend): entry.source for entry in reversed(CATALOGUE)}
)
"""(tool, backend) -> source."""
