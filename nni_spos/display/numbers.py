"""Numbers as text for people."""

from __future__ import annotations

NOT_RECORDED = "not recorded"


def format_duration(seconds: float) -> str:
    """Write a duration for people.

    >>> format_duration(3.19), format_duration(75), format_duration(3 * 3600 + 59), \
format_duration(90000)
    ('3.2 s', '1 min 15 s', '3 h 1 min', '25 h 0 min')
    """
    if seconds < 59.95:
        return f"{seconds:.1f} s"
    if seconds < 3599.5:
        return "{} min {} s".format(*divmod(round(seconds), 60))
    return "{} h {} min".format(*divmod(round(seconds / 60), 60))


def format_memory(size: float | None) -> str:
    """Write a size of memory for people, in MiB or GiB.

    >>> format_memory(300 * 2**20), format_memory(1.5 * 2**30), format_memory(None)
    ('300 MiB', '1.5 GiB', 'not recorded')
    """
    if size is None:
        return NOT_RECORDED
    return f"{size / 2**20:.0f} MiB" if size < 2**30 else f"{size / 2**30:.3g} GiB"
