"""How much memory a process spends on pictures: one JSON object.

    python -m bench.picture_memory --pictures 3000 --side 1024 --limit 2Gi --processor qwen2.5-vl

Distinct pictures pass through a model's own image processor, with its published settings, into the cache of features.
`growth` is how much the process's resident memory grew at most, in bytes, after a first picture.
"""

import argparse
import json
import time
from typing import Any

import numpy as np
import psutil
from PIL import Image as Pillow
from transformers import Qwen2VLImageProcessor

from thinkimg.api import bytes_of
from thinkimg.image import Image
from thinkimg.models.image_features import ImageFeatures, keep_at_most

SETTINGS: dict[str, dict[str, Any]] = {
    "qwen2.5-vl": {"patch_size": 14, "size": {"shortest_edge": 3136, "longest_edge": 12_845_056}},
    "qwen3-vl": {
        "patch_size": 16,
        "size": {"shortest_edge": 65_536, "longest_edge": 16_777_216},
        "image_mean": [0.5, 0.5, 0.5],
        "image_std": [0.5, 0.5, 0.5],
    },
}
"""Of the published checkpoints' preprocessor_config.json; both name Qwen2-VL's class (fast)."""


def picture(number: int, side: int) -> Image:
    """Cheap, and no two alike."""
    row = np.arange(side, dtype=np.uint8) + number % 251
    pixels = np.broadcast_to(row[:, None, None], (side, side, 3)).copy()
    pixels[0, :8, 0] = np.frombuffer(np.int64(number).tobytes(), np.uint8)
    return Image.from_pixels(Pillow.fromarray(pixels))


def measure(pictures: int, side: int, limit: int, processor: str) -> dict[str, Any]:
    keep_at_most(limit)
    features = ImageFeatures(Qwen2VLImageProcessor(merge_size=2, temporal_patch_size=2, **SETTINGS[processor]))
    process = psutil.Process()
    features([picture(0, side)])
    first = peak = process.memory_info().rss
    one = features.kept.bytes
    began = time.monotonic()
    for number in range(1, pictures):
        features([picture(number, side)])
        peak = max(peak, process.memory_info().rss)
    return {
        "processor": processor,
        "pictures": features.runs,
        "bytes_of_one": one,
        "limit": limit,
        "kept": features.kept.bytes,
        "growth": peak - first,
        "growth_over_limit": round((peak - first) / limit, 3) if limit else None,
        "seconds": round(time.monotonic() - began, 1),
    }


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pictures", type=int, default=3000)
    parser.add_argument("--side", type=int, default=1024, help="pixels")
    parser.add_argument("--limit", default="2Gi", help="as in spec.model.imageCacheSize")
    parser.add_argument("--processor", choices=SETTINGS, default="qwen2.5-vl")
    chosen = parser.parse_args()
    print(json.dumps(measure(chosen.pictures, chosen.side, bytes_of(chosen.limit), chosen.processor)))
