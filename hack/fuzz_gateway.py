"""Hostile requests to a gateway's other faces: chat completions, MCP, OpenThinkIMG's protocol. And a hostile model.

The tools API is a tool server's, so `ToolsFace` makes requests for it.
"""

import base64
import json
import random
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler
from typing import Any

from fuzz_pictures import hostile_picture
from fuzz_requests import (
    Bait,
    Random,
    Sent,
    ToolsFace,
    as_json,
    deep,
    hostile_string,
    hostile_value,
    http,
    small_picture,
)
from local_http import serving

from thinkimg.gateway.openai.request import ChatRequest

JSON = {"content-type": "application/json"}
MODEL = "fuzzed"


class GatewayFace:
    """Args:
    tools: makes the requests of the tools API, and knows the tools.
    """

    def __init__(self, tools: ToolsFace) -> None:
        self._tools = tools

    def __call__(self, chance: Random, bait: Bait) -> Sent:
        makers: list[tuple[float, Callable[[Random, Bait], Sent]]] = [
            *((6, self._tools), (3, self.chat), (1, self.messages), (3, self.mcp), (1, self.rpc)),
            *((3, self.worker), (1, self.controller), (1, self.bodies)),
        ]
        (maker,) = chance.choices([maker for _, maker in makers], [weight for weight, _ in makers])
        return maker(chance, bait)

    # ---- chat -------------------------------------------------------------------------------------------------------

    def chat(self, chance: Random, bait: Bait) -> Sent:
        """A right request in which some field is not, or a picture is hostile. The model answers with hostile calls."""
        parts: list[Any] = [
            {"type": "image_url", "image_url": {"url": picture_text(chance, bait)}},
            {"type": "text", "text": hostile_string(chance, bait)},
        ]
        document: dict[str, Any] = {"model": MODEL, "messages": [{"role": "user", "content": parts}]}
        document["stream"] = chance.random() < 0.3
        for field in chance.sample(sorted(RIGHT), chance.randrange(4)):
            document[field] = chance.choice(RIGHT[field])
        if chance.random() < 0.3:
            document |= functions(chance, bait)
        if chance.random() < 0.5:
            field = chance.choice((*sorted(ChatRequest.model_fields), hostile_string(chance, bait)))
            document[field] = hostile_value(chance, bait)
        if chance.random() < 0.3:
            document["thinkimg"] = {"trace": True, "images": True}
        return Sent("chat", (http("POST", "/v1/chat/completions", as_json(document), JSON),))

    def messages(self, chance: Random, bait: Bait) -> Sent:
        if chance.random() < 0.3:
            return self._handed_back(chance, bait)
        role = chance.choice(("system", "developer", "user", "assistant", "tool", hostile_value(chance, bait)))
        one = {"role": role, "content": hostile_value(chance, bait)}
        last: Any = chance.choice(({"role": "user", "content": "x"}, one, hostile_value(chance, bait)))
        document = {"model": MODEL, "messages": chance.choice(([one, last], hostile_value(chance, bait)))}
        return Sent("messages", (http("POST", "/v1/chat/completions", as_json(document), JSON),))

    def _handed_back(self, chance: Random, bait: Bait) -> Sent:
        """A conversation in which the caller's own tools were called before, with results that are hostile."""
        call = {"id": "call_1", "type": "function", "function": {"name": "lookup", "arguments": '{"key": "x"}'}}
        result: dict[str, Any] = {"role": "tool", "tool_call_id": "call_1", "content": hostile_string(chance, bait)}
        if chance.random() < 0.5:
            call["function"] = hostile_value(chance, bait)
        if chance.random() < 0.5:
            result[chance.choice(("tool_call_id", "content", "name"))] = hostile_value(chance, bait)
        said = {"role": "assistant", "content": chance.choice((None, "x")), "tool_calls": [call]}
        messages = [{"role": "user", "content": "x"}, said, result]
        document = {"model": MODEL, "messages": messages, **functions(chance, bait)}
        return Sent("handed back", (http("POST", "/v1/chat/completions", as_json(document), JSON),))

    # ---- MCP --------------------------------------------------------------------------------------------------------

    def mcp(self, chance: Random, bait: Bait) -> Sent:
        """A call without a session, as the protocol's newer revision has it, or with one that does not exist."""
        name, right = chance.choice(sorted((n, a) for n, a in self._tools.tools.items() if n not in self._tools.slow))
        arguments: dict[str, Any] = {**right, "image": picture_text(chance, bait)}
        for argument in chance.sample(sorted(arguments), chance.randrange(len(arguments) + 1)):
            arguments[argument] = hostile_value(chance, bait)
        params = {"name": chance.choice((name, name, hostile_string(chance, bait))), "arguments": arguments}
        if chance.random() < 0.1:
            params["arguments"] = hostile_value(chance, bait)
        return self._rpc(chance, bait, {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": params})

    def rpc(self, chance: Random, bait: Bait) -> Sent:
        methods = (
            "initialize",
            "tools/list",
            "ping",
            "resources/read",
            "notifications/cancelled",
            "completion/complete",
        )
        message: Any = {"jsonrpc": "2.0", "id": 1, "method": chance.choice((*methods, hostile_string(chance, bait)))}
        message[chance.choice(("id", "method", "params", "jsonrpc", "result"))] = hostile_value(chance, bait)
        return self._rpc(chance, bait, chance.choice((message, [message] * 3, hostile_value(chance, bait))))

    def _rpc(self, chance: Random, bait: Bait, message: Any) -> Sent:
        headers = {
            "content-type": chance.choice(("application/json",) * 9 + ("text/plain",)),
            "accept": chance.choice(("application/json, text/event-stream",) * 9 + ("text/html",)),
            "mcp-protocol-version": chance.choice(("2025-06-18", "2025-11-25", "9999-99-99", "x" * 500)),
        }
        if chance.random() < 0.2:
            headers["mcp-session-id"] = chance.choice(("0" * 32, "x" * 900, "%00", bait.path))
        method = chance.choice(("POST",) * 12 + ("GET", "DELETE", "PUT"))
        return Sent("mcp", (http(method, "/mcp", as_json(message), headers),))

    # ---- OpenThinkIMG -----------------------------------------------------------------------------------------------

    def worker(self, chance: Random, bait: Bait) -> Sent:
        tool = chance.choice(
            [*(name for name in self._tools.tools if name not in self._tools.slow), "crop", "sam", "x"]
        )
        document: Any = {"image": picture_text(chance, bait), "param": hostile_string(chance, bait)}
        if chance.random() < 0.5:
            key = chance.choice(
                ("image", "param", "model", "caption", "boxes", "points", "box_threshold", "y", "region")
            )
            document[key] = hostile_value(chance, bait)
        path = f"/openthinkimg/workers/{tool}/{chance.choice(('worker_generate', 'worker_generate_stream'))}"
        return Sent("worker", (http("POST", path, as_json(document), JSON),))

    def controller(self, chance: Random, bait: Bait) -> Sent:
        names = ("refresh_all_workers", "list_models", "get_worker_address", "register_worker", "receive_heart_beat")
        path = chance.choice(("", "/openthinkimg")) + "/" + chance.choice((*names, "worker_get_status"))
        document = {"model": hostile_value(chance, bait), "worker_name": bait.url, "check_heart_beat": True}
        body = as_json(chance.choice((document, hostile_value(chance, bait))))
        headers = {**JSON, "authorization": chance.choice(("", "Basic Og==", "Basic \u00e9", "Basic " + "A" * 4000))}
        return Sent("controller", (http("POST", path, body, headers),))

    def bodies(self, chance: Random, bait: Bait) -> Sent:
        """No document at all."""
        paths = ("/v1/chat/completions", "/mcp", "/get_worker_address", "/openthinkimg/workers/Crop/worker_generate")
        body = chance.choice((deep(chance), b"", b"\xff\xfe", b"null", b'{"messages":', chance.randbytes(200)))
        accept = {"accept": "application/json, text/event-stream"}
        return Sent("bodies", (http("POST", chance.choice(paths), body, {**JSON, **accept}),))


RIGHT: dict[str, tuple[Any, ...]] = {
    "temperature": (0, 0.7, None),
    "top_p": (0.5, 1),
    "top_k": (-1, 1, 40),
    "min_p": (0, 0.1),
    "repetition_penalty": (1, 1.3),
    "frequency_penalty": (-2, 0.5),
    "presence_penalty": (0, 2),
    "max_tokens": (1, 300),
    "max_completion_tokens": (1, 300),
    "seed": (0, -1, 2**62),
    "stop": ("\n", ["</answer>", "x"], None),
    "stream_options": ({"include_usage": True}, {"include_usage": False}),
    "parallel_tool_calls": (True, False),
    "logit_bias": ({}, {"50256": -100}),
    "reasoning_effort": ("none", "high"),
    "verbosity": ("low",),
    "user": ("someone",),
    "safety_identifier": ("someone",),
    "prompt_cache_key": ("key",),
    "prompt_cache_retention": ("24h",),
    "metadata": ({}, {"a": "b"}),
    "store": (False, True),
    "service_tier": ("auto", "flex"),
    "n": (1, 2),
    "functions": ([],),
    "function_call": ("none", "auto"),
    "response_format": ({"type": "text"}, {"type": "json_object"}),
    "logprobs": (False, True),
    "top_logprobs": (0, 5),
    "modalities": (["text"], ["text", "audio"]),
    "audio": (None, {"voice": "alloy", "format": "mp3"}),
    "prediction": (None, {"type": "content", "content": "x"}),
    "web_search_options": (None, {}),
    "thinkimg": ({"tools": []}, {"tools": ["Crop"]}, {"trace": True}),
}
"""Field of a request for a completion -> values that a client may send. `model`, `messages`, `stream`, `tools` and
`tool_choice` are made elsewhere here."""


def functions(chance: Random, bait: Bait) -> dict[str, Any]:
    """The caller's own tools and a choice among them, right but for what is hostile in one of them."""
    names = chance.sample(("lookup", "Crop", "terminate", "x" * 64, hostile_string(chance, bait)), chance.randrange(4))
    function: dict[str, Any] = {
        "parameters": {"type": "object", "properties": {"key": {"type": "string"}}, "required": ["key"]},
        "description": hostile_string(chance, bait),
        "strict": chance.choice((True, None)),
    }
    if chance.random() < 0.3:
        function[chance.choice(("parameters", "description", "strict", "name"))] = hostile_value(chance, bait)
    tools = [{"type": "function", "function": {"name": name, **function}} for name in names]
    one = {"type": "function", "function": {"name": chance.choice([*names, "lookup"])}}
    allowed = {"type": "allowed_tools", "allowed_tools": {"mode": "required", "tools": [one]}}
    choice = chance.choice(("none", "auto", "required", one, allowed, hostile_value(chance, bait)))
    return {"tools": tools, "tool_choice": choice}


def picture_text(chance: Random, bait: Bait) -> str:
    """A picture as text: good, hostile, or an address that nobody may follow."""
    kind = chance.randrange(4)
    if kind == 0:
        return hostile_string(chance, bait)
    data = small_picture() if kind < 3 else hostile_picture(chance)
    encoded = base64.b64encode(data).decode()
    return chance.choice((f"data:image/png;base64,{encoded}", encoded, f"data:text/html;x=y;base64,{encoded}"))


# ---- a model --------------------------------------------------------------------------------------------------------


@contextmanager
def hostile_model(bait: Bait, seed: int) -> Iterator[str]:
    """An endpoint whose model writes whatever a model may write. Its address, up to `/v1`."""
    chance = random.Random(seed)
    lock = threading.Lock()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            self.rfile.read(int(self.headers.get("content-length", "0")))
            with lock:
                text = model_text(chance, bait)
            message = {"role": "assistant", "content": text}
            document = {"choices": [{"index": 0, "message": message, "finish_reason": "stop"}], "usage": None}
            body = json.dumps(document).encode()
            self.send_response(200)
            self.send_header("content-type", "application/json")
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: Any) -> None: ...

    with serving(Handler) as address:
        yield f"{address}/v1"


def model_text(chance: Random, bait: Bait) -> str:
    if chance.random() < 0.2:
        return chance.choice((hostile_string(chance, bait), "", '{"actions": [' * 300, "{}" * 2000))
    if chance.random() < 0.4:
        arguments: Any = {"ans": hostile_string(chance, bait)}
        name = "Terminate"
    else:
        name = chance.choice(
            ("Crop", "DrawHorizontalLineByY", "SegmentRegionAroundPoint", "lookup", hostile_string(chance, bait))
        )
        arguments = {"image": "img_1", "box": hostile_value(chance, bait), "param": hostile_string(chance, bait)}
        if chance.random() < 0.3:
            arguments = hostile_value(chance, bait)
    return as_json(
        {"thought": hostile_string(chance, bait), "actions": [{"name": name, "arguments": arguments}]}
    ).decode("utf-8", "replace")
