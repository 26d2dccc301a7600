"""An OpenAI-compatible endpoint on a free port, whose answers a test writes down beforehand."""

import asyncio
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import uvicorn
from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, Response


@dataclass
class Answer:
    """One response; `body` as JSON, or `raw` as it is."""

    status: int = 200
    body: Any = None
    raw: bytes | None = None
    headers: dict[str, str] = field(default_factory=dict)
    delay: float = 0.0


def completion(text: Any, finish: str = "stop", **usage: Any) -> Answer:
    message = {"role": "assistant", "content": text}
    choice = {"index": 0, "message": message, "finish_reason": finish}
    return Answer(body={"id": "1", "object": "chat.completion", "choices": [choice], "usage": usage or None})


def refusal(status: int, message: str, headers: dict[str, str] | None = None, **error: Any) -> Answer:
    return Answer(status, {"error": {"message": message, **error}}, headers=headers or {})


class Endpoint:
    """Gives `answers` in order, the last one again and again; keeps what was asked."""

    def __init__(self, answers: list[Answer]) -> None:
        self.answers = answers
        self.bodies: list[dict[str, Any]] = []
        self.keys: list[str | None] = []
        self.times: list[float] = []
        self.under_way = 0
        self.most_under_way = 0
        self.url = ""

    def choose(self, body: dict[str, Any]) -> Answer:
        return self.answers[min(len(self.bodies), len(self.answers)) - 1]

    async def complete(self, request: Request) -> Response:
        self.under_way += 1
        self.most_under_way = max(self.most_under_way, self.under_way)
        self.times.append(time.monotonic())
        self.keys.append(request.headers.get("authorization"))
        self.bodies.append(await request.json())
        answer = self.choose(self.bodies[-1])
        try:
            await asyncio.sleep(answer.delay)
        finally:
            self.under_way -= 1
        if answer.raw is not None:
            return Response(answer.raw, answer.status, answer.headers)
        return JSONResponse(answer.body, answer.status, answer.headers)


@contextmanager
def serve(*answers: Answer) -> Iterator[Endpoint]:
    endpoint = Endpoint(list(answers))
    with serving(endpoint):
        yield endpoint


@contextmanager
def serving(endpoint: Endpoint) -> Iterator[None]:
    app = FastAPI()
    app.post("/v1/chat/completions")(endpoint.complete)
    server = uvicorn.Server(uvicorn.Config(app, port=0, log_level="error"))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    while not server.started:
        time.sleep(0.005)
    endpoint.url = f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}/v1"
    try:
        yield
    finally:
        server.should_exit = True
        thread.join(5)
