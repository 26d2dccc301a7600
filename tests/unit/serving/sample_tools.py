"""Tools that the tests serve: small, quick, and wrong in every way that a tool can be wrong."""

import threading
import time

from thinkimg.errors import InfrastructureError, ModelError
from thinkimg.image import Image
from thinkimg.tools.tool import ToolResult, tool

_counts: dict[str, int] = {}
_lock = threading.Lock()


@tool(name="Echo", version="1")
def echo(text: str) -> ToolResult:
    """Say the same again.

    Args:
        text: What to say.
    """
    return ToolResult(text, {"length": len(text)})


@tool(name="Count", version="1")
def count(key: str) -> ToolResult:
    """How often this process was asked with this key.

    Args:
        key: Anything.
    """
    with _lock:
        _counts[key] = _counts.get(key, 0) + 1
        return ToolResult(str(_counts[key]))


@tool(name="Sleep", version="1")
def sleep(seconds: float) -> ToolResult:
    """Wait.

    Args:
        seconds: How long.
    """
    time.sleep(seconds)
    return ToolResult(f"slept {seconds:g}")


@tool(name="Size", version="1")
def size(image: Image) -> ToolResult:
    """Width and height of an image, which is given back.

    Args:
        image: The image.
    """
    return ToolResult(f"{image.width}x{image.height}", {"sha256": image.sha256}, (image,))


@tool(name="Fail", version="1")
def fail(how: str) -> ToolResult:
    """Fail in the way that is asked.

    Args:
        how: model, infrastructure, bug, unencodable.
    """
    if how == "model":
        raise ModelError("nothing to see on this picture", kind="refused")
    if how == "infrastructure":
        raise InfrastructureError("the backend is gone")
    if how == "unencodable":
        return ToolResult("x", {"object": object()})
    raise RuntimeError("secret internals: /etc/passwd")


class Broken:
    """Cannot be loaded."""

    def __init__(self, backend: str, options: object) -> None: ...

    def load(self) -> None:
        raise RuntimeError("the weights are damaged")

    def run(self, text: str) -> ToolResult:
        """Never runs.

        Args:
            text: Anything.
        """
        return ToolResult(text)


broken = tool(name="Broken", version="1")(Broken)
not_a_tool = 7
