import importlib

import numpy as np
import pytest

from nni_spos.constraint import Constraint
from nni_spos.cost_table import CostTable, Factor
from nni_spos.counting import PathCounter
from nni_spos.evolution import EvolutionSearch, FeasibleSampler, RandomSearch
from nni_spos.path import PathSpace

SPACE = PathSpace({f"layer_{i}": ["k3", "k5", "k7", "xcep"] for i in range(20)})
MODULE = importlib.import_module("nni_spos.evolution.breeding")


@pytest.fixture
def make(make_costs):
    def make(**settings):
        return EvolutionSearch(SPACE, make_costs(SPACE), **settings)

    return make


def next_generation(search):
    """Ask for all paths of a generation, as keys."""
    keys = []
    while isinstance(path := search.ask(), dict):
        keys.append(SPACE.key(path))
    return keys


def tell_all(search, keys):
    """Score keys by their sum."""
    for key in keys:
        search.tell(SPACE.decode([key])[0], {"top1": sum(key)})


def distance(one, other):
    return sum(a != b for a, b in zip(one, other, strict=True))


def test_defaults_are_the_papers(make):
    search = make()
    assert (search.population_size, search.num_generations, search.top_k) == (50, 20, 10)
    assert (search.num_mutations, search.num_crossovers, search.mutation_prob) == (25, 25, 0.1)


def test_the_first_generation_is_that_of_random_search(make, make_costs):
    limits = [Constraint.parse("flops <= 30")]
    random = RandomSearch(SPACE, make_costs(SPACE), constraints=limits, seed=5)
    assert next_generation(make(constraints=limits, seed=5)) == next_generation(random)


def test_mutants_are_near_their_parent(make):
    search = make(population_size=60, top_k=1, num_mutations=40, num_crossovers=0)
    first = next_generation(search)
    tell_all(search, first)
    parent = max(first, key=sum)
    distances = np.array([distance(parent, key) for key in next_generation(search)])
    # 20 units change with probability 0.1 * 3/4, given that at least one does: 1.90 on average.
    # A random path differs in 15 of 20 units, give or take 1.9.
    assert distances[:40].min() >= 1
    assert distances[:40].max() <= 6
    assert distances[:40].mean() == pytest.approx(1.9, abs=0.5)
    assert distances[40:].min() >= 8
    assert distances[40:].mean() == pytest.approx(15, abs=1.5)


def test_children_have_the_units_of_two_parents(make):
    search = make(population_size=40, top_k=2, num_mutations=0, num_crossovers=30)
    first = next_generation(search)
    tell_all(search, first)
    mother, father = sorted(first, key=sum, reverse=True)[:2]
    inherited = [
        all(unit in pair for unit, *pair in zip(key, mother, father, strict=True))
        for key in next_generation(search)
    ]
    assert inherited == [True] * 30 + [False] * 10


def test_a_single_parent_has_no_children(make):
    search = make(population_size=10, top_k=1, num_mutations=0, num_crossovers=10)
    tell_all(search, first := next_generation(search))
    second = next_generation(search)
    assert len(second) == 10, "random paths instead"
    assert min(distance(max(first, key=sum), key) for key in second) >= 8


def test_parents_are_the_best_of_all_so_far(make, monkeypatch):
    parents = []

    def spy(parent, *arguments):
        parents.append(parent)
        return mutate(parent, *arguments)

    mutate = MODULE.mutate
    monkeypatch.setattr(MODULE, "mutate", spy)
    search = make(population_size=30, num_generations=5, top_k=3, num_crossovers=0)
    seen = []
    for generation in range(5):
        parents.clear()
        keys = next_generation(search)
        if generation:
            assert set(parents) == set(sorted(seen, key=sum, reverse=True)[:3])
        else:
            assert not parents
        seen += keys
        tell_all(search, keys)


def test_failed_candidates_are_no_parents(make, monkeypatch):
    parents = []
    monkeypatch.setattr(MODULE, "mutate", lambda parent, *_: parents.append(parent) or parent)
    search = make(population_size=10, num_crossovers=0)
    keys = next_generation(search)
    for key in keys[:8]:
        search.tell_failure(SPACE.decode([key])[0], "crashed")
    tell_all(search, keys[8:])
    next_generation(search)
    assert set(parents) == set(keys[8:])


def test_breeding_gives_up(make, monkeypatch):
    calls = []
    monkeypatch.setattr(MODULE, "mutate", lambda parent, *_: calls.append("mutate") or parent)
    monkeypatch.setattr(MODULE, "crossover", lambda one, *_: calls.append("cross") or one)
    search = make(population_size=8, num_mutations=5, num_crossovers=3)
    tell_all(search, next_generation(search))
    assert len(next_generation(search)) == 8
    assert calls == ["mutate"] * 50 + ["cross"] * 30


def test_offspring_keep_the_constraints(make):
    search = make(constraints=[Constraint.parse("30 <= flops <= 31")], population_size=20)
    for _ in range(5):
        keys = next_generation(search)
        assert len(keys) == 20
        assert all(30 <= sum(key) <= 31 for key in keys)
        tell_all(search, keys)


@pytest.mark.parametrize("texts", [(), ("flops <= 30",)])
@pytest.mark.slow
def test_beats_random_search(make_costs, run, texts):
    leads = []
    for seed in range(8):
        weights = np.random.default_rng(seed).random((20, 4))
        average, best = 20 * weights.mean(), weights.max(axis=1).sum()

        def score(path, weights=weights):
            return {"top1": float(weights[range(20), SPACE.key(path)].sum())}

        found = []
        for algorithm in (EvolutionSearch, RandomSearch):
            search = algorithm(
                SPACE,
                make_costs(SPACE),
                constraints=[Constraint.parse(text) for text in texts],
                population_size=20,
                num_generations=10,
                seed=seed,
            )
            run(search, score)
            found.append(search.top(1)[0].metrics["top1"])
        # How much further on the way from an average path to the best path of the whole space.
        leads.append((found[0] - found[1]) / (best - average))
    assert min(leads) > 0.05
    assert np.mean(leads) > 0.25


RARE = Constraint.parse("flops <= 7")  # fewer than one path in a million


@pytest.fixture
def rare(make):
    return lambda **settings: make(constraints=[RARE], num_generations=6, **settings)


def test_rare_limits_are_rare(make_costs):
    share = EvolutionSearch(SPACE, make_costs(SPACE), constraints=[RARE]).sampler.share
    assert 0 < share < 1e-6


def test_generations_under_rare_limits_are_full_feasible_and_bred(rare, monkeypatch):
    filled = []
    stream = FeasibleSampler.stream

    def spy(self, generator):
        for key in stream(self, generator):
            filled.append(key)
            yield key

    monkeypatch.setattr(FeasibleSampler, "stream", spy)
    search = rare()
    seen = set()
    for generation in range(6):
        filled.clear()
        keys = next_generation(search)
        assert len(keys) == 50
        assert all(sum(key) <= 7 for key in keys)
        assert not seen & set(keys)
        seen |= set(keys)
        if generation:
            assert len(set(filled) & set(keys)) <= 5, "nearly all are mutants and children"
        tell_all(search, keys)


def test_repaired_mutants_are_near_their_parent(make):
    search = make(
        constraints=[Constraint.parse("30 <= flops <= 30")],
        population_size=20,
        top_k=1,
        num_mutations=20,
        num_crossovers=0,
    )
    search.RARE = 1  # One path in 12 costs 30.
    search.TRIES = 1
    first = next_generation(search)
    tell_all(search, first)  # a tie: the first one is the best
    distances = np.array([distance(first[0], key) for key in next_generation(search)])
    assert np.median(distances) <= 5
    assert distances.min() >= 2, "one unit alone cannot change at the same cost"


def test_repaired_children_have_the_units_of_two_parents(make):
    search = make(
        constraints=[Constraint.parse("30 <= flops <= 30")],
        population_size=20,
        top_k=2,
        num_mutations=0,
        num_crossovers=20,
    )
    search.RARE = 1
    search.TRIES = 2
    first = next_generation(search)
    tell_all(search, first)
    inherited = [
        all(unit in pair for unit, *pair in zip(key, *first[:2], strict=True))
        for key in next_generation(search)
    ]
    assert sum(inherited) >= 15


def test_loose_limits_are_not_repaired(make, monkeypatch):
    monkeypatch.setattr(EvolutionSearch, "_repaired", lambda *_: pytest.fail("repaired"))
    search = make(constraints=[Constraint.parse("flops <= 30")], num_generations=8)
    for _ in range(8):
        tell_all(search, next_generation(search))


@pytest.mark.parametrize("workers", [3, 50])
def test_rare_limits_leave_the_order_of_results_and_resuming_free(rare, run, workers):
    def score(path):
        return {"top1": float(sum(SPACE.key(path)))}

    told = []
    whole = rare(population_size=20)
    asked = run(whole, score, workers=1, told=told)
    assert len(asked) == 120
    assert run(rare(population_size=20), score, workers) == asked
    resumed = rare(population_size=20)
    for path, outcome in told[:47]:
        resumed.remember(path, outcome)
    assert run(resumed, score, workers) == asked[47:]
    assert resumed.candidates == whole.candidates


@pytest.mark.slow
def test_all_paths_that_meet_rare_limits_are_found(make, run):
    search = make(
        constraints=[Constraint.parse("flops <= 2")], num_generations=10**6, population_size=30
    )
    asked = run(search, lambda path: {"top1": 1.0})
    assert len(asked) == 1 + 20 + (20 + 20 * 19 // 2)


def test_rare_limits_on_two_metrics(make_costs, run):
    generator = np.random.default_rng(0)
    factors = [Factor((label,), generator.random(4)) for label in SPACE]
    costs = make_costs(SPACE) | {"latency_ms": CostTable("latency_ms", SPACE, 0, factors)}
    low, high = PathCounter([costs["latency_ms"]]).extent()
    limits = [Constraint("flops", high=9), Constraint("latency_ms", high=low + (high - low) / 2)]
    search = EvolutionSearch(SPACE, costs, constraints=limits, num_generations=4)
    assert search.sampler.share < 1e-5
    asked = run(search, lambda path: {"top1": float(SPACE.key(path)[0])})
    assert len(asked) == 200
    for path in asked:
        assert all(limit.allows(costs[limit.metric].price(path)) for limit in limits)
