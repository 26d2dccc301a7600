"""An OpenAI-compatible endpoint that looks: it crops the picture, and says which colour it has. It takes yellow for
white, so that a score is neither 0 nor 1."""

import base64
import io
import json
import re
from http.server import BaseHTTPRequestHandler
from typing import Any

from PIL import Image

COLORS = {
    "red": (255, 0, 0),
    "green": (0, 128, 0),
    "blue": (0, 0, 255),
    "white": (255, 255, 255),
    "black": (0, 0, 0),
    "yellow": (255, 255, 0),
}
BY_MCP = "through MCP"
"""In a question: the picture goes to the tool as a data URL, since the tool is the asker's own."""


def reply_to(messages: list[dict[str, Any]]) -> str:
    """In the syntax `openthinkimg`."""
    pictures = [part["image_url"]["url"] for message in messages for part in _parts(message, "image_url")]
    asked = " ".join(part["text"] for message in messages[1:] for part in _parts(message, "text"))
    if not any(message["role"] == "assistant" for message in messages) and '"Crop"' in messages[0]["content"]:
        picture = pictures[0] if BY_MCP in asked else "img_1"
        call = {"name": "Crop", "arguments": {"image": picture, "box": [0, 0, 50, 50]}}
    else:
        call = {
            "name": "Terminate",
            "arguments": {"ans": color_of(pictures[-1]).replace("yellow", "white").capitalize()},
        }
    return json.dumps({"thought": "I look.", "actions": [call]})


def color_of(url: str) -> str:
    pixels = Image.open(io.BytesIO(base64.b64decode(re.sub(r"^data:[^,]*,", "", url)))).convert("RGB")
    seen = pixels.getpixel((pixels.width // 2, pixels.height // 2))
    return min(COLORS, key=lambda name: sum((a - b) ** 2 for a, b in zip(COLORS[name], seen, strict=True)))


def _parts(message: dict[str, Any], kind: str) -> list[dict[str, Any]]:
    content = message["content"]
    parts = [{"type": "text", "text": content}] if isinstance(content, str) else content
    return [part for part in parts if part["type"] == kind]


class _Endpoint(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    wbufsize = -1

    def reply(self, messages: list[dict[str, Any]]) -> str:
        raise NotImplementedError

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        message = {"role": "assistant", "content": self.reply(body["messages"])}
        choice = {"index": 0, "finish_reason": "stop", "message": message}
        answer = json.dumps({"choices": [choice], "usage": {"prompt_tokens": 100, "completion_tokens": 10}}).encode()
        self.send_response(200)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    def log_message(self, *_: Any) -> None:
        pass


class Looker(_Endpoint):
    def reply(self, messages: list[dict[str, Any]]) -> str:
        return reply_to(messages)


class Judge(_Endpoint):
    """Says whether "Is A the same as B?" is so."""

    def reply(self, messages: list[dict[str, Any]]) -> str:
        one, other = re.findall(r"Is (.*) the same as (.*)\?", messages[0]["content"])[0]
        return "yes" if one.lower() == other.lower() else "no"
