"""What a body would take is found before anything of it is parsed."""

import base64
import json
import os
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgpack
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from tests.support import REPOSITORY
from thinkimg import amounts, wire
from thinkimg.amounts import LONG_BYTES, MOST_TEXT_BYTES, MOST_VALUES, SMALL_BYTES, TooMuch, check_json, check_msgpack
from thinkimg.gateway.config import Limits
from thinkimg.serving.config import ServerConfig
from thinkimg.serving.memory import at_most, memory_limit

MIB = 1024 * 1024
CHECKS: dict[str, tuple[Callable[[bytes], None], Callable[[Any], bytes]]] = {
    "json": (check_json, lambda document: json.dumps(document).encode()),
    "msgpack": (check_msgpack, msgpack.packb),
}
HOSTILE: dict[str, Any] = {
    "empty lists": [[] for _ in range(200_000)],
    "empty mappings": [{} for _ in range(200_000)],
    "numbers": list(range(200_000)),
    "short texts": ["ab"] * 200_000,
    "keys": {f"k{number}": 0 for number in range(120_000)},
    "lists in lists": [[[[] for _ in range(50)] for _ in range(50)] for _ in range(50)],
    "long text, four bytes a letter": "😀" * 700_000,
    "texts of letters that are no base64": ["é" * 3000] * 800,
}


@pytest.mark.parametrize("form", CHECKS)
@pytest.mark.parametrize("name", HOSTILE)
def test_what_grows_in_memory_is_refused_before_it_is_parsed(form: str, name: str) -> None:
    check, encode = CHECKS[form]
    body = encode({"arguments": {"a": HOSTILE[name]}, "images": {}})
    tracemalloc.start()
    try:
        with pytest.raises(TooMuch, match=r"more than 100,000 values|bytes beside its pictures"):
            check(body)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 4 * MIB, "looking costs little"
    media_type = wire.JSON if form == "json" else wire.MSGPACK
    with pytest.raises(wire.WireError, match=r"values|beside its pictures"):
        wire.decode_request(body, media_type)
    with pytest.raises(wire.WireError, match=r"values|beside its pictures"):
        wire.decode_batch(body, media_type)


MALFORMED = {
    "quotes without an end": b'"' + b'\\"' * 2_000_000,
    "strings without commas": b'""' * 200_000,
    "white space": b" " * 3_000_000,
    "one quote at the end": b" " * 100_000 + b'"',
}


@pytest.mark.parametrize("name", MALFORMED)
def test_what_is_no_json_costs_no_more(name: str) -> None:
    for check in (check_json, check_msgpack):
        try:
            check(MALFORMED[name])
        except TooMuch:
            continue
        with pytest.raises(json.JSONDecodeError):
            json.loads(MALFORMED[name])


def test_a_list_that_promises_more_than_it_has_is_refused() -> None:
    body = b"\x92\xdd\x0f\xff\xff\xff" + b"\x90" * 70_000
    with pytest.raises(TooMuch, match="100,000 values"):
        check_msgpack(body)


@pytest.mark.parametrize(
    "first", [msgpack.Timestamp(7), msgpack.Timestamp(7, 7), msgpack.ExtType(5, b"x"), msgpack.ExtType(5, b"x" * 300)]
)
def test_an_extension_hides_nothing(first: Any) -> None:
    with pytest.raises(TooMuch, match="100,000 values"):
        check_msgpack(msgpack.packb([first, *([] for _ in range(200_000))]))


def test_what_is_no_type_of_msgpack_hides_nothing() -> None:
    """The parser stops where it stands, and has made what came before it."""
    with pytest.raises(TooMuch, match="100,000 values"):
        check_msgpack(b"\xdc\xff\xff" + b"\x90" * 65_535 + b"\xc1" * 70_000)


@pytest.mark.parametrize("escaped", [False, True])
def test_pictures_of_the_largest_size_pass(escaped: bool) -> None:
    data = os.urandom(20 * MIB)
    text = base64.b64encode(data).decode()
    body = json.dumps({"arguments": {"text": "wie groß? 😀"}, "images": {"a": {"sha256": "0" * 64, "data": text}}})
    check_json((body.replace("/", "\\/") if escaped else body).encode())
    check_json(json.dumps([{"image_url": {"url": f"data:image/png;base64,{text}"}}] * 2).encode())
    for picture in (data, text):
        check_msgpack(msgpack.packb({"arguments": {}, "images": {"a": {"sha256": "0" * 64, "data": picture}}}))


@pytest.mark.parametrize("form", CHECKS)
def test_what_people_send_passes(form: str) -> None:
    check, encode = CHECKS[form]
    check(encode({"points": [[number / 7, number / 9] for number in range(9_000)], "text": "a, b: [c] {d} " * 2_000}))
    check(encode({"text": "ein langer Text, mit ß und 😀. " * 20_000}))


LEAVES = st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats() | st.text() | st.binary()
DOCUMENTS = st.recursive(LEAVES, lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner), max_leaves=40)


def count(document: Any) -> int:
    if isinstance(document, dict):
        return 1 + sum(count(key) + count(value) for key, value in document.items())
    return 1 + sum(map(count, document)) if isinstance(document, list) else 1


@given(DOCUMENTS)
def test_values_of_msgpack_are_counted_exactly(document: Any) -> None:
    body, number = msgpack.packb(document), count(document)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(amounts, "SMALL_BYTES", 0)
        patch.setattr(amounts, "MOST_VALUES", number)
        check_msgpack(body)
        patch.setattr(amounts, "MOST_VALUES", number - 1)
        with pytest.raises(TooMuch):
            check_msgpack(body)


@given(st.text(min_size=0, max_size=300), st.booleans())
def test_strings_of_json_are_found_whole(text: str, ascii_only: bool) -> None:
    body = json.dumps({"a": text, text: "b"}, ensure_ascii=ascii_only).encode("utf-8", "surrogatepass")
    found = [json.loads(body[start:end].decode("utf-8", "surrogatepass")) for start, end in amounts._strings(body)]
    assert found == [one for pair in {"a": text, text: "b"}.items() for one in pair]


def test_limits_are_as_documented() -> None:
    assert SMALL_BYTES < MOST_TEXT_BYTES
    assert LONG_BYTES < SMALL_BYTES
    assert MOST_VALUES * 60 < 8 * MIB, "what small objects take"


# ---- the container's memory ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("content", "limit"), [("1073741824\n", 1073741824), ("max\n", None), ("", None), (None, None)]
)
def test_the_containers_limit_is_read(tmp_path: Path, content: str | None, limit: int | None) -> None:
    file = tmp_path / "memory.max"
    if content is not None:
        file.write_text(content)
    assert memory_limit([tmp_path / "absent", file]) == limit
    assert at_most(512 * MIB, 1 / 4, [file]) == (256 * MIB if limit else 512 * MIB)


def test_defaults_follow_from_the_containers_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    def within(size: int | None) -> tuple[Limits, ServerConfig]:
        monkeypatch.setattr("thinkimg.serving.memory.memory_limit", lambda files: size)
        return Limits(), ServerConfig.model_validate({"tools": [{"name": "Crop"}]})

    unlimited, server = within(None)
    assert (unlimited.pending_bytes, unlimited.held_bytes) == (1024 * MIB, 512 * MIB)
    assert (server.image_store_bytes, server.decoded_bytes, server.max_pending_bytes) == (
        512 * MIB,
        64 * MIB,
        1024 * MIB,
    )
    for size in (256 * MIB, 1024 * MIB, 2048 * MIB):
        limits, server = within(size)
        assert limits.held_bytes + limits.pending_bytes <= size // 2
        assert limits.body_bytes <= limits.pending_bytes
        assert server.image_store_bytes + server.max_pending_bytes + server.decoded_bytes <= size * 9 // 16
    assert Limits(held_bytes=7).held_bytes == 7


def test_every_tool_and_the_gateway_of_the_chart_have_a_memory_limit() -> None:
    values = yaml.safe_load((REPOSITORY / "charts" / "thinkimg-tools" / "values.yaml").read_text())
    parts = {**values["tools"], "gateway": values["gateway"]}
    assert len(parts) >= 10
    assert [name for name, part in parts.items() if "memory" not in part.get("resources", {}).get("limits", {})] == []
    assert "limits" not in values["gateway"]["config"], "they follow from the memory limit"
