"""OpenAI's messages as a trajectory, from which the agent loop goes on."""

import json
from collections.abc import Iterable
from typing import Any

from thinkimg.agent.formats import Call, Format, Parsed, Returned
from thinkimg.gateway.callers import Caller
from thinkimg.gateway.core import Core
from thinkimg.gateway.refusals import refuse
from thinkimg.image import Image, ImageDecodeError
from thinkimg.message import ImageBlock, TextBlock, ToolCallBlock, ToolResultBlock
from thinkimg.trajectory import Trajectory

_FIELDS = {
    "system": {"content"},
    "developer": {"content"},
    "user": {"content"},
    "assistant": {"content", "refusal", "tool_calls"},
    "tool": {"content", "tool_call_id", "name"},
}
"""What a message of each role may say; a null, or an empty list, says nothing."""


class Conversation:
    """Reads OpenAI's messages into a trajectory. A caller's tool results become one observation per turn of calls."""

    def __init__(self, core: Core, caller: Caller, format: Format) -> None:
        self._core = core
        self._caller = caller
        self._format = format
        self._trajectory = Trajectory(question="")
        self._waiting: dict[str, ToolCallBlock] = {}
        self._returned: list[Returned] = []

    async def read(self, messages: list[dict[str, Any]], system: str) -> Trajectory:
        """Raises `Refusal` 400 naming the message."""
        trajectory = self._trajectory
        turn = trajectory.add("system", TextBlock(text=system))
        instructions = [system]
        for number, message in enumerate(messages):
            where, role = f"messages[{number}]", message.get("role")
            _refuse_unknown(message, where)
            if role != "tool":
                self._refuse_open_calls(where)
            if role in ("system", "developer"):
                instructions.append(_text(message.get("content"), where))
            elif role == "assistant":
                self._assistant(message, where)
            elif role == "user":
                trajectory.add("user", *await self._user(message.get("content"), where))
            else:
                self._result(message, where)
        self._refuse_open_calls("messages")
        if trajectory.turns[-1].role not in ("user", "tool"):
            raise _wrong("messages", "the last one must be the user's, or a tool's")
        turn.message.content = [TextBlock(text="\n\n".join(instructions))]
        asked = [turn.message.text for turn in trajectory.turns if turn.role == "user"]
        trajectory.question = asked[-1] if asked else ""
        return trajectory

    def _assistant(self, message: dict[str, Any], where: str) -> None:
        """As this model would have said it."""
        said = _text(message.get("content") or message.get("refusal") or "", where)
        calls = [_call(call, f"{where}.tool_calls[{n}]") for n, call in enumerate(message.get("tool_calls") or ())]
        if not calls:
            self._trajectory.add("assistant", TextBlock(text=self._format.write(Parsed(answer=said))))
            return
        written = Parsed(thought=said, calls=tuple(Call(call.name, call.arguments) for call in calls))
        turn = self._trajectory.add("assistant", TextBlock(text=self._format.write(written)))
        turn.message.content.extend(calls)
        self._waiting = {call.id: call for call in calls}
        if len(self._waiting) < len(calls):
            raise _wrong(f"{where}.tool_calls", "two calls have one id")

    def _result(self, message: dict[str, Any], where: str) -> None:
        name = str(message.get("tool_call_id"))
        if name not in self._waiting:
            raise _wrong(f"{where}.tool_call_id", f"no call {name[:80]!r} of the assistant's message before waits")
        call = self._waiting.pop(name)
        text = _text(message.get("content"), where)
        self._returned.append(Returned(ToolResultBlock(call_id=call.id, name=call.name, text=text)))
        if not self._waiting:
            self._trajectory.add("tool", *self._format.observation(self._returned))
            self._returned = []

    def _refuse_open_calls(self, where: str) -> None:
        if self._waiting:
            raise _wrong(where, f"the calls {', '.join(self._waiting)[:200]} have no message of role tool")

    async def _user(self, content: Any, where: str) -> list[TextBlock | ImageBlock]:
        if isinstance(content, str):
            return [TextBlock(text=content)]
        blocks: list[TextBlock | ImageBlock] = []
        for number, part in enumerate(_parts(content, where)):
            place = f"{where}.content[{number}]"
            if part.get("type") == "text" and isinstance(part.get("text"), str):
                blocks.append(TextBlock(text=part["text"]))
            elif part.get("type") == "image_url":
                image = await self._picture(part.get("image_url"), place)
                blocks.append(ImageBlock(handle=self._trajectory.add_image(image)))
            else:
                raise _wrong(place, "must be a part of type text or image_url")
            _refuse_others(part, {"type", str(part["type"])}, place)
        return blocks

    async def _picture(self, given: Any, where: str) -> Image:
        url = given.get("url") if isinstance(given, dict) else given
        most = self._core.config.limits.images
        if not isinstance(url, str):
            raise _wrong(f"{where}.image_url", "must be an object with a string `url`")
        if isinstance(given, dict):
            _refuse_others(given, {"url", "detail"}, f"{where}.image_url")
            if given.get("detail") not in (None, "auto", "high"):
                raise _wrong(f"{where}.image_url.detail", "pictures are shown whole: auto or high")
        if len(self._trajectory.images) >= most:
            raise _wrong(where, f"at most {most} pictures are taken")
        image = await self._core.pictures.read(self._caller.id, url)
        if image.too_thin:
            raise _wrong(where, f"the picture is too thin to be shown to a model: {image.width}x{image.height} pixels")
        try:  # broken data behind a good header
            await self._core.pictures.decode(self._caller.id, image)
        except ImageDecodeError as error:
            raise _wrong(where, str(error)) from error
        return image


def _refuse_unknown(message: dict[str, Any], where: str) -> None:
    role = message.get("role")
    if not isinstance(role, str) or role not in _FIELDS:
        raise _wrong(f"{where}.role", f"must be one of {', '.join(_FIELDS)}, not {str(role)[:50]!r}")
    _refuse_others(message, {"role", *_FIELDS[role]}, where)


def _refuse_others(given: dict[str, Any], known: Iterable[str], where: str) -> None:
    for name, value in given.items():
        if name not in known and value not in (None, [], {}):
            raise _wrong(f"{where}.{name[:80]}", "there is no such field here; nothing is ignored, so leave it out")


def _call(given: Any, where: str) -> ToolCallBlock:
    function = given.get("function") if isinstance(given, dict) else None
    if not isinstance(function, dict) or given.get("type", "function") != "function":
        raise _wrong(where, "must be a call of type function")
    name, written = function.get("name"), function.get("arguments")
    if not isinstance(given.get("id"), str) or not isinstance(name, str) or not isinstance(written, str):
        raise _wrong(where, "needs the texts id, function.name and function.arguments")
    try:
        arguments = json.loads(written or "{}")
    except (ValueError, RecursionError):
        arguments = None
    if not isinstance(arguments, dict):
        raise _wrong(f"{where}.function.arguments", "must be the JSON of an object")
    return ToolCallBlock(id=given["id"], name=name, arguments=arguments)


def _parts(content: Any, where: str) -> list[dict[str, Any]]:
    if not isinstance(content, list) or not all(isinstance(part, dict) for part in content):
        raise _wrong(f"{where}.content", "must be a text or a list of parts")
    return content


def _text(content: Any, where: str) -> str:
    if isinstance(content, str):
        return content
    parts = _parts(content, where)
    for number, part in enumerate(parts):
        if part.get("type") != "text" or not isinstance(part.get("text"), str):
            raise _wrong(f"{where}.content", "may hold text only in this role")
        _refuse_others(part, {"type", "text"}, f"{where}.content[{number}]")
    return "".join(part["text"] for part in parts)


def _wrong(field: str, problem: str) -> Exception:
    return refuse(400, "invalid_request", f"{field}: {problem}", param=field)
