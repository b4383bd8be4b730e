"""What is on the disk is shown as today's only if it is: else one line says what has changed."""

from __future__ import annotations

import json
import shutil

import pytest
import yaml
from trained_recipes import change_recipe, write_trained

from nni_spos.baseline import read_compared
from nni_spos.cli import main
from nni_spos.data import open_data
from nni_spos.errors import CheckpointError, StaleWarning
from nni_spos.path import save_path
from nni_spos.recipe.identity import WEIGHTS, Result, describe
from nni_spos.recipe.recipe import load_recipe
from nni_spos.report import gather_report
from nni_spos.retraining.retrain import retrain
from nni_spos.search.running import run_search
from nni_spos.search.scorer import open_scorer
from nni_spos.spaces import Form
from nni_spos.supernet import save_supernet
from nni_spos.supernet.building import build_recipe_space
from nni_spos.supernet.training import train_supernet
from nni_spos.training import Start

OLD = "weights of the supernet was '"


@pytest.fixture
def recipe(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return write_trained(tmp_path)


@pytest.fixture
def searched(recipe):
    run_search(recipe, progress=False)
    return recipe


def put_weights(recipe, seed):
    supernet = build_recipe_space(recipe, Form.SUPERNET, seed=seed)
    made_for = describe(Result.SUPERNET, recipe)
    preprocessing = open_data(recipe.data).preprocessing
    save_supernet(recipe.checkpoint, supernet, preprocessing, made_for=made_for)


@pytest.mark.slow
def test_a_search_of_another_supernet_is_not_shown_as_todays(searched, capsys):
    journal = searched.output / "search" / "search.jsonl"
    before = journal.read_bytes()
    put_weights(searched, 0)
    assert main(["search", "recipe.yml"]) == 0, "the same weights"
    capsys.readouterr()
    put_weights(searched, 1)
    assert main(["search", "recipe.yml"]) == 2
    out, line = capsys.readouterr()
    assert (out, line.count("\n")) == ("", 1)
    assert OLD in line
    assert "--overwrite" in line
    assert main(["search", "recipe.yml", "--overwrite"]) == 0
    table = capsys.readouterr().out
    assert journal.with_name("search.jsonl.previous").read_bytes() == before
    shutil.rmtree(searched.output / "search")
    assert main(["search", "recipe.yml", "--no-cache"]) == 0
    assert capsys.readouterr().out == table


def test_results_and_reports_say_that_a_search_is_not_todays(searched, capsys):
    folder = searched.output / "search"
    assert main(["results", str(folder)]) == 0
    table, line = capsys.readouterr()
    assert line == ""
    assert not any("other settings" in note for note in gather_report(folder).notes)
    put_weights(searched, 1)
    assert main(["results", str(folder)]) == 0
    out, line = capsys.readouterr()
    assert out == table
    assert OLD in line
    assert line.count("\n") == 1
    assert any(OLD in note for note in gather_report(folder).notes)
    searched.file.unlink()
    assert main(["results", str(folder)]) == 0, "of a search whose recipe is gone nothing is said"
    assert capsys.readouterr() == (table, "")


@pytest.mark.slow
def test_a_path_of_an_earlier_search_is_retrained_with_a_word(searched, capsys):
    best = run_search(searched, progress=False).best
    save_path("best.json", best.path)
    arguments = ["retrain", "recipe.yml", "--path", "best.json"]
    assert main([*arguments, "--output", "a.pt"]) == 0
    assert "today" not in capsys.readouterr().err
    put_weights(searched, 1)
    assert main([*arguments, "--output", "b.pt"]) == 0
    assert OLD in capsys.readouterr().err


@pytest.mark.slow
def test_baselines_are_compared_with_what_is_todays(searched):
    best = run_search(searched, progress=False).best
    retrain(searched, best.path)
    assert [x.name for x in read_compared(searched)] == ["winner of the search"]
    change_recipe("retrain", epochs=2)
    with pytest.warns(StaleWarning, match=r"retrained.pt: .*retrain: epochs was 1 and now is 2"):
        (winner,) = read_compared(load_recipe(searched.file))
    assert winner.tests == ()
    put_weights(searched, 1)
    with pytest.warns(StaleWarning) as said:
        assert read_compared(load_recipe(searched.file)) == []
    assert len(said) == 2


@pytest.mark.slow
def test_scores_stay_where_nothing_that_decides_has_changed(searched, capsys):
    (scores,) = (searched.output / "scores").iterdir()
    before = scores.read_bytes()
    change_recipe("data", held_mb=5, workers=1, augmentation="shift")
    searched.output.rename(searched.output.with_name("other"))
    content = yaml.safe_load(searched.file.read_text())
    searched.file.write_text(yaml.safe_dump({**content, "output": "other"}))
    assert main(["search", "recipe.yml", "--folder", "again"]) == 0
    recipe = load_recipe(searched.file)
    assert [x.read_bytes() for x in (recipe.output / "scores").iterdir()] == [before]
    assert main(["search", "recipe.yml"]) == 0, "the search goes on too"


def test_weights_of_another_model_or_split_are_not_used(recipe):
    put_weights(recipe, 0)
    open_scorer(recipe)
    change_recipe("data", num_train=90)
    with pytest.raises(CheckpointError, match=r"num_train was 100 and now is 90.*--overwrite"):
        open_scorer(load_recipe(recipe.file))
    change_recipe("data", num_train=100)
    change_recipe("supernet", steps=3)
    with pytest.warns(StaleWarning, match="supernet: steps was 2 and now is 3"):
        open_scorer(load_recipe(recipe.file))


@pytest.mark.slow
def test_a_finished_training_of_other_settings_is_not_todays(recipe):
    recipe.checkpoint.unlink()
    train_supernet(recipe)
    before = recipe.checkpoint.read_bytes()
    train_supernet(recipe, Start.CONTINUE)
    change_recipe("supernet", steps=3)
    with pytest.raises(CheckpointError, match=r"steps was 2 and now is 3.*--overwrite"):
        train_supernet(load_recipe(recipe.file), Start.CONTINUE)
    assert recipe.checkpoint.read_bytes() == before


@pytest.mark.parametrize("start", [Start.CONTINUE, Start.RESUME])
@pytest.mark.slow
def test_a_finished_network_of_other_settings_is_not_todays(recipe, start):
    path = {f"layer_{i}": "k3" for i in (1, 2, 3)}
    trained = retrain(recipe, path)
    assert retrain(recipe, path, start=start).test == trained.test
    change_recipe("retrain", learning_rate=0.25)
    with pytest.raises(CheckpointError, match=r"learning_rate was 0.5 and now is 0.25"):
        retrain(load_recipe(recipe.file), path, start=start)
    change_recipe("retrain", learning_rate=0.5, initial_weights="supernet")
    with pytest.raises(CheckpointError, match=r"initial weights was none and now is '"):
        retrain(load_recipe(recipe.file), path, start=start)


@pytest.mark.slow
def test_a_supernet_that_is_replaced_while_it_is_opened(recipe, monkeypatch, capsys):
    from nni_spos.search import running as local_search

    original = local_search._open_scorer
    opened = describe(Result.SCORES, recipe)[WEIGHTS]
    expected = [x.metrics for x in run_search(recipe, progress=False, folder="a").candidates]

    def replaced(*arguments):
        scorer = original(*arguments)
        put_weights(recipe, 1)
        return scorer

    monkeypatch.setattr(local_search, "_open_scorer", replaced)
    results = run_search(recipe, progress=False, cached=False)
    assert [x.metrics for x in results.candidates] == expected
    header = json.loads(results.file.read_text().splitlines()[0])
    assert header["settings"][WEIGHTS] == opened
    monkeypatch.setattr(local_search, "_open_scorer", original)
    assert main(["search", "recipe.yml"]) == 2, "it is not one of today's"
    assert OLD in capsys.readouterr().err
    assert main(["search", "recipe.yml", "--folder", "new"]) == 0


def test_a_search_that_goes_on_while_its_supernet_is_replaced(recipe, monkeypatch):
    from nni_spos.search import running as local_search

    original = local_search._open_scorer
    monkeypatch.setattr(local_search, "_open_scorer", lambda *_: Interrupted())
    recipe_file = recipe.file
    with pytest.raises(KeyboardInterrupt):
        run_search(recipe, progress=False)

    def replaced(*arguments):
        put_weights(recipe, 1)
        return original(*arguments)

    monkeypatch.setattr(local_search, "_open_scorer", replaced)
    with pytest.raises(CheckpointError, match="was replaced meanwhile"):
        run_search(load_recipe(recipe_file), progress=False)


class Interrupted:
    def __call__(self, path):
        raise KeyboardInterrupt

    def close(self):
        pass
