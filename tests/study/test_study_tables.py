"""Tables of results, against figures by hand."""

from __future__ import annotations

import dataclasses
import json
from types import SimpleNamespace

import pytest

from nni_spos.errors import ExperimentError
from nni_spos.evolution import Candidate, State
from nni_spos.study import tables
from nni_spos.study.tables import generations_table, searches_table, values_table
from nni_spos.tasks.classification import Classification
from nni_spos.tasks.regression import Regression

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
    figure = Classification().figure("top1")
    found = SimpleNamespace(
        candidates=candidates, objective="top1", num_done=5, best=best, figure=figure
    )
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
    titles = ["best validation top-1 (%)", "mean of the last generation (%)"]
    assert found.table.header[2:4] == titles


def test_searches_of_other_tasks_have_their_names_and_units(searched, tmp_path, monkeypatch):
    of_classes = tables.load_results(searched)
    r2 = Regression().figure("r2")
    candidates = [
        dataclasses.replace(x, metrics={"r2": x.metrics["top1"] / 100} if x.metrics else {})
        for x in of_classes.candidates
    ]
    of_values = SimpleNamespace(
        candidates=candidates, objective="r2", num_done=5, best=candidates[5], figure=r2
    )
    other = tmp_path / "other"
    other.mkdir()
    (other / "search.jsonl").touch()
    found = {searched: of_classes, other: of_values}
    monkeypatch.setattr(tables, "load_results", found.__getitem__)

    alone = searches_table("t", {"b": str(other)})
    assert alone.table.header[2:4] == ["best validation R2", "mean of the last generation"]
    assert alone.table.rows == [["b", "5", "0.8000", "0.8000", "5k", "not recorded"]]
    both = searches_table("t", {"a": str(searched), "b": str(other)})
    assert both.table.header[2:4] == ["best validation result", "mean of the last generation"]
    cells = [row[2:4] for row in both.table.rows]
    assert cells == [["top-1 80.00 %"] * 2, ["R2 0.8000"] * 2]
    generations = generations_table("t", {"a": str(searched), "b": str(other)})
    assert generations.table.header == [
        "candidates so far", "a: best top-1 so far (%)", "a: mean (%)", "b: best R2 so far",
        "b: mean",
    ]  # fmt: skip
    assert generations.table.rows[1] == ["4", "70.00", "50.00", "0.7000", "0.5000"]


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
