"""A converted network searched under NNI."""

from __future__ import annotations

import json
import sys

import pytest
from small_conversions import RECIPE, write_project

from nni_spos.cli import main
from nni_spos.experiment.start import ManagerOptions, start
from nni_spos.recipe.recipe import load_recipe
from nni_spos.search.results import load_results
from nni_spos.search.running import run_search


@pytest.mark.nni
def test_it_is_the_search_in_this_process(study, monkeypatch):
    monkeypatch.chdir(study.folder)
    search = {
        "population_size": 4,
        "num_generations": 2,
        "top_k": 2,
        "constraints": ["flops <= 90%"],
    }
    choices = {"channels": [0.25, 0.5, 0.75, 1.0], "round_to": 1}
    file = write_project(study.folder, search=search, choices=choices)
    assert RECIPE["supernet"] == {"epochs": 0}
    assert main(["train", str(file), "--paths", "0"]) == 0
    study.write_config(f"{sys.executable} -m nni_spos.cli trial recipe.yml")
    assert main(["space", str(file), "--output", "space.json"]) == 0
    result = start(study.config, ManagerOptions(port=study.port), report=lambda line: None)
    assert result.status == "DONE"
    assert study.processes() == []
    found = load_results(result.id)
    here = run_search(load_recipe(file), progress=False)
    assert [c.path for c in found.candidates] == [c.path for c in here.candidates]
    kept = json.loads((study.folder / "output" / "search" / "first_paths.json").read_text())
    assert set(map(str, kept["paths"])) <= {str(c.path) for c in found.candidates}
