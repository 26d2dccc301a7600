"""Hostile requests to a server: HTTP as bytes, so that nothing a library would correct is corrected.

A *face* is one protocol of a server: a function that makes one request. The strings that it uses carry a file and an
address that nobody may touch (`Bait`), so that a server which follows one is caught.
"""

import base64
import hashlib
import json
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import msgpack
from fuzz_pictures import encoded, hostile_picture
from PIL import Image, ImageDraw

Random = random.Random


@dataclass(frozen=True)
class Bait:
    """A file and an address that a server has no business with."""

    path: str
    url: str


@dataclass(frozen=True)
class Sent:
    """One request.

    Attributes:
        parts: of its bytes; between two of them the client waits.
        pauses: seconds before each further part.
        lawful: HTTP that must be answered; else the server may also close the connection.
        deadline: it asks for an answer in so short a time that 504 is right.
    """

    kind: str
    parts: tuple[bytes, ...]
    pauses: float = 0.0
    lawful: bool = True
    deadline: bool = False


Face = Callable[[Random, Bait], Sent]


def http(
    method: str, path: str, body: bytes = b"", headers: Mapping[str, str] | None = None, length: int | None = None
) -> bytes:
    lines = [f"{method} {path} HTTP/1.1", "host: 127.0.0.1", "connection: close"]
    lines += [f"{name}: {value}" for name, value in (headers or {}).items()]
    if method not in ("GET", "HEAD") or body:
        lines.append(f"content-length: {len(body) if length is None else length}")
    return "\r\n".join(lines).encode("utf-8", "surrogateescape") + b"\r\n\r\n" + body


# ---- values ---------------------------------------------------------------------------------------------------------


def hostile_string(chance: Random, bait: Bait) -> str:
    return chance.choice(
        (
            *(
                bait.path,
                f"file://{bait.path}",
                f"../../../../../..{bait.path}",
                f"{bait.path}\0.png",
                f"|cat {bait.path}",
            ),
            *(bait.url, f"{bait.url}?x={'a' * 300}", f"$(curl {bait.url})", f"`curl {bait.url}`", f"@{bait.path}"),
            *("/etc/passwd", "\\\\host\\share", "/dev/zero", "/proc/self/mem", "http://169.254.169.254/latest/"),
            *(
                "img_1",
                "img_0",
                "img_99999999999999999999",
                "IMG_1",
                "img_1\n",
                "",
                " ",
                "\0",
                "\ud800",
                "\u202e",
                "🦜" * 50,
            ),
            *("__class__", "{0.__class__.__mro__}", "%s%s%n", "'; DROP TABLE x;--", "<|image_pad|>", "x" * 20_000),
            *("1" * 5000, "9" * 400, "1e999", "-0", "NaN", "Infinity", "[[[[", "y=5", "x1=1 y1=2", "(((((" * 500),
            *('<point x="1" y="2" alt="y=5">' * 40, "a" * 30 + "!" * 30, "0x41", "true", "null"),
        )
    )


def hostile_value(chance: Random, bait: Bait, depth: int = 0) -> Any:
    kinds = 8 if depth > 2 else 11
    kind = chance.randrange(kinds)
    if kind < 3:
        return hostile_string(chance, bait)
    if kind < 6:
        return chance.choice(
            (0, -1, 1e308, -1e308, float("nan"), float("inf"), float("-inf"), 5e-324, 100.0000001, 2**53)
        )
    if kind == 6:
        return chance.choice((None, True, False, {}, [], "", 2**63, -(2**70), 10**400, _DEEP))
    if kind == 7:
        return [
            chance.choice((0, 50, 100, -5, 1e9, float("nan"))) for _ in range(chance.choice((0, 1, 2, 3, 4, 5, 300)))
        ]
    if kind == 8:
        return [hostile_value(chance, bait, depth + 1) for _ in range(chance.choice((1, 2, 4, 30)))]
    if kind == 9:
        return {hostile_string(chance, bait): hostile_value(chance, bait, depth + 1) for _ in range(3)}
    return {"x": hostile_value(chance, bait, depth + 1), "y": hostile_value(chance, bait, depth + 1)}


def _nested(levels: int) -> list[Any]:
    value: list[Any] = []
    for _ in range(levels):
        value = [value]
    return value


_DEEP = _nested(900)
"""As deep as a parser may just follow."""


def deep(chance: Random) -> bytes:
    """Nesting that no parser should follow to its end."""
    levels = chance.choice((50, 1000, 100_000))
    opening, closing = chance.choice(((b"[", b"]"), (b'{"a":', b"}"), (b'{"arguments":', b"}")))
    return opening * levels + b"1" + (closing * levels if chance.random() < 0.5 else b"")


def as_json(document: Any) -> bytes:
    """Base64 where bytes are, NaN and lone surrogates as they come."""
    return json.dumps(document, default=lambda data: base64.b64encode(data).decode()).encode("utf-8", "surrogatepass")


def as_msgpack(document: Any) -> bytes:
    try:
        return bytes(msgpack.packb(document, unicode_errors="surrogatepass"))
    except (OverflowError, ValueError):
        return bytes(msgpack.packb({"arguments": {"x": msgpack.ExtType(5, b"x")}}))


# ---- the tools' own protocol ----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class ToolsFace:
    """Wire version 1. Slow tools get a smaller share of the calls.

    Args:
        tools: name -> a call's arguments that are right, `img_1` being a picture.
        slow: names of tools that take long.
        limit: of bodies, in bytes.
    """

    tools: Mapping[str, Mapping[str, Any]]
    slow: Sequence[str] = ()
    limit: int = 8 * 1024 * 1024

    def __call__(self, chance: Random, bait: Bait) -> Sent:
        makers: list[tuple[float, Callable[[Random, Bait], Sent]]] = [
            *((5, self.arguments), (4, self.picture), (1, self.garbage), (1, self.nested), (1, self.refs)),
            *((1, self.paths), (1, self.headers), (1, self.images), (1, self.batches), (0.2, self.oversized)),
            *((0.2, self.slow_sender), (0.4, not_http)),
        ]
        (maker,) = chance.choices([maker for _, maker in makers], [weight for weight, _ in makers])
        return maker(chance, bait)

    def arguments(self, chance: Random, bait: Bait) -> Sent:
        """A right call in which some argument is not."""
        name, right = self._tool(chance)
        arguments = dict(right)
        for argument in chance.sample(sorted(arguments), chance.randrange(1, len(arguments) + 1)):
            arguments[argument] = hostile_value(chance, bait)
        if chance.random() < 0.2:
            arguments[hostile_string(chance, bait)] = hostile_value(chance, bait)
        if chance.random() < 0.1:
            arguments = {"param": hostile_string(chance, bait), "image": "img_1"}
        return self._call(chance, "arguments", name, {"arguments": arguments, "images": {"img_1": _ref(_SMALL)}})

    def picture(self, chance: Random, bait: Bait) -> Sent:
        name, right = self._tool(chance)
        reference = _ref(hostile_picture(chance))
        return self._call(chance, "picture", name, {"arguments": dict(right), "images": {"img_1": reference}})

    def refs(self, chance: Random, bait: Bait) -> Sent:
        """Everything around the arguments is wrong."""
        name, right = self._tool(chance)
        document: dict[str, Any] = {"arguments": dict(right), "images": {"img_1": _ref(_SMALL)}}
        place = chance.choice(("arguments", "images", "tool", "img_1", "sha256", "data", "extra"))
        if place == "img_1":
            document["images"]["img_1"] = hostile_value(chance, bait)
        elif place in ("sha256", "data"):
            document["images"]["img_1"][place] = hostile_value(chance, bait)
        else:
            document[place] = hostile_value(chance, bait)
        return self._call(chance, "refs", name, document)

    def garbage(self, chance: Random, bait: Bait) -> Sent:
        name, _ = self._tool(chance)
        body = chance.choice(
            (b"", b"{", b"null", b"\xff" * 50, b"[]", chance.randbytes(300), b'{"a":1,"a":2}', b"\xc1")
        )
        kind = chance.choice(
            ("application/json", "application/msgpack", "text/xml", "multipart/form-data; boundary=x", "\x01")
        )
        return Sent(
            "garbage", (http("POST", f"/v1/tools/{name}", body, {"content-type": kind}),), lawful=kind != "\x01"
        )

    def nested(self, chance: Random, bait: Bait) -> Sent:
        name, _ = self._tool(chance)
        if chance.random() < 0.5:
            body, kind = deep(chance), "application/json"
        else:
            body, kind = b"\x91" * chance.choice((50, 2000, 100_000)) + b"\x01", "application/msgpack"
        return Sent("nested", (http("POST", f"/v1/tools/{name}", body, {"content-type": kind}),))

    def paths(self, chance: Random, bait: Bait) -> Sent:
        method = chance.choice(
            ("GET", "POST", "PUT", "HEAD", "DELETE", "TRACE", "OPTIONS", "PATCH", "CONNECT", "X" * 30)
        )
        end = chance.choice(
            ("..%2f..%2fetc%2fpasswd", f"..{bait.path}", "%00", "%ff", "a" * 5000, "//", "?x=" + "y" * 900, ";x")
        )
        path = chance.choice(("/v1/tools/", "/v1/images/", "/v1/", "/", "/metrics/", "/static/")) + end
        return Sent("paths", (http(method, path),), lawful=method != "CONNECT")

    def headers(self, chance: Random, bait: Bait) -> Sent:
        name, right = self._tool(chance, quick=True)
        document = {"arguments": dict(right), "images": {"img_1": _ref(_SMALL)}}
        timeout = chance.choice(("0.000001", "1e-300", "nan", "-1", "soon", "1e400", "0x1", ""))
        headers = {
            "thinkimg-timeout-seconds": timeout,
            "x-request-id": chance.choice(("a b", "x" * 9000, bait.url, "é")),
            "authorization": chance.choice(("Bearer", "Bearer " + "k" * 5000, "Basic =")),
            "accept": chance.choice(("*/*", "application/msgpack", "text/html", ",,,;q=2")),
            "content-type": "application/json",
        }
        chosen = {name: headers[name] for name in chance.sample(sorted(headers), 3)}
        return Sent("headers", (http("POST", f"/v1/tools/{name}", as_json(document), chosen),), deadline=True)

    def images(self, chance: Random, bait: Bait) -> Sent:
        data = hostile_picture(chance)
        address = chance.choice((hashlib.sha256(data).hexdigest(), "0" * 64, "A" * 64, "x", "%2e%2e%2fx"))
        return Sent("images", (http(chance.choice(("PUT", "PUT", "HEAD")), f"/v1/images/{address}", data),))

    def batches(self, chance: Random, bait: Bait) -> Sent:
        name, right = self._tool(chance, quick=True)
        call = {"tool": name, "arguments": dict(right), "images": {"img_1": _ref(_SMALL)}}
        calls = chance.choice(
            (
                [call, {**call, "tool": hostile_string(chance, bait)}, hostile_value(chance, bait)],
                [{**call, "arguments": {"image": hostile_value(chance, bait)}}] * 8,
                [call] * 300,
                hostile_value(chance, bait),
            )
        )
        return Sent(
            "batches", (http("POST", "/v1/batch", as_json({"calls": calls}), {"content-type": "application/json"}),)
        )

    def oversized(self, chance: Random, bait: Bait) -> Sent:
        name, _ = self._tool(chance)
        if chance.random() < 0.5:  # it says how much it is going to send, and the server need not read it
            return Sent("oversized", (http("POST", f"/v1/tools/{name}", b"x" * 100, length=10**12),), lawful=False)
        head = f"POST /v1/tools/{name} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n"
        head += "transfer-encoding: chunked\r\n\r\n"
        piece = b"100000\r\n" + b"x" * 0x100000 + b"\r\n"
        return Sent("oversized", (head.encode() + piece * (self.limit // 0x100000 + 2) + b"0\r\n\r\n",), lawful=False)

    def slow_sender(self, chance: Random, bait: Bait) -> Sent:
        name, right = self._tool(chance, quick=True)
        whole = http(
            "POST", f"/v1/tools/{name}", as_json({"arguments": dict(right), "images": {"img_1": _ref(_SMALL)}})
        )
        at = chance.randrange(1, len(whole))
        parts = (whole[:at], whole[at:]) if chance.random() < 0.5 else (whole[:at],)
        return Sent("slow_sender", parts, pauses=0.2, lawful=False)

    def _tool(self, chance: Random, quick: bool = False) -> tuple[str, Mapping[str, Any]]:
        names = [name for name in self.tools if name not in self.slow]
        if self.slow and not quick and chance.random() < 0.1:
            names = list(self.slow)
        name = chance.choice(names)
        return name, self.tools[name]

    def _call(self, chance: Random, kind: str, name: str, document: Any) -> Sent:
        body, media_type = (as_json(document), "application/json")
        if chance.random() < 0.5:
            body, media_type = as_msgpack(document), "application/msgpack"
        return Sent(kind, (http("POST", f"/v1/tools/{name}", body, {"content-type": media_type}),))


def not_http(chance: Random, bait: Bait) -> Sent:
    bytes_ = chance.choice(
        (
            *(
                b"\0" * 100,
                b"GET\r\n\r\n",
                b"GET / HTTP/9.9\r\n\r\n",
                chance.randbytes(500),
                b"\x16\x03\x01\x02\x00" * 20,
            ),
            *(b"POST / HTTP/1.1\r\ncontent-length: -1\r\n\r\n", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"),
            b"POST / HTTP/1.1\r\ntransfer-encoding: chunked\r\ncontent-length: 5\r\n\r\nzz\r\n",
            b"GET / HTTP/1.1\r\n" + b"x: y\r\n" * 5000 + b"\r\n",
            b"GET /livez HTTP/1.1\r\nhost: 127.0.0.1\r\nupgrade: websocket\r\nconnection: upgrade\r\n\r\n",
        )
    )
    return Sent("not_http", (bytes_,), lawful=False)


def _ref(data: bytes) -> dict[str, Any]:
    return {"sha256": hashlib.sha256(data).hexdigest(), "data": data}


def _small() -> bytes:
    picture = Image.new("RGB", (160, 120), "white")
    pen = ImageDraw.Draw(picture)
    pen.rectangle((20, 40, 60, 110), fill="#1f77b4")
    pen.text((20, 10), "Title 2024", fill="black")
    return encoded(picture)


_SMALL = _small()


def small_picture() -> bytes:
    """One that is as it should be."""
    return _SMALL
