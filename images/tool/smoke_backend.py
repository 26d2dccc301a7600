"""Runs in the image tool-BACKEND (`hack/docker/smoke.sh tool-BACKEND`): its tools miss nothing but their weights."""

import importlib
import os
import sys

from thinkimg.errors import InfrastructureError, UserError
from thinkimg.tools.backends.extras import PACKAGES
from thinkimg.tools.registry import TOOLS, find_tool


def main(backend: str) -> None:
    tried = [name for name in TOOLS if backend in find_tool(name).backends]
    assert tried, f"no tool has the backend {backend}"
    for package in PACKAGES[backend]:  # weights are looked for before any is imported
        importlib.import_module(package)
    for name in tried:
        try:
            find_tool(name).load(backend)
        except InfrastructureError:  # a hub of the package's own is out of reach
            continue
        except UserError as error:  # a package that is missing is one too
            if "thinkimg weights fetch" not in str(error):
                raise
            continue
        raise AssertionError(f"{name} has loaded without weights")
    assert os.getuid() != 0
    print(f"ok: {', '.join(tried)} by {backend}, up to the weights")


main(sys.argv[1])
