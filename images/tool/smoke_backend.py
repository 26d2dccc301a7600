"""Runs in the image tool-BACKEND (`hack/docker/smoke.sh tool-BACKEND`): its tools miss nothing but their weights."""

import os
import sys

from thinkimg.errors import InfrastructureError
from thinkimg.tools.registry import TOOLS, find_tool


def main(backend: str) -> None:
    tried = [name for name in TOOLS if backend in find_tool(name).backends]
    assert tried, f"no tool has the backend {backend}"
    for name in tried:
        try:
            find_tool(name).load(backend)
        except InfrastructureError:  # the hub is out of reach; a package that is missing is another error
            continue
        raise AssertionError(f"{name} has loaded without weights")
    assert os.getuid() != 0
    print(f"ok: {', '.join(tried)} by {backend}, up to the weights")


main(sys.argv[1])
