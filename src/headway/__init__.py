"""Long work behind an async web app, and its progress live in the browser."""

from headway.app import Headway
from headway.errors import HeadwayError, JobCancelled, JobError
from headway.job import EVERYONE, Job, State
from headway.limits import Limits
from headway.progress import Progress, current_progress
from headway.task import Task

__version__ = "0.1.0"

__all__ = [
    "EVERYONE",
    "Headway",
    "HeadwayError",
    "Job",
    "JobCancelled",
    "JobError",
    "Limits",
    "Progress",
    "State",
    "Task",
    "current_progress",
]
