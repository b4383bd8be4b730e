"""The exported file's figures beside those of the search, in reports and results."""

from __future__ import annotations

import json

import pytest
from small_report import BEST, write_run

from nni_spos.cli import main
from nni_spos.errors import ExperimentError
from nni_spos.recipe.output import SearchFolder
from nni_spos.recipe.recipe import load_recipe
from nni_spos.report import gather_report, write_report
from nni_spos.report.exported import exported_table, read_exported
from nni_spos.search.run_record import RunRecorder

CONTENT = {
    "file": "model.onnx",
    "bytes": 23_600,
    "path": BEST,
    "weights": {"kind": "retrained"},
    "verification": {
        "images": "search-validation images",
        "network": {"top1": 71.5, "loss": 0.75, "num_images": 200},
        "file": {"top1": 71.25, "loss": 0.75, "num_images": 200},
    },
}
SPEED = {"runtime": "onnxruntime", "batch": 1, "threads": 1, "p50_ms": 1.25, "p90_ms": 1.5}


@pytest.fixture
def run(tmp_path):
    run = write_run(tmp_path / "w")
    folder = run.folder.parent / "exported"
    folder.mkdir()
    (folder / "export.json").write_text(json.dumps(CONTENT))
    (folder / "benchmark.json").write_text(json.dumps([SPEED]))
    return run


def change(run, name, content):
    (run.folder.parent / "exported" / name).write_text(json.dumps(content))


def rows_of(run):
    report = gather_report(run.folder, recipe=run.recipe)
    return exported_table(report.exported, report.results.candidates, report.task).rows


def test_its_figures_stand_beside_the_searchs(run):
    assert [list(row) for row in rows_of(run)] == [
        ["top-1 accuracy (%), search-validation images", "70.00", "71.25"],
        ["loss, search-validation images", "-", "0.7500"],
        ["latency in onnxruntime (ms), 1 image(s), 1 thread(s)", "-", "1.25 (p90 1.5)"],
        ["bytes", "-", "23.6kB"],
    ]


@pytest.mark.parametrize("format", ["html", "md"])
@pytest.mark.slow
def test_a_report_shows_them(run, format):
    report = gather_report(run.folder, recipe=run.recipe)
    text = write_report(report, format=format).read_text()
    assert "The exported file" in text
    assert "71.25" in text
    assert "1.25 (p90 1.5)" in text
    assert "the best path, with weights of its own" in text
    other = gather_report(run.folder, recipe=run.recipe, exported=run.folder.parent / "exported")
    assert other.exported == report.exported
    with pytest.raises(ExperimentError, match="is no folder that 'nni-spos export' wrote"):
        gather_report(run.folder, recipe=run.recipe, exported=run.folder)


def test_the_path_may_be_another(run):
    change(run, "export.json", {**CONTENT, "path": {**BEST, "layer_2": "k5"}})
    report = gather_report(run.folder, recipe=run.recipe)
    assert "another path than the best one" in write_report(report).read_text()
    assert rows_of(run)[0][1] == "-"


def test_without_a_file_nothing_is_said(run):
    (run.folder.parent / "exported" / "export.json").unlink()
    report = gather_report(run.folder, recipe=run.recipe)
    assert report.exported is None
    assert "The exported file" not in write_report(report).read_text()


@pytest.mark.parametrize(
    "content",
    [None, [], {}, {**CONTENT, "bytes": "many"}, {**CONTENT, "path": 5},
     {**CONTENT, "verification": {"file": {"top1": "high"}, "network": None}}],
)  # fmt: skip
def test_a_damaged_file_is_none(run, content):
    folder = run.folder.parent / "exported"
    assert read_exported(folder) is not None
    change(run, "export.json", content)
    assert read_exported(folder) is None
    change(run, "export.json", CONTENT)
    change(run, "benchmark.json", content)
    assert read_exported(folder).speeds == ()


def test_results_show_them(run, capsys):
    assert main(["results", str(run.folder)]) == 0
    assert "model.onnx" not in capsys.readouterr().out, "which recipe it is of is not recorded"
    RunRecorder(SearchFolder(run.folder), load_recipe(run.recipe), 0)
    assert main(["results", str(run.folder)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert "exported has the best path, with weights of its own." in lines
    assert any(line.split()[-2:] == ["-", "23.6kB"] for line in lines)
