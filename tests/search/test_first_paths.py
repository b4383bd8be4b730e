"""What a search of a converted network begins with."""

import numpy as np
import pytest

from nni_spos import search_paths
from nni_spos.cost_table import CostTable, Factor
from nni_spos.errors import ExperimentError
from nni_spos.path import PathSpace
from nni_spos.recipe.search_settings import SearchSettings
from nni_spos.search.first_paths import find_first_paths, kept_first_paths

SPACE = PathSpace({f"unit_{i}": [4, 2, 1] for i in range(6)})
COSTS = {
    "flops": CostTable(
        "flops", SPACE, 0, [Factor((label,), np.array([4, 2, 1])) for label in SPACE.labels]
    )
}
LIMIT = ["flops <= 12"]


def score(path):
    """Only the first three units matter; what is too narrow there gives chance."""
    kept = sum(path[label] for label in SPACE.labels[:3])
    return {"top1": 10.0 if kept < 9 else 10.0 * kept, "loss": 12.0 - kept}


def settings(**changes):
    return SearchSettings().changed({"constraints": LIMIT, "population_size": 4, **changes}, "")


def test_they_are_known_from_single_changes():
    seen = []

    def noted(path):
        seen.append(path)
        return score(path)

    found = find_first_paths(SPACE, COSTS, settings(), noted, progress=False)
    assert len(found) == 2  # half of a generation
    # All of the limit goes to the units that matter.
    assert sum(found[0][label] for label in SPACE.labels[:3]) == 9
    assert all(COSTS["flops"].price(path) <= 12 for path in found)
    assert len(seen) == 1 + 6 * 2


def test_a_choice_that_cannot_be_run_is_avoided():
    def fails(path):
        if path["unit_5"] == 1:
            raise FloatingPointError("no")
        return score(path)

    with pytest.raises(FloatingPointError):
        find_first_paths(SPACE, COSTS, settings(), fails, progress=False)

    def not_finite(path):
        return {**score(path), "loss": float("nan")} if path["unit_5"] == 1 else score(path)

    found = find_first_paths(SPACE, COSTS, settings(), not_finite, progress=False)
    assert all(path["unit_5"] > 1 for path in found)


def test_nothing_is_promised_of_a_network_that_cannot_be_scored():
    nothing = find_first_paths(
        SPACE, COSTS, settings(), lambda path: {"top1": float("nan")}, progress=False
    )
    assert nothing == []


def test_a_search_begins_with_them():
    least = {"population_size": 4, "num_generations": 1, "progress": False, "constraints": LIMIT}
    plain = search_paths(SPACE, score, COSTS, **least)
    found = search_paths(SPACE, score, COSTS, sensitivity=True, **least)
    first = find_first_paths(SPACE, COSTS, settings(), score, progress=False)
    assert [candidate.path for candidate in found.candidates[:2]] == first
    assert found.best.metrics["loss"] <= plain.best.metrics["loss"]


def test_they_are_kept_for_as_long_as_nothing_else_changes(tmp_path):
    file, calls = tmp_path / "first_paths.json", []

    def find():
        calls.append(len(calls))
        return [dict.fromkeys(SPACE.labels, calls[-1])]

    first = kept_first_paths(file, {"limit": 1}, find)
    assert kept_first_paths(file, {"limit": 1}, find) == first
    assert kept_first_paths(file, {"limit": 2}, find) != first
    assert len(calls) == 2
    file.write_text("{")
    with pytest.raises(ExperimentError, match=r"first_paths\.json"):
        kept_first_paths(file, {"limit": 2}, find)
