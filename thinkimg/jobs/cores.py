"""How many CPU cores this process may use: those that a container, a CPU set or a batch system leaves it.

Threads beyond these only take turns, and OpenMP's spin while they wait.
"""

from __future__ import annotations

import math
import os
from pathlib import Path

CGROUP = Path("/sys/fs/cgroup")


def available_cores(cgroup: Path = CGROUP) -> int:
    """At least 1: the smaller of the CPU set's size and the CPU limit of the container, rounded up."""
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    limit = _limit(cgroup)
    return max(1, min(usable, math.ceil(limit)) if limit else usable)


def _limit(cgroup: Path) -> float | None:
    """CPU time over time, as `limits.cpu` of a pod sets it; None without a limit. Files of cgroup v2, else of v1."""
    try:
        quota, period = (cgroup / "cpu.max").read_text().split()
    except (OSError, ValueError):
        try:
            quota = (cgroup / "cpu" / "cpu.cfs_quota_us").read_text().strip()
            period = (cgroup / "cpu" / "cpu.cfs_period_us").read_text()
        except OSError:
            return None
    return int(quota) / int(period) if quota.isdigit() else None  # "max" in v2, -1 in v1
