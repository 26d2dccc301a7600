"""The codec: what goes in comes out, in both forms, and nothing else is accepted."""

import base64
import hashlib
import json
from typing import Any

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from thinkimg import wire

json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=10,
)
refs = st.binary(max_size=50).flatmap(
    lambda data: st.sampled_from([None, data]).map(lambda sent: wire.ImageRef(hashlib.sha256(data).hexdigest(), sent))
)
requests = st.builds(
    wire.CallRequest,
    arguments=st.dictionaries(st.text(), json_values, max_size=4),
    images=st.dictionaries(st.text(min_size=1), refs, max_size=3),
    tool=st.text(),
)
media_types = st.sampled_from([wire.MSGPACK, wire.JSON])


@given(requests, media_types)
def test_a_request_comes_out_as_it_went_in(request: wire.CallRequest, media_type: str) -> None:
    assert wire.decode_request(wire.encode_request(request, media_type), media_type) == request


@given(st.lists(requests, max_size=3), media_types)
def test_a_batch_comes_out_as_it_went_in(batch: list[wire.CallRequest], media_type: str) -> None:
    calls = [wire.decode(wire.encode_request(request, media_type), media_type) for request in batch]
    assert wire.decode_batch(wire.encode({"calls": calls}, media_type), media_type) == batch


@given(st.binary(max_size=200), media_types)
def test_any_bytes_are_read_or_refused(body: bytes, media_type: str) -> None:
    try:
        wire.decode_request(body, media_type)
    except wire.WireError:
        pass


@given(json_values, media_types)
def test_any_document_is_read_or_refused(document: Any, media_type: str) -> None:
    try:
        wire.decode_batch(wire.encode(document, media_type), media_type)
    except wire.WireError:
        pass


@given(
    st.sampled_from(["model", "infrastructure", "user"]),
    st.sampled_from(["refused", "overloaded", wire.MISSING_IMAGES]),
    st.text(),
    st.integers(400, 599),
)
def test_a_problem_comes_out_as_it_went_in(family: Any, kind: str, detail: str, status: int) -> None:
    problem = wire.Problem(status, family, kind, detail, {"sha256": ["0" * 64]})
    document = json.loads(json.dumps(problem.as_document()))
    assert document["type"].startswith("https://")
    assert document["status"] == status
    assert wire.Problem.from_document(document, status) == problem


@pytest.mark.parametrize("document", [None, [], "text", {}, {"type": 7}, {"type": "about:blank", "detail": "no"}])
def test_a_foreign_error_is_the_infrastructures(document: Any) -> None:
    assert wire.Problem.from_document(document, 502).family == "infrastructure"


def test_people_may_write_json_with_base64() -> None:
    sha256 = hashlib.sha256(b"abc").hexdigest()
    body = {"arguments": {"a": 1}, "images": {"img_1": {"sha256": sha256, "data": base64.b64encode(b"abc").decode()}}}
    assert wire.decode_request(json.dumps(body).encode(), wire.JSON).images["img_1"].data == b"abc"


@pytest.mark.parametrize(
    "written", ["YWJj", "data:image/png;base64,YWJj", "data:image/svg+xml;base64,YWJj", {"data": "YWJj"}]
)
def test_a_picture_needs_no_hash(written: Any) -> None:
    request = wire.decode_request(json.dumps({"images": {"img_1": written}}).encode(), wire.JSON)
    assert request.images == {"img_1": wire.ImageRef(hashlib.sha256(b"abc").hexdigest(), b"abc")}


def test_nor_do_bytes() -> None:
    request = wire.decode_request(msgpack.packb({"images": {"img_1": b"abc"}}), wire.MSGPACK)
    assert request.images == {"img_1": wire.ImageRef(hashlib.sha256(b"abc").hexdigest(), b"abc")}


@pytest.mark.parametrize(
    ("document", "said"),
    [
        ([], "the body must be a mapping"),
        ({"arguments": []}, "`arguments` must be a mapping"),
        ({"images": []}, "`images` must be a mapping"),
        ({"pictures": {}}, "unknown members ['pictures']"),
        ({"images": {"img_1": 7}}, "`images.img_1` must be a mapping"),
        ({"images": {"img_1": "x"}}, "`images.img_1` is not base64"),
        ({"images": {"img_1": "data:text/html;base64,YWJj"}}, "`images.img_1` is not base64"),
        ({"images": {"img_1": {}}}, "`images.img_1.sha256` must be 64 hex digits"),
        ({"images": {"img_1": {"sha256": "../etc/passwd"}}}, "`images.img_1.sha256` must be 64 hex digits"),
        ({"images": {"img_1": {"sha256": "0" * 64, "data": "%%"}}}, "`images.img_1.data` is not base64"),
        ({"images": {"img_1": {"sha256": "0" * 64, "data": 7}}}, "`images.img_1.data` must be bytes"),
        ({"tool": 7}, "`tool` must be a name"),
    ],
)
def test_a_wrong_member_is_named(document: Any, said: str) -> None:
    with pytest.raises(wire.WireError) as caught:
        wire.decode_request(json.dumps(document).encode(), wire.JSON)
    assert said in str(caught.value)


def test_deep_nesting_and_extension_types_are_refused() -> None:
    for body, media_type in (
        (b"[" * 100_000, wire.JSON),
        (b"\x91" * 100_000 + b"\x90", wire.MSGPACK),
        (msgpack.packb({"arguments": {"x": msgpack.ExtType(5, b"x")}}), wire.MSGPACK),
    ):
        with pytest.raises(wire.WireError):
            wire.decode_request(body, media_type)


@pytest.mark.parametrize("value", [2**70, "\ud800", object()])
def test_what_the_format_cannot_carry_is_refused(value: Any) -> None:
    with pytest.raises(wire.WireError):
        wire.encode({"x": value}, wire.MSGPACK)
