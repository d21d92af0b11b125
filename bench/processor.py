"""What a process costs the machine: processor time and memory."""

from __future__ import annotations

import time

import psutil

__all__ = ["memory_bytes", "processor_s"]


def processor_s(pid: int) -> float:
    """Seconds of processor time that the process has taken, in user and kernel mode.

    By its clock, as `clock_getcpuclockid(3)` of Linux names it: that counts nanoseconds, where
    `/proc` counts hundredths of a second.

    Raises:
        OSError: there is no such process.
    """
    return time.clock_gettime(~pid << 3 | 2)


def memory_bytes(pid: int) -> int:
    """What it alone holds (USS): pages that others share do not count."""
    return int(psutil.Process(pid).memory_full_info().uss)
