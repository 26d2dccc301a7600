"""Writing objects: server-side apply that sends nothing when nothing differs, create, patch, replace, delete."""

from __future__ import annotations

import json
import logging
from dataclasses import dataclass

from thinkimg.api.pod_contract import Annotation

from .apierrors import ApiError, NameTakenError
from .cache import MANAGER, digest_of
from .kinds import KINDS, Body, Key, controller_of, key_of
from .ownership import is_orphan, made_by_us, same_owner, stamp
from .reading import Reader
from .transport import APPLY, MERGE, Request

log = logging.getLogger(__name__)

STRICT = {"fieldManager": MANAGER, "fieldValidation": "Strict"}
"""A field that the API server does not know is refused: a user's patch may have one, and it would be dropped."""


@dataclass(frozen=True)
class Applied:
    """What became of an apply or a create."""

    uid: str
    written: bool
    """False: nothing had to be written."""
    created: bool = False


class Writer(Reader):
    """Writes objects, and remembers what it wrote."""

    async def apply(self, body: Body, owner: Body | None = None) -> Applied:
        """Make the API server hold `body` (server-side apply, forced), if it does not already.

        No request is sent when the same body was applied before and nobody else has written the object since. `owner`
        becomes its controller: the object is deleted with it.

        Raises:
            NameTakenError: an object of that name exists and is not the owner's; it was not touched.
            ApiError: 409 when somebody made, deleted or replaced it in between: read again and decide anew.
        """
        stamped = stamp(body, owner)
        digest = digest_of(stamped)
        stamped["metadata"]["annotations"] = {
            **stamped["metadata"].get("annotations", {}),
            Annotation.APPLIED_DIGEST: digest,
        }
        key = key_of(stamped)
        seen = self.cache.get(key)
        if seen is not None and seen.digest == digest and not seen.touched and not seen.deleting:
            return Applied(seen.uid, written=False)
        if seen is not None and seen.owner_uid and seen.owner_uid == controller_of(stamped):
            uid = seen.uid
        else:
            uid = await self._uid_of_ours(key, stamped)
        try:
            created, answer = await self._apply(key, stamped, uid)
        except ApiError as error:
            if error.conflict:
                self.cache.forget(key)  # what we knew of it is not so any more
            raise
        self.cache.applied(answer)
        return Applied(answer["metadata"]["uid"], written=True, created=created)

    async def check_name(self, body: Body, owner: Body) -> None:
        """Raises `NameTakenError` if `apply` would."""
        stamped = stamp(body, owner)
        await self._uid_of_ours(key_of(stamped), stamped)

    async def _uid_of_ours(self, key: Key, stamped: Body) -> str:
        """Empty when there is no object of that name. Raises `NameTakenError` when it is not ours."""
        existing = await self.get(key)
        if existing is None:
            return ""
        if not (same_owner(existing, stamped) or is_orphan(existing)):
            raise NameTakenError(key)
        return str(existing["metadata"]["uid"])

    async def _apply(self, key: Key, body: Body, uid: str) -> tuple[bool, Body]:
        """Apply to the object with that uid and no other; with an empty one, make it. Returns whether it was made.

        Nothing says "only if there is none" to an apply. So one that is to make the object is not forced: what
        somebody made in the meantime keeps its values, and what we added is taken back.
        """
        query = {**STRICT, "force": "true" if uid else "false"}
        path = KINDS[key.kind].path(key.namespace, key.name)
        precondition = {"uid": uid} if uid else {}
        sent = {**body, "metadata": {**body["metadata"], **precondition}}
        status, data = await self.send(Request("PATCH", path, query, sent, APPLY))
        answer: Body = json.loads(data)
        if not uid and status != 201 and not made_by_us(answer):
            metadata = {name: answer["metadata"][name] for name in ("name", "namespace", "uid")}
            nothing = {"apiVersion": body["apiVersion"], "kind": body["kind"], "metadata": metadata}
            await self.send(Request("PATCH", path, query, nothing, APPLY))
            log.error("%s was made by somebody else while we were about to make it; it has its own fields again", key)
            raise NameTakenError(key)
        return status == 201, answer

    async def check_create(self, body: Body, owner: Body) -> None:
        """Have the API server check a `create` without carrying it out. Raises as it would."""
        stamped = stamp(body, owner)
        key = key_of(stamped)
        query = {**STRICT, "dryRun": "All"}
        await self.ask(Request("POST", KINDS[key.kind].path(key.namespace), query, stamped))

    async def create(self, body: Body, owner: Body | None = None) -> Applied:
        """Create an object that is never changed afterwards (a Job). One of that name and owner that exists is fine.

        Raises:
            ApiError: 409 when an object of that name belongs to somebody else, or is just being deleted.
        """
        stamped = stamp(body, owner)
        key = key_of(stamped)
        try:
            path = KINDS[key.kind].path(key.namespace)
            answer = await self.ask(Request("POST", path, STRICT, stamped))
        except ApiError as error:
            if error.reason != "AlreadyExists":
                raise
            existing = await self.get(key)
            if existing is None or not same_owner(existing, stamped) or "deletionTimestamp" in existing["metadata"]:
                raise
            self.cache.observe(existing)
            return Applied(existing["metadata"]["uid"], written=False)
        self.cache.observe(answer)
        return Applied(answer["metadata"]["uid"], written=True, created=True)

    async def patch(self, key: Key, patch: Body, subresource: str = "") -> Body:
        """JSON merge patch: single fields of an object whose other fields are not ours (a Job's `suspend`)."""
        path = KINDS[key.kind].path(key.namespace, key.name, subresource)
        answer = await self.ask(Request("PATCH", path, {"fieldManager": MANAGER}, patch, MERGE))
        if not subresource:
            self.cache.observe(answer)
        return answer

    async def replace(self, body: Body) -> Body:
        """Replace an object if it is still the version that `body` says (409 otherwise): leases change hands so."""
        key = key_of(body)
        path = KINDS[key.kind].path(key.namespace, key.name)
        return await self.ask(Request("PUT", path, {"fieldManager": MANAGER}, body))

    async def delete(
        self, key: Key, *, uid: str = "", propagation: str = "Background", grace_seconds: int | None = None
    ) -> bool:
        """Delete an object. False when there was none. With `uid`, only that one.

        Raises:
            ApiError: 409 when the object of that name has another uid.
        """
        options: Body = {"propagationPolicy": propagation}
        if uid:
            options["preconditions"] = {"uid": uid}
        if grace_seconds is not None:
            options["gracePeriodSeconds"] = grace_seconds
        try:
            await self.ask(Request("DELETE", KINDS[key.kind].path(key.namespace, key.name), body=options))
        except ApiError as error:
            if not error.not_found:
                raise
            self.cache.forget(key)
            return False
        return True
