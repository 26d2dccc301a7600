"""The one record of an episode (`record`), its question (`task`), its files (`files`) and the store that they are
collected in (`store`)."""

from thinkimg.trajectory.files import read_trajectories, save_images, write_trajectories
from thinkimg.trajectory.record import InvariantError, Status, Trajectory, Turn
from thinkimg.trajectory.task import Task

__all__ = [
    "InvariantError",
    "Status",
    "Task",
    "Trajectory",
    "Turn",
    "read_trajectories",
    "save_images",
    "write_trajectories",
]
