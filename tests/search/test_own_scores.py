"""A search over any space, by a score that is a function of the user's."""

import pytest

import nni_spos as spos
from nni_spos.errors import ConstraintError, CostError, RecipeError, SearchError
from nni_spos.path import PathSpace
from nni_spos.testing.small_space import COSTS, SPACE

SMALL = {"population_size": 4, "num_generations": 2, "top_k": 2, "progress": False}


def score(path):
    return path["width"] + path["bits"] + (path["layer"] == "k5")


def by_hand(**options):
    limits = [spos.Constraint.parse(text) for text in options.pop("constraints", [])]
    search = spos.EvolutionSearch(
        SPACE, COSTS, constraints=limits, population_size=4, num_generations=2, top_k=2, **options
    )
    while (path := search.ask()) is not spos.Signal.FINISHED:
        search.tell(path, {"top1": score(path)})
    return search


def summary(search):
    return [(x.path, x.metrics, x.costs, x.generation) for x in search.candidates]


@pytest.mark.parametrize("result", [score, lambda path: {"top1": score(path)}])
def test_a_number_and_a_mapping_find_what_ask_and_tell_find(result):
    found = spos.search_paths(SPACE, result, COSTS, constraints=["flops <= 100"], **SMALL)
    assert summary(found) == summary(by_hand(constraints=["flops <= 100"]))
    assert found.best.costs["flops"] <= 100
    assert found.best.metrics["top1"] == max(c.metrics["top1"] for c in found.candidates)


def test_a_model_space_is_searched_without_costs():
    space = spos.ShuffleNetV2Space.small(num_classes=2, in_channels=1, input_size=8)
    found = spos.search_paths(space, lambda path: float(path["layer_1"] == "k5"), **SMALL)
    assert found.space == PathSpace.from_model_space(space)
    assert len(found.candidates) == 8


def test_the_objective_can_have_any_name():
    found = spos.search_paths(
        SPACE, lambda path: {"miou": score(path), "top1": 0}, objective="miou", **SMALL
    )
    assert found.best.metrics["miou"] == max(c.metrics["miou"] for c in found.candidates)
    named = spos.search_paths(SPACE, score, objective="miou", **SMALL)
    assert named.best.metrics == {"miou": named.best.metrics["miou"]}


def test_what_a_network_raises_excludes_the_path_and_nothing_else_does():
    def sometimes(path):
        if path["layer"] == "k5":
            raise RuntimeError("mat1 and mat2 shapes cannot be multiplied")
        return score(path)

    found = spos.search_paths(SPACE, sometimes, **SMALL)
    failed = [c for c in found.candidates if c.reason]
    assert failed
    assert all(c.path["layer"] == "k5" and "mat1" in c.reason for c in failed)
    with pytest.raises(KeyError, match="nowhere"):
        spos.search_paths(SPACE, lambda path: path["nowhere"], **SMALL)


def test_a_generation_is_scored_together_where_that_is_offered():
    class Together:
        calls = ()

        def score_many(self, paths, progress):
            self.calls = (*self.calls, len(paths))
            progress(1.0)
            return [{"top1": score(path)} for path in paths]

    together = Together()
    found = spos.search_paths(SPACE, together, **SMALL)
    assert together.calls == (4, 4)
    assert summary(found) == summary(spos.search_paths(SPACE, score, **SMALL))


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"population": 4}, RecipeError, "search_paths: unknown key 'population'; did you mean"),
        ({"constraints": ["flops <= 1"]}, ConstraintError, "flops"),
        ({"constraints": ["flop <= 1"]}, ConstraintError, "flop"),
        ({"objective": "loss"}, RecipeError, "log_likelihood"),
    ],
)
def test_wrong_settings_are_refused(changes, error, message):
    with pytest.raises(error, match=message):
        spos.search_paths(SPACE, score, COSTS, **changes)


def test_costs_of_another_space_are_refused():
    other = PathSpace({"layer": ["k3", "k5"]})
    with pytest.raises(CostError, match="cost table flops: was made for another space"):
        spos.search_paths(other, score, COSTS)


def test_a_result_without_the_objective_is_refused():
    with pytest.raises(SearchError, match="the result's 'top1' must be a finite number"):
        spos.search_paths(SPACE, lambda path: {"accuracy": 1.0}, **SMALL)


def test_a_search_says_how_far_it_is():
    search = spos.EvolutionSearch(SPACE, COSTS, constraints=["flops <= 100"], num_generations=1)
    assert repr(search) == "<EvolutionSearch: 0 of 50 candidates>"
    with pytest.raises(SearchError, match="no candidate of the search is finished yet"):
        _ = search.best
    search.tell(search.ask(), {"top1": 71.25})
    assert repr(search) == "<EvolutionSearch: 1 of 50 candidates, best top1 71.25>"
    assert search.best.metrics == {"top1": 71.25}


def test_a_table_of_costs_says_what_it_is_of():
    assert repr(COSTS["flops"]) == "<CostTable flops: 3 labels, 12 paths>"


def test_data_says_what_it_holds():
    data = spos.open_data(spos.DataSettings("digits"))
    assert repr(data) == (
        f"<ImageData digits: {data.num_train:,} training and {data.num_validation:,} validation "
        "images, 1 x 16 x 16, 10 classes>"
    )
