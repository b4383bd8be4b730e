"""What a search says if its best path stays well below a limit, by hand and by brute force."""

from __future__ import annotations

import pytest
from small_experiments import score, write_recipe
from small_report import COSTS, OUTCOMES, write_run

from nni_spos.cli import main
from nni_spos.constraint import Constraint
from nni_spos.costs.stored import load_costs
from nni_spos.evolution import Candidate, State
from nni_spos.recipe.recipe import load_recipe
from nni_spos.search.results import load_results
from nni_spos.search.running import run_search
from nni_spos.search.unused_limit import find_unused_limit, tightest_limit, unused_line

NEIGHBOURS = "Paths that differ from it in one choice, cost more and keep all limits:"
ADVICE = " To try more: raise population_size or num_generations in 'search'."
# The best path, (k3, 4, k3), costs 1131. (k3, 4, k5), which failed, costs 1132, and (k5, 4, k3),
# which was not tried, 1343; (k3, 2, k3) costs less.
WITH_K5 = [*OUTCOMES, (("k5", 4, "k3"), 1, 69.5)]


@pytest.mark.parametrize(
    ("limits", "outcomes", "text"),
    [
        (
            ["flops <= 2k"],
            OUTCOMES,
            f"56 % {{}} of 2k). {NEIGHBOURS} 1 failed, 1 not tried.{ADVICE}",
        ),
        (["flops <= 1.2k"], OUTCOMES, f"94 % {{}} of 1.2k). {NEIGHBOURS} 1 failed, 0 not tried."),
        (
            ["flops <= 2k", "bitops <= 10k"],
            WITH_K5,
            f"56 % {{}} of 2k). {NEIGHBOURS} 1 scored and none better (the best has 69.50 %), "
            "1 failed, 0 not tried.",
        ),
        (
            ["flops <= 2k", "bitops <= 120"],
            OUTCOMES,
            "83 % of the limit of bitops (100 of 120). There are no paths that differ from it in "
            "one choice, cost more and keep all limits.",
        ),
        (["flops <= 2k", "bitops <= 105"], OUTCOMES, ""),
        (["flops <= 1190"], OUTCOMES, ""),
        (["flops >= 1k"], OUTCOMES, ""),
        ([], OUTCOMES, ""),
        (["flops <= 100%"], OUTCOMES, f"84 % {{}} of 1.344k). {NEIGHBOURS} 1 failed, 1 not tried."),
    ],
)
def test_the_line_by_hand(tmp_path, limits, outcomes, text):
    run = write_run(tmp_path / "w", outcomes, constraints=limits)
    line = unused_line(load_results(run.folder), COSTS)
    text = text.format("of the limit of flops (1.131k")
    assert line.startswith(f"the best path uses {text}" if text else "")
    assert bool(line) == bool(text)
    assert line.endswith(ADVICE) == (", 1 not tried" in text)


def test_without_cost_tables_the_journal_has_to_do(tmp_path):
    run = write_run(tmp_path / "a", WITH_K5)
    line = unused_line(load_results(run.folder), {})
    counts = "1 scored and none better (the best has 69.50 %), 1 failed"
    rest = "how many were not tried is not known without the cost tables."
    assert line.endswith(f"{NEIGHBOURS} {counts}, {rest}")
    run = write_run(tmp_path / "b", constraints=["flops <= 100%"])
    assert unused_line(load_results(run.folder), {}) == "", "a share of what is not known"


def test_costs_that_are_minimised_and_damage_are_left_alone(tmp_path):
    run = write_run(tmp_path / "a", algorithm="nsga2")
    assert unused_line(load_results(run.folder), COSTS) == ""
    run = write_run(tmp_path / "b", settings={"choices": {"layer_1": 3}})
    assert unused_line(load_results(run.folder), COSTS) == ""
    failed = [(choices, generation, None) for choices, generation, _ in OUTCOMES]
    run = write_run(tmp_path / "c", failed)
    assert unused_line(load_results(run.folder), COSTS) == ""


def neighbours_by_brute_force(space, costs, limits, best, metric):
    """All paths of the space that differ in one choice, cost more and keep the limits."""
    return [
        path
        for path in space.decode(space.enumerate())
        if sum(path[label] != best.path[label] for label in space) == 1
        and costs[metric].price(path) > best.costs[metric]
        and all(x.allows(costs[x.metric].price(path)) for x in limits)
    ]


@pytest.mark.parametrize("limit", ["flops <= 7", "2 <= flops <= 7", "flops <= 88%"])
def test_a_search_against_brute_force(tmp_path, limit, capsys):
    file = write_recipe(tmp_path, constraints=[limit], num_generations=2)
    recipe = load_recipe(file)

    def scorer(path):  # the dearest choices score nothing
        return {"top1": score(path) if path["a"] != "k7" and path["ratio"] < 2 else 0.0}

    results = run_search(recipe, scorer, progress=False)
    found = find_unused_limit(results)
    space, costs = load_costs(recipe)
    dearest = costs["flops"].dearest()[0]
    limits = [Constraint.parse(limit).of(dearest)]
    expected = neighbours_by_brute_force(space, costs, limits, results.best, "flops")
    by_path = {space.key(c.path): c for c in results.candidates}
    tried = [by_path[space.key(x)] for x in expected if space.key(x) in by_path]
    assert [c.path for c in found.scored] == [
        c.path for c in sorted(tried, key=lambda c: (-c.metrics["top1"], c.number))
    ]
    assert found.num_untried == len(expected) - len(tried)
    assert expected
    assert tried or limit.startswith("2")
    assert found.limit == limits[0]
    assert all(c.state is State.DONE for c in found.scored)
    assert main(["results", str(results.folder.path)]) == 0
    assert found.describe(results.figure) in capsys.readouterr().out.splitlines()


def test_limits_that_results_are_picked_by_count(tmp_path, capsys):
    run = write_run(tmp_path / "w", WITH_K5, constraints=["flops <= 1131", "bitops <= 1k"])
    assert unused_line(load_results(run.folder), COSTS) == ""
    run = write_run(tmp_path / "v", WITH_K5, constraints=[])
    assert main(["results", str(run.folder), "--limit", "flops <= 1.4k"]) == 0
    output = capsys.readouterr().out
    assert "80 % of the limit of flops (1.131k of 1.4k)" in output
    rest = "1 scored and none better (the best has 69.50 %), 1 failed, how many"
    assert rest in output, "the run has no record of its recipe"
    limits = [Constraint.parse("flops <= 1.4k")]
    line = unused_line(load_results(run.folder).within(limits), COSTS, limits)
    assert "1 scored and none better (the best has 69.50 %), 1 failed, 0 not tried." in line


def test_the_tightest_limit():
    costs = {"flops": 50, "params": 9}
    best = Candidate({"a": 1}, 0, 0, costs, State.DONE, {"top1": 1.0})
    parse = Constraint.parse
    limits = [parse("flops <= 100"), parse("params <= 10"), parse("flops >= 49"), parse("x <= 1")]
    assert tightest_limit(best, limits, {}) == parse("params <= 10")
    assert tightest_limit(best, limits[:1], {}) == parse("flops <= 100")
    assert tightest_limit(best, limits[2:], {}) is None
    assert tightest_limit(best, [parse("flops <= 0")], {}) is None
    assert tightest_limit(best, [*limits, parse("flops <= 10%")], {}) is None
