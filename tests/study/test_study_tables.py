"""Tables of results, against figures by hand."""

from __future__ import annotations

import json
from types import SimpleNamespace

import pytest

from nni_spos.errors import ExperimentError
from nni_spos.evolution import Candidate, State
from nni_spos.study import tables
from nni_spos.study.tables import generations_table, searches_table, values_table

TOP1 = [[50.0, 70.0], [60.0, 40.0], [None, 80.0]]


@pytest.fixture
def searched(tmp_path, monkeypatch):
    """Folder of a search of two candidates a generation, of which the fifth failed."""
    candidates = [
        Candidate(
            {"layer": f"k{2 * g + i}"}, 2 * g + i, g, {"flops": 1000.0 * (2 * g + i)},
            State.FAILED if value is None else State.DONE, {} if value is None else {"top1": value},
        )
        for g, values in enumerate(TOP1)
        for i, value in enumerate(values)
    ]  # fmt: skip
    done = [x for x in candidates if x.metrics]
    best = max(done, key=lambda x: x.metrics["top1"])
    found = SimpleNamespace(candidates=candidates, objective="top1", num_done=5, best=best)
    (tmp_path / "search.jsonl").touch()
    monkeypatch.setattr(tables, "load_results", lambda folder: found)
    return tmp_path


def test_generations(searched, tmp_path):
    found = generations_table("t", {"a": str(searched), "b": str(tmp_path / "missing")})
    assert found.table.rows == [
        ["2", "70.00", "60.00", "-", "-"],
        ["4", "70.00", "50.00", "-", "-"],
        ["5", "80.00", "80.00", "-", "-"],
    ]
    assert [x["best_so_far"] for x in found.records[0]["generations"]] == [70, 70, 80]
    assert found.records[1] == {"search": "b", "generations": []}


def test_searches(searched):
    found = searches_table("t", {"a": str(searched), "b": str(searched / "missing")})
    assert found.table.rows == [
        ["a", "5", "80.00", "80.00", "5k", "not recorded"],
        ["b", "-", "-", "-", "-", "not recorded"],
    ]
    assert found.records[0]["path"] == {"layer": "k5"}


def test_values(tmp_path):
    file = tmp_path / "a#b.json"
    file.write_text(json.dumps({"part": {"tau": 0.71234, "of": [1]}, "rest": None}))
    assert values_table("t", {"x": str(file)}).table.rows == [
        ["x", "part.tau", "0.7123"],
        ["x", "rest", "-"],
    ]
    found = values_table("t", {"x": f"{file}#part", "y": str(tmp_path / "no.json#part")})
    assert found.table.rows == [["x", "tau", "0.7123"], ["y", "-", "-"]]
    assert found.records[0]["values"]["tau"] == 0.71234
    with pytest.raises(ExperimentError, match=r"a#b\.json: has no key 'other'"):
        values_table("t", {"x": f"{file}#other"})
