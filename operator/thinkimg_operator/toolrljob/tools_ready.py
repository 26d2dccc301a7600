"""The condition ToolsReady: whether the VisionTools that the job names can be called."""

from __future__ import annotations

from thinkimg.api import suggestion

from ..conditions import Condition
from .case import Case


def tools_condition(case: Case) -> Condition:
    """ToolsReady; as it was said last when nobody has looked at the tools."""
    names = [tool.name for tool in case.job.spec.tools]
    if not names:
        return Condition("ToolsReady", "True", "NoneNeeded", "the job uses no tools")
    tools = case.world.tools
    if tools is None:
        before = case.condition("ToolsReady")
        if before is not None:
            return Condition(before.type, before.status, before.reason, before.message)
        tools = {}
    unknown = [name for name in names if name not in tools]
    if unknown:
        hint = suggestion(unknown[0], case.world.known_tools)
        message = f"there is no VisionTool {', '.join(unknown)} in this namespace. {hint} Create it, or correct "
        return Condition("ToolsReady", "False", "ToolNotFound", f"{message}spec.tools.")
    waiting = [tools[name] for name in names if not tools[name].available]
    if waiting:
        text = "; ".join(f"{tool.name}: {tool.problem or 'not Available yet'}" for tool in waiting)
        return Condition("ToolsReady", "False", "ToolNotAvailable", f"waiting for {text}")
    return Condition("ToolsReady", "True", "AllAvailable", f"{', '.join(names)}: Available")
