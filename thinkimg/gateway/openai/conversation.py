"""OpenAI's messages as a trajectory, from which the agent loop goes on."""

import asyncio
from typing import Any

from thinkimg.agent.agent import LONGEST_STRIP
from thinkimg.agent.formats import Format, Parsed
from thinkimg.gateway.core import Core
from thinkimg.gateway.keys import Caller
from thinkimg.gateway.refusals import refuse
from thinkimg.image import Image, ImageDecodeError
from thinkimg.message import ImageBlock, TextBlock
from thinkimg.trajectory import Trajectory


class Conversation:
    """Reads OpenAI's messages into a trajectory."""

    def __init__(self, core: Core, caller: Caller, format: Format) -> None:
        self._core = core
        self._caller = caller
        self._format = format

    async def read(self, messages: list[dict[str, Any]], system: str) -> Trajectory:
        trajectory = Trajectory(question="")
        turn = trajectory.add("system", TextBlock(text=system))
        instructions = [system]
        for number, message in enumerate(messages):
            where, role = f"messages[{number}]", message.get("role")
            if role in ("system", "developer"):
                instructions.append(_text(message.get("content"), where))
            elif role == "assistant":  # as this model would have said it
                answer = _text(message.get("content") or "", where)
                trajectory.add("assistant", TextBlock(text=self._format.write(Parsed(answer=answer))))
            elif role == "user":
                trajectory.add("user", *await self._user(message.get("content"), where, trajectory))
            else:
                raise _wrong(f"{where}.role", f"must be system, user or assistant, not {str(role)[:50]!r}")
        if trajectory.turns[-1].role != "user":
            raise _wrong("messages", "the last one must be the user's")
        turn.message.content = [TextBlock(text="\n\n".join(instructions))]
        trajectory.question = trajectory.turns[-1].message.text
        return trajectory

    async def _user(self, content: Any, where: str, trajectory: Trajectory) -> list[TextBlock | ImageBlock]:
        if isinstance(content, str):
            return [TextBlock(text=content)]
        blocks: list[TextBlock | ImageBlock] = []
        for number, part in enumerate(_parts(content, where)):
            place = f"{where}.content[{number}]"
            if part.get("type") == "text" and isinstance(part.get("text"), str):
                blocks.append(TextBlock(text=part["text"]))
            elif part.get("type") == "image_url":
                image = await self._picture(part.get("image_url"), place, trajectory)
                blocks.append(ImageBlock(handle=trajectory.add_image(image)))
            else:
                raise _wrong(place, "must be a part of type text or image_url")
        return blocks

    async def _picture(self, given: Any, where: str, trajectory: Trajectory) -> Image:
        url = given.get("url") if isinstance(given, dict) else given
        most = self._core.config.limits.images
        if not isinstance(url, str):
            raise _wrong(f"{where}.image_url", "must be an object with a string `url`")
        if len(trajectory.images) >= most:
            raise _wrong(where, f"at most {most} pictures are taken")
        image = await self._core.pictures.read(self._caller.id, url)
        if max(image.width, image.height) > LONGEST_STRIP * min(image.width, image.height):
            raise _wrong(where, f"the picture is too thin to be shown to a model: {image.width}x{image.height} pixels")
        try:  # broken data behind a good header
            await asyncio.to_thread(image.pixels)
        except ImageDecodeError as error:
            raise _wrong(where, str(error)) from error
        return image


def _parts(content: Any, where: str) -> list[dict[str, Any]]:
    if not isinstance(content, list) or not all(isinstance(part, dict) for part in content):
        raise _wrong(f"{where}.content", "must be a text or a list of parts")
    return content


def _text(content: Any, where: str) -> str:
    if isinstance(content, str):
        return content
    parts = _parts(content, where)
    if not all(part.get("type") == "text" and isinstance(part.get("text"), str) for part in parts):
        raise _wrong(f"{where}.content", "may hold text only in this role")
    return "".join(part["text"] for part in parts)


def _wrong(field: str, problem: str) -> Exception:
    return refuse(400, "invalid_request", f"{field}: {problem}", param=field)
