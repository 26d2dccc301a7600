"""The one record of an episode (`record`), its question (`task`), its files (`files`) and the store that they are
collected in (`store`)."""

from thinkimg.trajectory.files import read_trajectories, save_images, write_trajectories
from thinkimg.trajectory.record import LOST, InvariantError, Status, Trajectory, Turn
from thinkimg.trajectory.task import NOTED, PLACEHOLDER, Task

__all__ = [
    "LOST",
    "NOTED",
    "PLACEHOLDER",
    "InvariantError",
    "Status",
    "Task",
    "Trajectory",
    "Turn",
    "read_trajectories",
    "save_images",
    "write_trajectories",
]
