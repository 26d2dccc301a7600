from pathlib import Path

import pytest
from PIL import Image as Pillow

from thinkimg.client.cache import CachedError, ResultCache, cache_key
from thinkimg.image import Image
from thinkimg.tools.tool import ToolResult, ToolSchema

SCHEMA = ToolSchema(name="T", version="1", description="", parameters={}, image_parameters=("image",))
RESULT = ToolResult("text", {"a": [1, 2.5]}, (Image.from_pixels(Pillow.new("RGB", (5, 4), "red")),))


def test_the_key_sees_pixels_and_not_handles() -> None:
    first = cache_key(SCHEMA, {"image": "img_1", "n": 1}, {"img_1": "aa"})
    assert first == cache_key(SCHEMA, {"n": 1, "image": "img_7"}, {"img_7": "aa"})
    assert first != cache_key(SCHEMA, {"image": "img_1", "n": 1}, {"img_1": "bb"})


def test_nothing_that_is_written_looks_like_a_picture() -> None:
    schema = SCHEMA.model_copy(update={"image_parameters": ("image", "others")})
    of_picture = cache_key(schema, {"image": "img_1", "others": ["img_1"]}, {"img_1": "aa"})
    written = ("aa", {"sha256": "aa"}, ["picture", "aa"], [["picture", "aa"]], {"picture": "aa"}, ["several", "aa"])
    forged = {
        cache_key(schema, {"image": one, "others": many}, {}) for one in written for many in (*written, ["img_1"])
    }
    assert of_picture not in forged
    assert len(forged) == len(written) * (len(written) + 1), "and no two of them are one"


def test_the_key_sees_who_asks() -> None:
    keys = {cache_key(SCHEMA, {"image": "img_1"}, {"img_1": "aa"}, caller) for caller in ("", "a", "b")}
    assert len(keys) == 3


def test_the_key_sees_tool_version_and_arguments() -> None:
    keys = {
        cache_key(schema, arguments, {})
        for schema in (SCHEMA, SCHEMA.model_copy(update={"version": "2"}), SCHEMA.model_copy(update={"name": "U"}))
        for arguments in ({"n": 1}, {"n": 2}, {"n": "1"}, {"n": True})
    }
    assert len(keys) == 12


@pytest.mark.parametrize("entry", [RESULT, CachedError("no", "refused")])
def test_files_give_back_what_was_written(tmp_path: Path, entry: ToolResult | CachedError) -> None:
    ResultCache(folder=tmp_path).write_file("ab" * 32, entry)
    assert ResultCache(folder=tmp_path).read_file("ab" * 32) == entry
    assert not list(tmp_path.rglob(".partial*"))


@pytest.mark.parametrize("damage", [b"", b"x" * 10, b"x" * 500])
def test_a_damaged_file_counts_as_absent_and_goes(tmp_path: Path, damage: bytes) -> None:
    cache = ResultCache(folder=tmp_path)
    cache.write_file("ab" * 32, RESULT)
    (path,) = tmp_path.rglob("*.msgpack")
    path.write_bytes(damage)
    assert cache.read_file("ab" * 32) is None
    assert not path.exists()


def test_a_flipped_bit_is_noticed(tmp_path: Path) -> None:
    cache = ResultCache(folder=tmp_path)
    cache.write_file("ab" * 32, RESULT)
    (path,) = tmp_path.rglob("*.msgpack")
    content = bytearray(path.read_bytes())
    content[50] ^= 1
    path.write_bytes(content)
    assert cache.read_file("ab" * 32) is None


def test_memory_is_bounded_by_entries_and_by_bytes() -> None:
    few = ResultCache(max_entries=2)
    for key in "abc":
        few.put(key, RESULT)
        few.get("a")
    assert [key for key in "abc" if few.get(key)] == ["a", "c"]
    small = ResultCache(max_bytes=1500)
    for key in "abc":
        small.put(key, RESULT)
    assert len(small) == 2


def test_who_keeps_much_does_not_drive_out_others() -> None:
    cache = ResultCache(max_entries=10)
    cache.put("a", RESULT, "a")
    for number in range(30):
        cache.put(f"b{number}", RESULT, "b")
    assert cache.get("a") == RESULT
    assert len(cache) == 10
