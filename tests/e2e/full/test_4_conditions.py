"""What goes wrong only where containers run shows in the object itself, with what to do."""

from __future__ import annotations

from typing import Any

import pytest

from tests.support.e2e.e2ecluster import VISION, Cluster, condition, document

WRONG: dict[str, tuple[dict[str, Any], str, str, str]] = {
    "an image that cannot be pulled": (
        {"tool": "Custom", "image": "registry.invalid/thinkimg/none:1"},
        "ImagePullFailed", "registry.invalid/thinkimg/none:1", "Correct spec.image or spec.imagePullSecrets.",
    ),
    "weights behind a secret that is not there": (
        {"tool": "SAM", "backend": "transformers",
         "weights": {"uri": "hf://acme/private", "secretRef": {"name": "hub-token", "key": "token"}}},
        "ConfigurationMissing", "hub-token", "Create it, or correct the reference.",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", WRONG)
def test_a_tool_says_what_keeps_it_and_what_to_do(installed: Cluster, case: str) -> None:
    spec, reason, named, remedy = WRONG[case]
    body = document("thinkimg.dev/v1alpha1", "VisionTool", {"name": "wrong", "namespace": VISION}, spec=spec)
    installed.kubectl("apply", "-f", "-", stdin=body)
    try:

        def progressing() -> dict[str, Any]:
            return condition(installed.get("visiontool", "wrong"), "Progressing")

        installed.wait(f"the condition {reason}", lambda: progressing().get("reason") == reason, 120)
        message = progressing()["message"]
        assert named in message
        assert message.endswith(remedy)
        assert condition(installed.get("visiontool", "wrong"), "Available")["status"] == "False"
    finally:
        installed.kubectl("delete", "visiontool", "wrong", "-n", VISION)
