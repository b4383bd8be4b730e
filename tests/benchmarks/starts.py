"""Count the processor time of commands that answer at once, against that of importing PyTorch.

Run ``OMP_NUM_THREADS=1 python tests/benchmarks/starts.py``. Commands and import are processes of
their own, with all that they start; the commands find nothing that was built before. Rounds
interleave them, and medians are reported: of user and system time, which other work on the machine
changes less than the time of the clock, and of the ratios within a round.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

EXAMPLES = Path(__file__).parents[2] / "examples"
SPACES = EXAMPLES.with_name("search_spaces")

IMPORT = "import torch, nni.nas.nn.pytorch"
GOAL = 1.1
"""Of the ratios."""

COMMANDS = {
    "profile": ["profile", "shufflenet"],
    "prior": ["prior", "examples/recipes/digits.yml"],
    "check": ["check", "examples/spos.yml"],
    "help": ["--help"],
}


def processor_seconds(command: Sequence[str], folder: Path) -> float:
    """Return the user and system time of a process and of those that it waited for."""
    with tempfile.TemporaryFile() as errors:
        process = subprocess.Popen(command, cwd=folder, stdout=subprocess.DEVNULL, stderr=errors)
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode:
            errors.seek(0)
            raise SystemExit(f"{' '.join(command)}: {errors.read().decode()}")
    return usage.ru_utime + usage.ru_stime


def measure(repeats: int, names: Sequence[str]) -> dict[str, Any]:
    """Return medians of the seconds of the import and of each command, and of their ratios."""
    python = [sys.executable, "-W", "ignore"]
    contenders: Mapping[str, Sequence[str]] = {
        "import": [*python, "-c", IMPORT],
        **{name: [*python, "-m", "nni_spos.cli", *COMMANDS[name]] for name in names},
    }
    seconds: dict[str, list[float]] = {name: [] for name in contenders}
    order = list(contenders)
    for number in range(repeats):
        first = number % len(order)
        for name in order[first:] + order[:first]:
            with tempfile.TemporaryDirectory(prefix="nni-spos-") as made:
                folder = Path(made)
                shutil.copytree(EXAMPLES, folder / EXAMPLES.name)
                shutil.copytree(SPACES, folder / SPACES.name)
                seconds[name].append(processor_seconds(contenders[name], folder))
        times = "  ".join(f"{name} {found[-1]:.1f} s" for name, found in seconds.items())
        print(f"round {number + 1}/{repeats}  {times}", file=sys.stderr, flush=True)
    base = seconds["import"]
    return {
        name: {
            "seconds": statistics.median(found),
            "ratio": statistics.median(a / b for a, b in zip(found, base, strict=True)),
        }
        for name, found in seconds.items()
    }


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, and print a table or, with ``--json``, one JSON document."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--repeats", type=int, default=5, help="rounds")
    parser.add_argument("--only", choices=COMMANDS, action="append", help="measure this command")
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    options = parser.parse_args(arguments)
    if options.repeats < 1:
        parser.error("numbers must be at least 1.")
    found = measure(options.repeats, options.only or list(COMMANDS))
    if options.json:
        print(json.dumps(found, indent=2))
        return
    print(f"medians of {options.repeats} rounds; import is of: {IMPORT}")
    print(f"{'command':<10}{'processor s':>12}{'ratio':>8}")
    for name, row in found.items():
        above = "" if row["ratio"] <= GOAL else f"  above {GOAL}"
        print(f"{name:<10}{row['seconds']:>12.2f}{row['ratio']:>8.2f}{above}")


if __name__ == "__main__":
    main()
