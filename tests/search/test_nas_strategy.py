"""NNI's NAS API in one process: our search and our evaluator, together and each with NNI's own."""

from __future__ import annotations

import contextlib

import nni
import nni.nas.strategy
import pytest
import torch
from nni.nas.evaluator import FunctionalEvaluator
from nni.nas.execution import SequentialExecutionEngine, TrainingServiceExecutionEngine
from nni.nas.experiment import NasExperiment, NasExperimentConfig
from nni.nas.experiment.config import SequentialEngineConfig
from nni.nas.space import RawFormatModelSpace
from nni.nas.strategy.middleware import Chain, Filter
from nni.tools.nnictl.config_utils import Experiments
from trained_recipes import write_trained

from nni_spos.constraint import Constraint
from nni_spos.cost_table import CostTable
from nni_spos.costs.stored import load_costs
from nni_spos.errors import (
    ConstraintError,
    CostError,
    ExperimentError,
    PathError,
    RecipeError,
    SearchError,
)
from nni_spos.evolution import Signal, State
from nni_spos.path import PathSpace
from nni_spos.recipe.search_settings import SearchSettings
from nni_spos.search.building import build_search
from nni_spos.search.nas_strategy import EvolutionStrategy, SupernetEvaluator
from nni_spos.search.scorer import PathScorer, open_scorer

SMALL = {"population_size": 4, "num_generations": 2, "top_k": 2}


@pytest.fixture(scope="module")
def recipe(tmp_path_factory):
    return write_trained(tmp_path_factory.mktemp("trained"))


@pytest.fixture(scope="module")
def scorer(recipe):
    return open_scorer(recipe)


@pytest.fixture
def costs(recipe):
    return load_costs(recipe)[1]


@pytest.fixture
def evaluator(scorer):
    return SupernetEvaluator(scorer.supernet, scorer.data, scorer.settings)


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(nni.trial, "_params", None)
    # NNI looks up the home for its list of experiments when it is imported.
    defaults = (str(tmp_path / "nni-experiments"),)
    monkeypatch.setattr(Experiments.__init__, "__defaults__", defaults)


@contextlib.contextmanager
def experiment(space, evaluator, strategy, config=None, **kwargs):
    config = config or NasExperimentConfig("sequential", "raw")
    running = NasExperiment(space, evaluator, strategy, config, **kwargs)
    try:
        yield running
    finally:
        running.stop()


def digit_sum(path):
    """Scores without ties that need no network."""
    return float(
        sum(5**i * ["k3", "k5", "k7", "xcep"].index(x) for i, x in enumerate(path.values()))
    )


class FakeEvaluator(SupernetEvaluator):
    """Scores without a network; whatever `fate` raises for a path is raised."""

    identity = None
    objective = "top1"

    def __init__(self, fate=lambda path: None):
        self.fate = fate
        self.paths = []
        self.prepared = []

    def prepare(self, paths):
        self.prepared.append(paths)

    def evaluate(self, path):
        self.fate(path)
        self.paths.append(path)
        return {"top1": digit_sum(path), "top5": -digit_sum(path), "loss": 0.5}


def explore(space, strategy, evaluator, engine=None):
    strategy(
        RawFormatModelSpace.from_model(space, evaluator), engine or SequentialExecutionEngine()
    )


def summary(search):
    return [(c.number, c.generation, c.path, c.state) for c in search.candidates]


def reference(costs, settings):
    search = build_search(settings, next(iter(costs.values())).space, costs)
    while not isinstance(path := search.ask(), Signal):
        search.tell(path, {"top1": digit_sum(path), "top5": -digit_sum(path)})
    return search


def test_an_experiment_of_nnis_scores_paths_with_the_supernet(scorer, evaluator, costs):
    limit = sorted(costs["flops"].price_many(costs["flops"].space.enumerate()))[40]
    strategy = EvolutionStrategy(costs, constraints=[f"flops <= {limit}"], **SMALL)
    before = {name: tensor.clone() for name, tensor in scorer.supernet.state_dict().items()}
    with experiment(scorer.supernet, evaluator, strategy) as running:
        running.run()
        best = running.export_top_models(3, formatter="dict")
        metrics = [model.metric for model in running.export_top_models(3)]
    assert len(strategy.search.candidates) == 8
    assert [scorer(path)["top1"] for path in best] == metrics
    assert metrics == sorted(metrics, reverse=True)
    assert all(costs["flops"].price(path) <= limit for path in best)
    assert strategy.search.top(1)[0].metrics == scorer(best[0])
    for name, tensor in scorer.supernet.state_dict().items():
        assert torch.equal(tensor, before[name]), name


@pytest.mark.parametrize("algorithm", ["evolution", "nsga2", "random"])
def test_it_is_the_recipes_search(scorer, costs, algorithm):
    settings = SearchSettings().changed({"algorithm": algorithm, "seed": 5, **SMALL}, "test")
    strategy = EvolutionStrategy(costs, settings)
    explore(scorer.supernet, strategy, FakeEvaluator())
    assert summary(strategy.search) == summary(reference(costs, settings))
    assert all(c.costs.keys() == {"flops", "params"} for c in strategy.search.candidates)


def test_models_are_sorted_by_the_objective(scorer, costs):
    strategy = EvolutionStrategy(costs, objective="top5", **SMALL)
    explore(scorer.supernet, strategy, FakeEvaluator())
    assert summary(strategy.search) == summary(reference(costs, strategy.settings))
    models = list(strategy.list_models())
    assert [m.metric for m in models] == sorted((m.metric for m in models), reverse=True)
    assert [m.metric for m in models] == [-digit_sum(m.sample) for m in models]
    assert len(list(strategy.list_models(limit=3))) == 3
    assert [m.sample for m in strategy.list_models(sort=False)] == [
        c.path for c in strategy.search.candidates
    ]


def test_keywords_replace_settings(costs):
    settings = SearchSettings(population_size=30, seed=4)
    strategy = EvolutionStrategy(costs, settings, constraints=["flops <= 1M"], seed=7)
    limits = (Constraint.parse("flops <= 1M"),)
    assert strategy.settings == SearchSettings(population_size=30, seed=7, constraints=limits)


def test_a_reported_number_is_the_top1(scorer, costs):
    def evaluate(model):
        nni.report_final_result(digit_sum(nni.get_current_parameter().sample))

    strategy = EvolutionStrategy(**SMALL)
    explore(scorer.supernet, strategy, FunctionalEvaluator(evaluate))
    assert summary(strategy.search) == summary(reference(costs, strategy.settings))


@pytest.mark.parametrize("model_format", ["raw", "simplified"])
def test_nnis_own_strategies_can_use_the_evaluator(scorer, evaluator, model_format):
    config = NasExperimentConfig("sequential", model_format, max_trial_number=3)
    strategy = nni.nas.strategy.Random()
    with experiment(scorer.supernet, evaluator, strategy, config) as running:
        running.run()
        models = running.export_top_models(3)
    assert [model.metric for model in models] == [scorer(m.sample)["top1"] for m in models]


def out_of_memory(path):
    if path["layer_1"] == "k3":
        raise RuntimeError("out of memory")


def test_failures_are_excluded_if_nni_is_told_to_continue(scorer):
    strategy = EvolutionStrategy(**SMALL)
    engine = SequentialExecutionEngine(continue_on_failure=True)
    explore(scorer.supernet, strategy, FakeEvaluator(out_of_memory), engine)
    failed = [c for c in strategy.search.candidates if c.state is State.FAILED]
    assert failed
    assert {c.path["layer_1"] for c in failed} == {"k3"}
    assert failed[0].reason == "the evaluation ended as 'failed' without a result"
    assert len(list(strategy.list_models())) == 8 - len(failed)
    assert len(list(strategy.list_models(sort=False))) == 8


@pytest.mark.parametrize("problem", [MemoryError(), PermissionError(13, "Permission denied")])
def test_trouble_of_the_machine_fails_no_path(scorer, evaluator, monkeypatch, problem):
    real = PathScorer.evaluate

    def evaluate(self, paths, progress=None):
        if any(path["layer_1"] == "k3" for path in paths):
            raise problem
        return real(self, paths, progress)

    monkeypatch.setattr(PathScorer, "evaluate", evaluate)
    strategy = EvolutionStrategy(**SMALL)
    engine = SequentialExecutionEngine(continue_on_failure=True)
    with pytest.raises(type(problem)):
        explore(scorer.supernet, strategy, evaluator, engine)
    assert not [c for c in strategy.search.candidates if c.state is State.FAILED]


def test_what_a_network_does_fails_its_path(scorer, evaluator, monkeypatch):
    real = PathScorer.evaluate

    def evaluate(self, paths, progress=None):
        if any(path["layer_1"] == "k3" for path in paths):
            raise RuntimeError("shapes cannot be multiplied")
        return real(self, paths, progress)

    monkeypatch.setattr(PathScorer, "evaluate", evaluate)
    strategy = EvolutionStrategy(**SMALL)
    explore(
        scorer.supernet, strategy, evaluator, SequentialExecutionEngine(continue_on_failure=True)
    )
    failed = [c for c in strategy.search.candidates if c.state is State.FAILED]
    assert {c.path["layer_1"] for c in failed} == {"k3"}


def test_a_failure_ends_the_search_otherwise(scorer):
    with pytest.raises(RuntimeError, match="out of memory"):
        explore(scorer.supernet, EvolutionStrategy(**SMALL), FakeEvaluator(out_of_memory))


def test_models_that_a_filter_blocks_are_excluded(scorer):
    strategy = EvolutionStrategy(**SMALL)
    chain = Chain(strategy, Filter(lambda model: model.sample["layer_1"] != "k3"))
    explore(scorer.supernet, chain, FakeEvaluator())
    blocked = [c for c in strategy.search.candidates if c.path["layer_1"] == "k3"]
    assert blocked
    assert all(c.state is State.FAILED and "'invalid'" in c.reason for c in blocked)


def test_the_budget_of_the_experiment_is_kept(scorer, caplog):
    strategy = EvolutionStrategy(**SMALL)
    explore(scorer.supernet, strategy, FakeEvaluator(), SequentialExecutionEngine(3))
    assert len(list(strategy.list_models())) == 3
    assert "budget is spent" in caplog.text


@pytest.mark.parametrize("cut_after", [0, 3, 6])
def test_an_interrupted_experiment_is_resumed(scorer, costs, cut_after):
    first, second = FakeEvaluator(), FakeEvaluator()

    def interrupt(path):
        if len(first.paths) == cut_after:
            raise KeyboardInterrupt

    first.fate = interrupt
    with experiment(scorer.supernet, first, EvolutionStrategy(costs, **SMALL)) as running:
        running.run()  # NNI takes an interrupt for a wish to stop
    strategy = EvolutionStrategy(costs, **SMALL)
    with experiment(scorer.supernet, second, strategy, id=running.id) as resumed:
        resumed.resume()
        best = resumed.export_top_models(8, formatter="dict")
    expected = reference(costs, strategy.settings)
    assert first.paths + second.paths == [c.path for c in expected.candidates]
    assert len(first.paths) == cut_after
    assert best == [c.path for c in expected.top(8)]
    with experiment(
        scorer.supernet,
        FakeEvaluator(pytest.fail),
        EvolutionStrategy(costs, **SMALL),
        id=running.id,
    ) as again:
        again.resume()
        assert again.export_top_models(8, formatter="dict") == best


def test_the_state_of_another_search_is_refused(scorer):
    def initialized(**changes):
        strategy = EvolutionStrategy(**{**SMALL, **changes})
        model_space = RawFormatModelSpace.from_model(scorer.supernet, FakeEvaluator())
        strategy.initialize(model_space, SequentialExecutionEngine())
        return strategy

    state = initialized().state_dict()
    initialized().load_state_dict(state)
    with pytest.raises(SearchError, match=r"another search \(settings differ\)"):
        initialized(seed=1).load_state_dict(state)
    with pytest.raises(SearchError, match=r"another search \(space differ\)"):
        initialized().load_state_dict({**state, "space": {}})
    with pytest.raises(SearchError, match=r"another search \(scorer differ\)"):
        initialized().load_state_dict({**state, "scorer": {"weights": "of another supernet"}})


def test_trials_in_other_processes_are_refused(scorer, evaluator):
    engine = object.__new__(TrainingServiceExecutionEngine)
    strategy = EvolutionStrategy(**SMALL)
    with pytest.raises(ExperimentError, match=r"'sequential', 'raw'.*nni-spos start") as caught:
        explore(scorer.supernet, strategy, evaluator, engine)
    assert "\n" not in str(caught.value)
    assert strategy.state_dict()["outcomes"] == [], "NNI saves it when it stops"
    chain = Chain(EvolutionStrategy(**SMALL), Filter(lambda model: True))
    with pytest.raises(ExperimentError, match="EvolutionStrategy works in one process only"):
        explore(scorer.supernet, chain, evaluator, engine)
    with pytest.raises(ExperimentError, match="SupernetEvaluator works in one process only"):
        nni.dump(evaluator)


def test_wrong_arguments_are_refused(scorer, costs):
    with pytest.raises(RecipeError, match=r"EvolutionStrategy: unknown key.*did you mean"):
        EvolutionStrategy(costs, num_generation=2)
    with pytest.raises(RecipeError, match=r"EvolutionStrategy: num_mutations .* must be at most"):
        EvolutionStrategy(costs, num_mutations=99)
    with pytest.raises(ConstraintError, match="unknown metric 'flop'"):
        explore(
            scorer.supernet,
            EvolutionStrategy(costs, constraints=["flop <= 1"], **SMALL),
            FakeEvaluator(),
        )
    other = CostTable("flops", PathSpace({"x": [1, 2]}), 0)
    with pytest.raises(CostError, match="cost table flops: was made for another space"):
        explore(scorer.supernet, EvolutionStrategy({"flops": other}, **SMALL), FakeEvaluator())


def test_nothing_is_listed_before_there_is_a_search(costs):
    with pytest.raises(ExperimentError, match="run it first"):
        list(EvolutionStrategy(costs).list_models())


def test_the_evaluator_takes_paths_only(scorer, evaluator):
    space = PathSpace.from_model_space(scorer.supernet)
    path = {label: choices[0] for label, choices in space.items()}
    assert evaluator.evaluate(path) == scorer(path)
    with pytest.raises(PathError, match="a path maps every label"):
        evaluator.evaluate(scorer.supernet)


def test_the_engine_can_be_configured_to_continue(scorer):
    engine = SequentialEngineConfig(continue_on_failure=True)
    config = NasExperimentConfig(engine, "raw", max_trial_number=5)
    strategy = EvolutionStrategy(**SMALL)
    with experiment(scorer.supernet, FakeEvaluator(out_of_memory), strategy, config) as running:
        running.run()
    assert len(list(strategy.list_models(sort=False))) == 5
