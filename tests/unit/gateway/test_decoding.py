"""Whole pictures are decoded in threads of their own, one of each caller at a time."""

import asyncio
import threading
from typing import Any

import pytest
from PIL import Image as Pillow

from thinkimg.gateway.config import Limits
from thinkimg.gateway.pictures import Pictures
from thinkimg.image import Image, ImageDecodeError

pytestmark = pytest.mark.anyio
PICTURE = Image.from_pixels(Pillow.new("RGB", (4, 4), "white"))


class Slow:
    """A picture that is decoded once it is allowed to."""

    def __init__(self, error: Exception | None = None) -> None:
        self.begun, self.may_end = threading.Event(), threading.Event()
        self._error = error

    def pixels(self) -> None:
        self.begun.set()
        self.may_end.wait()
        if self._error is not None:
            raise self._error


async def begun(picture: Slow) -> None:
    await asyncio.to_thread(picture.begun.wait)


async def test_one_callers_pictures_do_not_take_all_threads() -> None:
    pictures, slow = Pictures(Limits()), [Slow() for _ in range(50)]
    waiting = [asyncio.create_task(pictures.decode("bob", one)) for one in slow]
    await begun(slow[0])
    await pictures.decode("alice", PICTURE)
    assert [one.begun.is_set() for one in slow] == [True] + [False] * 49
    for one in slow:
        one.may_end.set()
    await asyncio.gather(*waiting)


async def test_nothing_else_waits_for_pictures_that_are_decoded() -> None:
    pictures, slow = Pictures(Limits()), [Slow() for _ in range(50)]
    waiting = [asyncio.create_task(pictures.decode(f"caller {n}", one)) for n, one in enumerate(slow)]
    await begun(slow[0])
    assert await asyncio.to_thread(lambda: "a reply") == "a reply"
    for one in slow:
        one.may_end.set()
    await asyncio.gather(*waiting)


async def test_who_leaves_keeps_his_turn_until_the_work_has_ended() -> None:
    pictures, first, second = Pictures(Limits()), Slow(), Slow()
    left = asyncio.create_task(pictures.decode("bob", first))
    await begun(first)
    left.cancel()
    with pytest.raises(asyncio.CancelledError):
        await left
    again = asyncio.create_task(pictures.decode("bob", second))
    await asyncio.sleep(0)
    assert not second.begun.is_set()
    first.may_end.set()
    second.may_end.set()
    await again


async def test_broken_data_are_said_and_free_the_turn(caplog: Any) -> None:
    pictures, broken = Pictures(Limits()), Slow(ImageDecodeError("cut off"))
    broken.may_end.set()
    with pytest.raises(ImageDecodeError, match="cut off"):
        await pictures.decode("bob", broken)
    await pictures.decode("bob", PICTURE)
