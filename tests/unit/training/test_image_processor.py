"""The cached image processor gives exactly what the original gives."""

from pathlib import Path

import pytest
import torch

from tests.support.training.scripted_agent import World, picture
from thinkimg.training.image_processor import CachedImageProcessor, with_cached_images


def test_features_equal_those_of_the_original_in_one_batch() -> None:
    world = World()
    images = [picture(1), picture(2, 200, 50), picture(1), picture(3, 33, 97)]
    cached = CachedImageProcessor(world.features)
    original = world.processor.image_processor(images=[image.pixels() for image in images], return_tensors="pt")
    for _ in range(2):
        made = cached(images=images, return_tensors="pt")
        assert torch.equal(made["pixel_values"], original["pixel_values"])
        assert torch.equal(made["image_grid_thw"], original["image_grid_thw"])
    assert world.features.runs == 3
    assert world.family.feature_tokens(cached.cached_features([images[1]])) == world.family.image_tokens(images[1])


def test_a_processor_with_cached_images_saves_the_original(tmp_path: Path) -> None:
    world = World()
    copied = with_cached_images(world.processor, world.features)
    copied.image_processor([picture(1)])
    copied.save_pretrained(tmp_path / "cached")
    world.processor.save_pretrained(tmp_path / "plain")
    assert (tmp_path / "cached/processor_config.json").read_text() == (
        tmp_path / "plain/processor_config.json"
    ).read_text()
    assert not isinstance(world.processor.image_processor, CachedImageProcessor)


def test_other_options_are_refused_rather_than_ignored() -> None:
    with pytest.raises(TypeError, match="do_resize"):
        CachedImageProcessor(World().features)([picture(1)], do_resize=False)
