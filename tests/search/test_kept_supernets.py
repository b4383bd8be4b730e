"""A search keeps its own supernet, whoever trains, deletes or overwrites the file meanwhile."""

from __future__ import annotations

import dataclasses
import errno
import os
import shutil

import pytest
import torch
from trained_recipes import contents, write_trained, write_untrained

from nni_spos.data import open_data
from nni_spos.errors import CheckpointError, FileWarning
from nni_spos.files.atomic import previous
from nni_spos.files.digests import digest_weights
from nni_spos.ranking import correlating as correlate
from nni_spos.recipe.identity import WEIGHTS, Result, describe
from nni_spos.retraining.standalone import train_standalone
from nni_spos.search import kept_supernets
from nni_spos.search import scorer as scoring
from nni_spos.search.kept_supernets import (
    keep_for_experiment,
    keep_for_trial,
    keep_supernet,
    noted_for_experiment,
    with_kept,
)
from nni_spos.search.scorer import open_scorer
from nni_spos.spaces import Form
from nni_spos.supernet import load_supernet, save_supernet
from nni_spos.supernet.building import build_recipe_space

PATH = {"layer_1": "k3", "layer_2": "xcep", "layer_3": "k7"}


@pytest.fixture
def recipe(tmp_path):
    return write_trained(tmp_path)


def put_weights(recipe, seed=1):
    """Train another supernet, as far as the file is concerned."""
    supernet = build_recipe_space(recipe, Form.SUPERNET, seed=seed)
    save_supernet(recipe.checkpoint, supernet, open_data(recipe.data).preprocessing)


def names(recipe):
    return sorted(x.name for x in (recipe.output / "supernets").iterdir())


REPLACEMENTS = {
    "replaced": put_weights,
    "deleted": lambda recipe: recipe.checkpoint.unlink(),
    "cut short": lambda recipe: (
        recipe.checkpoint.unlink(),
        recipe.checkpoint.write_bytes(b"damaged"),
    ),
}


@pytest.mark.parametrize("what", REPLACEMENTS)
@pytest.mark.slow
def test_what_becomes_of_the_file_does_not_matter(recipe, what):
    before = open_scorer(recipe, cached=False)(PATH)
    digest = digest_weights(recipe.checkpoint)
    kept = keep_supernet(recipe)
    assert names(recipe) == [f"{digest}.pt"]
    assert os.path.samefile(kept.checkpoint, recipe.checkpoint), "it takes no room"
    REPLACEMENTS[what](recipe)
    assert open_scorer(kept, cached=False)(PATH) == before
    assert digest_weights(kept.checkpoint) == digest == load_supernet(kept.checkpoint).digest
    assert keep_supernet(kept) is kept


def test_a_new_search_has_the_new_supernet(recipe):
    first = keep_supernet(recipe)
    put_weights(recipe)
    second = keep_supernet(recipe)
    assert first.kept != second.kept == digest_weights(recipe.checkpoint)
    assert names(recipe) == sorted(f"{x.kept}.pt" for x in (first, second))
    assert keep_supernet(recipe) == second, "no matter how often"
    assert len(names(recipe)) == 2


@pytest.mark.parametrize("number", [errno.EPERM, errno.ENOTSUP, errno.EXDEV, errno.EMLINK])
@pytest.mark.slow
def test_without_links_it_is_a_copy(recipe, monkeypatch, number):
    def refuse(*arguments, **keywords):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "link", refuse)
    before = open_scorer(recipe, cached=False)(PATH)
    kept = keep_supernet(recipe)
    assert not os.path.samefile(kept.checkpoint, recipe.checkpoint)
    recipe.checkpoint.write_bytes(b"written into")
    assert open_scorer(kept, cached=False)(PATH) == before


def test_what_is_written_into_the_file_is_refused(recipe, tmp_path):
    kept = keep_supernet(recipe)
    new = tmp_path / "new.pt"
    supernet = build_recipe_space(recipe, Form.SUPERNET, seed=1)
    save_supernet(new, supernet, open_data(recipe.data).preprocessing)
    shutil.copyfile(new, recipe.checkpoint)  # as cp does
    with pytest.raises(CheckpointError, match=r"supernets.*: was written into") as raised:
        open_scorer(kept)
    assert "\n" not in str(raised.value)
    assert not (recipe.output / "scores").exists()
    again = keep_supernet(recipe)
    assert again.kept != kept.kept
    assert open_scorer(again)(PATH)


def test_a_link_in_the_place_of_the_supernet(recipe, tmp_path):
    recipe.checkpoint.rename(tmp_path / "elsewhere.pt")
    recipe.checkpoint.symlink_to(tmp_path / "elsewhere.pt")
    kept = keep_supernet(recipe)
    assert not kept.checkpoint.is_symlink()
    (tmp_path / "elsewhere.pt").unlink()
    assert open_scorer(kept)(PATH)


def test_without_a_supernet_nothing_is_kept(tmp_path):
    recipe = write_untrained(tmp_path)
    before = contents(tmp_path)
    assert keep_supernet(recipe) is recipe
    assert keep_for_experiment(recipe, "abcd") is recipe
    assert contents(tmp_path) == before


def test_a_damaged_supernet_is_not_kept_but_the_one_that_it_replaced(recipe):
    first = digest_weights(recipe.checkpoint)
    put_weights(recipe)
    assert previous(recipe.checkpoint).exists()
    content = bytearray(recipe.checkpoint.read_bytes())
    content[len(content) // 2] ^= 1
    recipe.checkpoint.unlink()
    recipe.checkpoint.write_bytes(content)
    with pytest.warns(FileWarning, match="Using supernet.pt.previous, which it replaced"):
        kept = keep_supernet(recipe)
    assert kept.kept == first
    previous(recipe.checkpoint).unlink()
    with pytest.raises(CheckpointError, match=r"supernet\.pt: cannot be loaded safely"):
        keep_supernet(recipe)
    assert names(recipe) == [f"{first}.pt"]


def test_a_folder_that_cannot_be_written_to(recipe, monkeypatch):
    def refuse(*arguments, **keywords):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

    monkeypatch.setattr(kept_supernets.tempfile, "TemporaryDirectory", refuse)
    with pytest.warns(FileWarning, match="the supernet is not kept"):
        assert keep_supernet(recipe) is recipe


def test_the_digest_is_of_what_is_kept(recipe, monkeypatch):
    """Whoever replaces the file between the two has a file of another name."""
    original = kept_supernets._link
    first = digest_weights(recipe.checkpoint)

    def replaced(file, copy):
        original(file, copy)
        put_weights(recipe)

    monkeypatch.setattr(kept_supernets, "_link", replaced)
    kept = keep_supernet(recipe)
    assert kept.kept == first == digest_weights(kept.checkpoint)


def test_an_experiment_has_the_supernet_that_it_had_first(recipe):
    assert noted_for_experiment(recipe, "abcd") is None
    kept = keep_for_experiment(recipe, "abcd")
    put_weights(recipe)
    assert keep_for_experiment(recipe, "abcd") == kept == noted_for_experiment(recipe, "abcd")
    assert keep_for_experiment(recipe, "efgh").kept == digest_weights(recipe.checkpoint)


def test_a_kept_supernet_that_was_deleted(recipe):
    kept = keep_for_experiment(recipe, "abcd")
    kept.checkpoint.unlink()
    assert keep_for_experiment(recipe, "abcd") == kept
    assert kept.checkpoint.exists(), "it is still the one trained last"
    kept.checkpoint.unlink()
    put_weights(recipe)
    with pytest.raises(CheckpointError, match=r"is not there any more.*start a new experiment"):
        keep_for_experiment(recipe, "abcd")


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"weights": 3}', '{"weights": "../x"}'])
def test_a_damaged_note(recipe, text):
    kept = keep_for_experiment(recipe, "abcd")
    note = kept.checkpoint.with_name("abcd.json")
    content = note.read_text()
    note.write_text(text)
    with pytest.raises(CheckpointError, match=r"abcd\.json"):
        keep_for_experiment(recipe, "abcd")
    note.write_text(content)
    assert keep_for_experiment(recipe, "abcd") == kept


def test_only_a_trial_on_the_tuners_machine_asks_for_its_experiment(recipe, monkeypatch):
    for name in ("NNI_PLATFORM", "NNI_TRIAL_JOB_ID", "NNI_EXP_ID"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("NNI_EXP_ID", "abcd")
    assert keep_for_trial(recipe) is recipe, "a worker"
    monkeypatch.setenv("NNI_TRIAL_JOB_ID", "mine")
    monkeypatch.setenv("NNI_PLATFORM", "remote")
    assert keep_for_trial(recipe) is recipe
    monkeypatch.setenv("NNI_PLATFORM", "local")
    before = open_scorer(recipe, cached=False)(PATH)
    put_weights(recipe)
    assert open_scorer(recipe, cached=False)(PATH) == before, "a trial of the user's own, too"


def test_scores_are_kept_as_those_of_the_weights_that_were_read(recipe, monkeypatch):
    first = digest_weights(recipe.checkpoint)
    original = scoring.open_data

    def replaced(*arguments, **options):
        put_weights(recipe)
        return original(*arguments, **options)

    monkeypatch.setattr(scoring, "open_data", replaced)
    scorer = open_scorer(recipe)
    found = scorer(PATH)
    monkeypatch.undo()
    assert scorer.weights == first
    now = open_scorer(recipe)
    assert now.cache.get(PATH) is None
    assert now(PATH) != found
    assert now.cache.file != scorer.cache.file
    parts = describe(Result.SCORES, recipe)
    assert describe(Result.SCORES, recipe, first) == {**parts, WEIGHTS: {"digest": first}}


@pytest.mark.slow
def test_all_scores_of_a_correlation_are_of_one_supernet(recipe, monkeypatch):
    paths = [PATH, {**PATH, "layer_1": "k5"}, {**PATH, "layer_1": "k7"}]
    expected = [open_scorer(recipe, cached=False)(path)["top1"] for path in paths]
    costs = correlate.load_costs(recipe)[1]
    original = correlate._score
    seen = []

    def replaced(kept, *rest):
        put_weights(recipe, seed=len(seen) + 1)
        seen.append(kept.kept)
        return original(kept, *rest)

    monkeypatch.setattr(correlate, "_score", replaced)
    names = tuple(correlate.SCORES)
    found = correlate._compare(recipe, paths, costs, 0, names, "made up", lambda _: [1.0, 2.0, 3.0])
    assert len(seen) == 2
    assert len(set(seen)) == 1
    assert list(found.scores["recalibrated"]) == expected


@pytest.mark.slow
def test_paths_that_inherit_do_so_from_one_supernet(tmp_path, monkeypatch):
    recipe = write_trained(tmp_path, retrain={"epochs": 1, "initial_weights": "supernet"})
    costs = correlate.load_costs(recipe)[1]
    from nni_spos.retraining import retrain

    original = retrain.load_supernet
    opened = []

    def replaced(file):
        opened.append(file)
        put_weights(recipe, seed=len(opened))
        return original(file)

    monkeypatch.setattr(retrain, "load_supernet", replaced)
    train_standalone(recipe, [PATH, {**PATH, "layer_1": "k5"}], costs)
    assert len(opened) == 2
    assert len(set(opened)) == 1
    plain = dataclasses.replace(
        recipe, retrain=dataclasses.replace(recipe.retrain, initial_weights="random")
    )
    assert retrain.keep_inherited(plain) is plain


def test_a_file_that_is_written_to_while_it_is_read(recipe, monkeypatch):
    original = torch.load

    def written(stream, **keywords):
        found = original(stream, **keywords)
        os.utime(recipe.checkpoint, ns=(1, 1))
        return found

    monkeypatch.setattr(torch, "load", written)
    previous(recipe.checkpoint).unlink(missing_ok=True)
    with pytest.raises(CheckpointError, match="it was written to while it was read"):
        load_supernet(recipe.checkpoint)
    monkeypatch.undo()
    assert load_supernet(recipe.checkpoint).digest == digest_weights(recipe.checkpoint)


def test_a_report_is_of_the_supernet_that_was_searched(recipe):
    kept = keep_supernet(recipe)
    weights = describe(Result.SCORES, recipe)[WEIGHTS]
    put_weights(recipe)
    assert with_kept(recipe, weights) == kept
    for other in (None, {}, {"digest": 3}, {"digest": "../x"}, {"digest": "abc"}):
        assert with_kept(recipe, other) is recipe
