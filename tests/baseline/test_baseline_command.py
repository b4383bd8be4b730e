"""Baselines at the command line: retrained as the winner is, once, in one table."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest
import torch

from nni_spos.baseline import (
    random_baselines,
    read_baselines,
    read_compared,
    retraining,
)
from nni_spos.baseline.retraining import read_network
from nni_spos.baseline.table import baseline_table
from nni_spos.cli import main
from nni_spos.errors import CheckpointError, ExperimentError
from nni_spos.files.tensors import save_tensors
from nni_spos.recipe.output import Output
from nni_spos.recipe.recipe import load_recipe
from nni_spos.retraining.network import load_network
from nni_spos.retraining.retrain import retrain
from nni_spos.search.running import run_search
from nni_spos.supernet.training import train_supernet


def run(file, *arguments):
    return main(["baseline", str(file), *arguments])


def rows(output):
    """Cells of the printed table by the name of the network."""
    lines = [line.split("|")[1:-1] for line in output.splitlines() if line.startswith("| ")]
    return {cells[0].strip(): [x.strip() for x in cells[1:]] for cells in lines[2:]}


@pytest.mark.slow
def test_a_fixed_network_is_that_of_a_retraining_with_its_widths(write, capsys):
    file = write()
    assert run(file, "fixed", "--choice", "k3", "--target", "13k") == 0
    output = capsys.readouterr().out
    assert "widths times" in output
    recipe = load_recipe(file)
    folder = recipe.files.baselines
    content = json.loads((folder / "fixed-k3-13000.json").read_text())
    widths = content["widths"]["channels"]
    assert f"widths times {content['widths']['multiplier']:.4g}: {widths[0]}, {widths[1]}" in output
    scaled = load_recipe(write({**recipe.space.arguments, "name": "shufflenet",
                                "stage_channels": widths}))  # fmt: skip
    path = dict.fromkeys(("layer_1", "layer_2", "layer_3"), "k3")
    trained = retrain(scaled, path, recipe.output / "by_hand.pt")
    assert content["costs"] == trained.costs
    assert content["test"] == trained.test
    saved = load_network(folder / "fixed-k3-13000.pt")
    for name, value in trained.network.state_dict().items():
        assert torch.equal(value, saved.network.state_dict()[name]), name
    table = (folder / "table.md").read_text()
    assert table.strip() in output
    cells = rows(table)["fixed-k3-13000"]
    assert cells[0] == f"{content['costs']['flops'] / 1000:.6g}k"
    assert cells[-2] == f"{trained.test['top1']:.2f}"


@pytest.mark.slow
def test_what_is_done_is_not_repeated_and_other_settings_are_refused(write, capsys, monkeypatch):
    file = write()
    trained = []
    original = retraining.retrain

    def counted(recipe, path, *more):
        trained.append(path)
        return original(recipe, path, *more)

    monkeypatch.setattr(retraining, "retrain", counted)
    assert run(file, "random", "-n", "1") == 0
    assert run(file, "random", "-n", "2") == 0
    assert len(trained) == 2
    assert set(rows(capsys.readouterr().out)) >= {"random-1", "random-2"}
    file = write(retrain={"epochs": 2})
    assert run(file, "random", "-n", "3") == 2
    line = capsys.readouterr().err
    assert "settings (retrain: epochs was 1 and now is 2). Delete it and random-1.pt" in line
    assert len(line.splitlines()) == 1
    assert len(trained) == 2, "refused before anything is trained"
    file = write(data={"workers": 1})
    assert run(file, "random", "-n", "2") == 0, "who reads the images decides nothing"
    assert len(trained) == 2


@pytest.mark.slow
def test_an_interrupted_retraining_goes_on(write, monkeypatch):
    file = write(retrain={"epochs": 2})
    recipe = load_recipe(file)

    def interrupted(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(retraining, "write_json", interrupted)
        assert run(file, "random", "-n", "1") == 130
    network = recipe.files.baseline("random-1")
    before = network.stat().st_mtime_ns
    assert run(file, "random", "-n", "1") == 0
    assert network.stat().st_mtime_ns == before
    (result,) = read_baselines(recipe.files.baselines)
    assert result.tests == [load_network(network).test]


@pytest.mark.slow
def test_random_search_and_the_winner_are_in_one_table(write, capsys):
    recipe = load_recipe(write())
    train_supernet(recipe)
    assert run(recipe.file, "random-search") == 0
    assert list(rows(capsys.readouterr().out)) == ["random-search"]
    assert read_compared(recipe) == []
    best = run_search(recipe, progress=False).best
    assert run(recipe.file, "random-search") == 0
    table = rows(capsys.readouterr().out)
    assert list(table) == ["winner of the search", "random-search"]
    assert table["winner of the search"][-2] == "-", "it is not retrained yet"
    trained = retrain(recipe, best.path)
    assert run(recipe.file, "random-search") == 0
    table = rows(capsys.readouterr().out)
    assert table["winner of the search"][-2] == f"{trained.test['top1']:.2f}"
    other = next(x for x in run_search(recipe).candidates if x.path != best.path)
    recipe.files.retrained.unlink()
    for checkpoint in recipe.files.retrained.with_suffix("").glob("*.ckpt"):
        checkpoint.unlink()
    trained = retrain(recipe, other.path)
    winner, retrained = read_compared(recipe)
    assert winner.tests == (), "the retrained network is not the winner"
    assert (retrained.name, retrained.tests) == ("retrained path", [trained.test])
    # As after a search under NNI, whose path was given to `retrain`.
    shutil.rmtree(recipe.output / "search")
    assert read_compared(recipe) == [retrained]


@pytest.mark.slow
def test_random_search_has_as_many_candidates_of_its_own(write):
    recipe = load_recipe(write())
    train_supernet(recipe)
    assert run(recipe.file, "random-search") == 0
    journal = (recipe.output / "random_search" / "search.jsonl").read_text().splitlines()
    assert '"algorithm": "random"' in journal[0]
    assert len(journal) == 1 + 4 * 2
    assert not (recipe.output / "search").exists()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["fixed", "--choice", "k9"], "label 'layer_1' has none of the choices k9"),
        (["fixed", "--choice", "k3", "--target", "2x"], "'2x' is not a number such as 2630k"),
        (["fixed", "--choice", "k3", "--target", "1k"], "1k multiply-adds cannot be met"),
        (["random", "-n", "0"], "-n: must be at least 1, got 0"),
        (["random", "-n", "1", "--seed", "-1"], "--seed: must be at least 0, got -1"),
        (["random", "-n", "1", "--repeats", "0"], "--repeats: must be at least 1"),
        (["random-search", "--repeats", "0"], "--repeats: must be at least 1"),
        (["random-search"], "no such checkpoint. Train the supernet first"),
    ],
)
def test_refusals(write, capsys, arguments, words):
    file = write()
    assert run(file, *arguments) == 2
    captured = capsys.readouterr()
    assert words in captured.err
    assert len(captured.err.splitlines()) == 1
    assert captured.out == ""
    assert not Output(file.parent / "output").baselines.exists()


RESULT = {"name": "a", "costs": {"flops": 1}, "test": {"top1": 9.0}, "cost": None, "widths": None}


@pytest.mark.parametrize(
    "content",
    ["[]", "{}", '{"name": "a", "costs": 1}', "no JSON", *(
        json.dumps({**RESULT, **changes})
        for changes in (
            {"costs": {"flops": "1"}}, {"test": {}}, {"test": {"top1": "9"}}, {"test": [9]},
            {"test": {"top1": 10**400}}, {"widths": 5}, {"widths": {"multiplier": "x"}},
            {"widths": {"multiplier": 1.5, "channels": 4}},
        )
    )],
)  # fmt: skip
def test_damaged_results(tmp_path, content):
    (tmp_path / "a.json").write_text(content)
    with pytest.raises(ExperimentError, match=r"a\.json"):
        read_baselines(tmp_path)
    (tmp_path / "a.json").write_text(json.dumps(RESULT))
    assert baseline_table(read_baselines(tmp_path)).rows


@pytest.mark.parametrize(
    "changes",
    [{"path": {"a": torch.ones(2)}}, {"costs": {"flops": torch.ones(1)}}, {"test": {"top1": None}},
     {"made_for": {"data": {"seed": torch.ones(2)}}}, {"path": 5}, {"costs": None}],
)  # fmt: skip
def test_damaged_networks(tmp_path, changes):
    content = {**RESULT, "path": {"a": "k3"}, "made_for": {"data": {"seed": 1}}}
    save_tensors(tmp_path / "net.pt", {**content, **changes})
    with pytest.raises(CheckpointError, match=r"net\.pt: is not a trained network"):
        read_network(tmp_path / "net.pt", "a")
    save_tensors(tmp_path / "net.pt", content)
    path, result = read_network(tmp_path / "net.pt", "a")
    assert (path, result.tests) == ({"a": "k3"}, [{"top1": 9.0}])


def test_results_are_ordered_by_number(tmp_path):
    for name in ("random-10", "random-2", "fixed-k3"):
        content = {"name": name, "costs": {}, "test": None, "cost": None, "widths": None}
        (tmp_path / f"{name}.json").write_text(json.dumps(content))
    assert [x.name for x in read_baselines(tmp_path)] == ["fixed-k3", "random-2", "random-10"]


@pytest.mark.slow
def test_repeats(write, capsys):
    file = write()
    recipe = load_recipe(file)
    assert run(file, "random", "-n", "1") == 0
    capsys.readouterr()
    assert run(file, "random", "-n", "1", "--repeats", "3") == 0
    folder = recipe.files.baselines
    seed = recipe.retrain.seed
    files = [folder / f"random-1{end}.pt" for end in ("", f"_seed{seed + 1}", f"_seed{seed + 2}")]
    networks = [load_network(x) for x in files]
    assert [x.settings["seed"] for x in networks] == [seed, seed + 1, seed + 2]
    assert len({tuple(x.path.items()) for x in networks}) == 1
    top1 = [x.test["top1"] for x in networks]
    assert len({x.test["loss"] for x in networks}) == 3, "the seeds make a difference"
    (result,) = read_baselines(folder)
    assert [x["top1"] for x in result.tests] == top1
    shown = rows(capsys.readouterr().out)["random-1"][-2]
    assert shown == f"{np.mean(top1):.2f} ± {np.std(top1, ddof=1):.2f} (3)"


@pytest.mark.slow
def test_the_winner_with_repeats(write, capsys, tmp_path):
    recipe = load_recipe(write())
    path = random_baselines(recipe, 2, 0)[0].path
    (tmp_path / "path.json").write_text(json.dumps(path))
    output = tmp_path / "net.pt"
    command = ["retrain", str(recipe.file), "--path", str(tmp_path / "path.json")]
    command += ["--output", str(output), "--repeats", "2"]
    assert main([*command, "--resume"]) == 2
    assert "--repeats: cannot go with --resume" in capsys.readouterr().err
    assert main([*command, "--continue"]) == 0
    assert "2 seeds: test top-1" in capsys.readouterr().out
    found_path, result = read_network(output, "net")
    assert found_path == path
    assert len(result.tests) == 2
    other = random_baselines(recipe, 2, 0)[1].path
    retrain(recipe, other, tmp_path / "net_seed9.pt")
    assert len(read_network(output, "net")[1].tests) == 2, "a repetition of another path"
