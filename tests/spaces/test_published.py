"""Published networks have their published figures."""

import json
from pathlib import Path

import pytest
import torch
import yaml
from torch import nn

from nni_spos.cli import main
from nni_spos.errors import PathError, RecipeError
from nni_spos.path import PathSpace
from nni_spos.profilers import build_costs
from nni_spos.recipe.recipe import SpaceSettings
from nni_spos.spaces import (
    PUBLISHED,
    SPACES,
    Form,
    build_space,
    find_published,
    published,
    read_path,
)

POOL = 7 * 7
"""Elements of each channel that the last pooling of FBNet adds up; its paper counts them."""

# Name to multiply-adds and parameters, and what the publication prints of them in millions.
FIGURES = {
    "shufflenet-spos": (322_918_720, 3_558_464, "323", "3.5"),
    "proxylessnas-cpu": (439_243_864, 4_361_648, "439.2", None),
    "proxylessnas-gpu": (465_260_160, 7_119_848, "465.3", None),
    "proxylessnas-mobile": (320_427_584, 4_080_512, "320.4", None),
    "fbnet-a": (244_452_664, 4_304_584, "244.5", "4.3"),
    "fbnet-b": (291_004_424, 4_801_368, "291.1", "4.8"),
    "fbnet-c": (378_136_224, 5_570_664, "378.2", "5.5"),
}


def shown(number, printed):
    """Millions with as many decimals as a publication prints."""
    return f"{number / 1e6:.{len(printed.partition('.')[2])}f}"


@pytest.mark.parametrize("name", PUBLISHED)
@pytest.mark.slow
def test_figures(name):
    network = published(name)
    flops, params, printed_flops, printed_params = FIGURES[name]
    space = build_space(network.space, network.arguments, Form.SUBNET)
    assert PathSpace.from_model_space(space).validate(network.path) == network.path
    costs = build_costs(space, (3, 224, 224))
    assert costs["flops"].price(network.path) == flops
    assert costs["params"].price(network.path) == params
    counted = flops
    if network.space == "fbnet":
        counted += POOL * network.arguments.get("last_channels", 1984)
    assert shown(counted, printed_flops) == printed_flops
    if printed_params:  # their authors cut the digits off: 5.57 is printed as 5.5
        assert int(params / 1e5) / 10 == float(printed_params)


@pytest.mark.parametrize("name", PUBLISHED)
def test_the_network_built_for_the_path(name):
    network = published(name).build(num_classes=10, input_size=64).eval()
    assert not network.simplify()
    per_class = network.classifier[0] if "shufflenet" in name else network.classifier
    removed = 990 * (per_class.in_features + (per_class.bias is not None))
    assert sum(p.numel() for p in network.parameters()) == FIGURES[name][1] - removed
    with torch.no_grad():
        assert network(torch.zeros(1, 3, 64, 64)).shape == (1, 10)
    assert {m.affine for m in network.modules() if isinstance(m, nn.BatchNorm2d)} == {True}


def test_all_are_checked():
    assert set(FIGURES) == set(PUBLISHED)
    assert {network.space for network in PUBLISHED.values()} <= set(SPACES.ours)
    assert all(name == network.name for name, network in PUBLISHED.items())


def test_an_unknown_name_is_answered_with_the_known_ones():
    with pytest.raises(PathError) as error:
        published("fbnet-d")
    message = str(error.value)
    assert message.startswith("unknown network 'fbnet-d'; did you mean 'fbnet-")
    assert message.endswith(f"Networks: {', '.join(PUBLISHED)}.")
    assert published("fbnet-a").space == "fbnet"


def test_arguments_of_the_space_can_be_given():
    with pytest.raises(RecipeError, match="unknown argument 'width'"):
        published("fbnet-a").build(width=3)
    assert published("fbnet-a").build(dropout=0.5).dropout.p == 0.5


def test_names_and_files(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    network = published("fbnet-a")
    space = SpaceSettings("fbnet", network.arguments)
    path = dict(network.path, layer_1="k3e1")
    for file in ("best.json", "best", "fbnet-a.json"):
        Path(file).write_text(json.dumps(path))
        assert find_published(file) is None
        assert read_path(file, space) == path
    Path("fbnet-a").write_text(json.dumps(path))
    assert read_path("fbnet-a", space) == network.path
    assert read_path("./fbnet-a", space) == path
    for file in ("missing.json", "./missing"):
        with pytest.raises(PathError, match="no such file"):
            read_path(file, space)
    with pytest.raises(PathError, match="unknown network 'missing'"):
        read_path("missing", space)


def test_the_path_of_a_file_is_checked(tmp_path):
    choices = PathSpace.from_model_space(SPACES.find("fbnet")())
    file = tmp_path / "best.json"
    for choice, problem in (("k9", "'k9' is not a choice"), ("k3e3", None)):
        file.write_text(json.dumps({**published("fbnet-b").path, "layer_2": choice}))
        if problem:
            with pytest.raises(PathError, match=rf"best\.json: .*{problem}"):
                read_path(file, SpaceSettings("fbnet", {}), choices)
        else:
            assert read_path(file, SpaceSettings("fbnet", {}), choices)["layer_2"] == choice


@pytest.mark.parametrize(
    ("name", "bad", "good", "message"),
    [
        (
            "fbnet-a",
            {"name": "fbnet"},
            {"name": "fbnet", "last_channels": 1504},
            "fbnet-a needs the space's last_channels to be 1504, got its default",
        ),
        (
            "fbnet-b",
            {"name": "fbnet", "last_channels": 1504},
            {"name": "fbnet", "num_classes": 10, "dropout": 0.2},
            "fbnet-b needs the space's last_channels to be its default, got 1504",
        ),
        (
            "proxylessnas-gpu",
            {"name": "proxylessnas_cpu"},
            {"name": "proxylessnas_gpu", "affine": True},
            "proxylessnas-gpu is a path of the space proxylessnas_gpu, not of proxylessnas_cpu",
        ),
    ],
)
def test_another_space_is_refused(name, bad, good, message):
    def settings(content):
        return SpaceSettings(content["name"], {k: v for k, v in content.items() if k != "name"})

    with pytest.raises(PathError, match=message):
        read_path(name, settings(bad))
    assert read_path(name, settings(good)) == published(name).path


@pytest.mark.slow
def test_profile_takes_a_name(capsys):
    assert main(["profile", "fbnet", "--path", "fbnet-a", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["path"] == {
        "flops": 244_452_664,
        "params": 4_304_584,
    }
    assert main(["profile", "fbnet", "--path", "shufflenet-spos"]) == 2
    error = capsys.readouterr().err
    assert error == (
        "PathError: shufflenet-spos is a path of the space shufflenet, not of fbnet.\n"
    )


@pytest.mark.slow
def test_retrain_takes_a_name(tmp_path, capsys):
    recipe = {
        "output": "runs",
        "space": {"name": "fbnet"},
        "data": {"name": "digits", "num_train": 60, "num_validation": 60, "image_size": 32},
        "supernet": {"epochs": 1},
        "retrain": {"epochs": 1, "batch_size": 30},
    }
    file = tmp_path / "recipe.yml"
    file.write_text(yaml.safe_dump(recipe))
    assert main(["retrain", str(file), "--path", "fbnet-a"]) == 2
    assert "fbnet-a needs the space's last_channels to be 1504" in capsys.readouterr().err
    assert main(["retrain", str(file), "--path", "fbnet-b"]) == 0
    assert f"path {' '.join(published('fbnet-b').path.values())}" in capsys.readouterr().out
