"""The search that learns."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from nni_spos.constraint import Constraint
from nni_spos.errors import SearchError
from nni_spos.evolution import (
    BayesianSearch,
    Journal,
    RandomSearch,
    Signal,
    State,
    choose_landmarks,
    pareto_front,
)
from nni_spos.evolution.bayesian import _last_estimate
from nni_spos.path import PathSpace


def finish(search, score):
    while not isinstance(path := search.ask(), Signal):
        search.tell(path, score(path))
    return search


@pytest.fixture
def smooth(space):
    """Accuracies that rise with the choices, the first units most, with one exception."""

    def score(path):
        key = np.array(space.key(path))
        lost = 10 * np.exp(-0.4 * (np.sqrt(key) * [3, 2, 1, 1, 0.5, 0.5]).sum())
        return {"top1": float(95 - lost - 2 * (key[0] == 2) * (key[5] == 2))}

    return score


def test_it_needs_fewer_evaluations(space, costs, smooth):
    best = max(smooth(path)["top1"] for path in space.decode(space.enumerate()))
    regrets = {BayesianSearch: [], RandomSearch: []}
    for algorithm, found in regrets.items():
        for seed in range(3):
            search = algorithm(space, costs, population_size=4, num_generations=6, seed=seed)
            found.append(best - finish(search, smooth).best.metrics["top1"])
    assert np.mean(regrets[BayesianSearch]) < 0.05
    assert np.mean(regrets[RandomSearch]) > 3 * np.mean(regrets[BayesianSearch])


def test_limits_are_kept(space, costs, smooth):
    limit = Constraint("flops", low=5, high=6)
    settings = {"constraints": [limit], "population_size": 3, "num_generations": 8}
    search = finish(BayesianSearch(space, costs, **settings), smooth)
    assert len(search.candidates) == 24
    assert all(5 <= x.costs["flops"] <= 6 for x in search.candidates)
    paths = space.decode(space.enumerate())
    best = max(smooth(x)["top1"] for x in paths if 5 <= costs["flops"].price(x) <= 6)
    assert best - search.best.metrics["top1"] < 0.1


def test_rare_paths(make_costs, monkeypatch):
    """Where hardly any path keeps the limits, mutants are made so that they do."""
    space = PathSpace({f"unit_{i}": list(range(4)) for i in range(12)})
    costs = make_costs(space)
    search = BayesianSearch(
        space, costs, constraints=["flops <= 5"], population_size=5, num_generations=5
    )
    assert search.sampler.share < 0.01

    def score(path):
        return {"top1": 50.0 + path["unit_0"] * 3 + path["unit_1"]}

    assert finish(search, score).best.metrics["top1"] >= 58


def test_results_in_any_order(space, costs, smooth, run):
    settings = {"population_size": 6, "num_generations": 5}
    one = BayesianSearch(space, costs, **settings)
    other = BayesianSearch(space, costs, **settings)
    assert sorted(map(str, run(one, smooth))) == sorted(map(str, run(other, smooth, workers=5)))
    assert [x.path for x in one.candidates] == [x.path for x in other.candidates]


def test_failures_say_nothing(space, costs, smooth, run):
    def evaluate(path):
        return "no memory" if path["unit_0"] == "c" else smooth(path)

    search = BayesianSearch(space, costs, population_size=5, num_generations=6)
    run(search, evaluate)
    failed = [x for x in search.candidates if x.state is State.FAILED]
    assert failed
    assert len(search.candidates) == 30
    assert search.best.path["unit_0"] != "c"


@pytest.mark.parametrize("stopped_after", [3, 12, 17, 24])
def test_a_journal_goes_on(tmp_path, space, costs, smooth, run, stopped_after):
    settings = {"population_size": 6, "num_generations": 5}
    whole = BayesianSearch(space, costs, **settings)
    run(whole, smooth)
    journal = Journal(tmp_path / "search.jsonl", {})
    # As results come when several are evaluated at a time.
    order = [*range(6)[::-1], *range(6, 12)[::-1], *range(12, 18)[::-1], *range(18, 24)]
    for number in order[:stopped_after]:
        journal.append(whole.candidates[number])
    resumed = BayesianSearch(space, costs, **settings)
    for path, outcome in Journal(tmp_path / "search.jsonl", {}).outcomes:
        resumed.remember(path, outcome)
    run(resumed, smooth)
    assert [x.path for x in resumed.candidates] == [x.path for x in whole.candidates]


def test_generations_that_are_known_are_not_computed(space, costs, smooth, monkeypatch):
    settings = {"population_size": 6, "num_generations": 4}
    whole = finish(BayesianSearch(space, costs, **settings), smooth)
    resumed = BayesianSearch(space, costs, **settings)
    for candidate in whole.candidates:
        resumed.remember(candidate.path, candidate.metrics)
    monkeypatch.setattr(resumed, "_promising", None)
    assert resumed.ask() is Signal.FINISHED
    assert [x.path for x in resumed.candidates] == [x.path for x in whole.candidates]


def test_a_front(space, costs, smooth):
    settings = {"population_size": 8, "num_generations": 8, "cost_objectives": ["flops"]}
    search = finish(BayesianSearch(space, costs, **settings), smooth)
    front = search.front()
    assert front == pareto_front(search.candidates, "top1", ["flops"])
    blind = finish(RandomSearch(space, costs, population_size=8, num_generations=8), smooth)

    def area(candidates):
        """Of what the front dominates, down to 80 % and up to all costs that there are."""
        best = [
            max((x.metrics["top1"] for x in candidates if x.costs["flops"] <= limit), default=80)
            for limit in range(13)
        ]
        return sum(best)

    assert area(search.candidates) > area(blind.candidates) + 3
    assert len({x.costs["flops"] for x in front}) >= 6


def test_several_costs(space, costs, make_costs, smooth):
    both = {**costs, **make_costs(space, "params")}
    settings = {"population_size": 6, "num_generations": 4, "cost_objectives": ["flops", "params"]}
    search = finish(BayesianSearch(space, both, **settings), smooth)
    assert len(search.candidates) == 24
    assert len(search.front()) > 3


def test_a_cost_that_there_is_not(space, costs):
    with pytest.raises(SearchError, match="cost_objectives: "):
        BayesianSearch(space, costs, cost_objectives=["latency"])
    BayesianSearch(space, costs, cost_objectives=["flops"])


def test_very_many_results_are_thinned_out(space, costs, smooth, monkeypatch):
    monkeypatch.setattr(BayesianSearch, "MOST_KNOWN", 20)
    search = BayesianSearch(space, costs, population_size=10, num_generations=6)
    finish(search, smooth)
    done = [(0, space.key(x.path), x) for x in search.candidates]
    some = search._informative(done)
    assert len(some) <= 20
    assert [x for x in done if x in some] == some, "in another order"
    best = sorted(done, key=lambda x: -x[2].metrics["top1"])[:10]
    assert all(x in some for x in best)


def test_the_schedule_of_estimates():
    dues = [_last_estimate(x) for x in range(1, 2000)]
    assert dues[:10] == list(range(1, 11))
    assert dues == sorted(dues)
    assert len(set(dues)) < 50
    assert all(due <= x <= 1.2 * due + 1 for x, due in enumerate(dues, 1))


def test_landmarks(space, costs):
    paths = choose_landmarks(space, costs, 9)
    assert len({space.key(path) for path in paths}) == 9
    for label in space:
        assert all([path[label] for path in paths].count(choice) >= 2 for choice in "abc")
    assert choose_landmarks(space, costs, 4) == paths[:4]
    assert choose_landmarks(space, costs, 4, seed=1) != paths[:4]
    limited = choose_landmarks(space, costs, 9, constraints=["flops <= 4"])
    assert all(costs["flops"].price(path) <= 4 for path in limited)
    few = choose_landmarks(PathSpace({"a": [1, 2]}), {}, 9)
    assert len(few) == 2


def test_no_generation_learns_from_none(space, costs):
    """A first generation that failed but for one: there is nothing to learn from yet."""
    search = BayesianSearch(space, costs, population_size=3, num_generations=3, num_initial=1)
    first = [search.ask() for _ in range(3)]
    search.tell(first[0], {"top1": 50})
    for path in first[1:]:
        search.tell_failure(path, "no memory")
    assert isinstance(search.ask(), dict)
    names = list(itertools.islice(map(str, (x.state for x in search.candidates)), 6))
    assert len(names) == 6
