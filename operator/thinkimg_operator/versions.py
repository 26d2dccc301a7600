"""What objects hold that this version does not know: said once, ignored, kept."""

from __future__ import annotations

import logging
import re

from pydantic import BaseModel

from thinkimg.api import unknown_fields

from .kinds import Body, Key, key_of

log = logging.getLogger(__name__)


class Newer:
    """Remembers what was said, so that a fleet of a newer version is no storm of lines."""

    def __init__(self) -> None:
        self._said: set[tuple[str, str]] = set()

    def look(self, body: Body, kind: type[BaseModel]) -> None:
        """Say which fields of the object's spec and status are ignored, each once for all objects of the kind."""
        key = key_of(body)
        told = {part: body[part] for part in ("spec", "status") if body.get(part)}
        for path in unknown_fields(kind, told):
            field = re.sub(r"\[\d+\]", "[]", path)
            if self._is_new(key.kind, field):
                log.warning("%s has %s, which this version does not know: it is ignored, and kept", key, field)

    def unreadable(self, key: Key, why: str) -> None:
        """Say once that an object is left alone."""
        if self._is_new(str(key), ""):
            log.warning("%s is left alone, as its status cannot be read by this version: %s", key, why)

    def _is_new(self, what: str, field: str) -> bool:
        new = (what, field) not in self._said
        self._said.add((what, field))
        return new
