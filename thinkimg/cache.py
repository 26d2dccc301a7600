"""`BoundedCache`: what is kept to save work, within a bound of bytes. Every cache of this package is one of these.

It is written here because the libraries lack what is needed together: cachetools' `LRUCache` has no lock, no owners and
no counters, and raises for a value that is too large; functools' `lru_cache` counts calls, not bytes.
"""

import os
import threading
import weakref
from collections import OrderedDict
from collections.abc import Callable, Hashable
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")


@dataclass(frozen=True)
class _Entry(Generic[V]):
    value: V
    size: int
    owner: Hashable


@dataclass
class _Shelf(Generic[K]):
    """What one owner has: its keys, the least recently used first."""

    keys: OrderedDict[K, None] = field(default_factory=OrderedDict)
    bytes: int = 0


@dataclass
class _Making(Generic[V]):
    """A value that a thread makes while others wait for it; `values` stays empty if that fails."""

    done: threading.Event = field(default_factory=threading.Event)
    values: list[V] = field(default_factory=list)


class BoundedCache(Generic[K, V]):
    """Least recently used out first. Safe to use from several threads.

    An entry may have an owner, so that what each owner takes can be read. An entry belongs to one owner; where owners
    must not see each other's values, the owner is part of the key too.

    Args:
        max_bytes: of all entries together; 0 keeps nothing.
        largest: the share of `max_bytes` that one value may take, 0 to 1; a larger one is not kept, so that it does not
            drive out all others.
        max_entries: a second bound, on how many are kept; None: as many as `max_bytes` allows.
        fair: whose entries take most gives way first, so that no owner can drive out another that has less.

    Attributes:
        bytes: what the entries take.
        hits, misses: of `get` and `get_or_make`. Who waits for a value that another thread makes counts as a hit.
        evictions: entries that were dropped to make room.
    """

    def __init__(
        self, max_bytes: int, *, largest: float = 1.0, max_entries: int | None = None, fair: bool = False
    ) -> None:
        self.max_bytes = max_bytes
        self.max_entries = max_entries
        self.bytes = self.hits = self.misses = self.evictions = 0
        self._largest = largest
        self._fair = fair
        self._entries: OrderedDict[K, _Entry[V]] = OrderedDict()
        self._shelves: dict[Hashable, _Shelf[K]] = {}
        self._making: dict[K, _Making[V]] = {}
        self._lock = threading.Lock()
        _caches.add(self)

    def __len__(self) -> int:
        return len(self._entries)

    def __contains__(self, key: K) -> bool:
        """Without counting as a use."""
        return key in self._entries

    def get(self, key: K) -> V | None:
        """The value, which counts as used now; None if it is not kept."""
        with self._lock:
            entry = self._used(key)
            if entry is None:
                self.misses += 1
                return None
            return entry.value

    def put(self, key: K, value: V, size: int, owner: Hashable = None) -> bool:
        """Keep a value in place of the key's earlier one.

        Args:
            size: bytes, at least 1: an entry that costs nothing would never be dropped.

        Returns:
            Whether it is kept. One that is too large is not, and the key's earlier value is gone all the same.

        Raises:
            ValueError: the size is below 1.
        """
        if size < 1:
            raise ValueError(f"an entry of {size} bytes; its size must be at least 1")
        with self._lock:
            self._remove(key)
            if size > self.max_bytes * self._largest or self.max_entries == 0:
                return False
            self._entries[key] = _Entry(value, size, owner)
            self.bytes += size
            shelf = self._shelves.setdefault(owner, _Shelf())
            shelf.keys[key] = None
            shelf.bytes += size
            self._make_room(owner, size)
            return True

    def get_or_make(self, key: K, make: Callable[[], V], size_of: Callable[[V], int], owner: Hashable = None) -> V:
        """The value, made if it is not kept: by one thread at a time, while others that want the same wait for it.

        If `make` raises, the caller gets the exception, and a thread that waited makes the value itself. `make` must
        not ask for its own key: it would wait for itself.
        """
        while True:
            with self._lock:
                entry = self._used(key)
                if entry is not None:
                    return entry.value
                making = self._making.get(key)
                if making is None:
                    self.misses += 1
                    mine = self._making[key] = _Making()
                    break
            making.done.wait()
            if making.values:
                with self._lock:
                    self.hits += 1
                return making.values[0]
        try:
            value = make()
            self.put(key, value, size_of(value), owner)
            mine.values.append(value)
            return value
        finally:
            with self._lock:
                self._making.pop(key, None)  # a process forked by `make` has forgotten it
            mine.done.set()

    def drop(self, key: K) -> None:
        with self._lock:
            self._remove(key)

    def clear(self) -> None:
        with self._lock:
            self._entries.clear()
            self._shelves.clear()
            self.bytes = 0

    def widen(self, max_bytes: int) -> None:
        """Raise the bound; a bound that is wider already stays."""
        with self._lock:
            self.max_bytes = max(self.max_bytes, max_bytes)

    def bound(self, max_bytes: int) -> None:
        """Set the bound; what is too much by a lower one goes at once."""
        with self._lock:
            self.max_bytes = max_bytes
            self._make_room()

    def bytes_of(self, owner: Hashable) -> int:
        """What an owner's entries take."""
        with self._lock:
            return self._shelves[owner].bytes if owner in self._shelves else 0

    def owners(self) -> dict[Hashable, int]:
        """Every owner that has entries, with the bytes that they take."""
        with self._lock:
            return {owner: shelf.bytes for owner, shelf in self._shelves.items()}

    def _begin_in_child(self) -> None:
        """After a fork: the threads that make values, or that held the lock, are not in this process."""
        if self._lock.locked():  # one was at work on the entries
            self._entries, self._shelves, self.bytes = OrderedDict(), {}, 0
        self._lock = threading.Lock()
        self._making = {}

    # ---- with the lock held -----------------------------------------------------------------------------------------

    def _used(self, key: K) -> _Entry[V] | None:
        entry = self._entries.get(key)
        if entry is not None:
            self._entries.move_to_end(key)
            self._shelves[entry.owner].keys.move_to_end(key)
            self.hits += 1
        return entry

    def _remove(self, key: K) -> None:
        entry = self._entries.pop(key, None)
        if entry is None:
            return
        self.bytes -= entry.size
        shelf = self._shelves[entry.owner]
        del shelf.keys[key]
        shelf.bytes -= entry.size
        if not shelf.keys:
            del self._shelves[entry.owner]

    def _make_room(self, newcomer: Hashable = None, size: int = 0) -> None:
        """For an owner's new entry of this size, which stays itself."""
        while self.bytes > self.max_bytes:
            self._drop_first(lambda owner: self._shelves[owner].bytes - size * (owner == newcomer))
        while self.max_entries is not None and len(self._entries) > self.max_entries:
            self._drop_first(lambda owner: len(self._shelves[owner].keys) - (size > 0 and owner == newcomer))

    def _drop_first(self, amount: Callable[[Hashable], int]) -> None:
        keys = self._shelves[max(self._shelves, key=amount)].keys if self._fair else self._entries
        self._remove(next(iter(keys)))
        self.evictions += 1


_caches: "weakref.WeakSet[BoundedCache[Any, Any]]" = weakref.WeakSet()


def _begin_in_child() -> None:
    for cache in list(_caches):
        cache._begin_in_child()


os.register_at_fork(after_in_child=_begin_in_child)
