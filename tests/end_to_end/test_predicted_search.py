"""The real nnictl, with trials that predict, and trials that train their path alone."""

from __future__ import annotations

import pytest

from nni_spos.costs.stored import load_costs
from nni_spos.experiment.start import ManagerOptions, start
from nni_spos.search.predicted import (
    DEVIATION,
    PREDICTED,
    PredictedScorer,
    open_accuracies,
)
from nni_spos.search.results import load_results


@pytest.mark.nni
def test_an_experiment_maximises_the_prediction(study, one_thread):
    recipe = study.copy_examples(
        search={
            "algorithm": "bayesian",
            "objective": PREDICTED,
            "population_size": 3,
            "num_generations": 2,
            "num_initial": 3,
        },
    )
    space, costs = load_costs(recipe)
    known = open_accuracies(recipe, space)
    for number, path in enumerate(space.covering(12)):
        known.put(path, {"top1": 60.0 + number, "top5": 90.0, "loss": 1.0})
    for path in space.decode([[(3 * i + j) % 4 for j in range(len(space))] for i in range(8)]):
        known.put(path, {"top1": 60.0 + costs["flops"].price(path) / 1e6, "loss": 1.0})
    result = start(
        study.folder / "examples" / "spos.yml",
        ManagerOptions(port=study.port),
        report=lambda line: None,
    )
    assert result.status == "DONE"
    assert study.processes() == []
    results = load_results(result.id)
    assert results.objective == PREDICTED
    assert results.num_done == 6
    scorer = PredictedScorer(recipe, space, costs)
    for candidate in results.candidates:
        found = scorer(candidate.path)
        assert candidate.metrics[PREDICTED] == pytest.approx(found[PREDICTED])
        assert candidate.metrics[DEVIATION] == pytest.approx(found[DEVIATION])
    # Nothing was trained for it, and no supernet either.
    assert not recipe.checkpoint.exists()


@pytest.mark.nni
def test_trials_train_their_paths_alone(study, one_thread):
    recipe = study.copy_examples(
        search={
            "algorithm": "bayesian",
            "population_size": 2,
            "num_generations": 2,
            "num_initial": 2,
        },
        evaluation={"evaluator": "standalone"},
        retrain={"epochs": 1},
    )
    result = start(
        study.folder / "examples" / "spos.yml",
        ManagerOptions(port=study.port),
        report=lambda line: None,
    )
    assert result.status == "DONE"
    results = load_results(result.id)
    assert results.num_done == 4
    space, _ = load_costs(recipe)
    known = open_accuracies(recipe, space).items()
    kept = {space.key(path): found["top1"] for path, found in known}
    assert kept == {space.key(x.path): x.metrics["top1"] for x in results.candidates}
    assert not recipe.checkpoint.exists()
