"""Tool-call syntaxes: how a model writes calls and answers, and how results are written back to it.

A format only parses and writes; what the words around it are is in `prompts`.
"""

import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from thinkimg.agent.thinking import Reply, without_thinking
from thinkimg.errors import ModelError, UserError
from thinkimg.message import ImageBlock, TextBlock, ToolResultBlock


@dataclass(frozen=True)
class Call:
    name: str
    arguments: dict[str, Any]


@dataclass(frozen=True)
class Parsed:
    """One assistant's turn. Either `calls` (run in parallel) or an `answer`."""

    thought: str = ""
    calls: tuple[Call, ...] = ()
    answer: str | None = None


Observation = list[TextBlock | ImageBlock | ToolResultBlock]


@dataclass(frozen=True)
class Returned:
    """One call's result with the handles that its images were given."""

    result: ToolResultBlock
    handles: tuple[str, ...] = field(default=())


class Format(Protocol):
    name: str
    right: str
    """How a turn must look, in a sentence or two: what a malformed one is answered with."""

    def parse(self, text: str) -> Parsed:
        """Raises `ModelError` (kind `malformed_call`) that tells the model what was wrong and what would be right."""
        ...

    def write(self, parsed: Parsed) -> str:
        """The canonical text; `parse(write(p)) == p`, where the syntax has words for `p`."""
        ...

    def observation(self, returned: Sequence[Returned]) -> Observation:
        """What the model reads after its calls."""
        ...


def _malformed(problem: str, right: str) -> ModelError:
    return ModelError(f"{problem} {right}", kind="malformed_call")


def _call(value: Any, right: str) -> Call:
    if not isinstance(value, dict) or not isinstance(value.get("name"), str):
        raise _malformed("A call must be an object with a string 'name'.", right)
    arguments = value.get("arguments", {})
    if not isinstance(arguments, dict):
        raise _malformed(f"The 'arguments' of {value['name']} must be an object.", right)
    return Call(value["name"], arguments)


DEEPEST = 50
"""Levels of nesting that a call may have; records and the wire carry more, but nothing sensible needs it."""


def _decode(text: str, start: int = 0) -> tuple[Any, int]:
    """The JSON value that begins at `start`, and where it ends.

    Raises:
        ValueError: there is none, or it is nested deeper than `DEEPEST`.
    """
    try:
        value, end = json.JSONDecoder().raw_decode(text, start)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    inner = [value]
    for _ in range(DEEPEST):
        inner = [item for each in inner for item in _items(each)]
    if inner:
        raise ValueError("it is nested too deeply")
    if "\\ud" in text.lower():  # half a surrogate pair, which could be neither stored nor sent, becomes "?"
        value = json.loads(json.dumps(value, ensure_ascii=False).encode("utf-8", "replace"))
    return value, end


def _behind_thinking(text: str, right: str) -> Reply:
    """A turn without its thinking. Calls in it are not made.

    Raises:
        ModelError: it does not end.
    """
    reply = without_thinking(text)
    if not reply.closed:
        raise _malformed("Your thinking does not end: close it before you call or answer.", right)
    return reply


def _items(value: Any) -> Iterable[Any]:
    if isinstance(value, dict):
        return value.values()
    return value if isinstance(value, list) else ()


def _observation(returned: Sequence[Returned], start: str, end: str) -> Observation:
    blocks: Observation = [TextBlock(text=start)]
    for number, item in enumerate(returned):
        blocks.append(TextBlock(text=f"{chr(10) if number else ''}{item.result.name}: "))
        blocks.append(item.result)
        for handle in item.handles:
            blocks += [TextBlock(text=f" {handle}:"), ImageBlock(handle=handle)]
    if end:
        blocks.append(TextBlock(text=end))
    return blocks


def _turn(text: str) -> tuple[str, Any, str] | None:
    """Thought and actions of the object that the first brace opens, and the text behind it; None if it is none."""
    try:
        value, end = _decode(text, text.index("{"))
    except ValueError:
        return None
    if not isinstance(value, dict) or "actions" not in value:
        return None
    return str(value.get("thought") or ""), value["actions"], text[end:]


class OpenThinkIMG:
    """The original's JSON: `{"thought": "...", "actions": [{"name": ..., "arguments": {...}}]}`; the answer is the
    action `Terminate` with `ans`. Like the original, a broken `thought` is tolerated; unlike it, all actions are run,
    and what does not parse is said to the model."""

    name = "openthinkimg"
    right = (
        'Write one JSON object: {"thought": "...", "actions": [{"name": "...", "arguments": {...}}]}; '
        'to answer: {"name": "Terminate", "arguments": {"ans": "..."}}.'
    )

    def parse(self, text: str) -> Parsed:
        thought, actions = self._object(text)
        if not isinstance(actions, list) or not actions:
            raise _malformed("'actions' must be a list with at least one action.", self.right)
        calls = [_call(action, self.right) for action in actions]
        final = [call for call in calls if call.name.lower() == "terminate"]
        if not final:
            return Parsed(thought, tuple(calls))
        if len(calls) > 1:
            raise _malformed("Terminate must be the only action of its turn.", self.right)
        answer = final[0].arguments.get("ans", final[0].arguments.get("answer"))
        if not isinstance(answer, str | int | float) or isinstance(answer, bool):
            raise _malformed("Terminate needs the argument 'ans' with the answer as text.", self.right)
        return Parsed(thought, answer=str(answer))

    def _object(self, text: str) -> tuple[str, Any]:
        if text.lstrip().startswith("{") and (whole := _turn(text)) and without_thinking(whole[2]).said == whole[2]:
            return whole[:2]  # its thought may hold tags
        said = _behind_thinking(text, self.right).said
        if turn := _turn(said):
            return turn[:2]
        found = re.search(r'"actions"\s*:\s*(?=\[)', said)
        if not found:
            raise _malformed("There is no JSON object with 'actions' in your reply.", self.right)
        try:
            return "", _decode(said, found.end())[0]
        except ValueError as error:
            raise _malformed(f"The list of 'actions' is not valid JSON ({error}).", self.right) from None

    def write(self, parsed: Parsed) -> str:
        calls = parsed.calls or (Call("Terminate", {"ans": parsed.answer or ""}),)
        actions = [{"name": call.name, "arguments": call.arguments} for call in calls]
        return json.dumps({"thought": parsed.thought, "actions": actions}, ensure_ascii=False)

    def observation(self, returned: Sequence[Returned]) -> Observation:
        return _observation(returned, "OBSERVATION:\n", "")


class Hermes:
    """`<tool_call>` blocks with JSON inside (Hermes, Qwen); the answer is in the last `<answer>`, or is the text of a
    turn without calls. Thinking before them is cut off first (`thinkimg.agent.thinking`)."""

    name = "hermes"
    right = 'Write <tool_call>\n{"name": "...", "arguments": {...}}\n</tool_call>, or <answer>...</answer> to answer.'
    _block = re.compile(r"<tool_call>(.*?)</tool_call>", re.DOTALL)
    _answer = re.compile(r"<answer>((?:(?!<answer>).)*?)</answer>", re.DOTALL)

    def parse(self, text: str) -> Parsed:
        reply = _behind_thinking(text, self.right)
        said = reply.said
        blocks = self._block.findall(said)
        if said.count("<tool_call>") != len(blocks):
            raise _malformed("A <tool_call> is not closed.", self.right)
        before = said.partition("<tool_call>")[0].partition("<answer>")[0]
        thought = f"{reply.thought}\n{before}".strip()
        if not blocks:
            answers = self._answer.findall(said) or said.split("<answer>")[1:]
            final = (answers[-1] if answers else said).strip()
            if not final:
                raise _malformed("Your reply is empty.", self.right)
            return Parsed(thought if answers else "", answer=final)
        return Parsed(thought, tuple(self._parse_block(block.strip()) for block in blocks))

    def _parse_block(self, block: str) -> Call:
        try:
            value, end = _decode(block)
        except ValueError as error:
            raise _malformed(f"A <tool_call> holds no valid JSON ({error}).", self.right) from None
        if end != len(block):
            raise _malformed("A <tool_call> holds more than one JSON object.", self.right)
        return _call(value, self.right)

    def write(self, parsed: Parsed) -> str:
        thought = f"{parsed.thought}\n" if parsed.thought else ""
        if not parsed.calls:
            return f"{thought}<answer>{parsed.answer or ''}</answer>"
        blocks = [json.dumps({"name": call.name, "arguments": call.arguments}) for call in parsed.calls]
        for tag, same in (("</", "<\\/"), ("<tool_call>", r"\u003ctool_call>")):  # the same JSON, and no tag within it
            blocks = [block.replace(tag, same) for block in blocks]
        return thought + "\n".join(f"<tool_call>\n{block}\n</tool_call>" for block in blocks)

    def observation(self, returned: Sequence[Returned]) -> Observation:
        return _observation(returned, "<tool_response>\n", "\n</tool_response>")


FORMATS: dict[str, Format] = {format.name: format for format in (OpenThinkIMG(), Hermes())}


def get_format(name: str) -> Format:
    if name not in FORMATS:
        raise UserError(f"unknown format {name!r}; there are {', '.join(FORMATS)}", "spec.agent.format")
    return FORMATS[name]
