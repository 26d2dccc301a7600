"""What goes wrong only where containers run shows in the object itself, with what to do."""

from __future__ import annotations

from typing import Any

import pytest
from e2ecluster import VISION, Cluster, condition, document

WRONG: dict[str, tuple[dict[str, Any], str]] = {
    "an image that cannot be pulled": (
        {"tool": "Custom", "image": "registry.invalid/thinkimg/none:1"}, "registry.invalid/thinkimg/none:1",
    ),
    "weights behind a secret that is not there": (
        {"tool": "SAM", "backend": "transformers",
         "weights": {"uri": "hf://acme/private", "secretRef": {"name": "hub-token", "key": "token"}}}, "hub-token",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", WRONG)
def test_a_tool_says_what_keeps_it(installed: Cluster, case: str) -> None:
    spec, named = WRONG[case]
    body = document("thinkimg.dev/v1alpha1", "VisionTool", {"name": "wrong", "namespace": VISION}, spec=spec)
    installed.kubectl("apply", "-f", "-", stdin=body)
    try:

        def said() -> str:
            found = condition(installed.get("visiontool", "wrong"), "Available")
            message: str = found.get("message", "") if found.get("status") == "False" else ""
            return message if named in message else ""

        installed.wait(f"a condition that names {named}", said, 120)
    finally:
        installed.kubectl("delete", "visiontool", "wrong", "-n", VISION)
