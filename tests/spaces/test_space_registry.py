import sys

import pytest
from nni.nas.nn.pytorch import ModelSpace
from torch import nn

from nni_spos.errors import RecipeError
from nni_spos.spaces import (
    SPACES,
    FBNetSpace,
    Form,
    NASBenchMacroSpace,
    ProxylessNASSpace,
    ResNetSpace,
    ShuffleNetV2Space,
    build_space,
)

FAMILIES = {
    "shufflenet": ShuffleNetV2Space,
    "resnet": ResNetSpace,
    "proxylessnas": ProxylessNASSpace,
    "fbnet": FBNetSpace,
    "nasbench": NASBenchMacroSpace,
    "channelbench": ModelSpace,
}

OWN = """
from torch import nn
from nni.nas.nn.pytorch import LayerChoice, ModelSpace

class Own(ModelSpace):
    def __init__(self, num_classes, depth=1):
        super().__init__()
        if depth < 1:
            raise ValueError(f"depth must be at least 1, got {depth}.")
        self.num_classes, self.depth = num_classes, depth
        self.unit = LayerChoice({"a": nn.Identity(), "b": nn.ReLU()}, label="unit")

class Heir(Own):
    pass

class Open(ModelSpace):
    def __init__(self, **options):
        super().__init__()
        self.options = options

class Plain(nn.Module):
    pass

def make(num_classes):
    return Own(num_classes, depth=3)

number = 3
"""


@pytest.fixture
def user_module(tmp_path, monkeypatch):
    """Put a module of the user's on the path, under a name that no other test uses."""
    written = []

    def write(content):
        name = f"own_space_{tmp_path.name}_{len(written)}"
        (tmp_path / f"{name}.py").write_text(content, encoding="utf-8")
        written.append(name)
        return name

    monkeypatch.syspath_prepend(tmp_path)
    yield write
    for name in written:
        sys.modules.pop(name, None)


def affine(space):
    return {module.affine for module in space.modules() if isinstance(module, nn.BatchNorm2d)}


@pytest.mark.parametrize("name", SPACES.ours)
@pytest.mark.slow
def test_our_spaces_by_name(name):
    supernet = build_space(name, {}, Form.SUPERNET, num_classes=7, input_size=64, in_channels=1)
    family = FAMILIES[name.split("_")[0].rstrip("0123456789")]
    assert type(supernet) is family or (family is ModelSpace and isinstance(supernet, family))
    assert (supernet.num_classes, supernet.input_size, supernet.in_channels) == (7, 64, 1)
    assert affine(supernet) == {False}
    assert affine(build_space(name, {}, Form.SUBNET)) == {True}


def test_what_the_data_do_not_say_is_the_spaces_default():
    small = build_space("shufflenet_small", {}, Form.SUPERNET)
    assert (small.num_classes, small.input_size, small.in_channels) == (1000, 32, 3)


def test_arguments_win_over_data_and_form():
    arguments = {"num_classes": 5, "affine": True, "stage_repeats": [1, 1, 1]}
    space = build_space("shufflenet_small", arguments, Form.SUPERNET, num_classes=7)
    assert space.num_classes == 5
    assert affine(space) == {True}
    assert list(space.simplify()) == ["layer_1", "layer_2", "layer_3"]


def test_unknown_space():
    with pytest.raises(RecipeError) as error:
        build_space("shufflenet_smal", {}, Form.SUPERNET)
    assert str(error.value) == (
        "unknown space 'shufflenet_smal'; did you mean 'shufflenet_small'? "
        f"Spaces: {', '.join(SPACES.ours)}, or module:Class."
    )


@pytest.mark.parametrize("name", SPACES.ours)
def test_unknown_argument(name):
    with pytest.raises(RecipeError) as error:
        build_space(name, {"num_class": 64}, Form.SUPERNET)
    message = str(error.value)
    assert message.startswith(
        f"space {name}: unknown argument 'num_class'; did you mean 'num_classes'? "
        "Arguments: num_classes, input_size,"
    )
    assert "self" not in message
    assert build_space(name, {"num_classes": 64}, Form.SUPERNET).num_classes == 64


@pytest.mark.parametrize(
    ("bad", "good", "message"),
    [
        ({"input_size": 7}, {"input_size": 8}, "must be at least 8 pixels, got 7"),
        (
            {"input_size": "32"},
            {"input_size": 32},
            r"input_size: got '32'; must be a whole number, or a list, each item a whole number\.",
        ),
        ({"affine": "no"}, {"affine": None}, r"affine: got 'no'; must be true or false, or null\."),
        ({"dropout": True}, {"dropout": 0}, r"dropout: got True; must be a number\."),
        (
            {"stage_repeats": [1, 1.5, 1]},
            {"stage_repeats": [1, 2, 1]},
            "must be a list, each item a whole number",
        ),
        ({"stage_channels": [32, 64]}, {"stage_channels": [32, 64, 96]}, "same length"),
    ],
)
def test_argument_that_the_space_refuses(bad, good, message):
    with pytest.raises(RecipeError, match=message) as error:
        build_space("shufflenet_small", bad, Form.SUPERNET)
    assert str(error.value).startswith("space shufflenet_small")
    build_space("shufflenet_small", good, Form.SUPERNET)


def test_a_users_class(user_module):
    name = user_module(OWN)
    # It takes neither `affine` nor `in_channels`, which are then not given to it.
    space = build_space(f"{name}:Own", {"depth": 2}, Form.SUBNET, num_classes=4, in_channels=3)
    assert (type(space).__name__, space.num_classes, space.depth) == ("Own", 4, 2)
    heir = build_space(f"{name}:Heir", {"depth": 2}, Form.SUBNET, num_classes=4)
    assert (type(heir).__name__, heir.num_classes, heir.depth) == ("Heir", 4, 2)
    with pytest.raises(RecipeError, match=r"unknown argument 'dept'; did you mean 'depth'\?"):
        build_space(f"{name}:Own", {"dept": 2}, Form.SUBNET, num_classes=4)
    with pytest.raises(RecipeError, match="depth must be at least 1, got 0"):
        build_space(f"{name}:Own", {"depth": 0}, Form.SUBNET, num_classes=4)
    with pytest.raises(RecipeError, match=r"missing 1 required .* 'num_classes'"):
        build_space(f"{name}:Own", {}, Form.SUBNET)


def test_a_users_function(user_module):
    space = build_space(f"{user_module(OWN)}:make", {}, Form.SUPERNET, num_classes=4)
    assert (space.num_classes, space.depth) == (4, 3)


def test_a_class_that_takes_any_argument(user_module):
    space = build_space(f"{user_module(OWN)}:Open", {"width": 3}, Form.SUPERNET)
    assert space.options == {"width": 3}


def test_not_a_model_space(user_module):
    name = user_module(OWN)
    with pytest.raises(RecipeError, match="Plain: is a Plain, not an NNI ModelSpace"):
        build_space(f"{name}:Plain", {}, Form.SUPERNET)
    with pytest.raises(RecipeError, match="number: is a int, not a class"):
        build_space(f"{name}:number", {}, Form.SUPERNET)
    with pytest.raises(RecipeError, match=f"module '{name}' has no 'Missing'"):
        build_space(f"{name}:Missing", {}, Form.SUPERNET)
    with pytest.raises(RecipeError, match=f"module '{name}' has no ''"):
        build_space(f"{name}:", {}, Form.SUPERNET)


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        ("import no_such_module_anywhere\n", "ModuleNotFoundError: No module named"),
        ("class Own(:\n", "SyntaxError: "),
        ("x = undefined\n", "NameError: name 'undefined' is not defined"),
    ],
)
def test_broken_import(user_module, content, problem):
    name = user_module(content)
    with pytest.raises(RecipeError) as error:
        build_space(f"{name}:Own", {}, Form.SUPERNET)
    assert str(error.value).startswith(f"space {name}:Own: cannot import '{name}' ({problem}")


@pytest.mark.parametrize("name", ["no_such_module_anywhere:Own", ":Own", ".own:Own"])
def test_no_such_module(name):
    with pytest.raises(RecipeError, match="cannot import"):
        build_space(name, {}, Form.SUPERNET)
