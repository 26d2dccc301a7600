"""Whose an object is: the label and the owner that every child has."""

from __future__ import annotations

from .cache import MANAGER
from .kinds import Body

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
