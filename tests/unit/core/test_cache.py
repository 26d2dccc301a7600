"""The one cache: bounds, order of dropping, owners, counters, and many threads at once."""

import contextlib
import os
import random
import signal
import threading
import time
from collections.abc import Hashable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from thinkimg.cache import BoundedCache

KEYS = st.sampled_from("abcdefgh")
OWNERS = st.sampled_from(["one", "two", None])


def filled(cache: BoundedCache[str, str], keys: str, size: int = 10) -> BoundedCache[str, str]:
    for key in keys:
        cache.put(key, key.upper(), size)
    return cache


def kept(cache: BoundedCache[str, str]) -> str:
    """Without counting as a use."""
    return "".join(key for key in "abcdefgh" if key in cache)


# ---- one thread -----------------------------------------------------------------------------------------------------


def test_the_least_recently_used_goes_first() -> None:
    cache = filled(BoundedCache(30), "abc")
    assert cache.get("a") == "A"
    cache.put("d", "D", 10)
    assert kept(cache) == "acd"
    cache.put("e", "E", 20)
    assert kept(cache) == "de"
    assert cache.bytes == 30
    assert cache.evictions == 3


def test_whoever_has_most_gives_way_first() -> None:
    cache: BoundedCache[str, str] = BoundedCache(50, fair=True)
    cache.put("a", "A", 10, "small")
    for key in "bcdefg":
        cache.put(key, key.upper(), 10, "large")
    assert kept(cache) == "adefg"
    assert cache.get("d") == "D"
    cache.put("h", "H", 10, "large")
    assert kept(cache) == "adfgh", "of its own, the least recently used"
    assert cache.put("b", "B", 30, "small")
    assert kept(cache) == "abh", "what is new stays"
    assert cache.put("c", "C", 20, "large")
    assert kept(cache) == "ch", "then the other has most, and its oldest is not enough"
    assert cache.put("a", "A", 50, "large")
    assert cache.owners() == {"large": 50}, "a value of the whole bound is kept alone"


def test_no_owner_is_driven_below_its_share() -> None:
    cache: BoundedCache[str, str] = BoundedCache(100, fair=True)
    for number in range(5):
        cache.put(f"one{number}", "x", 10, "one")
    for number in range(50):
        cache.put(f"two{number}", "x", 10, "two")
        cache.put(f"three{number}", "x", 1, "three")
    assert cache.bytes_of("one") >= 30
    assert cache.bytes_of("three") >= 30


def test_asking_whether_a_key_is_there_is_no_use() -> None:
    cache = filled(BoundedCache(20), "ab")
    assert "a" in cache
    cache.put("c", "C", 10)
    assert kept(cache) == "bc"
    assert (cache.hits, cache.misses) == (0, 0)


def test_a_value_larger_than_its_share_is_not_kept_and_drives_nothing_out() -> None:
    cache = filled(BoundedCache(40, largest=0.25), "abcd")
    assert not cache.put("e", "E", 11)
    assert kept(cache) == "abcd"
    assert cache.put("e", "E", 10)
    assert cache.evictions == 1


def test_of_a_key_only_the_newest_value_is_kept_even_if_that_is_too_large() -> None:
    cache = filled(BoundedCache(30), "ab")
    cache.put("a", "again", 5, owner="someone")
    assert cache.get("a") == "again"
    assert cache.bytes == 15
    assert cache.owners() == {None: 10, "someone": 5}
    assert not cache.put("a", "too large", 31)
    assert cache.get("a") is None
    assert cache.bytes == 10


def test_a_second_bound_counts_entries() -> None:
    cache = filled(BoundedCache(1000, max_entries=2), "abc")
    assert kept(cache) == "bc"
    assert kept(filled(BoundedCache(1000, max_entries=0), "abc")) == ""


def test_a_cache_of_nothing_keeps_nothing() -> None:
    cache = filled(BoundedCache(0), "a", size=1)
    assert cache.get("a") is None
    assert len(cache) == cache.bytes == 0


def test_an_entry_that_costs_nothing_is_refused_as_it_would_never_be_dropped() -> None:
    with pytest.raises(ValueError, match="at least 1"):
        BoundedCache[str, str](10).put("a", "A", 0)


def test_what_an_owner_takes_can_be_read() -> None:
    cache: BoundedCache[str, str] = BoundedCache(30)
    cache.put("a", "A", 10, owner="one")
    cache.put("b", "B", 15, owner="two")
    assert (cache.bytes_of("one"), cache.bytes_of("two"), cache.bytes_of("nobody")) == (10, 15, 0)
    cache.put("c", "C", 15, owner="two")
    assert cache.owners() == {"two": 30}


def test_none_is_a_value_like_any_other() -> None:
    cache: BoundedCache[str, None] = BoundedCache(10)
    cache.put("a", None, 1)
    assert "a" in cache
    assert cache.get_or_make("a", lambda: pytest.fail("it is there"), lambda _: 1) is None


def test_a_wider_bound_keeps_what_is_there_and_a_narrower_one_changes_nothing() -> None:
    cache = filled(BoundedCache(20), "ab")
    cache.widen(5)
    assert kept(cache) == "ab"
    cache.widen(30)
    assert kept(filled(cache, "c")) == "abc"


def test_a_bound_that_is_set_counts_at_once() -> None:
    cache = filled(BoundedCache(30), "abc")
    cache.bound(15)
    assert (kept(cache), cache.evictions) == ("c", 2)
    cache.bound(30)
    assert kept(filled(cache, "de")) == "cde"


def test_what_is_cleared_or_dropped_frees_its_bytes_and_is_no_eviction() -> None:
    cache = filled(BoundedCache(30), "abc")
    cache.drop("a")
    cache.drop("never there")
    assert cache.bytes == cache.bytes_of(None) == 20
    cache.clear()
    assert len(cache) == cache.bytes == cache.evictions == 0
    assert cache.owners() == {}


def test_a_value_is_made_once_and_then_kept() -> None:
    cache: BoundedCache[str, str] = BoundedCache(10)
    made: list[str] = []
    for _ in range(3):
        assert cache.get_or_make("a", lambda: made.append("a") or "value", len, owner="one") == "value"
    assert made == ["a"]
    assert (cache.hits, cache.misses, cache.bytes_of("one")) == (2, 1, 5)


def test_a_value_too_large_to_keep_is_given_all_the_same() -> None:
    cache: BoundedCache[str, str] = BoundedCache(3)
    assert cache.get_or_make("a", lambda: "value", len) == "value"
    assert len(cache) == 0


# ---- against a model that is obviously right ------------------------------------------------------------------------


@dataclass
class Plain:
    """A list, oldest use first."""

    max_bytes: int
    most: int
    share: float
    entries: list[tuple[str, int, int, Hashable]] = field(default_factory=list)
    hits: int = 0
    misses: int = 0

    def find(self, key: str) -> tuple[str, int, int, Hashable] | None:
        return next((entry for entry in self.entries if entry[0] == key), None)

    def get(self, key: str) -> int | None:
        entry = self.find(key)
        if entry is None:
            self.misses += 1
            return None
        self.hits += 1
        self.entries.remove(entry)
        self.entries.append(entry)
        return entry[1]

    def put(self, key: str, value: int, size: int, owner: Hashable) -> None:
        self.drop(key)
        if size <= self.share * self.max_bytes and self.most:
            self.entries.append((key, value, size, owner))
        while sum(entry[2] for entry in self.entries) > self.max_bytes or len(self.entries) > self.most:
            self.entries.pop(0)

    def drop(self, key: str) -> None:
        self.entries = [entry for entry in self.entries if entry[0] != key]


class CacheAgainstModel(RuleBasedStateMachine):
    @initialize(max_bytes=st.integers(0, 60), most=st.integers(0, 6), share=st.sampled_from([0.25, 0.5, 1.0]))
    def begin(self, max_bytes: int, most: int, share: float) -> None:
        self.cache: BoundedCache[str, int] = BoundedCache(max_bytes, largest=share, max_entries=most)
        self.plain = Plain(max_bytes, most, share)

    @rule(key=KEYS, value=st.integers(), size=st.integers(1, 70), owner=OWNERS)
    def put(self, key: str, value: int, size: int, owner: str | None) -> None:
        stays = self.cache.put(key, value, size, owner)
        self.plain.put(key, value, size, owner)
        assert stays == (self.plain.find(key) is not None)

    @rule(key=KEYS)
    def get(self, key: str) -> None:
        assert self.cache.get(key) == self.plain.get(key)

    @rule(key=KEYS, value=st.integers(), size=st.integers(1, 70), owner=OWNERS)
    def get_or_make(self, key: str, value: int, size: int, owner: str | None) -> None:
        found = self.cache.get_or_make(key, lambda: value, lambda _: size, owner)
        expected = self.plain.get(key)
        if expected is None:
            self.plain.put(key, value, size, owner)
        assert found == (value if expected is None else expected)

    @rule(key=KEYS)
    def drop(self, key: str) -> None:
        self.cache.drop(key)
        self.plain.drop(key)

    @rule()
    def clear(self) -> None:
        self.cache.clear()
        self.plain.entries.clear()

    @rule(max_bytes=st.integers(0, 90))
    def widen(self, max_bytes: int) -> None:
        self.cache.widen(max_bytes)
        self.plain.max_bytes = max(self.plain.max_bytes, max_bytes)

    @invariant()
    def they_agree(self) -> None:
        if not hasattr(self, "cache"):
            return
        owners: dict[Hashable, int] = {}
        for _, _, size, owner in self.plain.entries:
            owners[owner] = owners.get(owner, 0) + size
        assert {key for key in "abcdefgh" if key in self.cache} == {entry[0] for entry in self.plain.entries}
        assert len(self.cache) == len(self.plain.entries)
        assert self.cache.owners() == owners
        assert self.cache.bytes == sum(owners.values()) <= self.cache.max_bytes
        assert (self.cache.hits, self.cache.misses) == (self.plain.hits, self.plain.misses)


TestCacheAgainstModel = CacheAgainstModel.TestCase
TestCacheAgainstModel.settings = settings(max_examples=150, stateful_step_count=30, deadline=None)


# ---- many threads ---------------------------------------------------------------------------------------------------


def test_bytes_stay_exact_while_threads_put_get_and_drop() -> None:
    cache: BoundedCache[int, int] = BoundedCache(5_000)
    begin = threading.Barrier(8)

    def hammer(seed: int) -> None:
        rng = random.Random(seed)
        begin.wait()
        for _ in range(4_000):
            key = rng.randrange(60)
            action = rng.random()
            if action < 0.5:
                cache.put(key, key, rng.randrange(1, 400), owner=key % 5)
            elif action < 0.9:
                assert cache.get(key) in (None, key)
            elif action < 0.95:
                assert cache.get_or_make(key, lambda key=key: key, lambda _: 100, owner=key % 5) == key
            else:
                cache.drop(key)

    with ThreadPoolExecutor(8) as pool:
        for ended in [pool.submit(hammer, seed) for seed in range(8)]:
            ended.result()
    assert cache.evictions > 0
    assert 0 < cache.bytes <= 5_000
    assert cache.bytes == sum(cache.owners().values())
    for key in range(60):
        cache.drop(key)
    assert cache.bytes == len(cache) == 0
    assert cache.owners() == {}


@pytest.mark.parametrize("bound", [10_000, 1], ids=["kept", "too large to keep"])
def test_threads_that_want_one_value_wait_for_the_one_that_makes_it(bound: int) -> None:
    cache: BoundedCache[str, object] = BoundedCache(bound)
    begin, made = threading.Barrier(8), []

    def make() -> object:
        made.append(threading.get_ident())
        time.sleep(0.1)
        return object()

    def ask(_: int) -> object:
        begin.wait()
        return cache.get_or_make("a", make, lambda _: 100)

    with ThreadPoolExecutor(8) as pool:
        values = set(pool.map(ask, range(8)))
    assert len(values) == len(made) == 1
    assert (cache.hits, cache.misses) == (7, 1)


def test_different_values_are_made_side_by_side() -> None:
    cache: BoundedCache[str, str] = BoundedCache(100)
    both = threading.Barrier(2, timeout=10)

    def make(key: str) -> str:
        both.wait()  # breaks unless the other is being made too
        return key

    with ThreadPoolExecutor(2) as pool:
        values = pool.map(lambda key: cache.get_or_make(key, lambda: make(key), len), "ab")
    assert list(values) == ["a", "b"]


def test_a_failure_is_its_makers_and_who_waited_makes_the_value_itself() -> None:
    cache: BoundedCache[str, str] = BoundedCache(100)
    waits, fails = threading.Event(), threading.Event()

    def failing() -> str:
        waits.set()
        assert fails.wait(10)
        raise ValueError("broken")

    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(cache.get_or_make, "a", failing, len)
        assert waits.wait(10)
        second = pool.submit(cache.get_or_make, "a", lambda: "whole", len)
        time.sleep(0.05)
        fails.set()
        with pytest.raises(ValueError, match="broken"):
            first.result(10)
        assert second.result(10) == "whole"
    assert cache.get("a") == "whole"


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
@pytest.mark.parametrize("locked", [False, True], ids=["a value is being made", "entries are being changed"])
def test_a_forked_process_does_not_wait_for_threads_that_it_does_not_have(locked: bool) -> None:
    cache: BoundedCache[str, str] = BoundedCache(100)
    cache.put("kept", "kept", 4)
    forked, making = threading.Event(), threading.Event()

    def work() -> None:
        with cache._lock if locked else contextlib.nullcontext():
            making.set()
            forked.wait(20)

    maker = threading.Thread(target=work if locked else lambda: cache.get_or_make("a", lambda: work() or "a", len))
    maker.start()
    assert making.wait(10)
    child = os.fork()
    if not child:
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        signal.alarm(10)  # ends it if it waits
        found = cache.get_or_make("a", lambda: "of the child", len)
        exact = cache.bytes == sum(cache.owners().values()) and (locked or "kept" in cache)
        os._exit(0 if found == "of the child" and exact else 1)
    _, status = os.waitpid(child, 0)
    forked.set()
    maker.join()
    assert status == 0
    assert "kept" in cache
