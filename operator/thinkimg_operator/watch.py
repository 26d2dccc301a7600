"""The watch of children (Deployments, Jobs, pods), of which there are many more events than of our own resources.

kopf runs a task for each object that changes and keeps its books of it: of 1,600 pods that start, that was half of the
operator's work (docs/results.md). Here an event costs its parsing. kopf watches the resources themselves.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable, Iterator
from typing import NoReturn

from .apierrors import ApiError
from .cluster import Cluster
from .kinds import KINDS, Body

log = logging.getLogger(__name__)


def backoffs() -> Iterator[float]:
    """Pauses between tries in seconds: for ever, as an API server that is down comes back some time."""
    yield from (0.2, 0.5, 1, 2, 3)
    while True:
        yield 5


async def watch_for_ever(
    cluster: Cluster, kind: str, namespace: str | None, labels: str, deliver: Callable[[str | None, Body], None]
) -> NoReturn:
    """Deliver what exists (with type None, as kopf does), then what changes, whatever happens to the connection.

    What went away while no watch was open is not told.
    """
    pauses, since = backoffs(), 0
    while True:
        try:
            if not since:
                as_of = 0
                async for items, version in cluster.pages(kind, namespace, labels=labels):
                    as_of = version
                    for body in items:
                        deliver(None, body)
                since = as_of
            changes = cluster.watch(kind, namespace, since, labels=labels)
            async with contextlib.aclosing(changes):
                async for type_, body in changes:
                    since, pauses = int(body["metadata"]["resourceVersion"]), backoffs()
                    if type_ != "BOOKMARK":
                        deliver(type_, {"apiVersion": KINDS[kind].api_version, "kind": kind, **body})
            await asyncio.sleep(0.1)  # one that ends at once, again and again, must not become a busy loop
        except ApiError as error:
            if error.status == 410:  # too long ago: begin anew
                since = 0
            pause = max(next(pauses), error.retry_after)
            log.info("the watch of %s goes on in %g s: %s", kind, pause, error)
            await asyncio.sleep(pause)
