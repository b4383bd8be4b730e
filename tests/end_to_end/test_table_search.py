"""The real nnictl, with trials that look the published accuracy of their network up."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
from nasbench_macro import SPACE, TABLE, load_macro

from nni_spos.costs.stored import load_costs
from nni_spos.evolution import Signal, State
from nni_spos.experiment.start import ManagerOptions, start
from nni_spos.path import load_path
from nni_spos.recipe.recipe import load_recipe
from nni_spos.search.building import build_search
from nni_spos.search.results import load_results

TRIAL = Path(__file__).with_name("macro_trial.py")


@pytest.mark.nni
@pytest.mark.usefixtures("nas_bench_macro_file")
@pytest.mark.parametrize("algorithm", ["evolution", "nsga2", "bayesian"])
def test_the_best_path_has_the_score_of_the_table(study, tmp_path, algorithm):
    table = load_macro()
    limit = table.quantile(0.5)
    search = {"constraints": [str(limit)], "population_size": 10, "num_generations": 4, "top_k": 5}
    command = f"{sys.executable} {TRIAL} {TABLE}"
    study.write_files(SPACE, table.costs, command, search, 4, {"algorithm": algorithm})
    result = start(study.config, ManagerOptions(port=study.port), report=lambda line: None)
    assert result.status == "DONE"
    assert study.processes() == []

    results = load_results(result.id)
    published = json.loads(TABLE.read_text())
    rows = [published["".join(c.path.values())] for c in results.candidates]
    assert len(rows) == 40
    for candidate, row in zip(results.candidates, rows, strict=True):
        assert candidate.state is State.DONE
        assert candidate.metrics["top1"] == row["mean_acc"]
        assert candidate.costs == {"flops": row["flops"], "params": row["params"]}
        assert row["flops"] <= limit.high

    results.save_best(tmp_path / "best.json")
    best = published["".join(load_path(tmp_path / "best.json", SPACE).values())]
    assert best["mean_acc"] == max(row["mean_acc"] for row in rows)

    # The candidates are those of the same search in this process.
    recipe = load_recipe(study.folder / "recipe.yml").with_search({"algorithm": algorithm}, "test")
    here = build_search(recipe.search, *load_costs(recipe))
    while not isinstance(path := here.ask(), Signal):
        here.tell(path, {"top1": table.accuracies[SPACE.key(path)]})
    assert [c.path for c in here.candidates] == [c.path for c in results.candidates]
    assert bool(results.front()) == (algorithm == "nsga2")
