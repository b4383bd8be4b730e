"""The command line: ``nni-spos COMMAND``. What a user can mend is one line and exit code 2."""

from __future__ import annotations

import argparse
import sys
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from nni_spos import termination
from nni_spos._version import __version__
from nni_spos.cli import baselines, experiments, networks, searches, spaces, studies
from nni_spos.errors import (
    FileWarning,
    FormatWarning,
    ScoringWarning,
    SposError,
    StaleWarning,
    one_line,
)
from nni_spos.files import check_writable
from nni_spos.latency_table import LatencyWarning
from nni_spos.printing import allow_any_text
from nni_spos.trouble import is_out_of_memory, named

OUTPUT_FILES = ("output", "json", "plot")
"""Options that name a file to write; it is checked before a command begins, perhaps for hours."""


_SHOWN_IN_A_LINE = (LatencyWarning, FileWarning, FormatWarning, ScoringWarning, StaleWarning)
_SHOWN_ONCE = (FormatWarning, ScoringWarning)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return the exit code.

    That is 0, 2 for an error that the user can mend, 130 if the user pressed Ctrl-C, or 143 if
    SIGTERM ended a command that has processes to end.
    """
    allow_any_text(sys.stdout, sys.stderr)
    warnings.filterwarnings("ignore", category=DeprecationWarning)
    warnings.filterwarnings("ignore", message="pkg_resources is deprecated")
    # NNI warns of every name in torch.nn that is younger than NNI.
    warnings.filterwarnings("ignore", category=RuntimeWarning, module=r"nni(\.|$)")
    options = _parser().parse_args(arguments)
    try:
        with _warnings_in_a_line():
            for name in OUTPUT_FILES:
                if isinstance(file := getattr(options, name, None), str):
                    check_writable(file)
            options.run(options)
    except (SposError, OSError) as problem:  # OSError: no permission, no space, a folder in the way
        print(f"{type(problem).__name__}: {one_line(str(problem))}", file=sys.stderr)
        return 2
    except (MemoryError, RuntimeError) as problem:
        if not is_out_of_memory(problem):
            raise
        text = one_line(f"there is too little memory ({named(problem)}). Free some and try again.")
        print(f"{MemoryError.__name__}: {text}", file=sys.stderr)
        return 2
    except termination.Terminated:
        print("terminated", file=sys.stderr)
        return termination.EXIT_CODE
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130
    return 0


@contextmanager
def _warnings_in_a_line() -> Iterator[None]:
    """Print warnings about users' files like other messages, without Python's line of code."""
    with warnings.catch_warnings():
        warnings.filterwarnings("always", category=LatencyWarning)
        warnings.filterwarnings("default", category=FileWarning)
        warnings.filterwarnings("always", category=FormatWarning)
        warnings.filterwarnings("always", category=ScoringWarning)
        warnings.filterwarnings("default", category=StaleWarning)
        show, printed = warnings.showwarning, set[str]()

        def show_in_a_line(
            message: Warning | str, category: type[Warning], *where: Any, **more: Any
        ) -> None:
            if issubclass(category, _SHOWN_IN_A_LINE):
                line = f"warning: {one_line(str(message))}"
                # Training, scoring and retraining each find out that a network is what it is.
                if line not in printed or not issubclass(category, _SHOWN_ONCE):
                    print(line, file=sys.stderr)
                printed.add(line)
            else:
                show(message, category, *where, **more)

        warnings.showwarning = show_in_a_line
        yield


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="nni-spos",
        description="Single Path One-Shot architecture search on Microsoft NNI 3. "
        "'nni-spos COMMAND --help' says more. Wrong input is one line and exit code 2.",
    )
    parser.add_argument("--version", action="version", version=__version__)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    for group in (spaces, networks, searches, studies, baselines, experiments):
        group.add_commands(commands)
    return parser
