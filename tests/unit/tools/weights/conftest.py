"""The tiny models, saved once."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from tests.support.tools import tiny_models


@pytest.fixture(scope="session")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with every tiny model, as users have them on disk."""
    root = tmp_path_factory.mktemp("weights")
    sam = tiny_models.meta_sam()
    (root / "sam").mkdir()
    save_file(sam.state_dict(), root / "sam" / "tiny.safetensors")
    torch.save(sam.state_dict(), root / "tiny_sam.pth")
    tiny_models.save_transformers_sam(root / "sam-transformers", sam)
    tiny_models.save_sam2(root / "sam2")
    tiny_models.save_grounding_dino(root / "grounding-dino")
    tiny_models.save_depth(root / "depth")
    return root
