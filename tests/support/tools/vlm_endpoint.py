"""An OpenAI-compatible endpoint on a free port; a test writes its answers down, and reads what it was sent."""

import base64
import io
import json
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from PIL import Image as Pillow

from tests.support.models.endpoint import Answer


class VLMEndpoint:
    """Attributes:
    answer: what the model says next; a number is a refusal with that status.
    plays: a response as it is, instead of an answer.
    models: what `GET /models` lists; None answers 404.
    key: what callers must send; None takes everybody.
    questions, pictures, keys: what was sent.
    """

    def __init__(self, models: list[str] | None, key: str | None) -> None:
        self.answer: str | int | dict[str, Any] = "none"
        self.plays: Answer | None = None
        self.models, self.key = models, key
        self.questions: list[str] = []
        self.pictures: list[Pillow.Image] = []
        self.keys: list[str | None] = []
        self.url = ""

    def list_models(self) -> tuple[int, Any]:
        if self.models is None:
            return 404, {"error": {"message": "no such path"}}
        return 200, {"data": [{"id": name} for name in self.models]}

    def complete(self, body: dict[str, Any]) -> tuple[int, Any]:
        (message,) = body["messages"]
        for part in message["content"]:
            if part["type"] == "text":
                self.questions.append(part["text"])
            else:
                kind, _, data = part["image_url"]["url"].partition(";base64,")
                assert kind == "data:image/png"
                self.pictures.append(Pillow.open(io.BytesIO(base64.b64decode(data))))
        if isinstance(self.answer, int):
            return self.answer, {"error": {"message": "try later"}}
        if isinstance(self.answer, dict):
            return 200, self.answer
        return 200, {"choices": [{"message": {"role": "assistant", "content": self.answer}}]}


@contextmanager
def serve_vlm(models: list[str] | None = None, key: str | None = None) -> Iterator[VLMEndpoint]:
    endpoint = VLMEndpoint(models, key)

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.reply(*endpoint.list_models() if self.path == "/v1/models" else (404, {}))

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["content-length"])))
            if played := endpoint.plays:
                self.reply(played.status, played.body if played.raw is None else played.raw, played.headers)
                return
            self.reply(*endpoint.complete(body) if self.path == "/v1/chat/completions" else (404, {}))

        def reply(self, status: int, body: Any, headers: Mapping[str, str] | None = None) -> None:
            endpoint.keys.append(self.headers["authorization"])
            if endpoint.key and self.headers["authorization"] != f"Bearer {endpoint.key}":
                status, body = 401, {"error": {"message": "wrong key"}}
            data = body if isinstance(body, bytes) else json.dumps(body).encode()
            self.send_response(status)
            for name, value in (headers or {}).items():
                self.send_header(name, value)
            self.send_header("content-length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *args: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    endpoint.url = f"http://127.0.0.1:{server.server_port}/v1"
    try:
        yield endpoint
    finally:
        server.shutdown()
        server.server_close()
        thread.join(5)
