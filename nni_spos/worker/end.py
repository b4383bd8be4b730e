"""What is known of the end of a worker, which is nobody's child, so that nobody is told."""

from __future__ import annotations

import contextlib
import re

_NO_LAST_WORDS = re.compile(r" worker \d+: (?!ends: |is ended by a trial: )[^|]*$")


def num_killed_for_memory() -> int:
    """Return how many processes Linux has killed for want of memory; 0 where that is not known."""
    with contextlib.suppress(OSError, ValueError), open("/proc/vmstat", encoding="ascii") as table:
        for line in table:
            name, _, number = line.partition(" ")
            if name == "oom_kill":
                return int(number)
    return 0


def describe_end(end_of_log: str, num_killed: int) -> str:
    """Return how a worker ended, to follow that it did; ``""`` if its log says it itself.

    Parameters
    ----------
    end_of_log
        See `nni_spos.worker.place.WorkerFolder.end_of_log`. A worker that was killed
        from outside said something else before it.
    num_killed
        What `num_killed_for_memory` was before.

    Examples
    --------
    >>> describe_end("date worker 7: ends: the experiments are over", num_killed_for_memory())
    ''
    >>> describe_end("date worker 7: holds the supernet", num_killed_for_memory())
    ', without a word of its own, so it was killed by a signal, such as SIGKILL'
    """
    if num_killed_for_memory() > num_killed:
        return ", and the system has killed a process for want of memory meanwhile"
    if _NO_LAST_WORDS.search(end_of_log):
        return ", without a word of its own, so it was killed by a signal, such as SIGKILL"
    return ""
