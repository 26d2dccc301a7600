import random

import pytest

from thinkimg.client.balancing import Replica, choose


def replicas(count: int) -> list[Replica]:
    return [Replica(f"http://replica-{number}") for number in range(count)]


def test_the_less_busy_of_two_is_chosen() -> None:
    busy, idle = replicas(2)
    busy.outstanding = 3
    assert {choose([busy, idle], [], random.Random(seed)) for seed in range(20)} == {idle}


def test_work_spreads_evenly() -> None:
    pool = replicas(4)
    randomness = random.Random(0)
    for _ in range(1000):
        choose(pool, [], randomness).outstanding += 1
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


def test_known_images_are_forgotten_oldest_first() -> None:
    replica = Replica("http://x/")
    for number in range(5000):
        replica.remember(str(number))
    assert replica.knows("4999")
    assert not replica.knows("0")
