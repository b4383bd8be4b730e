"""What every search promises."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path as FilePath
from typing import Any

import numpy as np

from nni_spos.constraint import Constraint
from nni_spos.cost_table import CostTable
from nni_spos.evolution import Candidate, Search, Signal, State
from nni_spos.path import Path, PathSpace
from nni_spos.recipe.search_settings import SearchSettings
from nni_spos.search.building import build_search
from nni_spos.testing.small_space import COSTS, SPACE

LIMIT = Constraint("flops", high=130)
"""Kept by eight of the twelve paths."""

SETTINGS: Mapping[str, Any] = {"population_size": 3, "num_generations": 3}


class SearchCase:
    """A search as a recipe names it, over a space of twelve paths.

    Parameters
    ----------
    name
        As ``algorithm`` in the section ``search`` of a recipe.
    folder
        Where a user's module is looked for: the recipe's folder.
    keys
        Those that the search declares itself.
    """

    space: PathSpace = SPACE
    costs: Mapping[str, CostTable] = COSTS

    def __init__(self, name: str, folder: str | os.PathLike[str] | None = None, **keys: Any):
        self.name = name
        self.folder = None if folder is None else FilePath(folder).absolute()
        self.keys = keys

    def make(self, **settings: Any) -> Search:
        """Return a new search; `settings` are keys of the section that every search has."""
        section = SearchSettings(self.name, **settings, arguments=self.keys, folder=self.folder)
        return build_search(section, self.space, self.costs)


def every_path_is_asked_for_once(case: SearchCase) -> None:
    """No path is asked for twice, and there are no more than the search has room for."""
    search = case.make(**SETTINGS)
    paths = [candidate.path for candidate in _finish(search)]
    keys = {case.space.key(path) for path in paths}
    assert 0 < len(keys) == len(paths), f"{len(paths)} candidates have {len(keys)} paths"
    assert len(paths) <= search.num_candidates, f"{len(paths)} candidates are too many"


def every_candidate_keeps_the_constraints(case: SearchCase) -> None:
    """Only paths that meet the constraints are asked for."""
    search = case.make(**{**SETTINGS, "num_generations": 9}, constraints=[LIMIT])
    found = _finish(search)
    assert found, "there are no candidates"
    broken = [x.path for x in found if not LIMIT.allows(case.costs["flops"].price(x.path))]
    assert not broken, f"{broken[0]} breaks '{LIMIT}'"


def every_candidate_has_its_costs(case: SearchCase) -> None:
    """A candidate knows its costs before it is evaluated."""
    for candidate in _finish(case.make(**SETTINGS)):
        prices = {metric: table.price(candidate.path) for metric, table in case.costs.items()}
        assert candidate.costs == prices, f"{candidate.costs} are not the costs {prices}"


def a_generation_is_not_larger_than_the_population(case: SearchCase) -> None:
    """Generations are counted from 0, and neither they nor their candidates are too many."""
    sizes: dict[int, int] = {}
    for candidate in _finish(case.make(**SETTINGS)):
        sizes[candidate.generation] = sizes.get(candidate.generation, 0) + 1
    assert list(sizes) == list(range(len(sizes))), f"the generations are {list(sizes)}"
    assert len(sizes) <= SETTINGS["num_generations"], f"there are {len(sizes)} generations"
    largest = max(sizes.values())
    assert largest <= SETTINGS["population_size"], f"a generation has {largest} candidates"


def the_seed_decides(case: SearchCase) -> None:
    """The same seed and results give the same candidates."""
    found = [[x.path for x in _finish(case.make(**SETTINGS, seed=3))] for _ in range(2)]
    assert found[0] == found[1], "the candidates differ from run to run"


def other_randomness_does_not_matter(case: SearchCase) -> None:
    """No generator but the search's own is used."""
    found = []
    for seed in (0, 1):
        np.random.seed(seed)
        found.append([x.path for x in _finish(case.make(**SETTINGS, seed=3))])
    assert found[0] == found[1], "the candidates depend on NumPy's global generator"


def the_order_of_results_does_not_matter(case: SearchCase) -> None:
    """Results may come in any order."""
    found = [_finish(case.make(**SETTINGS), reverse=x) for x in (False, True)]
    paths = [[x.path for x in candidates] for candidates in found]
    assert paths[0] == paths[1], "the candidates depend on which result comes first"


def it_waits_for_the_results_of_a_generation(case: SearchCase) -> None:
    """The next generation is proposed when all results of the one before are there."""
    search = case.make(**SETTINGS)
    asked = []
    while isinstance(path := search.ask(), dict):
        asked.append(path)
    assert path is Signal.WAIT, f"it says {path} while results are missing"
    for path in asked:
        search.tell(path, _score(path))
    assert search.ask() is not Signal.WAIT, "it waits although all results are there"


def it_goes_on_where_it_stopped(case: SearchCase) -> None:
    """A search that is resumed with its old results has the candidates that it would have had."""
    whole = _finish(case.make(**SETTINGS))
    resumed = case.make(**SETTINGS)
    for candidate in whole[: len(whole) // 2]:
        resumed.remember(candidate.path, candidate.metrics)
    paths = [[x.path for x in candidates] for candidates in (_finish(resumed), whole)]
    assert paths[0] == paths[1], "a resumed search has other candidates"


def a_failed_path_is_not_asked_for_again(case: SearchCase) -> None:
    """A failure excludes a path, and the search goes on."""
    search = case.make(**SETTINGS)
    failed = search.ask()
    assert isinstance(failed, dict), "there is no candidate"
    search.tell_failure(failed, "out of memory")
    found = _finish(search)
    assert [x.path for x in found if x.state is State.FAILED] == [failed], "it failed once only"
    keys = {case.space.key(x.path) for x in found}
    assert len(keys) == len(found) > 1, f"{len(found)} candidates have {len(keys)} paths"


def it_ends_where_the_space_does(case: SearchCase) -> None:
    """It ends when there are no more paths, and stays ended."""
    search = case.make(population_size=50, num_generations=30)
    number = len(_finish(search))
    assert number <= case.space.size, f"{number} candidates in {case.space.size} paths"
    assert search.ask() is Signal.FINISHED, "it is not over"


def the_objective_is_any_result(case: SearchCase) -> None:
    """What is to be as high as possible is what the recipe says."""
    search = case.make(**SETTINGS, objective="top5")
    found = _finish(search, objective="top5")
    best = max(x.metrics["top5"] for x in found)
    assert search.top(1)[0].metrics["top5"] == best, "the first is not the best"


def _finish(search: Search, *, reverse: bool = False, objective: str = "top1") -> list[Candidate]:
    """Run a search to its end and return all candidates, in the order of proposal."""
    while True:
        asked = []
        while isinstance(path := search.ask(), dict):
            asked.append(path)
        if path is Signal.FINISHED and not asked:
            return search.candidates
        for path in reversed(asked) if reverse else asked:
            search.tell(path, _score(path, objective))


def _score(path: Path, objective: str = "top1") -> dict[str, float]:
    """Return results that are better the wider a path is."""
    return {objective: sum(map(float, (path["width"], path["bits"]))) + (path["layer"] == "k5")}


CHECKS: tuple[Callable[[SearchCase], None], ...] = (
    every_path_is_asked_for_once,
    every_candidate_keeps_the_constraints,
    every_candidate_has_its_costs,
    a_generation_is_not_larger_than_the_population,
    the_seed_decides,
    other_randomness_does_not_matter,
    the_order_of_results_does_not_matter,
    it_waits_for_the_results_of_a_generation,
    it_goes_on_where_it_stopped,
    a_failed_path_is_not_asked_for_again,
    it_ends_where_the_space_does,
    the_objective_is_any_result,
)
"""Everything that is promised, as functions of a case."""
