"""Pictures as the model sees them: one cache per process, bounded in bytes."""

import copy
import json
import subprocess
import sys
from collections.abc import Iterator

import pytest

from tests.support import REPOSITORY
from tests.support.models.tiny_world import picture, processor
from thinkimg.api import bytes_of
from thinkimg.cache import BoundedCache
from thinkimg.models.image_features import MAX_BYTES, ImageFeatures, keep_at_most
from thinkimg.models.pretrained import limit_pixels


@pytest.fixture
def nothing_kept() -> Iterator[None]:
    keep_at_most(0)
    keep_at_most(MAX_BYTES)
    yield
    keep_at_most(0)
    keep_at_most(MAX_BYTES)


@pytest.mark.usefixtures("nothing_kept")
def test_models_of_a_process_share_what_they_see_alike() -> None:
    first, second = (ImageFeatures(processor().image_processor) for _ in range(2))
    first([picture(1)])
    second([picture(1)])
    assert (first.runs, second.runs) == (1, 0)


@pytest.mark.usefixtures("nothing_kept")
def test_other_limits_of_pixels_make_other_features() -> None:
    first, second = (ImageFeatures(copy.deepcopy(processor().image_processor)) for _ in range(2))
    before = first([picture(1)])
    limit_pixels(second.image_processor, 96 * 96, 96 * 96)
    assert second([picture(1)])["pixel_values"].shape != before["pixel_values"].shape


@pytest.mark.usefixtures("nothing_kept")
def test_a_lower_bound_counts_at_once() -> None:
    features = ImageFeatures(processor().image_processor)
    features([picture(1)])
    one = features.kept.bytes
    features([picture(2)])
    keep_at_most(one)
    assert (len(features.kept), features.kept.bytes) == (1, one)


@pytest.mark.parametrize(
    ("size", "bytes_"), [("2Gi", 2 * 1024**3), ("512Mi", 512 * 1024**2), ("0", 0), ("1.5k", 1500), ("2G", 2 * 10**9)]
)
def test_a_size_is_read_as_kubernetes_writes_it(size: str, bytes_: int) -> None:
    assert bytes_of(size) == bytes_


def test_features_of_one_picture_are_not_copied() -> None:
    features = ImageFeatures(processor().image_processor, BoundedCache(10**9))
    assert features([picture(1)])["pixel_values"] is features([picture(1)])["pixel_values"]


@pytest.mark.slow
@pytest.mark.parametrize("name", ["qwen2.5-vl", "qwen3-vl"])
def test_memory_grows_by_the_limit_and_a_tenth_and_the_picture_in_hand(name: str) -> None:
    """The real processors at 1024×1024, in a process of their own. What one picture takes on its way counts beside a
    limit as small as this one."""
    command = [
        sys.executable,
        "-m",
        "bench.picture_memory",
        "--pictures",
        "46",
        "--limit",
        "512Mi",
        "--processor",
        name,
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600, cwd=REPOSITORY)
    assert done.returncode == 0, done.stderr[-2000:]
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["pictures"] == 46
    assert found["pictures"] * found["bytes_of_one"] > 2 * found["limit"]
    assert found["growth"] < 1.1 * found["limit"] + 2 * found["bytes_of_one"]
