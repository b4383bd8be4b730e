"""A disk that is full: one line, exit code 2, nothing lost; and on it goes when there is room."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from trained_recipes import write_trained

from nni_spos.cli import main
from nni_spos.errors import FileWarning
from nni_spos.evolution import Candidate, Journal, State
from nni_spos.files.atomic import write_json
from nni_spos.files.tensors import load_tensors, replace_tensors
from nni_spos.path import PathSpace
from nni_spos.recipe.recipe import load_recipe
from nni_spos.search.results import load_results
from nni_spos.search.running import run_search
from nni_spos.search.score_cache import ScoreCache
from nni_spos.supernet import load_supernet
from nni_spos.supernet.training import train_supernet

FULL = "No space left on device"
PAGE = 4096


def refused(capsys, *arguments: object) -> str:
    """Run a command that must fail, and return its line."""
    capsys.readouterr()
    assert main(list(map(str, arguments))) == 2
    lines = [line for line in capsys.readouterr().err.splitlines() if "Error" in line]
    assert len(lines) == 1
    assert FULL in lines[0]
    return lines[0]


def test_files_stay_as_they_were(small_disk):
    file = small_disk.root / "supernet.pt"
    replace_tensors(file, {"weight": torch.zeros(10_000)})
    small_disk.fill(free=PAGE)
    before = set(small_disk.root.iterdir())
    with pytest.raises(OSError, match=rf"{FULL}: '.*supernet\.pt'"):
        replace_tensors(file, {"weight": torch.ones(10_000)})
    with pytest.raises(OSError, match=rf"{FULL}: '.*best\.json'"):
        write_json(small_disk.root / "best.json", list(range(10_000)))
    assert set(small_disk.root.iterdir()) == before
    assert load_tensors(file)["weight"].sum() == 0
    small_disk.make_room()
    replace_tensors(file, {"weight": torch.ones(10_000)})
    assert load_tensors(file)["weight"].sum() == 10_000


@pytest.mark.slow
def test_a_training(small_disk, tmp_path, capsys):
    for folder in (tmp_path, small_disk.root):
        recipe = write_trained(folder, supernet={"steps": None, "epochs": 3, "batch_size": 20})
        recipe.checkpoint.unlink()
    whole = load_recipe(tmp_path / "recipe.yml")
    train_supernet(whole)
    size = max(x.stat().st_size for x in whole.checkpoint.with_suffix("").glob("*.ckpt"))
    small_disk.fill(free=int(1.5 * size) + 20 * PAGE)
    refused(capsys, "train", recipe.file)
    (first,) = recipe.checkpoint.with_suffix("").glob("*.ckpt")
    assert not recipe.checkpoint.exists()
    assert not list(recipe.output.rglob(".*.ckpt.*"))
    small_disk.make_room()
    assert main(["train", str(recipe.file), "--resume"]) == 0
    assert first.exists()
    one, other = (load_supernet(x.checkpoint).weights for x in (whole, recipe))
    for name, value in one.items():
        assert torch.equal(value, other[name]), name


@pytest.mark.slow
def test_a_search(small_disk, tmp_path, capsys):
    for folder in (tmp_path, small_disk.root):
        recipe = write_trained(folder)
    whole = run_search(load_recipe(tmp_path / "recipe.yml"), progress=False)
    journal = recipe.output / "search" / "search.jsonl"
    half = load_recipe(recipe.file)

    def scorer(path):
        known = {tuple(c.path.items()): c.metrics for c in whole.candidates}
        if journal.read_bytes().count(b"\n") > 2:
            small_disk.fill()
        return known[tuple(path.items())]

    with pytest.raises(OSError, match=FULL):
        run_search(half, scorer, progress=False)
    before = load_results(journal.parent).candidates
    assert 2 <= len(before) < len(whole.candidates)
    refused(capsys, "search", recipe.file)
    assert load_results(journal.parent).candidates == before
    small_disk.make_room()
    assert main(["search", str(recipe.file), "--output", str(small_disk.root / "a.json")]) == 0
    assert load_results(journal.parent).candidates == whole.candidates
    small_disk.fill()
    assert "b.json" in refused(
        capsys, "results", journal.parent, "--output", small_disk.root / "b.json"
    )
    assert not Path(small_disk.root / "b.json").exists()


def test_no_line_of_a_journal_is_left_half(small_disk):
    journal = Journal(small_disk.root / "search.jsonl", {})
    small_disk.fill()
    candidate = Candidate({"a": "k3"}, 0, 0, {}, State.DONE, {"top1": 1.0})

    def append_for_ever():
        while True:
            journal.append(candidate)

    with pytest.raises(OSError, match=rf"{FULL}: '.*search\.jsonl'"):
        append_for_ever()
    content = journal.file.read_bytes()
    assert content.endswith(b"}\n")
    assert len(content) > PAGE / 2
    small_disk.make_room()
    journal.append(candidate)
    assert len(Journal(journal.file, {}).outcomes) == content.count(b"\n")


def test_scores_are_worth_more_than_their_copies(small_disk):
    cache = ScoreCache(small_disk.root / "scores.jsonl", PathSpace({"a": ["k3"]}))
    small_disk.fill()
    with pytest.warns(FileWarning, match=rf"scores.jsonl: scores are not kept \({FULL}\)"):
        cache.put_if_possible({"a": "k3"}, {"top1": 1.0})
    with pytest.raises(OSError, match=FULL):
        cache.put({"a": "k3"}, {"top1": 1.0})
    small_disk.make_room()
    cache.put_if_possible({"a": "k3"}, {"top1": 1.0})
    assert cache.get({"a": "k3"}) == {"top1": 1.0}
