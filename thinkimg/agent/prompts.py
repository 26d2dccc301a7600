"""The wording of system prompts, and nothing else."""

import json
from collections.abc import Iterable
from typing import Literal

from thinkimg.agent.formats import Format, Hermes
from thinkimg.tools.tool import ToolSchema

Style = Literal["compact", "full"]


def system_prompt(tools: Iterable[ToolSchema], format: Format, style: Style = "full") -> str:
    """What the model is told about its tools: those really connected, no others.

    `compact` gives names and argument names only (small models, few tokens); `full` the whole JSON schemas.
    """
    tools = sorted(tools, key=lambda tool: tool.name)
    if style == "compact":
        return _compact(tools)
    if isinstance(format, Hermes):
        answer = "<answer>...</answer>"
        call = '<tool_call>\n{"name": <function-name>, "arguments": <args-json-object>}\n</tool_call>'
    else:
        answer = '{"thought": "...", "actions": [{"name": "Terminate", "arguments": {"ans": "..."}}]}'
        call = '{"thought": "...", "actions": [{"name": "...", "arguments": {...}}]}'
    intro = "You answer questions about images."
    if not tools:
        return f"{intro} Reply with\n{answer}"
    schemas = "\n".join(json.dumps(tool.as_function()) for tool in tools)
    return (
        f"{intro} You may call tools that look at the images, read what comes back, and go on, until you can answer.\n"
        "Images are named img_1, img_2, ... in the order in which they appear. "
        "Coordinates are percent of width and height, from the top left corner.\n\n"
        f"<tools>\n{schemas}\n</tools>\n\n"
        f"To call tools, reply with\n{call}\nTo answer, reply with\n{answer}"
    )


def _compact(tools: list[ToolSchema]) -> str:
    if not tools:
        return "Answer."
    signatures = [f"{tool.name}({', '.join(tool.parameters.get('required', []))})" for tool in tools]
    return f"Answer. Tools: {' '.join(signatures)}"
