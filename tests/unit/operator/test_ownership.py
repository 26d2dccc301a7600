"""Whose an object is that has the name of a child."""

from typing import Any

import pytest
from thinkimg_operator.ownership import MANAGED_BY, is_orphan, made_by_us, same_owner, stamp

OWNER = {"apiVersion": "thinkimg.dev/v1alpha1", "kind": "VisionTool", "metadata": {"name": "ocr", "uid": "u1"}}
CHILD = {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "ocr", "namespace": "team"}}
DIGEST = {"thinkimg.dev/applied-digest": "0123"}


def owner(uid: str, controller: bool = True) -> dict[str, Any]:
    return {"kind": "VisionTool", "name": "ocr", "uid": uid, "controller": controller}


@pytest.mark.parametrize(
    ("metadata", "ours", "orphan"),
    [
        ({}, False, False),
        ({"labels": {MANAGED_BY: "thinkimg-operator"}}, False, False),
        ({"annotations": DIGEST}, False, True),
        ({"annotations": DIGEST, "ownerReferences": [owner("u2")]}, False, False),
        ({"annotations": DIGEST, "ownerReferences": [owner("u2", controller=False)]}, False, True),
        ({"ownerReferences": [owner("u1")]}, True, False),
        ({"annotations": DIGEST, "ownerReferences": [owner("u1")]}, True, False),
    ],
)
def test_ours_is_what_our_owner_controls_an_orphan_what_we_applied_and_nobody_controls(
    metadata: dict[str, Any], ours: bool, orphan: bool
) -> None:
    existing = {"metadata": {"name": "ocr", **metadata}}
    assert same_owner(existing, stamp(CHILD, OWNER)) == ours
    assert is_orphan(existing) == orphan


@pytest.mark.parametrize(
    ("managers", "ours"),
    [
        ([("thinkimg-operator", "")], True),
        ([("thinkimg-operator", ""), ("kube-controller-manager", "status")], True),
        ([("thinkimg-operator", ""), ("kubectl", "")], False),
    ],
)
def test_who_wrote_an_object_is_in_its_managed_fields(managers: list[tuple[str, str]], ours: bool) -> None:
    fields = [{"manager": manager, "subresource": subresource} for manager, subresource in managers]
    assert made_by_us({"metadata": {"managedFields": fields}}) == ours
