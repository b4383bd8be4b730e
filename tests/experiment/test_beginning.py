"""What an experiment's search of a converted network begins with."""

import json
import time

import pytest
from small_conversions import write_project
from waiting import PATIENCE

from nni_spos import load_recipe
from nni_spos.cli import main
from nni_spos.errors import ExperimentError
from nni_spos.experiment.beginning import Beginning
from nni_spos.recipe.output import SearchFolder
from nni_spos.search.first_paths import read_first_paths


def begin(recipe, folder):
    beginning = Beginning(recipe, SearchFolder(folder), {"of": "this"})
    end = time.monotonic() + PATIENCE
    while not beginning.is_over:
        assert time.monotonic() < end
        time.sleep(0.05)
    return beginning.paths()


@pytest.mark.spawn
def test_it_is_that_of_a_search_in_this_process(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    file = write_project(tmp_path)
    recipe = load_recipe(file)
    with pytest.raises(ExperimentError, match=r"supernet.pt: no such checkpoint. Train the"):
        begin(recipe, tmp_path / "apart")
    assert main(["train", str(file), "--paths", "0"]) == 0
    assert main(["search", str(file)]) == 0
    found = begin(recipe, tmp_path / "apart")
    here = json.loads((tmp_path / "output" / "search" / "first_paths.json").read_text())
    assert len(found) == 1
    assert found == here["paths"]
    own = SearchFolder(tmp_path / "apart").first_paths
    assert read_first_paths(own, {"of": "this"}) == found
    assert read_first_paths(own, {"of": "another"}) is None
    before = own.stat().st_mtime_ns
    assert begin(recipe, tmp_path / "apart") == found  # as after a resume
    assert own.stat().st_mtime_ns == before
