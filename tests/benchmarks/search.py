"""Compare searches on NAS-Bench-Macro: regret by number of evaluations, with and without limits.

Run ``OMP_NUM_THREADS=1 python tests/benchmarks/search.py --plot search.png``. The score of a path
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

A run ends when it finds the optimum: its regret stays 0. Intervals are 95 % of bootstrapped means
over the seeds.
"""

from __future__ import annotations

import argparse
import json
import logging
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path as FilePath
from typing import Any

import numpy as np
from nasbench_macro import CHOICES, SPACE, TABLE, MacroTable, load_macro

from nni_spos.constraint import Constraint, format_metric
from nni_spos.evolution import EvolutionSearch, Nsga2Search, RandomSearch, Search, Signal
from nni_spos.files import write_atomically
from nni_spos.path import PathKey

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

    def excess(self, key: PathKey) -> float:
        """Return by which share of the limit a path is over it; negative if it keeps it."""
        price = self.table.costs[self.limit.metric].price(SPACE.decode([key])[0])
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
            SPACE,
            scores.table.costs,
            constraints=[scores.limit],
            num_generations=scores.budget,
            seed=seed,
            **settings,
        )
        while not scores.is_over and not isinstance(path := search.ask(), Signal):
            search.tell(path, {"top1": scores.score(SPACE.key(path))})

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
            for label in SPACE:
                choices = {choice: nn.Identity() for choice in CHOICES}
                self.add_module(label, LayerChoice(choices, label=label))

    class LookUp(Evaluator):
        def _execute(self, model: ExecutableModelSpace) -> None:
            nni.report_final_result(scores.score(SPACE.key(model.sample)))

    class Engine(SequentialExecutionEngine):
        def budget_available(self) -> bool:
            return not scores.is_over

    model_space = SimplifiedModelSpace.from_model(Units(), LookUp())
    keeps = Filter(lambda model: scores.excess(SPACE.key(model.sample)) <= 0)
    Chain(RegularizedEvolution(seed=seed), keeps)(model_space, Engine())


def optuna_tpe(scores: Scores, seed: int) -> None:
    """Run optuna's default sampler, with the limit as its constraint."""
    import optuna

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    sampler = optuna.samplers.TPESampler(
        seed=seed, constraints_func=lambda trial: (trial.user_attrs["excess"],)
    )
    study = optuna.create_study(direction="maximize", sampler=sampler)
    for _ in range(PATIENCE * scores.budget):
        if scores.is_over:
            return
        trial = study.ask()
        key = SPACE.key({label: trial.suggest_categorical(label, CHOICES) for label in SPACE})
        excess = scores.excess(key)
        trial.set_user_attr("excess", excess)
        if excess > 0:
            study.tell(trial, state=optuna.trial.TrialState.PRUNED)
        else:
            study.tell(trial, scores.score(key))


CONTENDERS: Mapping[str, Contender] = {
    "evolution": ours(EvolutionSearch),
    "evolution, population 20": ours(EvolutionSearch, population_size=20),
    "nsga2": ours(Nsga2Search),
    "random": ours(RandomSearch),
    "NNI RegularizedEvolution": nni_evolution,
    "optuna TPE": optuna_tpe,
}


def measure(table: MacroTable, budget: int, num_seeds: int) -> dict[str, dict[str, Any]]:
    """Return for every limit and contender the regrets, shape (num_seeds, budget), and seconds."""
    found: dict[str, dict[str, Any]] = {}
    for name, share in SHARES.items():
        limit = table.quantile(share)
        optimum = table.best(limit)
        found[name] = {"limit": str(limit), "optimum": optimum, "contenders": {}}
        for contender, run in CONTENDERS.items():
            begin, regrets = time.process_time(), []
            for seed in range(num_seeds):
                scores = Scores(table, limit, optimum, budget)
                run(scores, seed)
                regrets.append(scores.regrets())
            seconds = time.process_time() - begin
            found[name]["contenders"][contender] = {"regrets": regrets, "seconds": seconds}
            print(f"{name}: {contender}, {seconds:.0f} s", file=sys.stderr, flush=True)
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
    panels = figure.subplots(1, len(summary), sharey=True)
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
    parser.add_argument("--plot", type=FilePath, help="draw the curves to this PNG file")
    parser.add_argument("--json", action="store_true", help="print JSON instead of tables")
    options = parser.parse_args(arguments)
    if min(options.seeds, options.evaluations) < 1:
        parser.error("numbers must be at least 1.")
    if not options.table.is_file():
        parser.error(f"{options.table}: no such file; it is published with NAS-Bench-Macro.")

    summary = summarise(measure(load_macro(options.table), options.evaluations, options.seeds))
    if options.plot:
        plot(summary, options.plot)
    if options.json:
        print(json.dumps(summary, indent=2))
    else:
        print(format_tables(summary, options.evaluations))


if __name__ == "__main__":
    main()
