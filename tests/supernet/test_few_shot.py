"""Supernets that are split at a unit after a part of the training."""

from __future__ import annotations

import json

import pytest
import torch
import yaml
from nni.nas.nn.pytorch import LayerChoice, ModelSpace
from tiny_space import TINY_DATA, TINY_SPACE
from torch import nn

from nni_spos import load_recipe
from nni_spos.cli import main
from nni_spos.data import dataset_spec, open_data
from nni_spos.errors import RecipeError
from nni_spos.files.tensors import load_tensors
from nni_spos.modules.active_path import choice_units, set_path
from nni_spos.modules.subnet import extract_subnet
from nni_spos.path import PathSpace
from nni_spos.scoring.evaluation import score
from nni_spos.scoring.recalibration import recalibrate
from nni_spos.spaces import Form, build_space, default_input_shape
from nni_spos.supernet import SinglePathOneShot, load_supernet
from nni_spos.supernet.building import restore_recipe_supernet
from nni_spos.supernet.initial_weights import begin_with, fit_weights
from nni_spos.training.composed import build_techniques
from nni_spos.training.techniques.few_shot import FewShot


def shared(space):
    torch.manual_seed(0)  # what has to grow is drawn again
    return SinglePathOneShot().mutate_model(space).eval()


def supernet(space, *labels):
    found = shared(space)
    FewShot.change_supernet(FewShot.Settings(few_shot=labels), found)
    return found.eval()


def small(name):
    torch.manual_seed(0)
    return build_space(name, {}, Form.SUPERNET)


@pytest.mark.parametrize("name", ["nasbench_macro", "shufflenet_small", "shufflenet_joint_small"])
def test_each_path_uses_the_copies_of_its_own_choices(name):
    plain, whole = small(name), PathSpace.from_model_space(small(name))
    first, third = [x for x in whole if isinstance(whole[x][0], str)][:3:2]
    split = supernet(small(name), first, third)
    assert dict(PathSpace.from_model_space(split)) == dict(whole)
    images = torch.randn(2, *default_input_shape(plain))
    other = shared(plain)
    path = {label: choices[-1] for label, choices in whole.items()}
    with torch.no_grad():
        for net in (split, other):
            set_path(choice_units(net), path)
        assert torch.equal(split(images), other(images))  # copies begin as what they are copies of
        network = extract_subnet(split, path)
        assert network.state_dict().keys() == extract_subnet(other, path).state_dict().keys()
        # What lies behind the first unit is another copy for another choice of it.
        copies = [x for x in split.modules() if getattr(x, "is_few_shot", False)]
        of_this_path = {path[first], path[third]}
        for copy in copies:
            for choice in set(copy.names) - of_this_path:
                for tensor in copy[choice].parameters():
                    tensor.fill_(float("nan"))
        assert split(images).isfinite().all()
        changed = {**path, first: whole[first][0]}
        set_path(choice_units(split), changed)
        assert split(images).isnan().all()


def test_layers_before_the_unit_and_those_without_weights_are_not_copied():
    space = build_space("nasbench_macro", {}, Form.SUPERNET)
    labels = list(PathSpace.from_model_space(space))
    split = supernet(space, labels[-1])
    names = [x for x, m in split.named_modules() if getattr(m, "is_few_shot", False)]
    assert names
    assert all(next(iter(split.get_submodule(x).parameters()), None) is not None for x in names)
    unit = next(m for m in split.modules() if isinstance(m, LayerChoice) and m.label == labels[-1])
    order = list(split.modules())
    assert all(order.index(split.get_submodule(x)) > order.index(unit) for x in names)


class Twice(ModelSpace):
    """Uses a layer in two places, and has no weights behind its last unit."""

    def __init__(self):
        super().__init__()
        blocks = {"a": nn.Linear(4, 4), "b": nn.Linear(4, 4)}
        self.one = LayerChoice(blocks, label="one")
        self.shared = nn.Linear(4, 4)
        self.number = LayerChoice([nn.Linear(4, 4), nn.Identity()], label="number")
        self.again = self.shared
        self.last = LayerChoice({"a": nn.Identity(), "b": nn.ReLU()}, label="last")
        self.act = nn.ReLU()

    def forward(self, x):
        return self.act(self.last(self.again(self.number(self.shared(self.one(x))))))


def test_a_layer_that_is_used_twice_stays_one():
    split = supernet(Twice(), "one")
    assert split.shared is split.again
    assert split.shared.names == ["a", "b"]
    network = extract_subnet(split, {"one": "b", "number": 0, "last": "a"})
    assert network.shared is network.again


class Listed(ModelSpace):
    """Has lists of layers, and one around a unit."""

    def __init__(self):
        super().__init__()
        unit = LayerChoice({"a": nn.Linear(4, 4), "b": nn.Identity()}, label="one")
        self.blocks = nn.ModuleList([nn.Linear(4, 4), unit, nn.Linear(4, 4)])
        self.heads = nn.ModuleDict({"head": nn.Linear(4, 2)})

    def forward(self, x):
        for block in self.blocks:
            x = block(x)
        return self.heads["head"](x)


def test_lists_of_layers_stay_lists():
    plain, split = shared(Listed()), supernet(Listed(), "one")
    names = [x for x, m in split.named_modules() if getattr(m, "is_few_shot", False)]
    assert names == ["blocks.2", "heads.head"]
    images = torch.randn(3, 4)
    for net in (plain, split):
        torch.manual_seed(0)
        for parameter in net.parameters():
            nn.init.constant_(parameter, 0.1)
        set_path(choice_units(net), {"one": "b"})
    assert torch.equal(plain(images), split(images))


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (("two",), r"unknown label 'two'"),
        (("number",), r"the choices of 'number' are 0, 1, and only units .* Name another label"),
        (("last",), r"nothing with weights lies behind 'last'. Name an earlier label"),
    ],
)
def test_labels_that_cannot_be_split(labels, message):
    with pytest.raises(RecipeError, match=message):
        supernet(Twice(), *labels)


def test_too_many_copies_are_refused():
    space = build_space("nasbench_macro", {}, Form.SUPERNET)
    labels = list(PathSpace.from_model_space(space))[:4]
    with pytest.raises(RecipeError, match=r"have 81 combinations, of at most 64"):
        supernet(space, *labels)


def test_a_file_that_was_not_split_fits_all_copies(tmp_path):
    plain = shared(Twice())
    torch.save(plain.state_dict(), tmp_path / "plain.pt")
    split = supernet(Twice(), "one")
    fit = fit_weights(split, tmp_path / "plain.pt")
    assert (fit.missing, fit.unused) == ([], [])
    begin_with(split, tmp_path / "plain.pt")
    for choice in ("a", "b"):
        assert torch.equal(split.shared[choice].weight, plain.shared.weight)


@pytest.fixture
def recipe(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    def write(**supernet):
        content = {
            "output": "output",
            "space": {**TINY_SPACE, "stage_repeats": [1, 1]},
            "data": TINY_DATA,
            "supernet": {"steps": 6, "batch_size": 20, **supernet},
            "retrain": {"epochs": 1},
            "evaluation": {"recalibration_images": 40, "batch_size": 20},
            "search": {"population_size": 4, "num_generations": 2, "top_k": 2},
        }  # fmt: skip
        (tmp_path / "recipe.yml").write_text(yaml.safe_dump(content))
        return load_recipe("recipe.yml")

    return write


@pytest.mark.slow
def test_from_training_to_a_network(recipe, capsys):
    found = recipe(few_shot=["layer_1"], few_shot_after=0.5)
    assert main(["train", "recipe.yml"]) == 0
    assert main(["search", "recipe.yml", "--output", "best.json"]) == 0
    scored = [json.loads(x) for x in (found.output / "search" / "search.jsonl").open()][1:]
    assert len(scored) == 8
    assert main(["retrain", "recipe.yml", "--path", "best.json"]) == 0
    # The score of a path is that of its network with the weights of its own copies.
    data = open_data(found.data)
    checkpoint = load_supernet(found.checkpoint)
    whole = restore_recipe_supernet(found, checkpoint, data)
    network = extract_subnet(whole, scored[0]["path"])
    recalibrate(network, data.recalibration_batches(40, 20, found.evaluation.seed))
    figures = score(network, data.validation_batches(20), task=data.task)
    assert figures.to_json()["top1"] == pytest.approx(scored[0]["metrics"]["top1"])


@pytest.mark.slow
def test_until_the_split_all_paths_train_one_copy(recipe):
    weights = {}
    for after in (1.0, 0.5):
        found = recipe(few_shot=["layer_1"], few_shot_after=after)
        assert main(["train", "recipe.yml", "--overwrite"]) == 0
        state = load_tensors(found.checkpoint)["weights"]
        heads = [x for name, x in state.items() if name.endswith("classifier.weight")]
        heads = heads or [x for name, x in state.items() if x.dim() == 2]
        assert len(heads) == 4
        weights[after] = heads
    first, *others = weights[1.0]
    assert all(torch.equal(first, other) for other in others)  # split at the very end
    assert not all(torch.equal(weights[0.5][0], other) for other in weights[0.5][1:])


@pytest.mark.slow
def test_one_copy_trains_as_a_supernet_without_few_shot(recipe):
    found = recipe()
    assert main(["train", "recipe.yml"]) == 0
    plain = load_tensors(found.checkpoint)["weights"]
    recipe(few_shot=["layer_1"], few_shot_after=1.0)
    assert main(["train", "recipe.yml", "--overwrite"]) == 0
    split = load_tensors(found.checkpoint)["weights"]
    for name, tensor in plain.items():
        same = [x for key, x in split.items() if x.shape == tensor.shape and torch.equal(x, tensor)]
        assert same, name


def test_it_is_refused_with_averages(recipe):
    found = recipe(few_shot=["layer_1"], model_ema=True)
    spec = dataset_spec(found.data)
    with pytest.raises(RecipeError, match="model_ema averages the copies before"):
        build_techniques(found.supernet, spec)
