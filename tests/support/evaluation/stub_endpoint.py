"""An OpenAI-compatible endpoint whose answers depend on the question alone.

As a process: `python -m tests.support.evaluation.stub_endpoint PORT_FILE`.

Every third question's first reply is a call of Crop, so that there are tool turns.
"""

import hashlib
import json
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

CROP = '{"thought": "look", "actions": [{"name": "Crop", "arguments": {"image": "img_1", "box": [0, 0, 50, 50]}}]}'


def reply_to(messages: list[dict[str, Any]]) -> str:
    question = next(text_of(message) for message in messages if message["role"] == "user")
    draw = int(hashlib.sha256(question.encode()).hexdigest(), 16)
    if draw % 3 == 0 and messages[-1]["role"] == "user" and not any(m["role"] == "assistant" for m in messages):
        return CROP
    return json.dumps({"thought": "t", "actions": [{"name": "Terminate", "arguments": {"ans": str(draw % 4)}}]})


def text_of(message: dict[str, Any]) -> str:
    content = message["content"]
    return content if isinstance(content, str) else "".join(part.get("text", "") for part in content)


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    wbufsize = -1  # headers and body in one packet: else the caller's delayed acknowledgement costs 40 ms
    pause = threading.Event()

    def reply(self, body: dict[str, Any]) -> str:
        return reply_to(body["messages"])

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        self.pause.wait(0.02)
        choice = {"index": 0, "finish_reason": "stop", "message": {"content": self.reply(body)}}
        answer = json.dumps({"choices": [choice], "usage": {"prompt_tokens": 100, "completion_tokens": 10}}).encode()
        self.send_response(200)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    def log_message(self, *_: Any) -> None:
        pass


class Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 256


def start(handler: type[Handler] = Handler) -> tuple[Server, str]:
    server = Server(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return server, f"http://127.0.0.1:{server.server_address[1]}/v1"


if __name__ == "__main__":
    server = Server(("127.0.0.1", 0), Handler)
    Path(sys.argv[1]).write_text(f"http://127.0.0.1:{server.server_address[1]}/v1")
    server.serve_forever()
