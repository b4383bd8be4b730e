"""``nni-spos correlate``: scores beside stand-alone accuracies, from a table or by training."""

from __future__ import annotations

import dataclasses
import itertools
import json
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image
from trained_recipes import change_recipe

from nni_spos.cli import main
from nni_spos.cost_table import CostTable, Factor
from nni_spos.costs.stored import load_costs, save_costs
from nni_spos.data import ImageData, open_data
from nni_spos.errors import RecipeError
from nni_spos.path import PathSpace
from nni_spos.profilers import build_costs
from nni_spos.ranking import correlating as correlate
from nni_spos.ranking.choice_bias import choice_biases, format_biases
from nni_spos.ranking.correlating import TRIVIAL, RankingStudy, draw_paths, trivial_scores
from nni_spos.ranking.correlation import rank
from nni_spos.recipe.recipe import load_recipe
from nni_spos.retraining import standalone
from nni_spos.retraining.network import load_network
from nni_spos.retraining.retrain import retrain
from nni_spos.scoring.evaluation import evaluate_path, score
from nni_spos.search import scorer as scoring
from nni_spos.spaces import Form
from nni_spos.spaces.nasbench_macro import SPACE, code_from_path
from nni_spos.supernet import load_supernet, restore_supernet, save_supernet
from nni_spos.supernet.building import build_recipe_space, build_recipe_supernet

SMALL = PathSpace({"a": ["k3", "k5"], "b": [1, 2, 3]})
LARGE = PathSpace({f"layer_{i}": ["k3", "k5", "k7", "xcep"] for i in range(40)})


@pytest.mark.slow
@pytest.mark.parametrize("listed", [0, 2**20])
def test_drawn_paths(monkeypatch, listed):
    monkeypatch.setattr(correlate, "LISTED", listed)
    paths = draw_paths(SMALL, 6, seed=1)
    assert len({SMALL.key(path) for path in paths}) == 6
    assert draw_paths(SMALL, 4, seed=1) == paths[:4]
    firsts = [SMALL.key(draw_paths(SMALL, 2, seed)[0]) for seed in range(600)]
    counts = [firsts.count(key) for key in itertools.product(range(2), range(3))]
    assert sum((n - 100) ** 2 / 100 for n in counts) < 20.5  # chi-square, 5 degrees, p = 0.001


def test_paths_of_a_space_that_cannot_be_listed():
    paths = draw_paths(LARGE, 50, seed=0)
    assert len({LARGE.key(path) for path in paths}) == 50


@pytest.mark.parametrize(("count", "fits"), [(1, False), (2, True), (6, True), (7, False)])
def test_numbers_of_paths(count, fits):
    if fits:
        assert len(draw_paths(SMALL, count, seed=0)) == count
    else:
        with pytest.raises(RecipeError, match=f"got {count} paths; .* the space has 6"):
            draw_paths(SMALL, count, seed=0)


def kendall(x, y) -> float:
    """Tau-b, pair by pair."""
    signs = [
        (np.sign(x[i] - x[j]), np.sign(y[i] - y[j]))
        for i, j in itertools.combinations(range(len(x)), 2)
    ]
    untied = [sum(bool(pair[side]) for pair in signs) for side in (0, 1)]
    return float(sum(a * b for a, b in signs) / np.sqrt(untied[0] * untied[1]))


def test_what_costs_nothing_ranks_too():
    flops = CostTable("flops", SMALL, 5, [Factor(("b",), np.array([10, 20, 40]))])
    params = CostTable("params", SMALL, 5, [Factor(("a",), np.array([1, 3]))])
    found = trivial_scores({"flops": flops, "params": params}, SMALL.enumerate()[[0, 1, 5]])
    assert found == {"flops": [15, 25, 45], "params": [6, 6, 8], "units": [0, 1, 2]}


@pytest.mark.parametrize("tau", [0.4, 0.5, 0.6])
@pytest.mark.slow
def test_a_supernet_has_to_beat_what_costs_nothing(tau):
    rankings = {name: rank([1.0, 2.0, 3.0], [1.0, 2.0, 3.0]) for name in ("recalibrated", *TRIVIAL)}
    for name, value in {"recalibrated": tau, "flops": 0.3, "params": 0.1, "units": 0.5}.items():
        estimate = dataclasses.replace(rankings[name].tau, value=value)
        rankings[name] = dataclasses.replace(rankings[name], tau=estimate)
    study = RankingStudy(None, "", 0, 6, [], [], {}, rankings, {})
    lines = study.unbeaten()
    if tau <= 0.5:
        assert lines == [
            f"recalibrated ranks no better than {TRIVIAL['units']}: tau {tau:.3f}, and units 0.500"
        ]
    else:
        assert lines == []


@pytest.mark.parametrize("accuracies", [[1.0, 3.0, 2.0], [1.0, 1.0, 1.0]])
def test_a_score_that_is_the_same_for_all_has_no_tau(accuracies):
    scores = {"recalibrated": [5.0, 5.0, 5.0], **{key: [1.0, 2.0, 3.0] for key in TRIVIAL}}
    rankings = {name: rank(values, accuracies) for name, values in scores.items()}
    lines = RankingStudy(None, "", 0, 6, [], accuracies, scores, rankings, {}).unbeaten()
    if len(set(accuracies)) == 1:
        assert lines == []  # there is nothing to rank
    else:
        (line,) = lines
        assert line.endswith("tau undefined, and flops 0.333")


def stored(folder: Path) -> list[dict]:
    (file,) = (folder / "output" / "standalone").glob("*.jsonl")
    return [json.loads(line) for line in file.read_text().splitlines() if line]


def run(*arguments: str) -> dict:
    assert main(["correlate", "recipe.yml", *arguments, "--json", "study.json"]) == 0
    return json.loads(Path("study.json").read_text())


@pytest.mark.slow
def test_trained_paths(folder, capsys, monkeypatch):
    def refuse(self, batch_size):
        raise AssertionError("the test split is read")

    with monkeypatch.context() as patched:
        patched.setattr(ImageData, "test_batches", refuse)
        study = run("--retrain", "3", "--plot", "study.png")
    output = capsys.readouterr().out
    assert "shufflenet: 3 of 64 paths; stand-alone top-1 accuracy on validation images" in output
    scores = [
        "recalibrated",
        "recalibrated_log_likelihood",
        "inherited",
        "inherited_log_likelihood",
        "flops",
        "params",
        "units",
    ]
    assert [line.split()[0] for line in output.splitlines()[2:9]] == scores
    assert Image.open("study.png").size == (1500, 630)

    recipe = load_recipe("recipe.yml")
    _, costs = load_costs(recipe)
    data = open_data(recipe.data)
    supernet = build_recipe_supernet(recipe)
    restore_supernet(supernet, load_supernet(recipe.checkpoint))
    for point in study["points"]:
        path = point["path"]
        assert point["flops"] == costs["flops"].price(path)
        for name, recalibrate in (("recalibrated", True), ("inherited", False)):
            settings = dataclasses.replace(recipe.evaluation, recalibrate=recalibrate)
            expected = evaluate_path(supernet, path, data, settings)
            assert point[name] == expected.top1
            assert point[f"{name}_log_likelihood"] == pytest.approx(-expected.loss, rel=1e-5)
    for name in scores:
        x, y = ([point[key] for point in study["points"]] for key in (name, "accuracy"))
        tau = study["rankings"][name]["tau"]["value"]
        if len(set(x)) > 1 and len(set(y)) > 1:
            assert tau == pytest.approx(kendall(x, y))
        else:
            assert tau is None

    retrain(recipe, study["points"][0]["path"], Path("retrained.pt"))
    network = load_network("retrained.pt", build_recipe_space(recipe, Form.SUBNET)).network
    assert study["points"][0]["accuracy"] == score(network, data.validation_batches(20)).top1
    assert len(stored(folder)) == 3
    assert not list((folder / "output" / "standalone").rglob("*.ckpt"))


@pytest.mark.slow
def test_what_is_known_is_not_done_again(folder, monkeypatch):
    first = run("--retrain", "3")
    with monkeypatch.context() as patched:
        patched.setattr(standalone, "train_path", None)
        patched.setattr(scoring.PathScorer, "evaluate", None)
        assert run("--retrain", "3") == first
        assert run("--retrain", "2")["points"] == first["points"][:2]
    assert run("--retrain", "4")["points"][:3] == first["points"]
    assert len(stored(folder)) == 4
    change_recipe("retrain", learning_rate=0.01)  # other trainings
    monkeypatch.setattr(standalone, "train_path", None)
    with pytest.raises(TypeError):
        run("--retrain", "2")


@pytest.mark.slow
def test_an_interrupted_training_goes_on(folder, monkeypatch, capsys):
    starts = []
    train = standalone.train_path

    def noticed(*arguments):
        starts.append(arguments[5].value)
        return train(*arguments)

    def interrupt(*arguments, **options):
        raise KeyboardInterrupt

    monkeypatch.setattr(standalone, "train_path", noticed)
    with monkeypatch.context() as patched:
        patched.setattr(standalone, "score", interrupt)
        assert main(["correlate", "recipe.yml", "--retrain", "2"]) == 130
    resumed = run("--retrain", "2")
    assert starts == ["new", "resume", "new"]
    (file,) = (folder / "output" / "standalone").glob("*.jsonl")
    file.unlink()
    assert run("--retrain", "2")["points"] == resumed["points"]


@pytest.mark.parametrize("score_name", ["recalibrated", "inherited"])
@pytest.mark.slow
def test_one_score_only(folder, score_name):
    study = run("--retrain", "2", "--scores", score_name, "--plot", "study.png")
    assert list(study["rankings"]) == [score_name, f"{score_name}_log_likelihood", *TRIVIAL]
    assert Image.open("study.png").size == (825, 630)


def write_macro(folder: Path, accuracy=lambda index, flops: 50 + index / 200) -> dict:
    """Write a recipe of NAS-Bench-Macro's space on digits, its supernet, and a table for them."""
    content = {
        "output": "output",
        "space": {"name": "nasbench_macro"},
        "data": {"name": "digits", "image_size": 8, "num_train": 40, "num_validation": 60},
        "supernet": {"steps": 1, "batch_size": 20},
        "retrain": {"epochs": 1},
        "evaluation": {"recalibration_images": 20, "batch_size": 20},
    }
    (folder / "recipe.yml").write_text(yaml.safe_dump(content))
    recipe = load_recipe(folder / "recipe.yml")
    supernet = build_recipe_space(recipe, Form.SUPERNET, seed=0)
    save_supernet(recipe.checkpoint, supernet, open_data(recipe.data).preprocessing)
    costs = build_costs(build_recipe_space(recipe, Form.SUBNET), (1, 8, 8))
    save_costs(recipe, SPACE, costs)
    rows = SPACE.enumerate()
    flops, params = (costs[name].price_many(rows).tolist() for name in ("flops", "params"))
    table = {
        code_from_path(path): {
            "test_acc": [accuracy(index, flops[index]) + x for x in (-1, 0, 1)],
            "flops": flops[index],
            "params": params[index],
        }
        for index, path in enumerate(SPACE.decode(rows))
    }
    (folder / "table.json").write_text(json.dumps(table))
    return table


@pytest.mark.slow
def test_a_table(tmp_path, monkeypatch, capsys):
    table = write_macro(tmp_path, lambda index, flops: 10 + flops / 1e6)
    monkeypatch.chdir(tmp_path)
    study = run("--table", "table.json", "--paths", "12", "--seed", "3", "--plot", "study.png")
    output = capsys.readouterr().out
    assert "12 of 6,561 paths; stand-alone top-1 accuracy from table.json" in output
    assert "in percentiles" not in output  # of fewer than two paths for each number
    assert not any(study["biases"].values())
    for point in study["points"]:
        entry = table[code_from_path(point["path"])]
        assert point["accuracy"] == pytest.approx(entry["test_acc"][1])
        assert point["flops"] == entry["flops"]
    assert study["rankings"]["flops"]["tau"]["value"] == pytest.approx(1)
    assert study["rankings"]["flops"]["regret"] == 0
    # Accuracies that are multiply-adds are ranked by these best.
    assert f"recalibrated ranks no better than {TRIVIAL['flops']}: tau " in output
    assert len(study["unbeaten"]) == 4
    assert study["rankings"]["flops"]["top"] == [{"k": 10, "share": 1, "chance": 10 / 12}]
    x, y = ([point[key] for point in study["points"]] for key in ("recalibrated", "accuracy"))
    assert study["rankings"]["recalibrated"]["tau"]["value"] == pytest.approx(kendall(x, y))
    monkeypatch.setattr(scoring.PathScorer, "evaluate", None)  # all are in OUTPUT/scores
    assert run("--table", "table.json", "--paths", "12", "--seed", "3") == study


@pytest.mark.slow
def test_choices_that_are_misplaced(tmp_path, monkeypatch, capsys):
    # Alone, paths are as good as they have blocks k3e3; the supernet says nothing of the kind.
    blocks = (SPACE.enumerate() == 1).sum(axis=1).tolist()
    write_macro(tmp_path, lambda index, flops: 50 + blocks[index])
    monkeypatch.chdir(tmp_path)
    study = run("--table", "table.json", "--paths", "40", "--plot", "study.png")
    assert Image.open("study.png").size == (1500, 990)
    names = [name for name in study["rankings"] if name not in TRIVIAL]
    assert list(study["biases"]) == names
    output = capsys.readouterr().out
    assert "choices that are ranked too high (+) or too low (-), in percentiles:" in output
    points = study["points"]
    accuracies = [point["accuracy"] for point in points]
    for name in names:
        scores = [point[name] for point in points]
        indices = SPACE.encode([point["path"] for point in points])
        biases = choice_biases(SPACE, indices, scores, accuracies)
        assert study["biases"][name] == [dataclasses.asdict(bias) for bias in biases]
        assert f"{name}: {format_biases(biases)}" in output
        assert sum(x["bias"] for x in study["biases"][name] if x["choice"] == "k3e3") < -20


@pytest.mark.slow
def test_chunks_are_put_together_in_order(tmp_path, monkeypatch):
    write_macro(tmp_path)
    monkeypatch.chdir(tmp_path)
    arguments = ("--table", "table.json", "--paths", "7", "--scores", "recalibrated")
    together = run(*arguments)
    for file in (tmp_path / "output" / "scores").glob("*"):
        file.unlink()
    monkeypatch.setattr(correlate, "CHUNK", 3)
    assert run(*arguments)["points"] == together["points"]


@pytest.fixture
def refuse_table(tmp_path, monkeypatch, capsys):
    """Return the line that refuses a table of the recipe in the working directory."""
    monkeypatch.chdir(tmp_path)

    def run(*arguments: str) -> str:
        assert main(["correlate", "recipe.yml", "--table", "table.json", *arguments]) == 2
        output = capsys.readouterr()
        assert output.out == ""
        (line,) = output.err.splitlines()
        return line

    return run


@pytest.mark.slow
def test_tables_that_do_not_fit(tmp_path, refuse_table):
    table = write_macro(tmp_path)
    file = tmp_path / "table.json"
    del table["01201201"]
    file.write_text(json.dumps(table))
    assert "1 of 6561 networks are missing, '01201201' first" in refuse_table("--paths", "2")
    table = write_macro(tmp_path)
    table["00000002"]["flops"] += 1
    file.write_text(json.dumps(table))
    line = refuse_table("--paths", "2")
    assert line.startswith("DataError: table.json: network '00000002' has ")
    assert "The table is of CIFAR-10" in line
    write_macro(tmp_path)
    assert "got 6562 paths; " in refuse_table("--paths", "6562")
    (tmp_path / "output" / "supernet.pt").unlink()
    assert refuse_table("--paths", "2").startswith("CheckpointError: ")
    file.unlink()
    assert refuse_table() == "DataError: table.json: no such file."


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (
            ["--table", "table.json"],
            "there are tables of the spaces nasbench_macro, channelbench_resnet, channelbench_m",
        ),
        (["--retrain", "65"], "got 65 paths; a correlation needs 2 or more, and the space has 64"),
        (["--retrain", "1"], "got 1 paths; "),
        (["--retrain", "2", "--paths", "3"], "--paths: only for --table"),
        (["--retrain", "2", "--seed", "-1"], "--seed: must be at least 0, got -1"),
    ],
)
def test_bad_arguments(refused, arguments, words):
    assert words in refused("correlate", "recipe.yml", *arguments)
