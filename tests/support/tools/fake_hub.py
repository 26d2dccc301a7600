"""A Hugging Face hub on this machine, with every fault that a download can meet."""

import hashlib
import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from typing import Any
from urllib.parse import unquote, urlsplit

from local_http import serving

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@dataclass
class FakeHub:
    """One repository, `org/name`, with one revision, `main`.

    Attributes:
        files: path -> what it holds.
        large: paths that the hub keeps in Git LFS, so that it states their SHA-256.
        stated: path -> what it states instead of the truth: `sha256`, `size`.
        faults: path -> what goes wrong with the next requests for it, one each:
            `cut` (half of what is asked for, then the connection ends), `cut at once`, `no range` (all, from the
            beginning, with status 200), `other range`, `shorter` and `longer` (said and sent), `no length, cut`,
            `no length`, `500`, `429`, `403`, `redirect`, `redirect without end`, `else` (other bytes, of the same
            length), `416`.
        asked: path, range and key of every request for a file.
    """

    url: str = ""
    files: dict[str, bytes] = field(default_factory=dict)
    large: set[str] = field(default_factory=set)
    stated: dict[str, dict[str, Any]] = field(default_factory=dict)
    faults: dict[str, list[str]] = field(default_factory=dict)
    commit: str = COMMIT
    listed: int = 0
    asked: list[tuple[str, str, str]] = field(default_factory=list)

    def listing(self) -> dict[str, Any]:
        return {"sha": self.commit, "siblings": [self._entry(path) for path in self.files]}

    def _entry(self, path: str) -> dict[str, Any]:
        data, stated = self.files[path], self.stated.get(path, {})
        size = stated.get("size", len(data))
        entry: dict[str, Any] = {"rfilename": path, "size": size}
        if path in self.large:
            entry["lfs"] = {"sha256": stated.get("sha256", sha256(data)), "size": size, "pointerSize": 130}
        return entry


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


@contextmanager
def fake_hub() -> Iterator[FakeHub]:
    hub = FakeHub()

    class Handler(BaseHTTPRequestHandler):
        def log_message(self, *_: object) -> None: ...

        def do_GET(self) -> None:
            path = unquote(urlsplit(self.path).path)
            if path == "/api/models/org/name/revision/main":
                hub.listed += 1
                self._send(200, json.dumps(hub.listing()).encode())
            elif path.startswith("/api/models/"):
                known = path.startswith("/api/models/org/name/")
                self._send(404, b"{}", {"x-error-code": "RevisionNotFound" if known else "RepoNotFound"})
            elif match := re.fullmatch(rf"/(?:cdn|org/name/resolve/{hub.commit})/(.+)", path):
                hub.asked.append((match[1], self.headers.get("range", ""), self.headers.get("authorization", "")))
                faults = hub.faults.get(match[1], [])
                self._file(match[1], faults.pop(0) if faults else "")
            else:
                self._send(404, b"")

        def _send(self, status: int, body: bytes, headers: dict[str, str] | None = None) -> None:
            self.send_response(status)
            for name, value in {"content-length": str(len(body)), **(headers or {})}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body)

        def _file(self, path: str, fault: str) -> None:
            data = hub.files[path]
            wanted = re.fullmatch(r"bytes=(\d+)-", self.headers.get("range", ""))
            start = int(wanted[1]) if wanted and fault != "no range" else 0
            if fault.isdecimal():
                return self._send(int(fault), b"no")
            if fault == "redirect":
                return self._send(302, b"", {"location": f"{hub.url}/cdn/{path}"})
            if fault == "redirect without end":
                hub.faults[path].append(fault)
                return self._send(302, b"", {"location": self.path})
            if start >= len(data) and start:
                return self._send(416, b"")
            status, headers = (
                (206, {"content-range": f"bytes {start}-{len(data) - 1}/{len(data)}"}) if start else (200, {})
            )
            if fault == "other range":
                headers = {"content-range": f"bytes {start + 1}-{len(data) - 1}/{len(data)}"}
                return self._send(206, data[start + 1 :], headers)
            body = data[start:]
            if fault == "else":
                body = bytes(255 - byte for byte in body)
            if fault in ("shorter", "longer"):
                return self._send(status, body[:-1] if fault == "shorter" else body + b"x", headers)
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            if not fault.startswith("no length"):
                self.send_header("content-length", str(len(body)))
            self.end_headers()
            if fault == "cut at once":
                return None
            self.wfile.write(body[: len(body) // 2] if fault.endswith("cut") else body)
            return None

    with serving(Handler) as url:
        hub.url = url
        yield hub
