"""Where Python does not look for modules: folders of somebody else's recipes.

Libraries import modules that may be missing, and a file of such a name beside a recipe would be
run. What a recipe names is found by `nni_spos.process.user_modules`.
"""

from __future__ import annotations

import itertools
import os
import sys
from collections.abc import Sequence


def leave_working_directory(command: Sequence[str] | None = None) -> None:
    """Take the working directory from Python's path if ``python -m nni_spos...`` put it there.

    Parameters
    ----------
    command
        How Python was started; by default that of this process.
    """
    pairs = itertools.pairwise(sys.orig_argv if command is None else command)
    is_ours = any(a == "-m" and b.partition(".")[0] == "nni_spos" for a, b in pairs)
    if is_ours and sys.path[:1] == [os.getcwd()]:
        del sys.path[0]


def leave_folder(folder: str) -> None:
    """Take a folder that was appended to Python's path from it again, if it is the last one."""
    if sys.path[-1:] == [folder]:
        del sys.path[-1]
