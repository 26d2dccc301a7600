"""Wire format, version 1: what tool servers and their clients say to each other. One codec for both sides.

Bodies are msgpack with raw bytes, or JSON with base64 for people and curl; the content type decides. Errors are problem
documents (RFC 9457) whose `type` is `PROBLEM_ROOT` + family + "/" + kind.

    GET  /v1/tools            {"version": 1, "tools": [ToolSchema, ...]}
    POST /v1/tools/{name}     {"arguments": {...}, "images": {"img_1": {"sha256": hex, "data"?: bytes} | data}}
                              -> {"text": str, "data": {...}, "images": [{"data": bytes}, ...]}
    POST /v1/batch            {"calls": [{"tool": name, "arguments": ..., "images": ...}, ...]}
                              -> {"results": [{"result": {...}} | {"problem": {...}}, ...]}
    PUT, HEAD /v1/images/{sha256}    the bytes themselves; is it there?

Arguments name images by handle. A picture is its hash with its data, or the data alone; in JSON base64, or a data
URL. A picture whose `data` is left out must be known to the server by its hash; if it is not, the answer is the problem
`MISSING_IMAGES` with the list `sha256`, and the caller sends it again with data.
"""

import base64
import binascii
import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import msgpack

from thinkimg.amounts import TooMuch, check_json, check_msgpack
from thinkimg.errors import Family
from thinkimg.image import Image, ImageDecodeError, is_sha256
from thinkimg.tools.tool import ToolResult

VERSION = 1
MSGPACK = "application/msgpack"
JSON = "application/json"
PROBLEM = "application/problem+json"
PROBLEM_ROOT = "https://thinkimg.dev/problems/"
MISSING_IMAGES = "missing_images"
TIMEOUT_HEADER = "thinkimg-timeout-seconds"
"""How long the caller still waits, in seconds from the arrival of the request: clocks of machines differ."""

CALLER_HEADER = "thinkimg-caller"
"""On whose behalf a gateway calls: what a server holds, it holds for that caller alone, or for all who name none."""

_MEMORY = re.compile(r" at 0x[0-9a-fA-F]+")
"""Where an object lies in memory, as Python writes it: of no use to callers, but to attackers."""
_DATA_URL = re.compile(r"data:image/[\w.+-]{1,40};base64,", re.ASCII)
"""What browsers write before a picture's base64."""
_CALLER = re.compile(r"[\w.\-]{1,64}", re.ASCII)


class WireError(ValueError):
    """A body that is not of this format. The message says what was expected, and where."""


# ---- requests and replies -------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class ImageRef:
    """A picture by its hash, with or without its bytes."""

    sha256: str
    data: bytes | None = field(default=None, repr=False)


@dataclass(frozen=True)
class CallRequest:
    """One call. `tool` is empty where the URL names it."""

    arguments: dict[str, Any]
    images: dict[str, ImageRef] = field(default_factory=dict)
    tool: str = ""


@dataclass(frozen=True)
class Problem:
    """An error as it crosses the wire.

    Attributes:
        family: whose fault it is.
        kind: a stable word; for the model's errors that of `ModelError.kind`.
        extra: further members of the document.
    """

    status: int
    family: Family
    kind: str
    detail: str
    extra: dict[str, Any] = field(default_factory=dict)

    def as_document(self) -> dict[str, Any]:
        return {
            **self.extra,
            "type": f"{PROBLEM_ROOT}{self.family}/{self.kind}",
            "title": self.kind.replace("_", " "),
            "status": self.status,
            "detail": _MEMORY.sub("", self.detail),
            "kind": self.kind,
        }

    @classmethod
    def from_document(cls, document: Any, status: int) -> "Problem":
        """Read any document; what is not ours is the infrastructure's (a proxy's page, another program's error)."""
        members = document if isinstance(document, dict) else {}
        type_, detail = str(members.get("type", "")), str(members.get("detail", f"HTTP status {status}"))
        family, _, kind = type_.removeprefix(PROBLEM_ROOT).partition("/")
        extra = {name: value for name, value in members.items() if name not in _PROBLEM_MEMBERS}
        if type_.startswith(PROBLEM_ROOT) and kind:
            if family == "model":
                return cls(status, "model", kind, detail, extra)
            if family == "user":
                return cls(status, "user", kind, detail, extra)
            return cls(status, "infrastructure", kind, detail, extra)
        return cls(status, "infrastructure", "foreign_answer", detail, extra)


_PROBLEM_MEMBERS = ("type", "title", "status", "detail", "kind")


# ---- codec ----------------------------------------------------------------------------------------------------------


def encode(document: Any, media_type: str) -> bytes:
    """Serialise. In JSON, bytes become base64.

    Raises:
        WireError: something that the format cannot carry (integers over 64 bit in msgpack, lone surrogates).
    """
    try:
        if media_type == MSGPACK:
            return bytes(msgpack.packb(document))
        return json.dumps(document, default=_base64).encode()
    except (TypeError, ValueError, OverflowError, RecursionError) as error:
        raise WireError(f"this cannot be sent: {error}") from error


def decode(body: bytes, media_type: str) -> Any:
    """The inverse of `encode`, except that JSON gives base64 text back where bytes went in.

    Raises:
        WireError: the body does not parse.
    """
    try:
        if media_type == MSGPACK:
            return msgpack.unpackb(body, ext_hook=_refuse_extension)
        document = json.loads(body)
        if b"\\u" in body or b"\xed" in body:  # json lets halves of characters pass, and no answer could carry them
            json.dumps(document, ensure_ascii=False).encode()
        return document
    except (ValueError, RecursionError, msgpack.UnpackException) as error:
        raise WireError(f"the body is not {media_type}: {error}") from error


def media_type_of(header: str | None) -> str:
    """`MSGPACK` or `JSON`, from a Content-Type or Accept header. JSON is the default."""
    return MSGPACK if header and "msgpack" in header else JSON


def _decode_of_caller(body: bytes, media_type: str) -> Any:
    try:
        (check_msgpack if media_type == MSGPACK else check_json)(body)
    except TooMuch as error:
        raise WireError(str(error)) from error
    return decode(body, media_type)


def encode_request(request: CallRequest, media_type: str) -> bytes:
    """Raises `WireError`, see `encode`."""
    return encode(_request_document(request), media_type)


def decode_request(body: bytes, media_type: str) -> CallRequest:
    """Raises `WireError` that names the member which is wrong, or says that there is too much."""
    return _request_of(_decode_of_caller(body, media_type), "")


def decode_batch(body: bytes, media_type: str) -> list[CallRequest]:
    """Raises `WireError`, see `decode_request`."""
    document = _mapping(_decode_of_caller(body, media_type), "the body", {"calls"})
    calls = document.get("calls")
    if not isinstance(calls, list):
        raise WireError("`calls` must be a list")
    return [_request_of(call, f"calls[{number}].") for number, call in enumerate(calls)]


def result_document(result: ToolResult) -> dict[str, Any]:
    return {
        "text": result.text,
        "data": result.data,
        "images": [{"data": image.data} for image in result.images],
    }


def decode_result(body: bytes, media_type: str) -> ToolResult:
    """Raises `WireError`; `ImageDecodeError` for a picture that is none."""
    return result_of(decode(body, media_type))


def result_of(document: Any) -> ToolResult:
    """A result from its document; sizes and hashes of its pictures are found from their bytes, not believed."""
    if not isinstance(document, dict) or not isinstance(document.get("text"), str):
        raise WireError("a result has a `text`")
    images = tuple(
        Image.from_bytes(_bytes_of(picture.get("data"), f"images[{number}].data"))
        for number, picture in enumerate(document.get("images", ()))
    )
    return ToolResult(document["text"], document.get("data", {}), images)


def read_image(data: bytes, max_bytes: int, max_pixels: int) -> Image | Problem:
    """A picture that somebody sent, or why it is refused: 413 too large, 415 no picture that is accepted."""
    if len(data) > max_bytes:
        return Problem(
            413, "model", "refused", f"The image has {len(data):,} bytes; at most {max_bytes:,} are accepted."
        )
    try:
        return Image.from_bytes(data, max_bytes, max_pixels)
    except ImageDecodeError as error:
        return Problem(415, "model", "refused", str(error))


def is_caller(text: str) -> bool:
    """A name that `CALLER_HEADER` can carry: at most 64 letters, digits, `.`, `_` and `-`."""
    return _CALLER.fullmatch(text) is not None


# ---- parts ----------------------------------------------------------------------------------------------------------


def _request_document(request: CallRequest) -> dict[str, Any]:
    images = {
        name: {"sha256": image.sha256} if image.data is None else {"sha256": image.sha256, "data": image.data}
        for name, image in request.images.items()
    }
    document: dict[str, Any] = {"arguments": request.arguments, "images": images}
    if request.tool:
        document["tool"] = request.tool
    return document


def _request_of(value: Any, path: str) -> CallRequest:
    document = _mapping(value, path.rstrip(".") or "the body", {"arguments", "images", "tool"})
    arguments = document.get("arguments", {})
    images = document.get("images", {})
    tool = document.get("tool", "")
    if not isinstance(arguments, dict):
        raise WireError(f"`{path}arguments` must be a mapping")
    if not isinstance(images, dict):
        raise WireError(f"`{path}images` must be a mapping of handles")
    if not isinstance(tool, str):
        raise WireError(f"`{path}tool` must be a name")
    return CallRequest(arguments, {name: _image_ref(ref, f"{path}images.{name}") for name, ref in images.items()}, tool)


def _image_ref(value: Any, path: str) -> ImageRef:
    """A picture by hash, by hash and data, or, as people write it, the data alone."""
    if isinstance(value, str | bytes):
        return _without_hash(value, path)
    document = _mapping(value, f"`{path}`", {"sha256", "data"})
    sha256, data = document.get("sha256"), document.get("data")
    if sha256 is None and data is not None:
        return _without_hash(data, f"{path}.data")
    if not isinstance(sha256, str) or not is_sha256(sha256):
        raise WireError(f"`{path}.sha256` must be 64 hex digits; it may be left out where `data` is given")
    return ImageRef(sha256, None if data is None else _bytes_of(data, f"{path}.data"))


def _without_hash(value: Any, path: str) -> ImageRef:
    data = _bytes_of(value, path)
    return ImageRef(hashlib.sha256(data).hexdigest(), data)


def _mapping(value: Any, where: str, members: set[str]) -> Mapping[str, Any]:
    if not isinstance(value, dict):
        raise WireError(f"{where} must be a mapping")
    unknown = sorted(set(map(str, value)) - members)
    if unknown:
        raise WireError(f"{where} has unknown members {unknown}; it may have {sorted(members)}")
    return value


def _bytes_of(value: Any, path: str) -> bytes:
    if isinstance(value, bytes):
        return value
    if isinstance(value, str):
        try:
            return base64.b64decode(value[_prefix(value) :], validate=True)
        except (binascii.Error, ValueError) as error:
            raise WireError(f"`{path}` is not base64: {error}") from error
    raise WireError(f"`{path}` must be bytes (msgpack) or base64 text (JSON)")


def _prefix(text: str) -> int:
    """How many characters of it are a data URL's head."""
    found = _DATA_URL.match(text)
    return found.end() if found else 0


def _base64(value: Any) -> str:
    if isinstance(value, bytes):
        return base64.b64encode(value).decode("ascii")
    raise TypeError(f"{type(value).__name__} has no JSON form")


def _refuse_extension(code: int, data: bytes) -> Any:
    raise ValueError(f"extension type {code} is not part of the format")
