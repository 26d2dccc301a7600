"""How long phases take, and how much memory and processor time a tree of processes has in each."""

import subprocess
import threading
import time
from dataclasses import dataclass

import psutil

EVERY = 0.5
"""Seconds between two looks."""
GIB = 2**30


@dataclass
class Phase:
    """Attributes:
    seconds: by the clock.
    cpu_seconds: of all processes and cores: on a machine that does other things beside it, what its time would be is
        seen by them. What a process does after its last look is missing.
    gib: most memory of all processes at once (`memory_gib`).
    gpu_gib: most memory of all GPUs that is in use; None without any.
    """

    name: str
    seconds: float = 0.0
    cpu_seconds: float = 0.0
    gib: float = 0.0
    gpu_gib: float | None = None


class Meter:
    """Looks at this process and all its descendants until it is closed; what it sees belongs to the phase under way."""

    def __init__(self) -> None:
        self.phases: list[Phase] = []
        self._began = 0.0
        self._used: dict[int, float] = {}
        self._gpu = _gpu_gib() is not None
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()

    def begin(self, name: str) -> None:
        """End the phase under way, if its name is another, and begin this one."""
        if self.phases and self.phases[-1].name == name:
            return
        self._end()
        self._began = time.monotonic()
        self.phases.append(Phase(name))

    def close(self) -> None:
        self._closed.set()
        self._thread.join()
        self._end()

    def _end(self) -> None:
        if self.phases:
            self.phases[-1].seconds = round(time.monotonic() - self._began, 1)

    def _watch(self) -> None:
        last = False
        while not last:
            last = self._closed.wait(EVERY)  # one look more when it is closed
            if self.phases:
                self._look(self.phases[-1])

    def _look(self, phase: Phase) -> None:
        everybody = _tree()
        phase.gib = max(phase.gib, round(memory_gib(everybody), 2))
        phase.cpu_seconds = round(phase.cpu_seconds + self._spent(everybody), 1)
        if self._gpu:
            phase.gpu_gib = max(phase.gpu_gib or 0.0, _gpu_gib() or 0.0)

    def _spent(self, everybody: list[psutil.Process]) -> float:
        """Processor time since the last look."""
        spent = 0.0
        for each in everybody:
            try:
                times = each.cpu_times()
            except psutil.NoSuchProcess:
                continue
            used = times.user + times.system
            spent += used - self._used.get(each.pid, 0.0)
            self._used[each.pid] = used
        return spent


def _tree() -> list[psutil.Process]:
    this = psutil.Process()
    return [this, *this.children(recursive=True)]


def memory_gib(everybody: list[psutil.Process]) -> float:
    """What processes have in memory: their own pages, and of those of files, which they share, the largest one's."""
    own, shared = 0, [0]
    for each in everybody:
        try:
            memory = each.memory_info()
        except psutil.NoSuchProcess:
            continue
        own += memory.rss - memory.shared
        shared.append(memory.shared)
    return (own + max(shared)) / GIB


def _gpu_gib() -> float | None:
    command = ["nvidia-smi", "--query-gpu=memory.used", "--format=csv,noheader,nounits"]
    try:
        said = subprocess.run(command, capture_output=True, text=True, timeout=20, check=True).stdout
        return round(sum(map(int, said.split())) / 1024, 2)
    except (OSError, subprocess.SubprocessError, ValueError):
        return None
