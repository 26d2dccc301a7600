"""Which replica gets the next call, and which had better get none.

Calls go to the less busy of two replicas drawn at random (Mitzenmacher 2001). Where a tool keeps something per picture,
they go to the replica that rendezvous hashing gives the picture, unless it has too much work (consistent hashing with
bounded loads, Mirrokni et al. 2018).
"""

import hashlib
import math
import random
import statistics
from collections.abc import Collection, Sequence

from thinkimg.client.replica import Replica

_AFFINITY_LOAD = 1.25
_SLOW_TIMES = 3.0
_SLOW_SECONDS = 0.25


def choose(
    replicas: Sequence[Replica], tried: Collection[Replica], randomness: random.Random, picture: str | None = None
) -> Replica:
    """The replica for the next attempt.

    Healthy ones that this call has not tried come first, then healthy ones, then the others that were not tried, then
    any: one that was set aside is better than none.

    Args:
        picture: sha256 of what the replica should have an affinity to; None for none.

    Raises:
        ValueError: there are no replicas.
    """
    fresh = [replica for replica in replicas if replica not in tried]
    healthy = [replica for replica in replicas if not replica.set_aside]
    for candidates in ([replica for replica in fresh if not replica.set_aside], healthy, fresh, replicas):
        if candidates:
            return _less_busy(candidates, randomness) if picture is None else _nearest(candidates, picture)
    raise ValueError("there are no replicas")


def has_alternative(replicas: Sequence[Replica], tried: Collection[Replica]) -> bool:
    """Whether a healthy replica is left that was not tried."""
    return any(replica not in tried and not replica.set_aside for replica in replicas)


def laggards(tool: str, replicas: Sequence[Replica], now: float) -> list[Replica]:
    """Replicas in service that answer several times slower than the others do, slowest first."""
    paces = {replica: replica.pace(tool, now) for replica in replicas if not replica.set_aside}
    known = {replica: pace for replica, pace in paces.items() if pace is not None}
    slow = []
    for replica, pace in known.items():
        others = [known[other] for other in known if other is not replica]
        if others and pace > _SLOW_TIMES * statistics.median(others) + _SLOW_SECONDS:
            slow.append(replica)
    return sorted(slow, key=lambda replica: known[replica], reverse=True)


def may_set_aside_one_more(replicas: Sequence[Replica]) -> bool:
    """At most half of a tool's replicas, rounded down, are set aside for being slow: the rest must bear the load."""
    return sum(replica.set_aside for replica in replicas) < len(replicas) // 2


def _less_busy(candidates: Sequence[Replica], randomness: random.Random) -> Replica:
    if len(candidates) == 1:
        return candidates[0]
    one, other = randomness.sample(candidates, 2)
    return one if one.outstanding <= other.outstanding else other


def _nearest(candidates: Sequence[Replica], picture: str) -> Replica:
    """The first in the picture's own order of the replicas that has less than its share of the work, and a quarter."""
    total = sum(replica.outstanding for replica in candidates)
    bound = math.ceil(_AFFINITY_LOAD * (total + 1) / len(candidates))
    in_order = sorted(candidates, key=lambda replica: _weight(replica.url, picture), reverse=True)
    return next(replica for replica in in_order if replica.outstanding < bound)


def _weight(url: str, picture: str) -> bytes:
    return hashlib.blake2b(f"{url} {picture}".encode(), digest_size=8).digest()
