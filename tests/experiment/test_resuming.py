"""What has changed since an experiment ended is said before NNI calls it done again."""

import pytest
from trained_recipes import change_recipe, write_trained

from nni_spos.costs.stored import load_costs
from nni_spos.errors import ExperimentError, RecipeError
from nni_spos.evolution import Journal
from nni_spos.experiment import resuming
from nni_spos.experiment.resuming import check_resumable
from nni_spos.experiment.tuner_configuration import load_tuner_recipe
from nni_spos.files.tensors import save_tensors
from nni_spos.search.building import fingerprint
from nni_spos.search.kept_supernets import keep_for_experiment
from nni_spos.search.running import run_search

CLASS_ARGS = {"recipe": "recipe.yml", "seed": 3}


@pytest.fixture
def recipe(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_trained(tmp_path)
    return load_tuner_recipe(CLASS_ARGS, tmp_path)


@pytest.fixture
def tuner(tmp_path):
    return {
        "className": "nni_spos.experiment.tuner.EvolutionTuner",
        "codeDirectory": str(tmp_path),
        "classArgs": CLASS_ARGS,
    }


@pytest.fixture
def finished(recipe, tuner, tmp_path, monkeypatch):
    """The folder of an experiment that is done."""
    kept = keep_for_experiment(recipe, "abcd")
    run_search(kept, progress=False)
    folder = tmp_path / "abcd"
    folder.mkdir()
    (recipe.output / "search").rename(folder / "checkpoint")
    monkeypatch.setattr(resuming, "_configuration", lambda *_: {"tuner": tuner})
    return folder


def test_what_has_not_changed_goes_on(finished, recipe):
    check_resumable("abcd", finished)
    change_recipe("data", workers=1)
    check_resumable("abcd", finished)


@pytest.mark.parametrize(
    ("section", "values", "text"),
    [
        ("search", {"population_size": 5}, "search: population_size was 4 and now is 5"),
        ("search", {"constraints": ["flops <= 9G"]}, r"search: constraints was \[\] and now is"),
        ("evaluation", {"batch_size": 10}, "evaluation: batch_size was 20 and now is 10"),
        ("data", {"split_seed": 7}, "data: split_seed was 0 and now is 7"),
        ("supernet", {"steps": 3}, "supernet: steps was 2 and now is 3"),
    ],
)
def test_what_has_changed_is_said_in_one_line(finished, recipe, section, values, text):
    change_recipe(section, **values)
    with pytest.raises(ExperimentError, match=rf"^experiment abcd: cannot be .*{text}") as raised:
        check_resumable("abcd", finished)
    assert "\n" not in str(raised.value)


def test_arguments_of_the_tuner_count(finished, recipe, tuner):
    change_recipe("search", seed=9)  # which the arguments replace
    check_resumable("abcd", finished)
    tuner["classArgs"] = {"recipe": "recipe.yml", "seed": 4}
    with pytest.raises(ExperimentError, match="search: seed was 3 and now is 4"):
        check_resumable("abcd", finished)


def test_the_supernet_is_its_own(finished, recipe):
    before = recipe.checkpoint.read_bytes()
    recipe.checkpoint.unlink()
    check_resumable("abcd", finished)
    recipe.checkpoint.write_bytes(before)
    for note in recipe.output.glob("supernets/*.json"):
        note.unlink()
    check_resumable("abcd", finished)
    recipe.checkpoint.unlink()
    save_tensors(recipe.checkpoint, {"weights": {}})
    with pytest.raises(ExperimentError, match="weights of the supernet was"):
        check_resumable("abcd", finished)


def test_a_recipe_that_is_gone(finished, recipe):
    recipe.file.rename(recipe.file.with_name("other.yml"))
    with pytest.raises(RecipeError, match=r"recipe\.yml: no such file"):
        check_resumable("abcd", finished)


def test_experiments_of_others_and_new_ones_are_left_alone(finished, recipe, tuner):
    change_recipe("search", population_size=5)
    journal = finished / "checkpoint" / "search.jsonl"
    content = journal.read_bytes()
    journal.unlink()
    check_resumable("abcd", finished)
    Journal(journal, fingerprint(recipe, *load_costs(recipe)))
    check_resumable("abcd", finished)
    journal.write_bytes(content)
    with pytest.raises(ExperimentError, match="population_size"):
        check_resumable("abcd", finished)
    tuner["className"] = "mine.Tuner"
    check_resumable("abcd", finished)


def test_without_a_record_of_nni_nothing_is_said(tmp_path):
    (tmp_path / "abcd" / "db").mkdir(parents=True)
    assert resuming._configuration("abcd", tmp_path / "abcd") == {}
    (tmp_path / "abcd" / "db" / "nni.sqlite").write_bytes(b"damaged" * 999)
    assert resuming._configuration("abcd", tmp_path / "abcd") == {}
