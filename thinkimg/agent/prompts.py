"""The wording of system prompts, and nothing else."""

import json
from collections.abc import Iterable
from typing import Literal

from thinkimg.agent.formats import Format, Hermes
from thinkimg.tools.tool import ToolSchema

Style = Literal["compact", "full"]


TOOLS = "{tools}"
"""Where a system prompt of one's own has the declarations of the tools and the syntax of calls and answers."""
_INTRO = "You answer questions about images."
_CALLING = " You may call tools that look at the images, read what comes back, and go on, until you can answer."


def system_prompt(tools: Iterable[ToolSchema], format: Format, style: Style = "full", words: str | None = None) -> str:
    """What the model is told about its tools: those really connected, no others.

    Args:
        style: `compact` gives names and argument names only (small models, few tokens); `full` the whole JSON schemas,
            and the syntax of calls and answers.
        words: the user's own instead of ours. What `style` says of tools and syntax takes the place of `{tools}` in
            it, or stands behind it.
    """
    tools = sorted(tools, key=lambda tool: tool.name)
    declared = _compact(tools) if style == "compact" else _full(tools, format)
    if words is not None:
        return words.replace(TOOLS, declared) if TOOLS in words else f"{words}\n\n{declared}".rstrip()
    if style == "compact":
        return f"Answer. {declared}".rstrip()
    return f"{_INTRO}{_CALLING}\n{declared}" if tools else f"{_INTRO} {declared}"


def _full(tools: list[ToolSchema], format: Format) -> str:
    if isinstance(format, Hermes):
        answer = "<answer>...</answer>"
        call = '<tool_call>\n{"name": <function-name>, "arguments": <args-json-object>}\n</tool_call>'
    else:
        answer = '{"thought": "...", "actions": [{"name": "Terminate", "arguments": {"ans": "..."}}]}'
        call = '{"thought": "...", "actions": [{"name": "...", "arguments": {...}}]}'
    if not tools:
        return f"Reply with\n{answer}"
    schemas = "\n".join(json.dumps(tool.as_function()) for tool in tools)
    return (
        "Images are named img_1, img_2, ... in the order in which they appear. "
        "Coordinates are percent of width and height, from the top left corner.\n\n"
        f"<tools>\n{schemas}\n</tools>\n\n"
        f"To call tools, reply with\n{call}\nTo answer, reply with\n{answer}"
    )


def _compact(tools: list[ToolSchema]) -> str:
    signatures = [f"{tool.name}({', '.join(tool.parameters.get('required', []))})" for tool in tools]
    return f"Tools: {' '.join(signatures)}" if tools else ""
