"""What is recorded beside a search: its recipe, and its time and memory over all of its parts."""

from __future__ import annotations

import json
import time

import pytest
from small_experiments import score

from nni_spos.files.tensors import load_tensors
from nni_spos.process.stage_cost import StageCost, read_stage_cost
from nni_spos.recipe.output import SearchFolder
from nni_spos.recipe.recipe import load_recipe
from nni_spos.search.run_record import RunRecord, RunRecorder, read_run_record
from nni_spos.search.running import run_search

PAUSE_S = 0.01


@pytest.fixture
def recipe(recipe_file):
    return load_recipe(recipe_file)


def search(recipe, num_allowed=99):
    calls = []

    def scorer(path):
        if len(calls) == num_allowed:
            raise KeyboardInterrupt
        calls.append(path)
        time.sleep(PAUSE_S)
        return {"top1": score(path)}

    run_search(recipe, scorer, progress=False)


def test_a_search_records_its_recipe_and_its_cost(recipe):
    search(recipe)
    record = read_run_record(recipe.files.search)
    assert record.recipe == recipe.file
    assert record.cost.seconds >= 18 * PAUSE_S
    assert record.cost.peak_memory_bytes is None or record.cost.peak_memory_bytes > 2**20


def test_the_parts_of_a_search_that_was_cut_off_add_up(recipe):
    with pytest.raises(KeyboardInterrupt):
        search(recipe, 9)
    first = read_run_record(recipe.files.search).cost
    assert first.seconds >= 9 * PAUSE_S
    search(recipe)
    second = read_run_record(recipe.files.search).cost
    assert second.seconds >= first.seconds + 9 * PAUSE_S
    search(recipe)  # it is only read
    assert read_run_record(recipe.files.search).cost == second


def test_a_search_whose_beginning_was_not_recorded_has_no_cost(recipe):
    with pytest.raises(KeyboardInterrupt):
        search(recipe, 9)
    recipe.files.search.record.unlink()
    search(recipe)
    record = read_run_record(recipe.files.search)
    assert (record.recipe, record.cost) == (recipe.file, None)


@pytest.mark.parametrize("content", ["", "[]", "null", '{"recipe": 5, "cost": {"seconds": "x"}}'])
def test_a_damaged_record_is_not_known(tmp_path, recipe, content):
    (tmp_path / "run.json").write_text(content)
    assert read_run_record(SearchFolder(tmp_path)) == RunRecord()
    RunRecorder(SearchFolder(tmp_path), recipe, 0).add(StageCost(2.0, 3, "cpu"))
    assert read_run_record(SearchFolder(tmp_path)) == RunRecord(
        recipe.file, recipe.output.name, StageCost(2.0, 3, "cpu")
    )
    assert json.loads((tmp_path / "run.json").read_text())["cost"]["seconds"] == 2.0


@pytest.mark.slow
def test_a_trained_supernet_knows_what_it_cost(tmp_path):
    from nni_spos.supernet.training import train_supernet

    file = tmp_path / "recipe.yml"
    file.write_text(
        "output: runs\nspace: {name: shufflenet_small}\nretrain: {epochs: 1}\n"
        "data: {name: digits, num_train: 64, augmentation: none}\n"
        "supernet: {steps: 2, batch_size: 32}\n"
    )
    recipe = load_recipe(file)
    begin = time.monotonic()
    cost = read_stage_cost(load_tensors(train_supernet(recipe))["cost"])
    assert 0 < cost.seconds <= time.monotonic() - begin
    (checkpoint,) = (recipe.output / "supernet").glob("step_*.ckpt")
    states = load_tensors(checkpoint)["callbacks"]
    saved = read_stage_cost(states["TrainingCost"]["cost"])
    assert 0 < saved.seconds <= cost.seconds
