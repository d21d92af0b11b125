"""What a process costs the machine: processor time and memory."""

from __future__ import annotations

import psutil

__all__ = ["memory_bytes", "processor_s"]


def processor_s(pid: int) -> float:
    """Seconds of processor time that the process has taken, in user and kernel mode."""
    times = psutil.Process(pid).cpu_times()
    return float(times.user + times.system)


def memory_bytes(pid: int) -> int:
    """What it alone holds (USS): pages that others share do not count."""
    return int(psutil.Process(pid).memory_full_info().uss)
