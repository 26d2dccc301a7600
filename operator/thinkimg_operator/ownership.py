"""Whose an object is: the label and the owner that every child has."""

from __future__ import annotations

from thinkimg.api.pod_contract import Annotation

from .cache import MANAGER, written_by_others
from .kinds import Body, controller_of

MANAGED_BY = "app.kubernetes.io/managed-by"
"""Label of every child; watches and resyncs select by it."""
SELECT_OURS = f"{MANAGED_BY}={MANAGER}"


def stamp(body: Body, owner: Body | None) -> Body:
    """A copy of `body` with the label by which we find our children, and with its owner."""
    metadata = dict(body["metadata"])
    metadata["labels"] = {**metadata.get("labels", {}), MANAGED_BY: MANAGER}
    if owner is not None:
        metadata["ownerReferences"] = [
            {
                "apiVersion": owner["apiVersion"],
                "kind": owner["kind"],
                "name": owner["metadata"]["name"],
                "uid": owner["metadata"]["uid"],
                "controller": True,
                "blockOwnerDeletion": True,
            }
        ]
        metadata.setdefault("namespace", owner["metadata"].get("namespace", ""))
    return {**body, "metadata": metadata}


def same_owner(existing: Body, stamped: Body) -> bool:
    """Whether `existing` belongs to all owners of `stamped`."""

    def uids(body: Body) -> set[str]:
        return {reference["uid"] for reference in body["metadata"].get("ownerReferences", ())}

    return uids(stamped) <= uids(existing)


def is_orphan(existing: Body) -> bool:
    """Whether we applied the object once, and its owner was deleted without it (`--cascade=orphan`)."""
    return not controller_of(existing) and Annotation.APPLIED_DIGEST in existing["metadata"].get("annotations", {})


def made_by_us(existing: Body) -> bool:
    """Whether nobody else has written the object but for its status."""
    return not written_by_others(existing["metadata"].get("managedFields", ()))
