"""The tools of this installation by name: the built-in ones, and those of other packages.

A package registers its tools in the entry point group `thinkimg.tools`, each under the tool's own name:

    [project.entry-points."thinkimg.tools"]
    Brightness = "brightness:brightness"

Importing this module is cheap; another package is imported when its tool is asked for, and `load_tool` brings in what
a tool needs.
"""

import difflib
from collections.abc import Collection, Mapping
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from types import MappingProxyType
from typing import Any

from thinkimg.errors import ModelError, UserError
from thinkimg.tools.adjust_image import adjust_image
from thinkimg.tools.crop import crop
from thinkimg.tools.draw_line import draw_horizontal_line_by_y, draw_line, draw_vertical_line_by_x
from thinkimg.tools.estimate_depth import estimate_depth
from thinkimg.tools.grounded_sam import grounded_sam
from thinkimg.tools.grounding_dino import grounding_dino
from thinkimg.tools.ocr import ocr
from thinkimg.tools.point import point
from thinkimg.tools.sam import sam
from thinkimg.tools.segment_region_around_point import segment_region_around_point
from thinkimg.tools.tool import Tool, ToolDeclaration, normalise_name
from thinkimg.tools.zoom_in_subplot import zoom_in_subplot

TOOLS: Mapping[str, ToolDeclaration] = MappingProxyType(
    {
        declaration.name: declaration
        for declaration in (
            ocr,
            crop,
            draw_horizontal_line_by_y,
            draw_vertical_line_by_x,
            draw_line,
            zoom_in_subplot,
            point,
            segment_region_around_point,
            adjust_image,
            grounding_dino,
            sam,
            grounded_sam,
            estimate_depth,
        )
    }
)

_BY_SPELLING = {
    normalise_name(name): declaration
    for declaration in TOOLS.values()
    for name in (declaration.name, *declaration.schema.aliases)
}


ENTRY_POINTS = "thinkimg.tools"


def own_tools() -> tuple[str, ...]:
    """Names that other packages have registered. Nothing is imported for it."""
    return tuple(point.name for point in _registered().values())


def backends_here(names: Collection[str]) -> dict[str, tuple[str, ...]]:
    """Tool -> backends: every built-in tool, and those of other packages that are in `names`; only these are imported.

    Raises:
        UserError: one of them cannot be imported, or is no tool.
    """
    others = {name: find_tool(name) for name in own_tools() if name in names}
    return {name: declaration.backends for name, declaration in {**TOOLS, **others}.items()}


def installed_tools() -> dict[str, ToolDeclaration]:
    """Every tool that this installation can serve, the built-in ones first. Imports the packages of the others.

    Raises:
        UserError: one of them cannot be imported, or is no tool.
    """
    return {**TOOLS, **{name: find_tool(name) for name in own_tools()}}


def find_tool(name: str) -> ToolDeclaration:
    """The declaration of that name, in any spelling that `normalise_name` makes equal, or of that alias.

    Raises:
        ModelError: kind `unknown_tool`; the text lists the names and the nearest one.
        UserError: another package has registered the name, but it cannot be imported or is no tool.
    """
    spelling = normalise_name(name)
    if spelling in _BY_SPELLING:
        return _BY_SPELLING[spelling]
    if spelling in _registered():
        return _declaration_of(_registered()[spelling])
    near = difflib.get_close_matches(spelling, [*_BY_SPELLING, *_registered()], 1, 0.6)
    spelled = {normalise_name(known): known for known in own_tools()}
    hint = (
        f" Did you mean {_BY_SPELLING[near[0]].name if near[0] in _BY_SPELLING else spelled[near[0]]}?" if near else ""
    )
    listed = ", ".join([*TOOLS, *own_tools()])
    raise ModelError(f'There is no tool "{name}".{hint} Tools: {listed}.', kind="unknown_tool")


@cache
def _registered() -> Mapping[str, EntryPoint]:
    """Spelling -> entry point. A built-in tool cannot be replaced: whoever reads OCR in a manifest gets ours."""
    return {
        normalise_name(point.name): point
        for point in sorted(entry_points(group=ENTRY_POINTS), key=lambda point: point.name)
        if normalise_name(point.name) not in _BY_SPELLING
    }


def _declaration_of(point: EntryPoint) -> ToolDeclaration:
    package = point.dist.name if point.dist else "an installed package"
    where = f'entry point "{point.name} = {point.value}" of {package}'
    try:
        found = point.load()
    except Exception as error:  # whatever a module does when it is imported
        raise UserError(f"it cannot be imported: {type(error).__name__}: {error}", where) from error
    if not isinstance(found, ToolDeclaration):
        made_by = "`thinkimg.tools.tool.tool`"
        raise UserError(f"it is a {type(found).__name__}, not a tool made by {made_by}", where)
    if normalise_name(found.name) != normalise_name(point.name):
        raise UserError(f"the tool is called {found.name}; register it under that name", where)
    return found


def load_tool(name: str, backend: str | None = None, options: Mapping[str, Any] | None = None) -> Tool:
    """A tool that is ready to run.

    Args:
        name: in any spelling.
        backend: one of the declaration's; None is the default.
        options: of that backend, camelCase.

    Raises:
        ModelError: no such tool.
        UserError: no such backend, or an option that is unknown or wrong.
    """
    return find_tool(name).load(backend, options)
