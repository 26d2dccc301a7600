"""The reward of the rehearsal's RL. A reward is where a manifest names code of its own, and a stage imports it before
its first rollout: from then on its model says what the script says."""

from rehearsal.forced import force
from thinkimg.trajectory import Trajectory

force()


def first_wins(trajectory: Trajectory) -> float:
    """1 for the first rollout of a group, 0 for the others: rewards differ by construction."""
    return float(trajectory.meta.get("generation", 0) == 0)
