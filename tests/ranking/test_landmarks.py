"""Paths that are trained alone, and what they say of all others."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
from trained_recipes import change_recipe, write_trained, write_untrained

from nni_spos.cli import main
from nni_spos.costs.stored import load_costs
from nni_spos.errors import ExperimentError, RecipeError, SearchError
from nni_spos.experiment import trial as trials
from nni_spos.ranking import landmarks
from nni_spos.ranking.landmarks import LEFT_OUT, judge, train_landmarks
from nni_spos.recipe.recipe import load_recipe
from nni_spos.retraining import standalone
from nni_spos.search.building import build_search, fingerprint
from nni_spos.search.predicted import (
    DEVIATION,
    PREDICTED,
    PredictedScorer,
    known_accuracies,
    open_accuracies,
)
from nni_spos.search.results import load_results
from nni_spos.search.running import run_search


def accuracy(space, path) -> float:
    """Accuracies that rise with the position of each choice, the first units most."""
    return 90 - 40 * float(np.exp(-0.3 * (np.array(space.key(path)) * [3, 2, 1]).sum()))


@pytest.fixture
def recipe(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return write_untrained(tmp_path, retrain={"epochs": 2})


@pytest.fixture
def trained(recipe, monkeypatch):
    """Count trainings, which take no time here."""
    space, _ = load_costs(recipe)
    found = []

    def train(recipe, path, data, costs, checkpoints, title):
        checkpoints.mkdir(parents=True)
        found.append(path)
        return {"top1": accuracy(space, path), "top5": 99.0, "loss": 1.0}

    monkeypatch.setattr(standalone, "_train", train)
    return found


def know(recipe, number):
    """Let some paths be trained."""
    space, _ = load_costs(recipe)
    known = open_accuracies(recipe, space)
    paths = space.decode(space.enumerate()[:: space.size // number][:number])
    for path in paths:
        known.put(path, {"top1": accuracy(space, path), "top5": 99.0, "loss": 1.0})
    return paths


def test_landmarks_then_what_looks_best(recipe, trained):
    results = train_landmarks(recipe, 12, progress=False)
    space, _ = load_costs(recipe)
    assert [x.path for x in results.candidates] == trained
    assert len({space.key(path) for path in trained}) == 12
    # The first eight have every choice at least once, the last four are better.
    for label, choices in space.items():
        assert {path[label] for path in trained[:8]} == set(choices)
    values = [accuracy(space, path) for path in trained]
    assert np.mean(values[8:]) > np.mean(values[:8])
    everything = sorted(accuracy(space, x) for x in space.decode(space.enumerate()))
    assert max(values) >= everything[-4]
    assert load_results(recipe.output / "landmarks_12").num_done == 12
    # It goes on, and what is trained counts for other numbers.
    train_landmarks(recipe, 12, progress=False)
    assert len(trained) == 12
    train_landmarks(recipe, 9, progress=False)
    assert len(trained) < 12 + 9


def test_an_interrupted_call_goes_on(recipe, trained, monkeypatch):
    train = standalone._train

    def interrupted(*arguments):
        if len(trained) == 3:
            raise KeyboardInterrupt
        return train(*arguments)

    with monkeypatch.context() as patched:
        patched.setattr(standalone, "_train", interrupted)
        with pytest.raises(KeyboardInterrupt):
            train_landmarks(recipe, 8, progress=False)
    train_landmarks(recipe, 8, progress=False)
    assert len(trained) == 8


def test_limits_of_the_recipe_hold(recipe, trained):
    _, costs = load_costs(recipe)
    low, high = costs["flops"].cheapest()[0], costs["flops"].dearest()[0]
    limited = recipe.with_search({"constraints": [f"flops <= {(low + high) // 2}"]}, "test")
    train_landmarks(limited, 8, progress=False)
    assert all(costs["flops"].price(path) <= (low + high) // 2 for path in trained)


@pytest.mark.slow
def test_too_few(recipe, trained, refused):
    with pytest.raises(RecipeError, match="-n: must be at least 8, got 7"):
        train_landmarks(recipe, 7)
    know(recipe, 5)
    with pytest.raises(ExperimentError, match=r"5 paths are trained .* needs 8 or more. Train"):
        judge(recipe)
    know(recipe, 8)
    assert len(judge(recipe).paths) >= 8


@pytest.mark.slow
def test_how_far_it_may_be_trusted(recipe, capsys):
    know(recipe, 20)
    trust = judge(recipe)
    assert list(trust.rankings) == [LEFT_OUT, "flops", "params", "units"]
    assert trust.rankings[LEFT_OUT].tau.value > 0.6
    text = trust.describe()
    assert text.startswith(f"{len(trust.paths)} paths were trained alone")
    assert "are within 2 standard deviations, 95 % should be" in text
    assert ("do not trust it" in text) != trust.is_better_than_trivial
    weak = dataclasses.replace(
        trust, rankings={**trust.rankings, "units": trust.rankings[LEFT_OUT]}
    )
    assert "do not trust it: it ranks these paths no better" in weak.describe()


def test_a_search_on_the_prediction(recipe, trained):
    know(recipe, 16)
    search = {"objective": "predicted", "population_size": 8, "num_generations": 4}
    predicting = recipe.with_search(search, "test")
    results = run_search(predicting, progress=False, folder="predicted")
    assert results.num_done == 32
    assert not trained
    space, costs = load_costs(recipe)
    scorer = PredictedScorer(predicting, space, costs)
    for candidate in results.candidates:
        found = scorer(candidate.path)
        assert candidate.metrics[PREDICTED] == pytest.approx(found[PREDICTED])
        assert candidate.metrics[DEVIATION] > 0
    values = [accuracy(space, path) for path in space.decode(space.enumerate())]
    assert accuracy(space, results.best.path) >= sorted(values)[-4]
    # More trainings give other predictions: that would be another search.
    before = fingerprint(predicting, space, costs)
    known = open_accuracies(recipe, space)
    known.put(space.decode([[1, 1, 1]])[0], {"top1": 1.0, "loss": 3.0})
    assert fingerprint(predicting, space, costs) != before
    with pytest.raises(
        SearchError, match=r"belongs to a search with other settings .trained paths"
    ):
        run_search(predicting, progress=False, folder="predicted")


def test_the_score_with_a_supernet_is_a_further_input(recipe):
    paths = know(recipe, 16)
    space, costs = load_costs(recipe)
    asked = []

    def score_many(paths):
        asked.extend(paths)
        return [{"log_likelihood": accuracy(space, path)} for path in paths]

    scorer = PredictedScorer(recipe, space, costs, score_many)
    assert sorted(map(space.key, asked)) == sorted(map(space.key, paths))
    everything = space.decode(space.enumerate())
    found = [x[PREDICTED] for x in scorer.score_many(everything)]
    true = [accuracy(space, path) for path in everything]
    assert np.corrcoef(found, true)[0, 1] > 0.99


@pytest.mark.parametrize("kind", ["predicted", "standalone"])
def test_a_trial(recipe, trained, monkeypatch, kind):
    """What a trial of an NNI experiment reports, and what the tuner makes of it."""
    know(recipe, 12)
    if kind == "predicted":
        change_recipe("search", objective="predicted")
    else:
        change_recipe("evaluation", evaluator="standalone")
        monkeypatch.setattr(trials, "share_cores", lambda: None)
    recipe = load_recipe("recipe.yml")
    space, costs = load_costs(recipe)
    path = space.decode([[3, 0, 3]])[0]
    reported = []

    class Trial:
        def __init__(self):
            self.path = path

        def report(self, results):
            reported.append(results)

        def report_error(self, problem):
            raise AssertionError(problem)

    trial = dataclasses.make_dataclass("Trial", ["path"], bases=(Trial,))(path)
    monkeypatch.setattr(trials, "open_trial", lambda: trial)
    trials.run_trial("recipe.yml")
    (results,) = reported
    assert results["flops"] == costs["flops"].price(path)
    if kind == "predicted":
        assert results["default"] == pytest.approx(
            PredictedScorer(recipe, space, costs)(path)[PREDICTED]
        )
        assert results[DEVIATION] > 0
        assert recipe.search.reported == PREDICTED
        assert not trained
    else:
        assert trained == [path]
        assert results["default"] == accuracy(space, path)
        assert results["top5"] == 99.0
        assert recipe.search.reported == "top1"
        # A search whose paths are trained alone is not one with a supernet.
        own = fingerprint(recipe, space, costs)
        assert own["evaluation"]["evaluator"] == "standalone"
        assert own["retrain"]["epochs"] == 2
    build_search(recipe.search, space, costs)


@pytest.mark.slow
def test_the_command(tmp_path, monkeypatch, capsys):
    recipe = write_trained(tmp_path, retrain={"epochs": 1})
    monkeypatch.chdir(tmp_path)
    assert main(["landmarks", "recipe.yml", "-n", "8", "--output", "best.json"]) == 0
    output = capsys.readouterr().out
    assert "8 paths were trained alone" in output
    assert Path("best.json").is_file()
    assert len(known_accuracies(recipe, load_costs(recipe)[0])[0]) == 8
    change_recipe("search", objective="predicted", population_size=4, num_generations=2)
    change_recipe("evaluation", supernet_input=True)
    assert main(["search", "recipe.yml", "--folder", "predicted"]) == 0
    assert "predicted" in capsys.readouterr().out
    assert main(["landmarks", "recipe.yml", "-n", "3"]) == 2
    assert "-n: must be at least 8, got 3." in capsys.readouterr().err
    assert landmarks.LEAST == 8
