"""What all searches have in common."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nni_spos.constraint import Constraint
from nni_spos.errors import InfeasibleError, PathError, SearchError
from nni_spos.evolution import (
    EvolutionSearch,
    FeasibleSampler,
    Nsga2Search,
    RandomSearch,
    Signal,
    State,
)
from nni_spos.path import PathSpace

SEARCHES = [EvolutionSearch, RandomSearch, Nsga2Search]

LIMIT = Constraint.parse("4 <= flops <= 8")


@pytest.fixture(params=SEARCHES)
def make(request, space, costs):
    def make(**changes):
        arguments = {"population_size": 6, "num_generations": 4, "constraints": [LIMIT]}
        return request.param(space, costs, **(arguments | changes))

    return make


def flaky(score, every):
    """Score paths, but let some of them fail: which ones depends on the path only."""

    def evaluate(path):
        metrics = score(path)
        return "out of memory" if metrics["top1"] % every == 0 else metrics

    return evaluate


def test_wait_and_finished_are_different(make, score):
    search = make(population_size=2, num_generations=2)
    first, second = search.ask(), search.ask()
    assert search.ask() is Signal.WAIT
    search.tell(second, score(second))
    assert search.ask() is Signal.WAIT
    search.tell(first, score(first))
    third = search.ask()
    search.tell(third, score(third))
    fourth = search.ask()
    assert search.ask() is Signal.WAIT
    search.tell_failure(fourth, "crashed")
    assert search.ask() is Signal.FINISHED
    assert search.ask() is Signal.FINISHED
    assert [c.path for c in search.candidates] == [first, second, third, fourth]


def test_every_candidate_is_new_feasible_and_priced(make, run, score, space):
    search = make()
    asked = run(search, score)
    assert len(asked) == 24 == search.num_candidates
    assert len({space.key(path) for path in asked}) == 24
    assert asked == [c.path for c in search.candidates]
    for number, candidate in enumerate(search.candidates):
        assert space.validate(candidate.path) == candidate.path
        assert candidate.costs == {"flops": sum(space.key(candidate.path))}
        assert LIMIT.allows(candidate.costs["flops"])
        assert (candidate.number, candidate.generation) == (number, number // 6)
        assert (candidate.state, candidate.metrics) == (State.DONE, score(candidate.path))


@pytest.mark.parametrize("every", [math.inf, 3])
def test_the_order_of_results_does_not_matter(make, run, score, every):
    evaluate = flaky(score, every)
    expected = run(make(), evaluate)
    for workers, seed in itertools.product([2, 5, 6, 100], range(3)):
        assert run(make(), evaluate, workers, seed) == expected


def test_candidates_depend_on_the_seed(make, run, score):
    assert run(make(seed=1), score) == run(make(seed=1), score)
    assert run(make(seed=1), score) != run(make(seed=2), score)


def test_every_generation_has_its_own_randomness(space, costs, run, score):
    first_numbers = []

    class Spy(RandomSearch):
        def propose(self, generator):
            first_numbers.append(generator.random())
            return super().propose(generator)

    for seed in (0, 1):
        run(Spy(space, costs, population_size=2, num_generations=5, seed=seed), score)
    assert len(set(first_numbers)) == len(first_numbers) == 10


def test_other_randomness_does_not_matter(make, run, score):
    np.random.seed(0)
    expected = run(make(), score)
    np.random.seed(1)
    assert run(make(), score) == expected


def test_changing_an_asked_path_does_not_change_the_search(make, run, score):
    search = make()
    path = search.ask()
    path["unit_0"] = "other"
    assert search.candidates[0].path["unit_0"] != "other"


def test_top_is_sorted_and_ties_go_to_the_earlier(make):
    search = make(num_generations=1)
    paths = [search.ask() for _ in range(6)]
    scores = [1.0, 3.0, 2.0, 3.0, -1.0, 2]
    for path, value in reversed(list(zip(paths, scores, strict=True))):
        search.tell(path, {"top1": value})
    assert [c.number for c in search.top(10)] == [1, 3, 2, 5, 0, 4]
    assert [c.number for c in search.top(2)] == [1, 3]


def test_the_objective_can_be_another_result(make):
    search = make(num_generations=1, objective="negative_loss")
    paths = [search.ask() for _ in range(6)]
    for i, path in enumerate(paths):
        search.tell(path, {"top1": -i, "negative_loss": i})
    assert search.top(1)[0].path == paths[5]
    assert search.top(1)[0].metrics == {"top1": -5, "negative_loss": 5}


def test_failures_are_left_out_not_scored(make, run):
    search = make()
    # Every result is negative: a failure counted as 0 would be the best.
    run(search, lambda path: "crashed" if path["unit_0"] == "a" else {"top1": -1.0})
    failed = [c for c in search.candidates if c.path["unit_0"] == "a"]
    assert failed
    assert {(c.state, c.reason) for c in failed} == {(State.FAILED, "crashed")}
    assert all(c.metrics == {} for c in failed)
    assert len(search.top(100)) == len(search.candidates) - len(failed)


def test_a_late_result_replaces_a_failure(make, score):
    search = make(population_size=2, num_generations=2)
    late, other = search.ask(), search.ask()
    search.tell_failure(late, "timed out")
    search.tell(other, {"top1": 1.0})
    assert search.top(5)[0].path == other
    third = search.ask()
    candidate = search.tell(late, {"top1": 2.0})
    assert (candidate.state, candidate.reason) == (State.DONE, "")
    assert search.top(1) == [candidate]
    search.ask()
    assert search.ask() is Signal.WAIT, "the late result is not one of those waited for"
    search.tell(third, {"top1": 0.0})
    assert search.ask() is Signal.WAIT


def test_the_first_result_stays(make):
    search = make(population_size=2)
    path = search.ask()
    search.tell(path, {"top1": 1.0})
    search.tell(path, {"top1": 2.0})
    candidate = search.tell_failure(path, "crashed")
    assert (candidate.state, candidate.metrics) == (State.DONE, {"top1": 1.0})
    other = search.ask()
    search.tell_failure(other, "first")
    assert search.tell_failure(other, "second").reason == "first"
    assert isinstance(search.ask(), dict), "the generation is complete"


@pytest.mark.parametrize("value", [math.nan, math.inf, None, "71.5", True, [1.0]])
def test_refuses_a_result_that_is_no_number(make, value):
    search = make(population_size=1)
    path = search.ask()
    with pytest.raises(SearchError, match=r"^the result's 'top1' must be a finite number, got "):
        search.tell(path, {"top1": value})
    with pytest.raises(SearchError, match="got None"):
        search.tell(path, {"accuracy": 1.0})
    assert search.ask() is Signal.WAIT
    assert search.tell(path, {"top1": 0}).state is State.DONE


def test_numpy_results_are_numbers(make):
    search = make(population_size=1)
    assert search.tell(search.ask(), {"top1": np.float64(71.5)}).metrics == {"top1": 71.5}


def test_refuses_results_of_paths_never_asked_for(make, space, score):
    search = make()
    asked = search.ask()
    proposed = search.candidates[1].path
    for path in (proposed, dict.fromkeys(space, "a")):
        assert search.find(path) is None
        with pytest.raises(SearchError, match=r"^a result came for a path that was never asked"):
            search.tell(path, score(path))
        with pytest.raises(SearchError, match=r"^a result came for a path that was never asked"):
            search.tell_failure(path, "crashed")
    with pytest.raises(PathError, match="label 'unit_0': 'z' is not a choice"):
        search.tell({**asked, "unit_0": "z"}, {"top1": 1.0})
    assert search.find(asked) is search.candidates[0]
    search.tell(dict(reversed(asked.items())), score(asked))
    assert search.candidates[0].state is State.DONE


@pytest.mark.parametrize("num_generations", [1, 3])
def test_a_generation_of_failures_only_ends_the_search(make, num_generations):
    search = make(population_size=2, num_generations=num_generations)
    for reason in ("out of memory", "no such file"):
        search.tell_failure(search.ask(), reason)
    for _ in range(2):
        with pytest.raises(
            SearchError,
            match=r"^all 2 candidates failed, the search cannot go on. "
            r"Reasons: no such file; out of memory.$",
        ):
            search.ask()


def test_one_result_is_enough_to_go_on(make, score):
    search = make(population_size=2)
    search.tell_failure(search.ask(), "out of memory")
    path = search.ask()
    search.tell(path, score(path))
    assert isinstance(search.ask(), dict)


@pytest.mark.parametrize("every", [math.inf, 3])
def test_a_resumed_search_is_the_same_wherever_it_was_cut(make, run, score, every):
    told = []
    evaluate = flaky(score, every)
    whole = make()
    asked = run(whole, evaluate, workers=4, told=told)
    for cut in range(len(told) + 1):
        resumed = make()
        for path, outcome in told[:cut]:
            resumed.remember(path, outcome)
        again = run(resumed, evaluate, workers=3, seed=cut)
        assert resumed.candidates == whole.candidates
        known = [path for path, _ in told[:cut]]
        assert again == [path for path in asked if path not in known]


def test_remembering_what_is_never_proposed_changes_nothing(make, run, score, space):
    search = make()
    infeasible = dict.fromkeys(space, "a")
    search.remember(infeasible, {"top1": 1e9})
    assert run(search, score) == run(make(), score)
    with pytest.raises(PathError, match="is not in the search space"):
        search.remember({"other": "a"}, {"top1": 1.0})


def test_remembered_failures_end_the_search_too(make):
    search = make(population_size=2)
    paths = [search.ask(), search.ask()]
    resumed = make(population_size=2)
    for path in paths:
        resumed.remember(path, "crashed")
    with pytest.raises(SearchError, match="all 2 candidates failed"):
        resumed.ask()


def test_infeasible_constraints_are_refused_at_once(make):
    with pytest.raises(InfeasibleError, match=r"between 0 \(cheapest path\) and 12 \(dearest"):
        make(constraints=[Constraint.parse("flops >= 13")])
    make(constraints=[Constraint.parse("flops >= 12")])


@pytest.mark.parametrize("text", ["flops <= 2", "flops >= 12"])
def test_a_small_space_is_exhausted(make, run, score, space, text):
    limit = Constraint.parse(text)
    search = make(constraints=[limit])
    asked = {space.key(path) for path in run(search, score)}
    keys = itertools.product(range(3), repeat=6)
    # 1 + 6 + 21 paths of cost 0, 1 and 2 are more than the 24 candidates wanted.
    feasible = {key for key in keys if limit.allows(sum(key))}
    assert len(asked) == min(24, len(feasible)) == {2.0: 24, math.inf: 1}[limit.high]
    assert asked <= feasible
    search = make(constraints=[limit], num_generations=100)
    assert {space.key(path) for path in run(search, score)} == feasible
    assert search.ask() is Signal.FINISHED


@pytest.mark.slow
def test_a_large_space_with_few_feasible_paths_ends_too(make_costs, run, monkeypatch):
    monkeypatch.setattr(FeasibleSampler, "MAX_DRAWS", 3 * 4096)
    space = PathSpace({str(i): [0, 1, 2, 3] for i in range(9)})  # 262,144 paths
    for algorithm in SEARCHES:
        limits = [Constraint.parse("flops <= 5")]
        search = algorithm(space, make_costs(space), constraints=limits, num_generations=10**9)
        asked = run(search, lambda path: {"top1": 1.0})
        # All numbers of 9 digits 0..3 with a sum of at most 5, at the very most.
        assert 10 < len(asked) <= 1 + 9 + 45 + 165 + (495 - 9) + (1287 - 9 - 72)


@given(
    sizes=st.lists(st.integers(1, 3), min_size=1, max_size=5),
    high=st.integers(0, 8),
    population_size=st.integers(1, 7),
    num_generations=st.integers(1, 6),
    seed=st.integers(0, 2**40),
    workers=st.integers(1, 8),
    failing=st.sampled_from([0, 1, 4]),
    algorithm=st.sampled_from(SEARCHES),
)
@settings(max_examples=60)
def test_any_search_asks_for_feasible_paths_once_and_ends(
    make_costs,
    run,
    sizes,
    high,
    population_size,
    num_generations,
    seed,
    workers,
    failing,
    algorithm,
):
    space = PathSpace({str(i): list(range(size)) for i, size in enumerate(sizes)})
    limit = Constraint("flops", high=high)
    search = algorithm(
        space,
        make_costs(space),
        constraints=[limit],
        population_size=population_size,
        num_generations=num_generations,
        seed=seed,
    )

    def evaluate(path):
        value = sum(path.values())
        return "crashed" if value % 5 < failing else {"top1": value}

    try:
        asked = run(search, evaluate, workers)
    except SearchError:
        assert search.generation == 0
        assert all(c.state is State.FAILED for c in search.candidates)
        return
    keys = [space.key(path) for path in asked]
    feasible = [k for k in itertools.product(*map(range, sizes)) if limit.allows(sum(k))]
    assert len(set(keys)) == len(keys) == min(search.num_candidates, len(feasible))
    assert set(keys) <= set(feasible)


def feasible_paths(space, costs, number):
    """Return different paths that keep the limit."""
    stream = FeasibleSampler(space, costs, [LIMIT]).stream(np.random.default_rng(7))
    found = {}
    while len(found) < number:
        found[tuple(next(stream))] = None
    return space.decode(list(found))


def test_enqueued_paths_come_first(make, space):
    paths = feasible_paths(space, make().costs, 2)
    dear = {label: choices[-1] for label, choices in space.items()}
    search = make(population_size=4, num_generations=1)
    search.enqueue([paths[1], dear, paths[0], paths[1]])
    asked = list(iter(search.ask, Signal.WAIT))
    assert asked[:2] == [paths[1], paths[0]]  # one breaks the limit, one is there already
    assert len({space.key(path) for path in asked}) == 4
    with pytest.raises(PathError):
        search.enqueue([{**dear, space.labels[0]: "unknown"}])


def test_more_enqueued_paths_than_a_generation_has_go_on_in_the_next(make, space, score):
    paths = feasible_paths(space, make().costs, 9)
    search = make(population_size=2, num_generations=3)
    search.enqueue(paths)
    found = []
    while not isinstance(path := search.ask(), Signal):
        found.append(path)
        search.tell(path, score(path))
    assert found == paths[:6]
