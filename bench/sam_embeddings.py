"""What a kept embedding saves: the first call of SAM on a picture against further calls on the same picture.

    python -P bench/sam_embeddings.py [--pictures 3] [--points 8]

The networks have the size of the real ones (SAM ViT-B, SAM 2.1 hiera-small) and random weights, which take as long as
trained ones; they are saved and loaded as a user's are. A call is the whole tool: decoding the picture, the network,
masks at source size, run lengths, the overlay as PNG. The last line is one JSON object.
"""

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from PIL import Image as Pillow
from rich.console import Console
from rich.table import Table
from safetensors.torch import save_file
from segment_anything import sam_model_registry
from transformers import Sam2Config, Sam2HieraDetConfig, Sam2ImageProcessor, Sam2Model, Sam2Processor, Sam2VisionConfig

from thinkimg.image import Image
from thinkimg.tools.registry import load_tool
from thinkimg.tools.tool import Tool

WANTED = 5.0


def save_vit_b(folder: Path) -> Path:
    path = folder / "sam_vit_b.safetensors"
    save_file(sam_model_registry["vit_b"]().state_dict(), path)
    return path


def save_hiera_small(folder: Path) -> Path:
    """As `facebook/sam2.1-hiera-small` has it."""
    backbone = Sam2HieraDetConfig(
        blocks_per_stage=[1, 2, 11, 2],
        global_attention_blocks=[7, 10, 13],
        window_positional_embedding_background_size=[7, 7],
    )
    model = Sam2Model(Sam2Config(vision_config=Sam2VisionConfig(backbone_config=backbone)))
    model.save_pretrained(folder / "sam2")
    Sam2Processor(Sam2ImageProcessor()).save_pretrained(folder / "sam2")
    return folder / "sam2"


NETWORKS: dict[str, tuple[str, Callable[[Path], Path]]] = {
    "segment-anything ViT-B": ("segment-anything", save_vit_b),
    "transformers SAM 2.1 hiera-small": ("transformers", save_hiera_small),
}


def photo(number: int) -> Image:
    """900x600, a different one per number."""
    random = np.random.default_rng(number)
    return Image.from_pixels(Pillow.fromarray(random.integers(0, 255, (6, 9, 3), np.uint8)).resize((900, 600)))


def seconds(tool: Tool, image: Image, point: list[float]) -> float:
    start = time.perf_counter()
    tool.run({"image": "img_1", "points": [point]}, {"img_1": image})
    return time.perf_counter() - start


def measure(tool: Tool, pictures: int, points: int) -> dict[str, float]:
    seconds(tool, photo(0), [50, 50])  # what only a first call costs
    first, again = [], []
    for number in range(1, pictures + 1):
        image = photo(number)
        first.append(seconds(tool, image, [10, 10]))
        again += [seconds(tool, image, [20 + 60 * n / points, 50]) for n in range(points)]
    return {
        "first_seconds": round(statistics.median(first), 3),
        "again_seconds": round(statistics.median(again), 3),
        "speedup": round(statistics.median(first) / statistics.median(again), 1),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description="What a kept embedding of SAM saves.")
    parser.add_argument("--pictures", type=int, default=3)
    parser.add_argument("--points", type=int, default=8, help="further calls on each picture")
    options = parser.parse_args()
    torch.manual_seed(0)
    table = Table("network", "first call", "further calls", "speed-up", title="SAM on one picture, 900x600, CPU")
    found: dict[str, dict[str, float]] = {}
    for name, (backend, save) in NETWORKS.items():
        with tempfile.TemporaryDirectory() as folder:
            tool = load_tool("SAM", backend, {"weights": str(save(Path(folder))), "device": "cpu"})
        found[name] = measure(tool, options.pictures, options.points)
        row = found[name]
        table.add_row(name, f"{row['first_seconds']} s", f"{row['again_seconds']} s", f"{row['speedup']}x")
    Console(width=120).print(table)
    least = min(row["speedup"] for row in found.values())
    print(
        json.dumps(
            {"networks": found, "least_speedup": least, "threads": torch.get_num_threads(), "met": least >= WANTED}
        )
    )


if __name__ == "__main__":
    main()
