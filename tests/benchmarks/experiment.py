"""Whole searches: under nnictl with a worker and with trials that score alone, and without NNI.

Run ``python tests/benchmarks/experiment.py``. One supernet is trained for a moment, then the same
search is run

- under nnictl at several concurrencies, by trials that ask one worker and by trials that each
  load the supernet and score inline;
- by ``nni-spos search``, in one process;
- under nnictl with empty trials, which report a number: what NNI itself takes.

The time is that of the whole command, from its start to its end, NNI's manager included. Scores
are not cached. CPU time is that of a trial, with its start, as its shell measures it; peak memory
that of the process that scores. A trial in `empty` imports NNI and reports by its functions.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path as FilePath
from typing import Any

import numpy as np
import psutil
import yaml

SPOS = f"{sys.executable} -W ignore -m nni_spos.cli"
EMPTY = f'{sys.executable} -W ignore -c "import nni; nni.get_next_parameter(); ' + (
    'nni.report_final_result({\\"default\\": 1.0})"'
)
DATA: dict[str, dict[str, Any]] = {
    "digits": {"name": "digits", "augmentation": "none", "num_validation": 500},
    "fashion_mnist": {"name": "fashion_mnist", "num_train": 4000, "num_validation": 1000},
}


class Watch:
    """Peak memory of the processes that score, looked at while they run.

    Parameters
    ----------
    home
        What their environment has as HOME.
    """

    def __init__(self, home: FilePath):
        self._home = str(home)
        self._over = threading.Event()
        self._kinds: dict[int, str] = {}
        self.peak_mb: dict[str, float] = {}

    @contextmanager
    def running(self) -> Iterator[None]:
        """Look twice a second."""
        thread = threading.Thread(target=self._watch, daemon=True)
        thread.start()
        try:
            yield
        finally:
            self._over.set()
            thread.join()

    def _watch(self) -> None:
        while not self._over.wait(0.5):
            for pid in psutil.pids():
                kind = self._kind(pid)
                if kind:
                    self.peak_mb[kind] = max(self.peak_mb.get(kind, 0.0), _peak_mb(pid))

    def _kind(self, pid: int) -> str:
        if pid not in self._kinds:
            try:
                process = psutil.Process(pid)
                command = " ".join(process.cmdline())
                is_ours = process.environ().get("HOME") == self._home
            except psutil.Error:
                return ""
            names = {
                "nni_spos.worker.service": "worker",
                "cli trial": "trial",
                "cli search": "search",
            }
            found = [kind for words, kind in names.items() if words in command and is_ours]
            is_shell = command.startswith(("bash", "sh ", "/bin/"))
            self._kinds[pid] = found[0] if found and not is_shell else ""
        return self._kinds[pid]


def _peak_mb(pid: int) -> float:
    try:
        status = FilePath(f"/proc/{pid}/status").read_text()
    except OSError:
        return 0.0
    found = re.search(r"VmHWM:\s*(\d+) kB", status)
    return int(found[1]) / 1024 if found else 0.0


class Bench:
    """A trained supernet, and searches with it.

    Parameters
    ----------
    folder
        For everything; it is also the home of NNI's experiments.
    options
        Of the command line.
    """

    def __init__(self, folder: FilePath, options: argparse.Namespace):
        self._folder = folder
        self._options = options
        self._environment = {
            **os.environ,
            "HOME": str(folder),
            "OMP_NUM_THREADS": str(options.threads),
            "PYTHONPATH": str(FilePath(__file__).parents[2]),
        }
        recipe = self._write("trained", "inline")
        self._run(f"{SPOS} train {recipe}")
        self._run(f"{SPOS} space {recipe} --output {folder}/space.json")
        self.num_candidates = options.population * options.generations

    def nnictl(self, evaluator: str, concurrency: int) -> dict[str, Any]:
        """Search under NNI; the evaluator `empty` stands for trials that only report."""
        name = f"{evaluator}{concurrency}"
        recipe = self._prepare(name, "auto" if evaluator == "empty" else evaluator)
        folder = recipe.parent
        command = EMPTY if evaluator == "empty" else f"{SPOS} trial recipe.yml"
        (folder / "trial.sh").write_text(
            f"{command}\ncode=$?\ntimes >> {folder}/cpu.txt\nexit $code\n"
        )
        config = {
            "searchSpaceFile": str(self._folder / "space.json"),
            "trialCommand": "bash trial.sh",
            "trialCodeDirectory": str(folder),
            "trialConcurrency": concurrency,
            "tuner": {
                "codeDirectory": str(folder),
                "className": "nni_spos.experiment.tuner.EvolutionTuner",
                "classArgs": {"recipe": str(recipe)},
            },
            "trainingService": {"platform": "local"},
        }
        (folder / "nni.yml").write_text(yaml.safe_dump(config))
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        watch = Watch(self._folder)
        with watch.running():
            seconds = self._run(f"{SPOS} start nni.yml --port {port}", folder)
        scoring = "worker" if evaluator == "worker" else "trial"
        return self._row(seconds, folder, watch.peak_mb.get(scoring))

    def search(self) -> dict[str, Any]:
        """Search without NNI's manager."""
        recipe = self._prepare("search", "auto")
        watch = Watch(self._folder)
        with watch.running():
            seconds = self._run(f"{SPOS} search recipe.yml", recipe.parent)
        return self._row(seconds, recipe.parent, watch.peak_mb.get("search"))

    def _row(self, seconds: float, folder: FilePath, peak_mb: float | None) -> dict[str, Any]:
        file = folder / "cpu.txt"
        # The shell says what it used itself, then what its children did.
        lines = file.read_text().splitlines()[1::2] if file.exists() else []
        trials = [_seconds(line) for line in lines]
        return {
            "seconds": seconds,
            "candidates_per_second": self.num_candidates / seconds,
            "trial_cpu_s": float(np.median(trials)) if trials else None,
            "num_trials": len(trials),
            "peak_memory_mb": peak_mb,
        }

    def _prepare(self, name: str, evaluator: str) -> FilePath:
        """Write a recipe with an output folder of its own, with the trained supernet."""
        recipe = self._write(name, evaluator)
        shutil.copytree(self._folder / "trained" / "output", recipe.parent / "output")
        return recipe

    def _write(self, name: str, evaluator: str) -> FilePath:
        options = self._options
        folder = self._folder / name
        folder.mkdir()
        content = {
            "output": "output",
            "space": {"name": options.space},
            "data": DATA[options.data],
            "supernet": {"steps": 100, "batch_size": 64, "learning_rate": 0.1},
            "evaluation": {
                "recalibration_images": options.images,
                "batch_size": 250,
                "evaluator": evaluator,
                "cache": False,
            },
            "search": {
                "population_size": options.population,
                "num_generations": options.generations,
                "top_k": min(10, options.population),
            },
            "retrain": {"epochs": 1},
        }
        file = folder / "recipe.yml"
        file.write_text(yaml.safe_dump(content))
        return file

    def _run(self, command: str, folder: FilePath | None = None) -> float:
        """Return the seconds that a command takes."""
        start = time.perf_counter()
        done = subprocess.run(
            command.split(), cwd=folder, env=self._environment, capture_output=True, text=True
        )
        if done.returncode:
            raise SystemExit(f"{command}: {done.stdout}\n{done.stderr}")
        return time.perf_counter() - start


def _seconds(times: str) -> float:
    """Return user and system seconds of a shell's children: ``0m0.20s 0m0.03s``."""
    return sum(60 * float(m) + float(s) for m, s in re.findall(r"(\d+)m([\d.]+)s", times))


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, and print a table or, with ``--json``, one JSON document."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--space", default="shufflenet_small")
    parser.add_argument("--data", choices=sorted(DATA), default="fashion_mnist")
    parser.add_argument("--population", type=int, default=16)
    parser.add_argument("--generations", type=int, default=2)
    parser.add_argument("--images", type=int, default=1000, help="for recalibration")
    parser.add_argument("--concurrency", type=int, nargs="+", default=[1, 4, 16])
    parser.add_argument("--repeats", type=int, default=1)
    parser.add_argument("--threads", type=int, default=1, help="of PyTorch, in every process")
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    options = parser.parse_args(arguments)

    rows: dict[str, list[dict[str, Any]]] = {}
    with tempfile.TemporaryDirectory(prefix="spos") as folder:
        for number in range(options.repeats):
            bench_folder = FilePath(folder) / str(number)
            bench_folder.mkdir()
            bench = Bench(bench_folder, options)
            rows.setdefault("search", []).append(bench.search())
            for concurrency in options.concurrency:
                for way in ("empty", "worker", "inline"):
                    title = f"{way} at {concurrency}"
                    print(f"round {number + 1}: {title}", file=sys.stderr, flush=True)
                    rows.setdefault(title, []).append(bench.nnictl(way, concurrency))
    found = {title: _medians(several) for title, several in rows.items()}
    for title, row in found.items():
        if title.startswith("worker"):
            rest = title.partition(" ")[2]
            alone = found["search"]["seconds"] + found[f"empty {rest}"]["seconds"]
            row["over_inline"] = found[f"inline {rest}"]["seconds"] / row["seconds"]
            row["over_search_and_empty"] = row["seconds"] / alone
    settings = {name: value for name, value in vars(options).items() if name != "json"}
    report = {"settings": settings, "candidates": bench.num_candidates, "ways": found}
    if options.json:
        print(json.dumps(report, indent=2))
        return
    print(", ".join(f"{name} {value}" for name, value in settings.items()))
    print(f"{'way':<16}{'seconds':>9}{'cand./s':>9}{'trial CPU s':>13}{'peak MB':>9}"
          f"{'inline/worker':>15}{'worker/(search + empty)':>25}")  # fmt: skip
    for title, row in found.items():
        print(f"{title:<16}{row['seconds']:>9.1f}{row['candidates_per_second']:>9.2f}"
              f"{_text(row['trial_cpu_s']):>13}{_text(row['peak_memory_mb'], 0):>9}"
              f"{_text(row.get('over_inline')):>15}"
              f"{_text(row.get('over_search_and_empty')):>25}")  # fmt: skip


def _medians(rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    found = {}
    for name in rows[0]:
        values = [row[name] for row in rows if row[name] is not None]
        found[name] = float(np.median(values)) if values else None
    return found


def _text(value: float | None, digits: int = 2) -> str:
    return "" if value is None else f"{value:.{digits}f}"


if __name__ == "__main__":
    main()
