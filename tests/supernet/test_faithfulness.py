"""A supernet that is another network than the one that is retrained is refused by name."""

import textwrap

import pytest
import torch
from nni.nas.nn.pytorch import ModelSpace
from nni.nas.space import model_context

from nni_spos.cli import main
from nni_spos.path import PathSpace
from nni_spos.spaces import SPACES, Form, build_space
from nni_spos.supernet import SinglePathOneShot
from nni_spos.supernet.faithfulness import find_difference

HEAD = """
import nni, torch
from torch import nn
from nni.nas.nn.pytorch import (
    LayerChoice, ModelSpace, MutableBatchNorm2d, MutableConv2d, MutableLinear
)

def conv():
    return nn.Sequential(nn.Conv2d(4, 4, 3, padding=1, bias=False), nn.BatchNorm2d(4), nn.ReLU())

class Net(ModelSpace):
    def __init__(self, num_classes=10, in_channels=1):
        super().__init__()
        w = nni.choice("w", [2, 6])
        self.stem = MutableConv2d(in_channels, 4, 3, 2, 1)
        self.unit = LayerChoice({"conv": conv(), "skip": nn.Identity()}, label="u")
        self.wide = MutableConv2d(4, w, 1)
        self.norm = MutableBatchNorm2d(w)
        self.fc = MutableLinear(w, num_classes)
        self.prepare()
    def prepare(self):
        pass
    def forward(self, x):
        return self.fc(self.norm(self.wide(self.run(self.stem(x)))).relu().mean((2, 3)))
    def run(self, x):
        return self.unit(x)
"""


def classes(methods):
    code = f"{HEAD}\nclass Mine(Net):\n{textwrap.indent(textwrap.dedent(methods), '    ')}\n"
    scope = {"__name__": "mine"}
    exec(compile(code, "mine.py", "exec"), scope)
    return scope["Mine"], code


def differences(space_class: type[ModelSpace], shape=(1, 8, 8)):
    torch.manual_seed(0)
    supernet = SinglePathOneShot().mutate_model(space_class())
    found = []
    for path in PathSpace.from_model_space(supernet).covering():
        with model_context(dict(path)):
            network = space_class()
        found.append(find_difference(supernet, path, network, torch.randn(2, *shape)))
    return found


SAME = {
    "plain": "pass",
    "a plain list": """
        def prepare(self): self.held = [self.unit]
        def run(self, x):
            for layer in self.held: x = layer(x)
            return x
        """,
    "tied, frozen, constant": """
        def prepare(self):
            self.stem.weight.requires_grad_(False)
            nn.init.zeros_(self.norm.weight)
            nn.init.constant_(self.fc.bias, -4.6)
        """,
    "random": """
        def run(self, x): return self.unit(x) * (1 + torch.rand(()))
        """,
    "another in training": """
        def run(self, x): return self.unit(x) * (2 if self.training else 1)
        """,
    "not finite": """
        def run(self, x): return self.unit(x) / 0.0
        """,
}


@pytest.mark.parametrize("methods", SAME.values(), ids=SAME)
def test_the_same_network_passes(methods):
    assert differences(classes(methods)[0]) == ["", ""]


OTHER = {
    "a lambda": (
        """
        def prepare(self):
            unit = self.unit
            self.function = lambda x: unit(x)
        def run(self, x): return self.function(x)
        """,
        "it fails where that runs",
    ),
    "a bound method": (
        """
        def prepare(self): self.method = self.fc.forward
        def forward(self, x):
            return self.method(self.norm(self.wide(self.unit(self.stem(x)))).mean((2, 3)))
        """,
        "it fails where that runs",
    ),
    "a function that holds a plain layer": (
        """
        def prepare(self):
            stem = self.stem
            self.function = lambda x: stem(x)
        def forward(self, x):
            return self.fc(self.norm(self.wide(self.unit(self.function(x)))).mean((2, 3)))
        """,
        "the same weights give other logits or other gradients",
    ),
    "asks what a unit is": (
        """
        def run(self, x): return self.unit(x) * (1 if isinstance(self.unit, LayerChoice) else 2)
        """,
        "the same weights give other logits or other gradients",
    ),
    "asks what a layer is": (
        """
        def run(self, x): return self.unit(x) * (1 if type(self.wide) is nn.Conv2d else 2)
        """,
        "the same weights give other logits or other gradients",
    ),
    "asks how many weights there are": (
        """
        def run(self, x): return self.unit(x) * len(self.wide.weight)
        """,
        "the same weights give other logits or other gradients",
    ),
    "asks in training only": (
        """
        def run(self, x):
            is_own = not isinstance(self.unit, LayerChoice)
            return self.unit(x).detach() if self.training and is_own else self.unit(x)
        """,
        "the same weights give other logits or other gradients",
    ),
    "freezes layers by kind": (
        """
        def prepare(self):
            for layer in self.modules():
                if type(layer) is nn.BatchNorm2d: layer.weight.requires_grad_(False)
        """,
        "'norm.weight' is trained only in the supernet",
    ),
    "sets values of some paths": (
        """
        def prepare(self):
            if not isinstance(self.unit, LayerChoice): nn.init.zeros_(self.fc.weight)
        """,
        "'fc.weight' begins with 0 everywhere",
    ),
    "ties layers of some paths": (
        """
        def prepare(self):
            self.more = nn.Conv2d(1, 4, 3)
            if not isinstance(self.unit, LayerChoice): self.more.weight = self.stem.weight
        """,
        "'more.weight' and 'stem.weight' are the same tensor in one of both only",
    ),
    "adds layers to some paths": (
        """
        def prepare(self):
            if not isinstance(self.unit, LayerChoice): self.more = nn.Conv2d(1, 4, 3)
        """,
        "a copy of the supernet's layers lacks 'more.weight'",
    ),
    "adds a buffer to a layer with choices": (
        """
        def prepare(self): self.wide.register_buffer("scale", torch.ones(3))
        """,
        "a copy of the supernet's layers lacks 'wide.scale'",
    ),
}


@pytest.mark.parametrize(("methods", "difference"), OTHER.values(), ids=OTHER)
def test_another_network_is_told(methods, difference):
    found = differences(classes(methods)[0])
    assert any(one.startswith(difference) for one in found), found
    assert all(one.startswith(difference) or not one for one in found)


@pytest.mark.parametrize("name", sorted(SPACES.ours))
@pytest.mark.slow
def test_the_supernets_of_this_package_are_their_networks(name):
    options = {"num_classes": 10, "in_channels": 3, "input_size": 32}
    torch.manual_seed(0)
    supernet = SinglePathOneShot().mutate_model(build_space(name, {}, Form.SUPERNET, **options))
    paths = PathSpace.from_model_space(supernet).covering()
    for path in (paths[0], paths[-1]):
        network = build_space(name, {}, Form.SUPERNET, path=path, **options)
        assert find_difference(supernet, path, network, torch.randn(2, 3, 32, 32)) == ""


def test_the_commands_refuse_it_in_one_line(tmp_path, monkeypatch, capsys):
    methods, difference = OTHER["asks what a unit is"]
    (tmp_path / "mine_asking.py").write_text(classes(methods)[1])
    (tmp_path / "recipe.yml").write_text(
        "output: out\nspace: {name: 'mine_asking:Mine'}\ndata: {name: digits}\n"
        "supernet: {steps: 2, batch_size: 16}\nretrain: {steps: 2, batch_size: 16}\n"
    )
    monkeypatch.chdir(tmp_path)
    assert main(["train", "recipe.yml"]) == 2
    lines = capsys.readouterr().err.strip().splitlines()
    assert len(lines) == 1
    assert difference in lines[0]
    assert "on the path (" in lines[0]
    assert not (tmp_path / "out" / "supernet.pt").exists()


def test_costs_of_a_layer_that_a_function_holds_are_refused(tmp_path, monkeypatch, capsys):
    (tmp_path / "mine_lambda.py").write_text(classes(OTHER["a lambda"][0])[1])
    (tmp_path / "recipe.yml").write_text(
        "output: out\nspace: {name: 'mine_lambda:Mine'}\ndata: {name: digits}\n"
        "supernet: {steps: 2, batch_size: 16}\nretrain: {steps: 2, batch_size: 16}\n"
    )
    monkeypatch.chdir(tmp_path)
    assert main(["profile", "recipe.yml"]) == 2
    assert "layers that a kept function or bound method holds" in capsys.readouterr().err
