"""An endpoint that answers `2` to everything, and No as a judge, with a tool server at the same address; it keeps what
it is asked."""

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from thinkimg.tools.registry import find_tool

ANSWER = '{"thought": "", "actions": [{"name": "Terminate", "arguments": {"ans": "2"}}]}'


@dataclass
class World:
    """An endpoint with a tool server at the same address, and what was asked of it."""

    url: str = ""
    asked: list[dict[str, Any]] = field(default_factory=list)
    version: str = "1"

    def tools(self) -> dict[str, Any]:
        found = [find_tool(name).schema.model_dump(mode="json") for name in ("Crop", "Point")]
        return {"version": 1, "tools": [one | {"version": self.version} for one in found]}


@contextmanager
def answering() -> Iterator[World]:
    seen = World()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["content-length"])))
            seen.asked.append(body)
            judges = "Correctness: Yes" in json.dumps(body["messages"])
            text = "Correctness: No" if judges else ANSWER
            self._say({"choices": [{"finish_reason": "stop", "message": {"content": text}}]})

        def do_GET(self) -> None:
            self._say(seen.tools())

        def _say(self, body: Any) -> None:
            self.send_response(200)
            self.send_header("content-type", "application/json")
            self.end_headers()
            self.wfile.write(json.dumps(body).encode())

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    seen.url = f"http://127.0.0.1:{server.server_address[1]}"
    try:
        yield seen
    finally:
        server.shutdown()
