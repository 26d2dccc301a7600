"""What the operator remembers of objects: a few words each, a body only until the next look at its object, and nothing
that a list could not restore.

An entry says which of our bodies the API server holds (a digest that every apply leaves as an annotation) and whether
somebody else has written the object since (`managedFields` tell). Both together answer "does this need a write?"
without a request, also right after a start.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections import defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import Any

from thinkimg.api.pod_contract import Annotation

from .kinds import Body, Key, controller_of, key_of

log = logging.getLogger(__name__)

MANAGER = "thinkimg-operator"
"""Field manager of everything that the operator writes."""

Summary = Callable[[Body], Any]


@dataclass(frozen=True, slots=True)
class Seen:
    """What is known of one object."""

    uid: str
    resource_version: int
    digest: str
    """Of the body that we applied last; empty when we never did."""
    foreign: str
    """Digest of what others own of the object outside of its status; empty when nobody does, or we never applied."""
    verified: str
    """`foreign` as it was when we last applied. Different from it: somebody wrote after us."""
    owner_uid: str
    """The controlling owner's."""
    deleting: bool
    summary: Any = None
    """What the kind's `Summary` function took from the body."""

    @property
    def touched(self) -> bool:
        """Somebody else wrote the object after our last apply, perhaps what we own."""
        return self.foreign != self.verified


class Cache:
    """Objects by key and by owner, and bodies that wait for the next reconciliation of their object."""

    def __init__(self) -> None:
        self._seen: defaultdict[str, dict[Key, Seen]] = defaultdict(dict)
        """By kind, as each scrape of the metrics goes through one."""
        self._children: dict[str, set[Key]] = {}
        self._inbox: dict[Key, Body] = {}
        self._summaries: dict[str, Summary] = {}

    def summarise(self, kind: str, summary: Summary) -> None:
        """Keep `summary(body)` of every object of a kind: counts and conditions that reconciling needs."""
        self._summaries[kind] = summary

    def get(self, key: Key) -> Seen | None:
        return self._seen[key.kind].get(key)

    def children(self, owner_uid: str) -> list[Key]:
        """Keys of the objects that an owner controls, sorted."""
        return sorted(self._children.get(owner_uid, ()))

    def of_kind(self, kind: str) -> Iterable[tuple[Key, Seen]]:
        return self._seen[kind].items()

    def observe(self, body: Body) -> bool:
        """Take note of an object as a watch, a list or an answer shows it.

        Returns False for old news: the same version or an earlier one, as the echo of our own write is.
        """
        key = key_of(body)
        before = self.get(key)
        seen = self._look(key.kind, body)
        if before is not None and before.uid == seen.uid:
            if seen.resource_version <= before.resource_version:
                return False
            seen = replace(seen, verified=before.verified)
        self._put(key, seen)
        return True

    def applied(self, body: Body) -> Seen:
        """Take note of the API server's answer to an apply. Fields that others own at that moment agree with ours."""
        key = key_of(body)
        seen = self._look(key.kind, body)
        before = self.get(key)
        if before is not None and before.uid == seen.uid and before.resource_version > seen.resource_version:
            seen = before  # the watch was faster and has seen more since
        else:
            seen = replace(seen, verified=seen.foreign)
        self._put(key, seen)
        return seen

    def forget(self, key: Key, *, uid: str = "") -> bool:
        """The object is gone. With `uid`, only if it was that one: its successor may be known already."""
        seen = self.get(key)
        if seen is None or (uid and seen.uid != uid):
            return False
        del self._seen[key.kind][key]
        self._inbox.pop(key, None)
        siblings = self._children.get(seen.owner_uid)
        if siblings is not None:
            siblings.discard(key)
            if not siblings:
                del self._children[seen.owner_uid]
        return True

    def forget_unlisted(
        self, kind: str, listed: Iterable[Key], resource_version: int, namespace: str = ""
    ) -> list[Key]:
        """Drop entries that a complete list as of `resource_version` did not show; returns their keys.

        This heals deletions that no watch reported. Entries newer than the list stay. `namespace`: the list was of
        that namespace only.
        """
        shown = set(listed)
        gone = [
            key
            for key, seen in self.of_kind(kind)
            if key not in shown and seen.resource_version <= resource_version and namespace in ("", key.namespace)
        ]
        for key in gone:
            self.forget(key)
        return gone

    def deliver(self, body: Body) -> None:
        """Leave the newest body of an object for its next reconciliation, which `take`s it."""
        metadata = {name: value for name, value in body["metadata"].items() if name != "managedFields"}
        self._inbox[key_of(body)] = {**body, "metadata": metadata}

    def take(self, key: Key) -> Body | None:
        """The body that was left, unless a newer one has been seen since, as the answer to a write of ours."""
        body, seen = self._inbox.pop(key, None), self.get(key)
        if body is None or (seen is not None and int(body["metadata"]["resourceVersion"]) < seen.resource_version):
            return None
        return body

    def _look(self, kind: str, body: Body) -> Seen:
        metadata = body["metadata"]
        summary = self._summaries.get(kind)
        digest = metadata.get("annotations", {}).get(Annotation.APPLIED_DIGEST, "")
        return Seen(
            uid=metadata["uid"],
            resource_version=int(metadata["resourceVersion"]),
            digest=digest,
            foreign=_foreign(metadata.get("managedFields", ())) if digest else "",
            verified="",
            owner_uid=controller_of(body),
            deleting="deletionTimestamp" in metadata,
            summary=_summarised(summary, body) if summary else None,
        )

    def _put(self, key: Key, seen: Seen) -> None:
        before = self.get(key)
        if before is not None and before.owner_uid != seen.owner_uid:
            self.forget(key)
        self._seen[key.kind][key] = seen
        if seen.owner_uid:
            self._children.setdefault(seen.owner_uid, set()).add(key)


def _summarised(summary: Summary, body: Body) -> Any:
    """None for an object that cannot be read: it must not keep others from being seen."""
    try:
        return summary(body)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        log.debug("%s: %s", key_of(body), error)
        return None


def digest_of(document: Any) -> str:
    """Of a JSON document, the same for the same content."""
    canonical = json.dumps(document, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(canonical.encode()).hexdigest()[:20]


def written_by_others(managed_fields: Iterable[Body]) -> list[Body]:
    """What others than we own of an object outside of its status."""
    return [
        entry for entry in managed_fields if entry.get("manager") != MANAGER and entry.get("subresource") != "status"
    ]


def _foreign(managed_fields: Iterable[Body]) -> str:
    others = written_by_others(managed_fields)
    return digest_of(others) if others else ""
