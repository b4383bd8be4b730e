"""A recipe with a model: from its weights to a smaller network."""

import json

import pytest
import torch
import yaml
from small_conversions import NET, RECIPE, write_project

from nni_spos import load_network, load_recipe
from nni_spos.cli import main
from nni_spos.errors import RecipeError
from nni_spos.recipe.identity import Result, describe
from nni_spos.search.results import load_results


@pytest.fixture
def project(tmp_path, monkeypatch):
    write_project(tmp_path)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def change(**sections):
    content = {**RECIPE, **sections}
    with open("recipe.yml", "w") as stream:
        yaml.safe_dump({k: v for k, v in content.items() if v is not None}, stream)
    return load_recipe("recipe.yml")


def test_settings_that_suit_trained_weights(project):
    recipe = load_recipe("recipe.yml")
    assert recipe.supernet.initial_weights == "original"
    assert (recipe.retrain.initial_weights, recipe.retrain.batch_size) == ("supernet", 50)
    assert recipe.supernet.batch_size == 128
    assert change(supernet={"epochs": 1}, retrain=None).retrain.initial_weights == "supernet"
    assert recipe.search.sensitivity
    assert change(search=None).search.sensitivity
    assert not change(search={"sensitivity": False}).search.sensitivity


@pytest.mark.parametrize(
    ("sections", "message"),
    [
        ({"space": {"name": "resnet_small"}}, "give either 'space', a search space, or 'model'"),
        ({"model": None}, "give either 'space', a search space, or 'model'"),
        ({"model": None, "space": {"name": "resnet_small"}}, "choices: belongs to 'model'"),
        ({"model": "resnet18"}, "model: must be a mapping such as"),
        (
            {"model": {"name": "resnet18"}},
            "must be torchvision:NAME, timm:NAME, or module:function",
        ),
        ({"choices": {"skp": True}}, "unknown key 'skp'; did you mean 'skip'?"),
        ({"retrain": None}, "retrain: is missing: with 0 epochs the supernet's are no example."),
        ({"supernet": {"epochs": 0, "initial_weights": "random"}}, "epochs: 0 needs the weights"),
        (
            {"model": None, "choices": None, "space": {"name": "converted"}},
            "a network that is converted has the key 'model'",
        ),
        (
            {
                "model": None,
                "choices": None,
                "space": {"name": "resnet_small"},
                "supernet": {"epochs": 1, "initial_weights": "original"},
            },
            "original is of a 'model', and there is a 'space'",
        ),
    ],
)
def test_refuses(project, sections, message):
    with pytest.raises(RecipeError) as caught:
        change(**sections)
    assert message in str(caught.value)


def test_results_are_of_the_weights_and_of_the_code(project):
    before = describe(Result.SUPERNET, load_recipe("recipe.yml"))
    assert "weights" in before["space"]
    (project / "mine.pt").rename("moved.pt")
    moved = change(model={"name": "own_network:make", "weights": "moved.pt"})
    assert describe(Result.SUPERNET, moved) == before
    state = torch.load("moved.pt", weights_only=True)
    state["fc.bias"] += 1
    torch.save(state, "moved.pt")
    others = describe(Result.SUPERNET, moved)
    assert others["space"] != before["space"]
    (project / "own_network.py").write_text(NET.replace("torch.relu(self.two", "(self.two"))
    assert describe(Result.SUPERNET, moved) != others


@pytest.mark.slow
def test_from_a_network_to_a_smaller_one(project, capsys):
    assert main(["compress", "recipe.yml"]) == 0
    out = capsys.readouterr().out
    rows = {line.split("  ")[0]: line.split() for line in out.splitlines()}
    assert rows["multiply-adds"][-2:] < ["80.0", "%"]
    trained = load_network_of(project)
    path = dict(trained.path)
    assert path["one.channels"] == 8 or path["two.channels"] == 8
    assert trained.network.network.one.out_channels == path["one.channels"]
    kept = json.loads((project / "output" / "search" / "first_paths.json").read_text())
    (first,) = kept["paths"]
    assert first in [candidate.path for candidate in load_results("output/search").candidates]
    table = (project / "output" / "compression.md").read_text()
    assert "| one.channels | 16 |" in table
    assert "](compression.svg)" in table
    picture = (project / "output" / "compression.svg").read_text()
    assert picture.startswith("<svg xmlns=")
    assert all(label in picture for label in path)
    stamps = {x: x.stat().st_mtime_ns for x in (project / "output").glob("*.pt")}
    assert main(["compress", "recipe.yml"]) == 0  # what is finished stays
    assert stamps == {x: x.stat().st_mtime_ns for x in (project / "output").glob("*.pt")}
    capsys.readouterr()
    assert main(["results", "output/search"]) == 0
    (said,) = [x for x in capsys.readouterr().out.splitlines() if "of the limit of" in x]
    assert said in out.splitlines()


@pytest.mark.slow
def test_single_changes_are_for_the_search_of_the_supernet_alone(project):
    search = {"population_size": 4, "num_generations": 1, "constraints": ["flops <= 80%"]}
    assert main(["train", "recipe.yml"]) == 0
    found = []
    for racing in (None, 1):  # whose leaders must not be paths that break the limit
        change(search=search, evaluation={**RECIPE["evaluation"], "racing": racing})
        assert main(["search", "recipe.yml", "--overwrite"]) == 0
        found.append(load_results("output/search"))
    assert found[0].best.path == found[1].best.path
    assert found[0].best.metrics["top1"] == found[1].best.metrics["top1"]
    assert found[0].settings["search"]["sensitivity"]
    assert main(["baseline", "recipe.yml", "random-search"]) == 0
    baseline = project / "output" / "random_search"
    assert "sensitivity" not in load_results(baseline).settings["search"]
    assert not (baseline / "first_paths.json").exists()


def load_network_of(project):
    from nni_spos.conversion.recipe_space import converted

    recipe = load_recipe("recipe.yml")
    space = converted(**recipe.space.portable, in_channels=1, input_size=16, folder=str(project))
    return load_network(project / "output" / "retrained.pt", space)
