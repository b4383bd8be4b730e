"""Compare searches on published tables: regret by number of evaluations, with and without limits.

Run ``OMP_NUM_THREADS=1 python tests/benchmarks/search.py --plot search.png``; with
``--output FOLDER`` it can be stopped at any moment, and the same command, or one with more seeds or
contenders, goes on. Tables are NAS-Bench-Macro, and with ``--tables all`` also both of
Channel-Bench-Macro. The score of a path
is its published accuracy; regret is the best accuracy under the limit less that of the best path
found so far. The limits on FLOPs are those that 30 % and 50 % of all paths keep.

An evaluation is the score of a path that keeps the limit and was not scored before. What a
search proposes beyond that is free, because costs and old scores are known without a network.
It is what a search does with that which differs:

- ours never propose such a path. Settings are the paper's, with as many generations as needed.
- NNI's `RegularizedEvolution` has its own defaults and runs in this process, on NNI's
  `SequentialExecutionEngine`; its own check leaves out what it proposed before. Its `Filter`
  refuses paths over the limit, which then have no part in the population.
- optuna's default sampler (TPE, categorical) is told of paths over the limit as pruned trials
  with their excess as the violated constraint, and again of paths that it proposes again.
- optuna's GP sampler is told the same. It takes about a second for each proposal.

A run ends when it finds the optimum: its regret stays 0. Intervals are 95 % of bootstrapped means
over the seeds.
"""

from __future__ import annotations

import argparse
import functools
import json
import logging
import sys
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path as FilePath
from typing import Any

import numpy as np
from nasbench_macro import TABLE, MacroTable, load_macro
from published_tables import TABLES

from nni_spos.constraint import Constraint
from nni_spos.evolution import (
    BayesianSearch,
    EvolutionSearch,
    Nsga2Search,
    RandomSearch,
    Search,
    Signal,
)
from nni_spos.files.atomic import write_atomically
from nni_spos.metrics import format_metric
from nni_spos.path import PathKey, PathSpace

POINTS = (25, 50, 100, 150, 200, 300)
"""Numbers of evaluations that the table shows."""
MEDIAN_AT = 100
"""Number of evaluations whose median regret the table shows as well."""
SHARES = {"no limit": 1.0, "50 % of all paths": 0.5, "30 % of all paths": 0.3}
RESAMPLES = 2000
PATIENCE = 50
"""Proposals for each evaluation before a rival is given up."""


@dataclass
class Scores:
    """Score paths under a limit, once each, and remember the best after every evaluation."""

    table: MacroTable
    limit: Constraint
    optimum: float
    budget: int
    known: dict[PathKey, float] = field(default_factory=dict)
    best: list[float] = field(default_factory=list)

    @property
    def space(self) -> PathSpace:
        """Labels and choices."""
        return self.table.space

    def excess(self, key: PathKey) -> float:
        """Return by which share of the limit a path is over it; negative if it keeps it."""
        price = self.table.costs[self.limit.metric].price(self.space.decode([key])[0])
        return price / self.limit.high - 1

    def score(self, key: PathKey) -> float:
        """Return the accuracy of a path, which is an evaluation if it is new."""
        assert self.excess(key) <= 0
        if key not in self.known:
            assert len(self.known) < self.budget
            self.known[key] = self.table.accuracies[key]
            self.best.append(max([self.known[key], *self.best[-1:]]))
        return self.known[key]

    @property
    def is_over(self) -> bool:
        """Whether the budget is spent or nothing is left to find."""
        is_found = bool(self.best) and self.best[-1] == self.optimum
        return is_found or len(self.best) >= self.budget

    def regrets(self) -> list[float]:
        """Return the regret after each evaluation of the budget."""
        rest = [self.best[-1]] * (self.budget - len(self.best))
        return [self.optimum - best for best in self.best + rest]


Contender = Callable[[Scores, int], None]


def ours(algorithm: type[Search], **settings: Any) -> Contender:
    """Return a contender that runs one of our searches."""

    def run(scores: Scores, seed: int) -> None:
        search = algorithm(
            scores.space,
            scores.table.costs,
            constraints=[scores.limit],
            num_generations=scores.budget,
            seed=seed,
            **settings,
        )
        while not scores.is_over and not isinstance(path := search.ask(), Signal):
            search.tell(path, {"top1": scores.score(scores.space.key(path))})

    return run


def nni_evolution(scores: Scores, seed: int) -> None:
    """Run NNI's regularized evolution in this process, behind its filter."""
    import nni
    from nni.nas.evaluator import Evaluator
    from nni.nas.execution import SequentialExecutionEngine
    from nni.nas.nn.pytorch import LayerChoice, ModelSpace
    from nni.nas.space import ExecutableModelSpace, SimplifiedModelSpace
    from nni.nas.strategy import RegularizedEvolution
    from nni.nas.strategy.middleware import Chain, Filter
    from torch import nn

    logging.getLogger("nni").setLevel(logging.ERROR)

    class Units(ModelSpace):
        def __init__(self) -> None:
            super().__init__()
            for label, choices in scores.space.items():
                layers = {str(place): nn.Identity() for place in range(len(choices))}
                self.add_module(label, LayerChoice(layers, label=label))

    def key(sample: Mapping[str, Any]) -> PathKey:
        return tuple(int(sample[label]) for label in scores.space)

    class LookUp(Evaluator):
        def _execute(self, model: ExecutableModelSpace) -> None:
            nni.report_final_result(scores.score(key(model.sample)))

    class Engine(SequentialExecutionEngine):
        def budget_available(self) -> bool:
            return not scores.is_over

    model_space = SimplifiedModelSpace.from_model(Units(), LookUp())
    keeps = Filter(lambda model: scores.excess(key(model.sample)) <= 0)
    Chain(RegularizedEvolution(seed=seed), keeps)(model_space, Engine())


def optuna_sampler(name: str) -> Contender:
    """Return a contender that runs a sampler of optuna's, with the limit as its constraint."""

    def run(scores: Scores, seed: int) -> None:
        import optuna

        optuna.logging.set_verbosity(optuna.logging.ERROR)
        warnings.simplefilter("ignore")
        sampler = getattr(optuna.samplers, name)(
            seed=seed, constraints_func=lambda trial: (trial.user_attrs["excess"],)
        )
        study = optuna.create_study(direction="maximize", sampler=sampler)
        for _ in range(PATIENCE * scores.budget):
            if scores.is_over:
                return
            trial = study.ask()
            key = tuple(
                trial.suggest_categorical(label, list(range(number)))
                for label, number in zip(scores.space, scores.space.num_choices, strict=True)
            )
            excess = scores.excess(key)
            trial.set_user_attr("excess", excess)
            # The GP sampler learns of complete trials alone, and takes the excess into account.
            if excess > 0 and name != "GPSampler":
                study.tell(trial, state=optuna.trial.TrialState.PRUNED)
            else:
                study.tell(trial, scores.table.accuracies[key] if excess > 0 else scores.score(key))

    return run


CONTENDERS: Mapping[str, Contender] = {
    "bayesian, population 5": ours(BayesianSearch, population_size=5),
    "bayesian, population 1": ours(BayesianSearch, population_size=1),
    "evolution": ours(EvolutionSearch),
    "evolution, population 20": ours(EvolutionSearch, population_size=20),
    "nsga2": ours(Nsga2Search),
    "random": ours(RandomSearch),
    "NNI RegularizedEvolution": nni_evolution,
    "optuna TPE": optuna_sampler("TPESampler"),
    "optuna GP": optuna_sampler("GPSampler"),
}
DEFAULT = [name for name in CONTENDERS if name != "optuna GP"]
"""Contenders that run if none are named: the GP sampler takes some hundred times as long."""


class Record:
    """Regrets that were measured, kept in a file if there is one.

    Parameters
    ----------
    file
        One JSON object a line; None: they are not kept.
    """

    def __init__(self, file: FilePath | None):
        self._file = file
        self._known: dict[tuple[Any, ...], tuple[list[float], float]] = {}
        if file is not None and file.exists():
            text = file.read_text(encoding="utf-8")
            whole = text[: text.rfind("\n") + 1]
            if whole != text:  # a line was cut short; the next one would be a part of it
                file.write_text(whole, encoding="utf-8")
            for line in whole.splitlines():
                entry = json.loads(line)
                self._known[tuple(entry["what"])] = entry["regrets"], entry["seconds"]

    def find(
        self, what: tuple[Any, ...], budget: int, run: Callable[[], list[float]]
    ) -> tuple[list[float], float]:
        """Return regrets and seconds of a run, which is only made if they are not known."""
        known = self._known.get(what)
        if known is None or len(known[0]) < budget:
            begin = time.process_time()
            regrets = run()
            known = self._known[what] = regrets, time.process_time() - begin
            if self._file is not None:
                self._file.parent.mkdir(parents=True, exist_ok=True)
                entry = {"what": what, "regrets": regrets, "seconds": known[1]}
                with self._file.open("a", encoding="utf-8") as stream:
                    stream.write(json.dumps(entry) + "\n")
        return known[0][:budget], known[1]


def run_one(contender: str, scores: Scores, seed: int) -> list[float]:
    """Return the regrets of a run."""
    CONTENDERS[contender](scores, seed)
    return scores.regrets()


def measure(
    tables: Mapping[str, MacroTable],
    budget: int,
    num_seeds: int,
    contenders: Sequence[str],
    record: Record,
) -> dict[str, dict[str, Any]]:
    """Return by limit and contender the regrets, shape (num_seeds, budget), and seconds."""
    found: dict[str, dict[str, Any]] = {}
    problems = {}
    for title, table in tables.items():
        for name, share in SHARES.items():
            limit = table.quantile(share)
            optimum = table.best(limit)
            key = f"{title}, {name}"
            problems[key] = table, limit, optimum
            empty = {contender: {"regrets": [], "seconds": 0.0} for contender in contenders}
            found[key] = {"limit": str(limit), "optimum": optimum, "contenders": empty}
    # Seed by seed, so that what is there when it is stopped is of the same seeds.
    for seed in range(num_seeds):
        for key, (table, limit, optimum) in problems.items():
            for contender in contenders:
                scores = Scores(table, limit, optimum, budget)
                run = functools.partial(run_one, contender, scores, seed)
                regrets, seconds = record.find((key, contender, seed), budget, run)
                measured = found[key]["contenders"][contender]
                measured["regrets"].append(regrets)
                measured["seconds"] += seconds
        print(f"seed {seed}", file=sys.stderr, flush=True)
    return found


def interval(regrets: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return mean, and lower and upper end of its bootstrap interval, of each column."""
    picked = np.random.default_rng(0).integers(0, len(regrets), (RESAMPLES, len(regrets)))
    means = np.stack([regrets[rows].mean(axis=0) for rows in picked])
    low, high = np.quantile(means, [0.025, 0.975], axis=0)
    return regrets.mean(axis=0), low, high


def summarise(found: Mapping[str, Any]) -> dict[str, Any]:
    """Return what is printed: limits, and curves with their intervals."""
    summary = {}
    for name, content in found.items():
        contenders = {}
        for contender, measured in content["contenders"].items():
            regrets = np.array(measured["regrets"])
            mean, low, high = interval(regrets)
            contenders[contender] = {
                "mean": mean.tolist(),
                "low": low.tolist(),
                "high": high.tolist(),
                "median": np.median(regrets, axis=0).tolist(),
                "optimum_found": (regrets[:, -1] == 0).mean(),
                "seconds": measured["seconds"],
            }
        summary[name] = {**content, "contenders": contenders}
    return summary


def format_tables(summary: Mapping[str, Any], budget: int) -> str:
    """Return a Markdown table for each limit: mean regrets, and a median, in points of accuracy."""
    points = [point for point in POINTS if point <= budget]
    median_at = min(MEDIAN_AT, budget)
    lines = []
    for name, content in summary.items():
        lines += [
            f"### {name}: {content['limit']}, optimum {content['optimum']:.3f} %",
            "",
            f"| regret after | {' | '.join(map(str, points))} | median after {median_at} "
            "| optimum found |",
            "|---" * (len(points) + 3) + "|",
        ]
        for contender, curve in content["contenders"].items():
            columns = zip(curve["mean"], curve["low"], curve["high"], strict=True)
            texts = [f"{mean:.3f} [{low:.3f}, {high:.3f}]" for mean, low, high in columns]
            cells = [contender, *(texts[point - 1] for point in points)]
            cells.append(f"{curve['median'][median_at - 1]:.3f}")
            lines.append(f"| {' | '.join(cells)} | {curve['optimum_found']:.0%} |")
        lines.append("")
    return "\n".join(lines)


def plot(summary: Mapping[str, Any], file: FilePath) -> None:
    """Draw the curves with their intervals, one panel for each limit, as PNG."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(5 * len(summary), 4), layout="constrained")
    FigureCanvasAgg(figure)
    panels = figure.subplots(1, len(summary), sharey=True, squeeze=False)[0]
    for axes, (name, content) in zip(panels, summary.items(), strict=True):
        for contender, curve in content["contenders"].items():
            evaluations = np.arange(1, len(curve["mean"]) + 1)
            (line,) = axes.plot(evaluations, curve["mean"], label=contender)
            axes.fill_between(
                evaluations, curve["low"], curve["high"], color=line.get_color(), alpha=0.2
            )
        limit = Constraint.parse(content["limit"])
        axes.set(title=f"{name} (flops <= {format_metric('flops', limit.high)})")
        axes.set(xlabel="evaluations", ylim=(0, 1))
    panels[0].set_ylabel("mean regret (points of accuracy)")
    panels[0].legend()
    write_atomically(file, lambda stream: figure.savefig(stream, format="png", dpi=150))


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, and print tables or, with ``--json``, one JSON document."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--seeds", type=int, default=100, help="runs of each search")
    parser.add_argument("--evaluations", type=int, default=300, help="of each run")
    parser.add_argument("--table", type=FilePath, default=TABLE, help="of NAS-Bench-Macro, JSON")
    parser.add_argument(
        "--tables", nargs="+", choices=["all", *TABLES], help="others than NAS-Bench-Macro alone"
    )
    parser.add_argument("--contenders", nargs="+", choices=CONTENDERS, default=DEFAULT)
    parser.add_argument("--output", type=FilePath, help="keep what is measured in this folder")
    parser.add_argument("--plot", type=FilePath, help="draw the curves to this PNG file")
    parser.add_argument("--json", action="store_true", help="print JSON instead of tables")
    options = parser.parse_args(arguments)
    if min(options.seeds, options.evaluations) < 1:
        parser.error("numbers must be at least 1.")
    if not options.table.is_file():
        parser.error(f"{options.table}: no such file; it is published with NAS-Bench-Macro.")

    named = [] if options.tables is None else options.tables
    names = list(TABLES) if "all" in named else named
    tables = {name: TABLES[name][1]() for name in names}
    if not tables:
        tables = {"NAS-Bench-Macro": load_macro(options.table)}
    record = Record(options.output / "regrets.jsonl" if options.output else None)
    measured = measure(tables, options.evaluations, options.seeds, options.contenders, record)
    summary = summarise(measured)
    if options.plot:
        plot(summary, options.plot)
    if options.json:
        print(json.dumps(summary, indent=2))
    else:
        print(format_tables(summary, options.evaluations))


if __name__ == "__main__":
    main()
