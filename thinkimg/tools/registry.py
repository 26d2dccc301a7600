"""The built-in tools by name. Importing this is cheap; `load_tool` brings in what a tool needs."""

import difflib
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from thinkimg.errors import ModelError
from thinkimg.tools.crop import crop
from thinkimg.tools.draw_line import draw_horizontal_line_by_y, draw_vertical_line_by_x
from thinkimg.tools.ocr import ocr
from thinkimg.tools.point import point
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
            zoom_in_subplot,
            point,
            segment_region_around_point,
        )
    }
)

_BY_SPELLING = {
    normalise_name(name): declaration
    for declaration in TOOLS.values()
    for name in (declaration.name, *declaration.schema.aliases)
}


def find_tool(name: str) -> ToolDeclaration:
    """The declaration of that name, in any spelling that `normalise_name` makes equal, or of that alias.

    Raises:
        ModelError: kind `unknown_tool`; the text lists the names and the nearest one.
    """
    spelling = normalise_name(name)
    if spelling in _BY_SPELLING:
        return _BY_SPELLING[spelling]
    near = difflib.get_close_matches(spelling, list(_BY_SPELLING), 1, 0.6)
    hint = f" Did you mean {_BY_SPELLING[near[0]].name}?" if near else ""
    raise ModelError(f'There is no tool "{name}".{hint} Tools: {", ".join(TOOLS)}.', kind="unknown_tool")


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
