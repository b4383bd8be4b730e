"""What only a training, a scoring or a retraining would show is found before any of them."""

import random
import textwrap

import numpy as np
import pytest
import torch
import yaml

from nni_spos.cli import main
from nni_spos.errors import FormatWarning, RehearsalError
from nni_spos.recipe.recipe import check_recipe
from nni_spos.retraining.retrain import retrain
from nni_spos.supernet.rehearsal import rehearse, rehearse_retraining
from nni_spos.supernet.training import train_supernet

HEAD = """
import numpy, random, torch
import torch.nn.functional as F
from torch import nn
from nni.nas.nn.pytorch import LayerChoice, ModelSpace

def conv():
    return nn.Conv2d(4, 4, 3, padding=1)

class Net(ModelSpace):
    def __init__(self, num_classes=10, in_channels=1, affine=True):
        super().__init__()
        self.affine = affine
        self.stem = nn.Sequential(nn.Conv2d(in_channels, 4, 3, 2, 1), nn.BatchNorm2d(4), nn.ReLU())
        self.body = LayerChoice({"plain": conv(), "other": self.other()}, label="a")
        self.fc = nn.Linear(4, num_classes)
    def other(self):
        return nn.Identity()
    def forward(self, x):
        return self.head(self.body(self.stem(x)).mean((2, 3)))
    def head(self, x):
        return self.fc(x)
"""


@pytest.fixture
def write(tmp_path, request):
    """Write a space: HEAD, then methods of a class that is derived from Net; return its recipe."""

    def write(methods="    pass", modules="", **sections):
        name = f"rehearsed_{abs(hash((request.node.name, methods, modules)))}"
        code = f"{HEAD}\n{textwrap.dedent(modules)}\nclass Mine(Net):\n{methods}\n"
        (tmp_path / f"{name}.py").write_text(code)
        content = {
            "output": "out",
            "space": {"name": f"{name}:Mine"},
            "data": {"name": "digits", "num_train": 64, "num_validation": 20},
            "supernet": {"steps": 2, "batch_size": 16},
            "retrain": {"steps": 2, "batch_size": 16},
        }
        for section, values in sections.items():
            content[section] = {**content.get(section, {}), **values}
        return check_recipe(content, tmp_path / "recipe.yml")

    return write


def refused(recipe, *parts):
    with pytest.raises(RehearsalError) as found:
        rehearse(recipe)
    for part in parts:
        assert part in str(found.value)


OTHER = "    def other(self):\n        return {}"
TUPLE = "    def head(self, x):\n        return (self.fc(x), x) if self.training else self.fc(x)"
SQUEEZED = (
    "    def head(self, x):\n        return self.fc(x)[:, :4] if self.training else self.fc(x)"
)
NORMS = OTHER.format("nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.BatchNorm2d(4))")


def test_a_plain_network_passes_and_nothing_is_left_behind(write, tmp_path):
    recipe = write()
    before = torch.get_rng_state(), np.random.get_state()[1].copy(), random.getstate()
    assert rehearse(recipe) is torch.channels_last
    assert torch.equal(before[0], torch.get_rng_state())
    assert (before[1] == np.random.get_state()[1]).all()
    assert before[2] == random.getstate()
    assert not recipe.output.exists()


def test_code_that_draws_from_every_generator_does_not_move_them(write):
    draws = "    def head(self, x):\n        return self.fc(x + torch.rand(1) * random.random()"
    before = torch.get_rng_state(), np.random.get_state()[1].copy(), random.getstate()
    assert rehearse(write(f"{draws} * numpy.random.rand())")) is torch.channels_last
    assert torch.equal(before[0], torch.get_rng_state())
    assert (before[1] == np.random.get_state()[1]).all()
    assert before[2] == random.getstate()


@pytest.mark.parametrize(
    ("head", "found"),
    [
        ("(self.fc(x), x)", "a tuple of 2 for 2 images"),
        ("{'logits': self.fc(x)}", "a dict for 2 images"),
        ("self.fc(x).flatten()", "a tensor of shape (20,) for 2 images"),
    ],
)
def test_what_is_returned_in_training_only(write, head, found):
    methods = f"    def head(self, x):\n        return {head} if self.training else self.fc(x)"
    refused(write(methods), "training step of the supernet", "(a: plain)", found, "self.training")


def test_too_few_classes_in_training(write):
    refused(write(SQUEEZED), "training step of the supernet on the path (a: plain)", "(2, 4)")


def test_batch_norm_with_one_image(write):
    recipe = write(NORMS, supernet={"batch_size": 1})
    refused(recipe, "the path (a: other)", "more than 1 value", "give supernet.batch_size 2 or")
    rehearse(write(NORMS, supernet={"batch_size": 2}))
    rehearse(write(supernet={"batch_size": 1}))  # all norms have more values


def test_parts_of_one_image(write):
    parts = {"batch_size": 4, "devices": 4}
    refused(write(NORMS, supernet=parts), "(a: other)", "more than 1 value")
    rehearse(write(NORMS, supernet={**parts, "devices": 2}))
    rehearse(write(NORMS, supernet={**parts, "sync_batchnorm": True}))
    refused(
        write(NORMS, retrain=parts), "retraining the path (a: other)", "give retrain.batch_size"
    )


def test_one_recalibration_image(write):
    recipe = write(NORMS, evaluation={"recalibration_images": 1})
    refused(recipe, "scoring the path (a: other)", "give evaluation.recalibration_images")
    rehearse(write(NORMS, evaluation={"recalibration_images": 2}))
    rehearse(write(NORMS, evaluation={"recalibration_images": 1, "recalibrate": False}))


def test_a_last_batch_of_one_image(write):
    methods = (
        "    def head(self, x):\n        return self.fc(x.view(-1, 4) if len(x) > 1 else x[0])"
    )
    split = {"data": {"num_validation": 21}, "evaluation": {"batch_size": 10}}
    refused(write(methods, **split), "scoring the path (a: plain)", "single image")
    rehearse(write(methods, **split | {"evaluation": {"batch_size": 7}}))


def test_a_network_that_needs_more_images_than_a_few(write):
    groups = "x.view(4, -1, 4).view(-1, 4) if self.training else x"
    methods = f"    def head(self, x):\n        return self.fc({groups})"
    enough = {"supernet": {"batch_size": 8}, "retrain": {"batch_size": 8}}
    rehearse(write(methods, **enough))
    refused(write(methods, **enough | {"supernet": {"batch_size": 6}}), "training step", "[4, -1")
    refused(write(methods, **enough | {"retrain": {"batch_size": 6}}), "retraining", "[4, -1")


def test_images_that_are_resized(write):
    methods = OTHER.format("nn.Sequential(nn.AvgPool2d(4), nn.AvgPool2d(2))")
    sizes = {"progressive_resizing": {8: 0.5}}
    rehearse(write(methods))
    refused(write(methods, supernet=sizes), "training step", "(a: other)", "too small")
    refused(write(methods, retrain=sizes), "retraining the path (a: other)", "too small")


def test_what_fails_in_the_retrained_network_only(write):
    methods = "    def head(self, x):\n        return self.fc(x if not self.affine else x[:, 1:])"
    code = "retraining the path (a: plain)"
    # The costs are of the retrained form too; the rehearsal alone is looked at here.
    refused(write(methods), code, "mat1 and mat2")


def test_what_fails_in_backward_only(write):
    modules = """
    class Fails(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            return x.clone()
        @staticmethod
        def backward(ctx, gradient):
            raise IndexError("no gradient today")

    class Layer(nn.Module):
        def forward(self, x):
            return Fails.apply(x)
    """
    recipe = write(OTHER.format("Layer()"), modules)
    refused(recipe, "(a: other)", "IndexError: no gradient today", ".py, line ")


@pytest.mark.filterwarnings("error")
def test_nothing_is_written_by_a_training_that_is_refused(write):
    recipe = write(TUPLE)
    with pytest.raises(RehearsalError, match="a tuple of 2"):
        train_supernet(recipe)
    assert not recipe.output.exists()


VIEW = "nn.Sequential(conv(), Viewed())"
MODULES = """
class Viewed(nn.Module):
    def forward(self, x):
        return x.view(len(x), -1).view(x.shape)

class ViewedBack(nn.Module):
    class Function(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            return 2 * x
        @staticmethod
        def backward(ctx, gradient):
            return 2 * gradient.view(len(gradient), -1).view(gradient.shape)
    def forward(self, x):
        return self.Function.apply(x).relu() * x

class Strided(nn.Module):
    def forward(self, x):
        return x * x.stride(1)

class Stored(nn.Module):
    def forward(self, x):
        return torch.as_strided(x, x.shape, (x[0].numel(), x[0, 0].numel(), x.shape[3], 1))
"""


@pytest.mark.parametrize(
    ("layer", "reason"),
    [
        ("Viewed()", "RuntimeError: view size"),
        ("ViewedBack()", "RuntimeError: view size"),
        ("Strided()", "its results are others there"),
        ("Stored()", "its results are others there"),
    ],
)
def test_a_choice_that_depends_on_the_memory_format(write, layer, reason):
    recipe = write(OTHER.format(f"nn.Sequential(conv(), {layer})"), MODULES)
    with pytest.warns(FormatWarning, match=reason) as found:
        assert rehearse(recipe) is torch.contiguous_format
    texts = {str(x.message) for x in found if x.category is FormatWarning}
    assert len(texts) == 1, "one line for all stages"


@pytest.mark.filterwarnings("error::nni_spos.errors.FormatWarning")
@pytest.mark.parametrize(
    "layer",
    ["nn.Dropout(0.5)", "nn.Sequential(nn.Flatten(), nn.Unflatten(1, (4, 8, 8)))", "nn.RReLU()"],
)
def test_a_choice_that_does_not(write, layer):
    recipe = write(OTHER.format(f"nn.Sequential(conv(), {layer})"), MODULES)
    assert rehearse(recipe) is torch.channels_last


@pytest.mark.filterwarnings("error::nni_spos.errors.FormatWarning")
def test_who_does_not_ask_for_channels_last_is_not_warned(write):
    usual = {"channels_last": False}
    recipe = write(OTHER.format(VIEW), MODULES, supernet=usual, retrain=usual)
    assert rehearse(recipe) is torch.contiguous_format


def test_the_network_of_one_path_is_rehearsed_alone(write):
    from nni_spos.data import open_data

    recipe = write(OTHER.format(VIEW), MODULES)
    data = open_data(recipe.data)
    assert rehearse_retraining(recipe, {"a": "plain"}, data) is torch.channels_last
    with pytest.warns(FormatWarning, match="view size"):
        assert rehearse_retraining(recipe, {"a": "other"}, data) is torch.contiguous_format


@pytest.mark.slow
def test_the_command_line(write, capsys):
    """All commands on one network that needs the contiguous format, and check on one that fails."""
    flat = "self.body(self.stem(x)).view(-1, 256)"
    mean = "x.view(-1, 4, 64).mean(2)"
    recipe = write(f"    def forward(self, x):\n        x = {flat}\n        return self.fc({mean})")
    sections = {"supernet": {"steps": 1, "batch_size": 16}, "retrain": {"steps": 1}}
    content = {
        "output": "out",
        "space": {"name": recipe.space.name},
        "data": {"name": "digits", "num_train": 64, "num_validation": 20},
        "evaluation": {"batch_size": 20, "recalibration_images": 20},
        "search": {"algorithm": "random", "population_size": 2, "num_generations": 1},
        **sections,
    }
    recipe.file.write_text(yaml.safe_dump(content))
    folder = recipe.file.parent
    (folder / "path.json").write_text('{"a": "other"}')
    config = {
        "searchSpaceFile": "space.json",
        "trialCommand": "nni-spos trial recipe.yml",
        "trialCodeDirectory": ".",
        "trialConcurrency": 1,
        "tuner": {
            "codeDirectory": ".",
            "className": "nni_spos.experiment.tuner.EvolutionTuner",
            "classArgs": {"recipe": "recipe.yml"},
        },
        "trainingService": {"platform": "local"},
    }
    (folder / "nni.yml").write_text(yaml.safe_dump(config))

    def run(*arguments):
        code = main([*arguments])
        errors = capsys.readouterr().err
        return code, [x for x in errors.splitlines() if x.startswith(("warning", "Rehearsal"))]

    file = str(recipe.file)
    path = ("--path", str(folder / "path.json"))
    assert run("space", file, "--output", str(folder / "space.json")) == (0, [])
    commands = [("check", str(folder / "nni.yml")), ("train", file), ("search", file)]
    for command in [*commands, ("retrain", file, *path)]:
        code, lines = run(*command)
        assert code == 0
        assert len(lines) == 1, command
        assert "warning: the network cannot be run in the memory format channels_last" in lines[0]

    other = write(TUPLE)
    content["space"]["name"] = other.space.name
    other.file.write_text(yaml.safe_dump(content))
    code, lines = run("check", str(folder / "nni.yml"))
    assert code == 2
    assert len(lines) == 1
    assert lines[0].startswith(f"RehearsalError: space {other.space.name}: a training step of")


def test_gradients_that_are_not_finite_are_left_to_the_training_to_tell(write):
    recipe = write("    def head(self, x):\n        return self.fc(x) / 0.0")
    rehearse(recipe)


def test_the_largest_seeds(write):
    sections = ("supernet", "retrain", "evaluation", "search")
    largest = {section: {"seed": 2**63 - 1} for section in sections}
    recipe = write(**largest, data={"split_seed": 2**63 - 1})
    assert train_supernet(recipe).exists()
    assert 0 <= retrain(recipe, {"a": "plain"}).test["top1"] <= 100
