"""`Tool.run_batch`: one result per call, in order, and nobody pays for a neighbour's fault."""

from collections.abc import Mapping, Sequence
from typing import Any

import pytest
from PIL import Image as Pillow

from thinkimg.errors import InfrastructureError, ModelError
from thinkimg.image import Image
from thinkimg.tools.arguments import Number
from thinkimg.tools.registry import load_tool
from thinkimg.tools.tool import ToolOptions, ToolResult, only_result, tool

PICTURE = Image.from_pixels(Pillow.new("RGB", (20, 10), "white"))
PNG = PICTURE.data
BROKEN = Image.from_bytes(PNG[:-40])
"""A good header and no pixels behind it."""


class Brighten:
    """Adds up what it is given; `sizes` are those of the batches that ran."""

    def __init__(self, backend: str, options: ToolOptions) -> None:
        self.backend = backend
        self.sizes: list[int] = []
        self.details = {}

    def load(self) -> None:
        self.details = {"device": "cpu", "dtype": "float32"}

    def run(self, image: Image, by: Number = 1.0) -> ToolResult:
        """Add to a picture's width.

        Args:
            image: The picture.
            by: What to add.
        """
        return only_result(self.run_batch([{"image": image, "by": by}]))

    def run_batch(self, calls: Sequence[Mapping[str, Any]]) -> list[ToolResult | ModelError]:
        self.sizes.append(len(calls))
        if any(call["by"] == 99 for call in calls):
            raise InfrastructureError("out of memory")
        return [self._one(call) for call in calls]

    def _one(self, call: Mapping[str, Any]) -> ToolResult | ModelError:
        if call["by"] == 50:
            return ModelError("50 is refused", kind="refused")
        size = call["image"].pixels().width
        return ToolResult(f"{size + call['by']:g}")


brighten = tool(name="Brighten", version="1")(Brighten)


def bound(loaded, *values, image=PICTURE):
    return [loaded.bind({"image": "img_1", "by": value}, {"img_1": image}) for value in values]


def shown(results):
    return [str(result) if isinstance(result, ModelError) else result.text for result in results]


def test_a_batch_is_computed_at_once_and_in_order():
    loaded = brighten.load()
    assert loaded.batched
    assert shown(loaded.run_batch(bound(loaded, 3, 1, 2))) == ["23", "21", "22"]
    assert loaded._implementation.run.__self__.sizes == [3]
    assert loaded.run({"image": "img_1", "by": 3}, {"img_1": PICTURE}).text == "23"


def test_one_calls_error_is_its_own():
    loaded = brighten.load()
    results = loaded.run_batch(bound(loaded, 1, 50, 2))
    assert shown(results) == ["21", "50 is refused", "22"]
    assert isinstance(results[1], ModelError)
    assert results[1].kind == "refused"


def test_a_broken_picture_among_good_ones_hurts_none_of_them():
    loaded = brighten.load()
    results = loaded.run_batch([*bound(loaded, 1), *bound(loaded, 1, image=BROKEN), *bound(loaded, 2)])
    assert shown(results)[::2] == ["21", "22"]
    assert isinstance(results[1], ModelError)
    assert str(results[1]).startswith("Brighten: the image data is broken")


def test_a_failure_of_the_machine_is_the_whole_batchs():
    loaded = brighten.load()
    with pytest.raises(InfrastructureError, match="out of memory"):
        loaded.run_batch(bound(loaded, 1, 99))


def test_a_batch_that_loses_a_result_is_a_bug_and_said_so():
    class Forgetful(Brighten):
        def run_batch(self, calls):
            return super().run_batch(calls)[1:]

    loaded = tool(name="Forgetful", version="1")(Forgetful).load()
    with pytest.raises(RuntimeError, match="1 results for 2 calls"):
        loaded.run_batch(bound(loaded, 1, 2))


def test_a_tool_without_batches_runs_them_one_after_another():
    crop = load_tool("Crop")
    assert not crop.batched
    good = crop.bind({"image": "img_1", "box": [0, 0, 50, 50]}, {"img_1": PICTURE})
    results = crop.run_batch([good, {**good, "image": BROKEN}, good])
    assert [isinstance(result, ModelError) for result in results] == [False, True, False]
    assert results[0] == results[2] == crop.run({"image": "img_1", "box": [0, 0, 50, 50]}, {"img_1": PICTURE})
    assert crop.run_batch([]) == []


def test_what_was_chosen_on_this_machine_is_shown():
    assert brighten.load().details == {"device": "cpu", "dtype": "float32"}
    assert load_tool("Crop").details == {}
