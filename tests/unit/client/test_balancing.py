import asyncio
import random
import time
from collections import Counter

import pytest

from thinkimg.client.balancing import choose, laggards, may_set_aside_one_more
from thinkimg.client.replica import Attempt, Replica


def replicas(count: int) -> list[Replica]:
    return [Replica(f"http://replica-{number}") for number in range(count)]


def burden(replica: Replica, calls: int = 1, seconds: float = 0.0) -> None:
    """Calls that are under way there for so long."""
    for _ in range(calls):
        replica.under_way.add(Attempt("T", time.monotonic() - seconds, asyncio.Timeout(None)))


def answered(replica: Replica, calls: int, seconds: float) -> None:
    async def call() -> None:
        async with replica.attempt("T", 10):
            (attempt,) = replica.under_way
            attempt.started -= seconds

    for _ in range(calls):
        asyncio.run(call())


def test_the_less_busy_of_two_is_chosen() -> None:
    busy, idle = replicas(2)
    burden(busy, 3)
    assert {choose([busy, idle], [], random.Random(seed)) for seed in range(20)} == {idle}


def test_work_spreads_evenly() -> None:
    pool = replicas(4)
    randomness = random.Random(0)
    for _ in range(1000):
        burden(choose(pool, [], randomness))
    assert max(replica.outstanding for replica in pool) <= 1.1 * 250


def test_one_that_was_set_aside_is_the_last_resort() -> None:
    one, other = replicas(2)
    one.set_aside = True
    assert choose([one, other], [], random.Random(0)) is other
    assert choose([one, other], [other], random.Random(0)) is other
    other.set_aside = True
    assert choose([one, other], [other], random.Random(0)) is one


def test_a_fresh_replica_comes_before_one_that_was_tried() -> None:
    one, other = replicas(2)
    assert {choose([one, other], [one], random.Random(seed)) for seed in range(20)} == {other}


def test_without_replicas_there_is_nothing_to_choose() -> None:
    with pytest.raises(ValueError, match="no replicas"):
        choose([], [], random.Random(0))


# ---- affinity --------------------------------------------------------------------------------------------------------


def test_a_picture_stays_with_its_replica_whoever_asks() -> None:
    for picture in ("aa", "bb", "cc"):
        chosen = {choose(replicas(5), [], random.Random(seed), picture).url for seed in range(20)}
        assert len(chosen) == 1


def test_pictures_spread_over_the_replicas() -> None:
    pool = replicas(4)
    counts = Counter(choose(pool, [], random.Random(0), f"{number:064x}").url for number in range(1000))
    assert min(counts.values()) > 200


def test_most_pictures_stay_when_a_replica_goes() -> None:
    pool = replicas(4)
    pictures = [f"{number:064x}" for number in range(400)]
    before = {picture: choose(pool, [], random.Random(0), picture) for picture in pictures}
    lost = pool.pop()
    after = {picture: choose(pool, [], random.Random(0), picture) for picture in pictures}
    assert all(after[picture] is before[picture] for picture in pictures if before[picture] is not lost)


def test_affinity_gives_way_to_load() -> None:
    pool = replicas(4)
    for _ in range(100):
        burden(choose(pool, [], random.Random(0), "one picture for all"))
    assert max(replica.outstanding for replica in pool) <= 1.25 * 25 + 1


# ---- slow ones -------------------------------------------------------------------------------------------------------


def test_one_that_answers_several_times_slower_lags() -> None:
    pool = replicas(3)
    for replica, seconds in zip(pool, (0.1, 0.1, 2.0), strict=True):
        answered(replica, 8, seconds)
    assert laggards("T", pool, time.monotonic()) == [pool[2]]
    assert laggards("another tool", pool, time.monotonic()) == []


def test_a_few_slow_answers_are_not_enough_to_judge() -> None:
    pool = replicas(2)
    answered(pool[0], 8, 0.1)
    answered(pool[1], 3, 2.0)
    assert laggards("T", pool, time.monotonic()) == []


def test_one_whose_calls_do_not_end_lags_too() -> None:
    pool = replicas(2)
    answered(pool[0], 8, 0.1)
    burden(pool[1], 3, seconds=5)
    assert laggards("T", pool, time.monotonic()) == [pool[1]]


def test_where_all_are_slow_none_lags() -> None:
    pool = replicas(3)
    for replica in pool:
        answered(replica, 8, 5.0)
    assert laggards("T", pool, time.monotonic()) == []


def test_a_slow_answer_weighs_less_as_time_goes_on() -> None:
    one, other = replicas(2)
    answered(one, 20, 0.1)
    answered(other, 8, 2.0)
    answered(other, 25, 0.1)
    assert laggards("T", [one, other], time.monotonic()) == []


@pytest.mark.parametrize(("count", "at_most"), [(1, 0), (2, 1), (3, 1), (4, 2), (5, 2)])
def test_at_most_half_are_set_aside_for_being_slow(count: int, at_most: int) -> None:
    pool = replicas(count)
    for number, replica in enumerate(pool):
        assert may_set_aside_one_more(pool) == (number < at_most)
        replica.set_aside = True


def test_known_images_are_forgotten_oldest_first() -> None:
    replica = Replica("http://x/")
    for number in range(5000):
        replica.remember(str(number))
    assert replica.knows("4999")
    assert not replica.knows("0")
