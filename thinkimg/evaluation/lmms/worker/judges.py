"""What tasks ask judges over HTTP: kept in a file, and replayed from it."""

import hashlib
import json
import os
from importlib import import_module
from typing import Any


class NoJudge(BaseException):
    """A judge is asked, and there is neither a key nor a recorded reply. Tasks catch `Exception`, and would take the
    failure for a wrong answer."""


class JudgeFailed(Exception):
    """A judge does not answer: neither the model's fault nor the user's."""


class Judges:
    """Args:
    path: JSON lines `{"request", "status", "type", "body"}`; new replies are appended.
    key: whether the environment has one.

    Attributes:
        listening: whether requests are of a judge; others are let pass.
        failed: how the last request failed; tasks would take it for a wrong answer.
    """

    LIBRARIES = (("httpx", "Client"), ("httpx2", "Client"), ("requests", "Session"))

    def __init__(self, path: str | None, key: bool) -> None:
        self.path, self.key = path, key
        self.listening = False
        self.failed: str | None = None
        self.known: dict[str, dict[str, Any]] = {}
        if path and os.path.exists(path):
            with open(path, encoding="utf-8") as lines:
                self.known = {entry["request"]: entry for entry in map(json.loads, lines)}

    def listen(self) -> None:
        for module, name in self.LIBRARIES:
            try:
                library = import_module(module)
            except ImportError:
                continue
            client = getattr(library, name)
            client.send = self._between(module, client.send)
            if (client := getattr(library, "AsyncClient", None)) is not None:
                client.send = self._between_async(module, client.send)

    def _between(self, module: str, send: Any) -> Any:
        def sending(client: Any, request: Any, **options: Any) -> Any:
            if not self._is_asked(request):
                return send(client, request, **options)
            name = _name_of(module, request)
            if name not in self.known:
                response = send(client, self._allowed(request), **options)
                if module != "requests":
                    response.read()
                if not self._keep(name, request, response):
                    return response
            return self._replayed(module, name, request)

        return sending

    def _between_async(self, module: str, send: Any) -> Any:
        async def sending(client: Any, request: Any, **options: Any) -> Any:
            if not self._is_asked(request):
                return await send(client, request, **options)
            name = _name_of(module, request)
            if name not in self.known:
                response = await send(client, self._allowed(request), **options)
                await response.aread()
                if not self._keep(name, request, response):
                    return response
            return self._replayed(module, name, request)

        return sending

    def _is_asked(self, request: Any) -> bool:
        return self.listening and request.method == "POST"

    def _allowed(self, request: Any) -> Any:
        if not self.key:
            raise NoJudge(str(request.url))
        self.failed = f"{request.url} does not answer"
        return request

    def _replayed(self, module: str, name: str, request: Any) -> Any:
        self.failed = None
        return _response(module, self.known[name], request)

    def _keep(self, name: str, request: Any, response: Any) -> bool:
        """Whether it is a reply."""
        if response.status_code != 200:
            self.failed = f"{request.url} answers {response.status_code}"
            return False
        self.known[name] = {
            "request": name,
            "status": response.status_code,
            "type": response.headers.get("content-type", "application/json"),
            "body": response.text,
        }
        if self.path:
            with open(self.path, "a", encoding="utf-8") as lines:
                lines.write(json.dumps(self.known[name]) + "\n")
        return True


def _name_of(module: str, request: Any) -> str:
    body = (request.body or b"") if module == "requests" else request.read()
    body = body.encode() if isinstance(body, str) else body
    return hashlib.sha256(f"{request.method} {request.url}\n".encode() + body).hexdigest()


def _response(module: str, entry: dict[str, Any], request: Any) -> Any:
    library = import_module(module)
    if module != "requests":
        return library.Response(
            entry["status"], headers={"content-type": entry["type"]}, text=entry["body"], request=request
        )
    response = library.Response()
    response.status_code, response._content, response.url = entry["status"], entry["body"].encode(), request.url
    response.headers["content-type"], response.request, response.encoding = entry["type"], request, "utf-8"
    return response
