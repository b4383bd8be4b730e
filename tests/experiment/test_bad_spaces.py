"""Wrong models of the user's own at the command line: one line, exit code 2, nothing written.

Beside each wrong model there is one next to it that is accepted.
"""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import yaml
from trained_recipes import change_recipe

from nni_spos.cli import main

MODEL = """\
import nni
from nni.nas.nn.pytorch import InputChoice, LayerChoice, ModelSpace
from torch import nn
from nni_spos.mutables import *

class MySpace(ModelSpace):
    def __init__(self, num_classes=10, in_channels=1, affine=True):
        super().__init__()
        width = channel_choice("width", 8, scales=[1, 0.5])
        bits = bits_choice("bits", [(2, 4), (4, 4)])
        self.stem = MutableConv2d(in_channels, width, 3, padding=1)
        self.mix = MutableConv2d(width, width, 3, padding=1, groups=4)
        self.relu = nn.ReLU()
        self.quantized = QuantConv2d(width, width * 2, 1, weight_bits=bits.weight)
        self.unit = LayerChoice({"a": nn.ReLU(), "b": nn.Identity()}, label="unit")
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.classifier = MutableLinear(width * 2, num_classes)

    def forward(self, x):
        x = self.relu(self.mix(self.stem(x)))
        x = self.pool(self.unit(self.quantized(x)))
        return self.classifier(x.flatten(1))
"""
SPACE = {"width": [8, 4], "bits": ["2w4a", "4w4a"], "unit": ["a", "b"]}


@pytest.fixture(autouse=True)
def files(folder, monkeypatch):
    """The recipe names a model beside it, and NNI's configuration the recipe."""
    # Python would write beside the model, in this process and in the one that builds the costs.
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    monkeypatch.setenv("PYTHONDONTWRITEBYTECODE", "1")
    recipe = yaml.safe_load(Path("recipe.yml").read_text())
    recipe["space"] = {"name": "my_model:MySpace"}
    Path("recipe.yml").write_text(yaml.safe_dump(recipe))
    tuner = {
        "className": "nni_spos.experiment.tuner.EvolutionTuner",
        "codeDirectory": ".",
        "classArgs": {"recipe": "recipe.yml"},
    }
    config = {
        "searchSpace": {
            label: {"_type": "choice", "_value": values} for label, values in SPACE.items()
        },
        "trialCommand": "nni-spos trial recipe.yml",
        "trialConcurrency": 1,
        "tuner": tuner,
        "trainingService": {"platform": "local"},
    }
    Path("spos.yml").write_text(yaml.safe_dump(config))
    write(MODEL)


def write(model: str) -> None:
    Path("my_model.py").write_text(model)
    sys.modules.pop("my_model", None)  # as in a new process


def change(old: str, new: str) -> None:
    assert MODEL.count(old) == 1
    write(MODEL.replace(old, new))


def is_accepted() -> bool:
    return main(["costs", "recipe.yml"]) == 0


@pytest.mark.parametrize(
    ("old", "given", "words", "accepted"),
    [
        # The layer is built at the first choice, 8 channels; 4 are not divisible.
        ("groups=4", "groups=8", "SpaceError: layer 'mix': in_channels 4 is not a multiple of "
         "groups 8", "groups=2"),
        ("groups=4", "groups=3", "in_channels must be divisible by groups (my_model.py, line 12)",
         "groups=width"),
        ("(4, 4)]", "(9, 4)]", "bits must be a whole number from 1 to 8, or 32 for full precision, "
         "got 9. (my_model.py, line 10)", "(8, 4)]"),
        ("weight_bits=bits.weight", "weight_bits=nni.choice('bits', [8, 9])",
         "QuantizationError: layer 'quantized': bits must be a whole number from 1 to 8",
         "weight_bits=nni.choice('bits', [8, 7])"),
        ('"width", 8', '"width", 0', "space my_model:MySpace: channel_choice('width'): ",
         '"width", 16'),
        ("in_channels, width,", "in_channels, width - 4,",
         "SpaceError: layer 'stem': out_channels must be a whole number of at least 1, got 0.",
         "in_channels, width + 0,"),
        ("self.quantized(x))", "self.quantized(x).matrix_exp())", "CostError: the space calls "
         "aten.linalg_matrix_exp (my_model.py, line 21), whose multiply-adds cannot be counted.",
         "self.quantized(x).exp())"),
        ("nn.Identity()", "nn.Conv2d(16, 16, 1)", "CostError: images of shape (1, 8, 8) do not fit "
         "the space", "MutableConv2d(width * 2, width * 2, 1)"),
        ("width * 2, num", "width * 3, num", "(my_model.py, line 22)", "width + width, num"),
    ],
)  # fmt: skip
def test_layers(refused, old, given, words, accepted):
    change(old, given)
    assert words in refused("train", "recipe.yml")
    change(old, accepted)
    assert is_accepted()


@pytest.mark.parametrize(
    ("given", "words", "accepted"),
    [
        ('self.other = LayerChoice({"a": nn.ReLU(), "c": nn.ReLU()}, label="unit")',
         "the label 'unit' has the choices ['a', 'c'] in one place and ['a', 'b'] in another. Use "
         "one choice object in both places, or two labels.",
         'self.other = LayerChoice({"a": nn.ReLU(), "b": nn.ReLU()}, label="unit")'),
        ('width = channel_choice("width", 8, scales=[1, 2])',
         "the label 'width' has the choices [8, 4] in one place and [8, 16] in another.",
         'width = channel_choice("width", 8, scales=[1, 0.5])'),
        # Without a choice in common, which NNI finds out itself, and logs.
        ('self.other = MutableBatchNorm2d(channel_choice("width", 32, scales=[1, 2]))',
         "a label has other choices here than before: 8 not found in [32, 64]. Use one choice "
         "object in both places, or two labels. (my_model.py, line 13)",
         'self.other = MutableBatchNorm2d(channel_choice("other", 32, scales=[1, 2]))'),
        ('self.other = InputChoice(2, 1, label="other")',
         "PathError: label 'other' is a CategoricalMultiple of 'other' (InputChoice, which "
         "chooses a set of its inputs",
         'self.other = LayerChoice([nn.ReLU(), nn.ReLU()], label="other")'),
    ],
)  # fmt: skip
def test_labels(refused, given, words, accepted):
    change("self.relu = nn.ReLU()", f"self.relu = nn.ReLU(); {given}")
    assert words in refused("train", "recipe.yml")
    change("self.relu = nn.ReLU()", f"self.relu = nn.ReLU(); {accepted}")
    assert is_accepted()


@pytest.mark.parametrize(
    ("old", "given", "words", "accepted"),
    [
        ("(ModelSpace)", "(nn.Module)", "MySpace: is a MySpace, not an NNI ModelSpace. Derive the "
         "class from nni.nas.nn.pytorch.ModelSpace.", "(type('Base', (ModelSpace,), {}))"),
        ("class MySpace", "class MySpaces", "module 'my_model' has no 'MySpace'; did you mean "
         "'MySpaces'?", "class MySpaces(ModelSpace): pass\nclass MySpace"),
        ("import nni\n", "import nnni\n", "cannot import 'my_model' (ModuleNotFoundError: No "
         "module named 'nnni' (my_model.py, line 1)).", "import nni.nas\nimport nni\n"),
        ("in_channels=1", "in_channel=1, *, depth", "missing 1 required keyword-only argument: "
         "'depth'", "in_channels=1, *, depth=1"),
        ("        super()", "        1 / 0; super()", "ZeroDivisionError: division by zero "
         "(my_model.py, line 8)", "        0 / 1; super()"),
        ("self.pool(self", "self.pol(self", "the space does not run (where 'width' is 8): "
         "AttributeError: 'MySpace' object has no attribute 'pol' (my_model.py, line 21)",
         "self.pool(1 * self"),
        ("num_classes)\n", "num_classes - 1)\n", "returns a tensor of shape (1, 9) for one image "
         "of the data. It must return one tensor of shape (1, 10); ",
         "num_classes + 1)\n"),
        ("return ", "", "the space returns a NoneType for one image", "return 1 * "),
    ],
)  # fmt: skip
def test_code(refused, old, given, words, accepted):
    change(old, given)
    assert words in refused("train", "recipe.yml")
    change(old, accepted)
    assert is_accepted()


def test_a_module_that_is_not_there(folder, refused):
    change_recipe("space", name="my_modle:MySpace")
    line = refused("train", "recipe.yml")
    assert line == (
        "RecipeError: space my_modle:MySpace: cannot import 'my_modle' (there is no 'my_modle' in "
        f"the recipe's folder {folder}, among installed packages and in PYTHONPATH; did you mean "
        "'my_model'?)."
    )
    line = refused("profile", "my_model:MySpace")  # no recipe says where it is
    assert "there is no 'my_model' among installed packages and in PYTHONPATH" in line
    change_recipe("space", name="my_model:MySpace")
    assert is_accepted()


def test_the_check_says_the_same(refused, capsys):
    """What the process that builds the costs prints reaches the user."""
    change("self.quantized(x))", "self.quantized(x).matrix_exp())")
    line = refused("check", "spos.yml")
    assert line.startswith("RecipeError: spos.yml: the space calls aten.linalg_matrix_exp (my_m")
    write(MODEL)
    change_recipe("space", name="my_modle:MySpace")
    line = refused("check", "spos.yml")
    assert line.startswith("RecipeError: spos.yml: space my_modle:MySpace: cannot import")
    change_recipe("space", name="my_model:MySpace")
    assert main(["check", "spos.yml"]) == 0
    capsys.readouterr()
    change('label="unit"', 'label="block"')
    line = refused("check", "spos.yml")
    assert "NNI's search space is not the one of recipe.yml" in line
