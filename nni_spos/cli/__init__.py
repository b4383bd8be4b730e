"""The command line: ``nni-spos COMMAND``. Wrong input gives one line and exit code 2."""

from __future__ import annotations

import argparse
import contextlib
import os
import sys
import warnings
from collections.abc import Iterator, Sequence
from typing import Any

from nni_spos._version import __version__
from nni_spos.cli import (
    baselines,
    compression,
    experiments,
    exports,
    imports,
    networks,
    projects,
    searches,
    spaces,
    studies,
)
from nni_spos.components import explain
from nni_spos.display.streams import PIPE_EXIT_CODE, allow_any_text, tolerant_streams
from nni_spos.errors import (
    BusyWarning,
    FileWarning,
    FormatWarning,
    ImagesWarning,
    InitialWeightsWarning,
    RecipeError,
    ScoringWarning,
    SposError,
    StaleWarning,
    UserCodeError,
    one_line,
)
from nni_spos.files.atomic import check_name, check_writable
from nni_spos.latency.table import LatencyWarning
from nni_spos.process.termination import Terminated
from nni_spos.process.user_modules import folder_of_user
from nni_spos.scoring.failures import is_out_of_memory, named

OUTPUT_FILES = ("output", "json", "plot")
"""Options that name a file to write; it is checked before a command begins, perhaps for hours."""


_SHOWN_IN_A_LINE = (
    BusyWarning,
    FileWarning,
    FormatWarning,
    ImagesWarning,
    InitialWeightsWarning,
    LatencyWarning,
    ScoringWarning,
    StaleWarning,
)
_SHOWN_ONCE = (BusyWarning, FormatWarning, ImagesWarning, ScoringWarning)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return the exit code.

    That is 0, 2 for an error that the user can mend, 130 if the user pressed Ctrl-C, 143 or 129 if
    SIGTERM or SIGHUP ended a command that has something to end, or 141 if all went well but a
    program that was to read the output, such as ``head``, ended before. Nothing is ended halfway
    for that.
    """
    ended: SystemExit | None = None
    with tolerant_streams() as written:
        try:
            code: Any = _run(arguments)
        except SystemExit as problem:  # --help, or an option that there is not
            ended, code = problem, problem.code
    if not code and written.nobody_reads:
        return PIPE_EXIT_CODE
    if not code and written.problem is not None:
        reason = written.problem.strerror
        with contextlib.suppress(OSError):
            print(f"OSError: the output cannot be written ({reason}).", file=sys.stderr, flush=True)
        return 2
    if ended is not None:
        raise ended
    return code


def _run(arguments: Sequence[str] | None) -> int:
    allow_any_text(sys.stdout, sys.stderr)
    warnings.filterwarnings("ignore", category=DeprecationWarning)
    warnings.filterwarnings("ignore", message="pkg_resources is deprecated")
    # NNI warns of every name in torch.nn that is younger than NNI.
    warnings.filterwarnings("ignore", category=RuntimeWarning, module=r"nni(\.|$)")
    options = _parser().parse_args(arguments)
    try:
        with _warnings_in_a_line():
            _check_names(options)
            options.run(options)
    except (SposError, OSError) as problem:  # OSError: no permission, no space, a folder in the way
        print(f"{type(problem).__name__}: {one_line(str(problem))}", file=sys.stderr)
        return 2
    except Terminated as end:
        with contextlib.suppress(OSError):  # the terminal may be what has ended
            print("terminated", file=sys.stderr)
        return end.exit_code
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130
    except Exception as problem:
        line = _told(problem)
        if line is None:  # a bug of ours
            raise
        print(line, file=sys.stderr)
        return 2
    return 0


def _told(problem: Exception) -> str | None:
    """Return the line about an error that is none of ours: of memory, or of a user's code."""
    if isinstance(problem, MemoryError | RuntimeError) and is_out_of_memory(problem):
        text = one_line(f"there is too little memory ({named(problem)}). Free some and try again.")
        return f"{MemoryError.__name__}: {text}"
    folder = folder_of_user(problem)
    if folder is None:
        return None
    return f"{UserCodeError.__name__}: {one_line(explain(problem, folder))}."


def _check_names(options: argparse.Namespace) -> None:
    """Check what is written in the end before anything is done.

    Raises
    ------
    RecipeError
        Some text is not UTF-8, or a file to write is also something else.
    OSError
        A file cannot be written.
    """
    given = {name: value for name, value in vars(options).items() if isinstance(value, str)}
    for text in given.values():
        check_name(text, RecipeError)
    for name in OUTPUT_FILES:
        if name not in given:
            continue
        file = given[name]
        check_writable(file)
        for other, value in given.items():
            if other != name and (
                _are_one(value, file) or (other in OUTPUT_FILES and value == file)
            ):
                raise RecipeError(
                    f"--{name} {file}: is the same file as the {other}. Give another name."
                )


def _are_one(first: str, second: str) -> bool:
    return os.path.isfile(first) and os.path.isfile(second) and os.path.samefile(first, second)


@contextlib.contextmanager
def _warnings_in_a_line() -> Iterator[None]:
    """Print warnings about users' files like other messages, without Python's line of code."""
    with warnings.catch_warnings():
        warnings.filterwarnings("always", category=LatencyWarning)
        warnings.filterwarnings("default", category=FileWarning)
        warnings.filterwarnings("always", category=FormatWarning)
        warnings.filterwarnings("always", category=ImagesWarning)
        warnings.filterwarnings("always", category=InitialWeightsWarning)
        warnings.filterwarnings("always", category=ScoringWarning)
        warnings.filterwarnings("default", category=StaleWarning)
        warnings.filterwarnings("always", category=BusyWarning)
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
        formatter_class=argparse.RawDescriptionHelpFormatter,
        description="Single Path One-Shot architecture search on Microsoft NNI 3.\n"
        "Begin with 'nni-spos new FOLDER'. For help on a command: 'nni-spos COMMAND --help'.",
    )
    parser.add_argument("--version", action="version", version=__version__)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    for group in (
        projects,
        spaces,
        networks,
        exports,
        imports,
        compression,
        searches,
        studies,
        baselines,
        experiments,
    ):
        group.add_commands(commands)
    _describe(commands)
    return parser


def _describe(commands: Any) -> None:
    """Let the help of each command begin with what the list of commands says of it."""
    for listed in commands._get_subactions():
        command = commands.choices[listed.dest]
        command.description = command.description or f"{listed.help[0].upper()}{listed.help[1:]}."
