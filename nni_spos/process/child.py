"""Starting Python again, as a process of its own."""

from __future__ import annotations

import sys
from collections.abc import Sequence

_PROGRAM = (
    "import sys; sys.path[:] = [x for x in sys.path if x]; "
    "import runpy; runpy.run_module(sys.argv.pop(1), run_name='__main__', alter_sys=True)"
)


def python_command(module: str, arguments: Sequence[str]) -> list[str]:
    """Return the command that runs a module as ``python -m MODULE`` does, with one difference.

    What lies in the working directory is not imported: a folder of somebody else's recipes may
    have a ``yaml.py``.
    """
    return [sys.executable, "-W", "ignore", "-c", _PROGRAM, module, *arguments]
