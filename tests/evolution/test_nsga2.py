import importlib
import itertools
import sys

import numpy as np
import pytest

from nni_spos.constraint import Constraint
from nni_spos.cost_table import CostTable, Factor
from nni_spos.errors import SearchError
from nni_spos.evolution import Nsga2Search, RandomSearch, pareto_front
from nni_spos.path import PathSpace

BREEDING = importlib.import_module("nni_spos.evolution.breeding")


@pytest.fixture
def parents_of(monkeypatch):
    """Tell a first generation its results, and see which parents the second one has."""

    def parents_of(points, population_size=None, seed=0, count=200):
        # One unit, whose choices are the points; so every cost can be chosen.
        space = PathSpace({"unit": list(range(len(points)))})
        table = CostTable(
            "flops", space, 0, [Factor(("unit",), np.array([flops for _, flops in points]))]
        )
        search = Nsga2Search(space, {"flops": table}, population_size=len(points), seed=seed)
        while isinstance(path := search.ask(), dict):
            search.tell(path, {"top1": points[path["unit"]][0]})
        search.population_size = population_size or len(points)
        picked = search.select(np.random.default_rng(seed))
        return [key[0] for key in itertools.islice(picked, count)]

    return parents_of


def test_a_dominated_path_never_wins_against_the_other(parents_of):
    assert set(parents_of([(70, 10), (60, 20)])) == {0}
    assert set(parents_of([(60, 20), (70, 10)])) == {1}
    assert set(parents_of([(60, 10), (70, 20)])) == {0, 1}, "neither dominates"


def test_the_most_crowded_do_not_survive(parents_of):
    # One front. Crowding distances of the inner ones, as shares of the ranges: 1: 2 / 10,
    # 2: 5 / 10, 3: 7 / 10, 4: 4 / 10.
    front = [(10, 10), (11, 11), (12, 12), (16, 16), (19, 19), (20, 20)]
    for seed in range(5):
        assert set(parents_of(front, seed=seed)) == {0, 2, 3, 4, 5}, "1 loses against all"
        assert set(parents_of(front, population_size=4, seed=seed)) == {0, 3, 5}, "2 loses"
        assert set(parents_of(front, population_size=3, seed=seed)) == {0, 3, 5}


def test_better_fronts_survive_first(parents_of):
    # Fronts {0, 1}, {2, 3}, {4, 5}.
    points = [(70, 20), (60, 10), (69, 21), (59, 11), (68, 22), (58, 12)]
    assert set(parents_of(points, population_size=4)) <= {0, 1, 2, 3}
    assert set(parents_of(points, population_size=2)) == {0, 1}
    counts = np.bincount(parents_of(points, count=6000), minlength=6)
    # In two tournaments each: the best front loses only to itself, the worst wins only there.
    assert counts[:2].sum() == pytest.approx(6000 * 0.6, rel=0.1)
    assert counts[4:].sum() == pytest.approx(6000 * 1 / 15, rel=0.2)


def test_a_single_survivor_is_every_parent(parents_of):
    assert parents_of([(70, 10)], count=5) == [0] * 5


def test_parents_survive_of_all_so_far(space, costs, score, run, monkeypatch):
    parents = []
    mutate = BREEDING.mutate
    monkeypatch.setattr(
        BREEDING, "mutate", lambda parent, *rest: parents.append(parent) or mutate(parent, *rest)
    )
    search = Nsga2Search(space, costs, population_size=30, num_generations=2, num_crossovers=0)
    run(search, score)
    first = search.candidates[:30]
    fronts, left = [], list(first)
    while left:
        fronts.append(pareto_front(left, "top1", ["flops"]))
        left = [candidate for candidate in left if candidate not in fronts[-1]]
    ranks = {space.key(c.path): rank for rank, front in enumerate(fronts) for c in front}
    assert len(fronts) > 2
    assert set(parents) <= set(ranks)
    assert np.mean([ranks[key] for key in parents]) < np.mean(list(ranks.values()))


def test_failed_candidates_are_no_parents(space, costs, monkeypatch):
    parents = []
    monkeypatch.setattr(BREEDING, "mutate", lambda parent, *_: parents.append(parent) or parent)
    search = Nsga2Search(space, costs, population_size=6, num_generations=2, num_crossovers=0)
    paths = [search.ask() for _ in range(6)]
    for path in paths[:4]:
        search.tell_failure(path, "crashed")
    for path in paths[4:]:
        search.tell(path, {"top1": 1.0})
    search.ask()
    assert parents
    assert set(parents) <= {space.key(path) for path in paths[4:]}


# Accuracy against cost with much to choose from: 3^8 paths, all of them scored.
SPACE = PathSpace({f"unit_{i}": ["a", "b", "c"] for i in range(8)})
KEYS = np.array(list(itertools.product(range(3), repeat=8)))
GENERATOR = np.random.default_rng(0)
GAINS = np.cumsum(GENERATOR.random((8, 3)), axis=1)
PRICES = np.cumsum(GENERATOR.integers(1, 9, (8, 3)), axis=1)
COSTS = {
    metric: CostTable(
        metric, SPACE, 0, [Factor((label,), table[i]) for i, label in enumerate(SPACE)]
    )
    for metric, table in {"flops": PRICES, "params": PRICES[:, ::-1]}.items()
}


def evaluate(path):
    gains = GAINS[range(8), SPACE.key(path)]
    return {"top1": float(gains.sum() - 0.5 * gains.min() * gains.max())}


ALL = [(evaluate(path)["top1"], COSTS["flops"].price(path)) for path in SPACE.decode(KEYS.tolist())]


def hypervolume(points):
    """Area that points dominate, as a share of the box around all paths of the space."""
    low, high = min(top1 for top1, _ in ALL), max(top1 for top1, _ in ALL)
    dear, cheap = max(cost for _, cost in ALL), min(cost for _, cost in ALL)
    area, best = 0.0, low
    edges = sorted(points, key=lambda point: (point[1], -point[0]))
    for (top1, cost), (_, following) in zip(edges, [*edges[1:], (0, dear)], strict=True):
        best = max(best, top1)
        area += (best - low) * (following - cost)
    return area / ((high - low) * (dear - cheap))


def test_hypervolume_by_hand():
    (low, high), (cheap, dear) = [(min(x), max(x)) for x in zip(*ALL, strict=True)]
    assert hypervolume([(high, cheap)]) == pytest.approx(1)
    assert hypervolume([(high, (cheap + dear) / 2)]) == pytest.approx(0.5)
    corner = [((low + high) / 2, cheap), (high, (cheap + dear) / 2)]
    assert hypervolume(corner) == hypervolume(corner[::-1]) == pytest.approx(0.75)


@pytest.mark.slow
def test_nearly_the_true_front_from_few_evaluations(run):
    whole = hypervolume(ALL)
    found = {Nsga2Search: [], RandomSearch: []}
    for algorithm, seed in itertools.product(found, range(5)):
        search = algorithm(SPACE, COSTS, population_size=30, num_generations=10, seed=seed)
        asked = run(search, evaluate)
        assert len(asked) == 300, "of 6561"
        points = [(evaluate(path)["top1"], COSTS["flops"].price(path)) for path in asked]
        found[algorithm].append(hypervolume(points) / whole)
    assert max(found[Nsga2Search]) <= 1
    assert min(found[Nsga2Search]) > 0.94
    assert min(found[Nsga2Search]) > max(found[RandomSearch]) + 0.02
    assert np.mean(found[Nsga2Search]) > 0.98


def test_the_exact_front_of_an_exhausted_space(space, costs, run):
    scores = dict(
        zip(
            itertools.product(range(3), repeat=6), np.random.default_rng(1).random(729), strict=True
        )
    )

    def random_score(path):
        return {"top1": scores[space.key(path)]}

    search = Nsga2Search(space, costs, population_size=90, num_generations=9)
    assert len(run(search, random_score)) == 729
    best, expected = 0.0, []
    for cost in range(13):
        top1, key = max((top1, key) for key, top1 in scores.items() if sum(key) == cost)
        if top1 > best:
            best = top1
            expected.append(key)
    assert [space.key(candidate.path) for candidate in search.front()] == expected


def test_three_objectives(run):
    search = Nsga2Search(
        SPACE, COSTS, cost_objectives=["flops", "params"], population_size=20, num_generations=5
    )
    run(search, evaluate)
    two = pareto_front(search.candidates, "top1", ["flops"])
    assert len(search.front()) > len(two)
    assert set(map(id, two)) & set(map(id, search.front()))


def test_costs_guide_it(run):
    """Without a limit, candidates get cheaper on one cost or the other as it is told."""
    prices = np.array([[c.price(p) for c in COSTS.values()] for p in SPACE.decode(KEYS.tolist())])
    share = (prices - prices.min(axis=0)) / np.ptp(prices, axis=0)
    keys = {tuple(key): share[i] for i, key in enumerate(KEYS.tolist())}
    for metric, column in (("flops", 0), ("params", 1)):
        search = Nsga2Search(
            SPACE, COSTS, cost_objectives=[metric], population_size=30, num_generations=8
        )
        run(search, lambda path: {"top1": 1.0})
        last = np.mean([keys[SPACE.key(c.path)] for c in search.candidates[-30:]], axis=0)
        assert last[column] < last[1 - column] - 0.05


def test_the_default_costs():
    limit = Constraint.parse("params <= 90")
    assert Nsga2Search(SPACE, COSTS).cost_objectives == ("flops",)
    assert Nsga2Search(SPACE, COSTS, constraints=[limit]).cost_objectives == ("params",)
    named = Nsga2Search(SPACE, COSTS, constraints=[limit], cost_objectives=["flops"])
    assert named.cost_objectives == ("flops",)


def test_unknown_costs_are_refused():
    Nsga2Search(SPACE, COSTS, cost_objectives=["flops", "params"])
    with pytest.raises(
        SearchError,
        match=r"^cost_objectives: unknown metric 'flop'; did you mean 'flops'\? "
        r"Metrics: flops, params\.$",
    ):
        Nsga2Search(SPACE, COSTS, cost_objectives=["params", "flop"])
    with pytest.raises(SearchError, match=r"unknown metric 'top1'"):
        Nsga2Search(SPACE, COSTS, cost_objectives=["top1"])


def test_without_pymoo_it_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "pymoo.algorithms.moo.nsga2", None)
    with pytest.raises(SearchError, match=r"pip install 'nni_spos\[nsga2\]'\.$") as caught:
        Nsga2Search(SPACE, COSTS)
    assert "\n" not in str(caught.value)
    RandomSearch(SPACE, COSTS)
