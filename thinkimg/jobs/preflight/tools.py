"""Whether the tools can be served here, and whether the job has those that a planner's chains call."""

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from thinkimg.api import CUSTOM, Stage, VisionTool
from thinkimg.errors import ThinkImgError, UserError, describe
from thinkimg.jobs.preflight.findings import Finding, Plan, block_of, is_unreachable
from thinkimg.serving.vision_tools import server_of
from thinkimg.synthesis.planner import CHAINS, tools_of_chain
from thinkimg.tools.registry import load_tool


def check_tools(plan: Plan) -> Iterator[Finding]:
    """Each tool is loaded once, as its server will load it, and let go again."""
    if any(_calls_tools(stage) for _, stage in plan.stages()):
        for tool in plan.manifest.tools_of(plan.job):
            if tool.spec.tool != CUSTOM:
                yield from _load(plan, tool)


def _calls_tools(stage: Stage) -> bool:
    gated = stage.sft is not None and stage.sft.gate is not None and stage.sft.tool_use == "Enabled"
    return stage.uses_tools or stage.evaluate is not None or gated


def _load(plan: Plan, tool: VisionTool) -> Iterator[Finding]:
    try:
        with _environment(server_of(tool, plan.secrets).env):
            load_tool(tool.spec.tool, tool.spec.backend, tool.spec.server_options())
    except ThinkImgError as error:
        field = error.field if isinstance(error, UserError) else ""
        place = tuple(field.split(".")) if field.startswith(("options", "backend")) else ("tool",)
        said = (str(error).removeprefix(f"{field}: ") if field else describe(error)).strip().rstrip(".")
        remedy = "A server of it would not start: correct the VisionTool, or install what it needs."
        problem = plan.manifest.problem(f"VisionTool/{tool.name}", ("spec", *place), said, remedy)
        yield Finding(problem, passing=error.family == "infrastructure" or is_unreachable(error))


@contextmanager
def _environment(variables: Mapping[str, str]) -> Iterator[None]:
    before = dict(os.environ)
    os.environ.update(variables)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


def check_chains(plan: Plan) -> Iterator[Finding]:
    """A chain that calls a tool which the job lacks fails at every question."""
    yield from _one_picture(plan)
    tools = {tool.spec.tool for tool in plan.manifest.tools_of(plan.job)}
    if CUSTOM in tools:
        return
    for index, stage in plan.stages():
        chains = stage.synthesize.planner.chains if stage.synthesize else {}
        for name, weight in chains.items():
            missing = sorted(set(tools_of_chain(name)) - tools) if name in CHAINS and weight else []
            if missing:
                loc = block_of(index, stage, "planner", "chains", name)
                message = f"the chain {name} calls {', '.join(missing)}, and the job has no such tool"
                yield plan.found(loc, message, "Add the tool to spec.tools, or remove the chain.")


def _one_picture(plan: Plan) -> Iterator[Finding]:
    """Scripted plans of questions that have several."""
    pictures = len(plan.tasks["train"][0].images) if "train" in plan.tasks else 1
    for index, stage in plan.stages():
        planner = stage.synthesize.planner if stage.synthesize else None
        if planner is None or planner.type != "Scripted" or pictures == 1 or set(planner.chains) == {"none"}:
            continue
        loc = block_of(index, stage, "planner", "type")
        remedy = "Use a planner of type Model, or chains: {none: 1}."
        yield plan.found(loc, f"the first question has {pictures} pictures, and scripted plans are of one", remedy)
