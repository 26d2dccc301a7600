"""Tools that the tests serve: small, quick, and wrong in every way that a tool can be wrong."""

import contextlib
import os
import threading
import time
import urllib.request
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

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


@tool(name="Lag", version="1")
def lag(text: str) -> ToolResult:
    """Say who answers, after the time that this process's environment says.

    Args:
        text: Anything.
    """
    time.sleep(float(os.environ.get("LAG_SECONDS", "0")))
    return ToolResult(str(os.getpid()))


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


@tool(name="Peek", version="1")
def peek(path: str) -> ToolResult:
    """What no tool may do: follow a path or an address that a caller has written.

    Args:
        path: Of a file, or an address.
    """
    with contextlib.suppress(OSError, ValueError):
        if path.startswith("http://127.0.0.1"):
            urllib.request.urlopen(path, timeout=1)
        else:
            open(path, "rb").close()
    return ToolResult("looked")


class Embed:
    """Owns weights, as a model does, and computes several calls in one product of matrices."""

    def __init__(self, backend: str, options: object) -> None:
        self.weights = np.zeros((0, 0))

    def load(self) -> None:
        self.weights = np.random.default_rng(7).standard_normal((32 * 32 * 3, 64))

    def run(self, image: Image) -> ToolResult:
        """Four numbers that describe an image.

        Args:
            image: The image.
        """
        (result,) = self.run_batch([{"image": image}])
        return result

    def run_batch(self, calls: Sequence[Mapping[str, Any]]) -> list[ToolResult]:
        time.sleep(0.02)  # what a device takes, however many calls there are
        rows = [np.asarray(call["image"].pixels().resize((32, 32)), float).ravel() / 255 for call in calls]
        features = np.tanh(np.stack(rows) @ self.weights)
        return [ToolResult(str(len(calls)), {"features": row[:4].round(9).tolist()}) for row in features]


embed = tool(name="Embed", version="1")(Embed)


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


class Waiting:
    """Needs something that is not there yet."""

    def __init__(self, backend: str, options: object) -> None: ...

    def load(self) -> None:
        raise InfrastructureError("the endpoint does not answer")

    def run(self, text: str) -> ToolResult:
        """Never runs.

        Args:
            text: Anything.
        """
        return ToolResult(text)


waiting = tool(name="Waiting", version="1")(Waiting)
