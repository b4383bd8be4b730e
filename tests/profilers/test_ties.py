"""A parameter that modules share counts once, or is refused, whatever the order of attributes."""

import nni
import numpy as np
import pytest
import torch
from nni.nas.nn.pytorch import LayerChoice, ModelSpace
from small_networks import Small, assert_right, small
from torch import nn
from torch.nn.utils import parametrizations

from nni_spos.errors import CostError
from nni_spos.mutables import MutableConv2d, MutableLinear, QuantConv2d
from nni_spos.path import PathSpace
from nni_spos.profilers import build_costs
from nni_spos.supernet import SinglePathOneShot

IMAGE = (1, 8, 8)


class Tied(Small):
    """Two linear layers with one weight, outside of units."""

    def build(self):
        self.encode, self.decode = nn.Linear(4, 4), nn.Linear(4, 4)
        self.decode.weight = self.encode.weight

    def forward(self, x):
        return self.head(self.decode(self.encode(self.body(x).mean((2, 3)))))


class InList(Small):
    """Two norms that take their tensors from a ParameterList."""

    def build(self):
        self.shared = nn.ParameterList([torch.ones(4), torch.zeros(4)])
        self.norms = nn.Sequential(nn.LayerNorm(4), nn.LayerNorm(4))
        for norm in self.norms:
            norm.weight, norm.bias = self.shared

    def forward(self, x):
        return self.head(self.norms(self.body(x).mean((2, 3))))


class Parametrized(Small):
    """Two convolutions whose weights are computed from the same tensors."""

    def build(self):
        convs = [parametrizations.weight_norm(nn.Conv2d(4, 4, 1)) for _ in range(2)]
        one, other = (conv.parametrizations["weight"] for conv in convs)
        other.original0, other.original1 = one.original0, one.original1
        self.convs = nn.Sequential(*convs)

    def body(self, x):
        return self.convs(super().body(x))


def pair():
    """Return two layers with one weight."""
    one, other = nn.Conv2d(4, 4, 1), nn.Conv2d(4, 4, 1)
    other.weight = one.weight
    return one, other


class OneLabel(Small):
    """Layers with one weight in two units of one label, where both are in the same paths."""

    def build(self):
        one, other = pair()
        self.one = LayerChoice({"k1": one, "k3": nn.ReLU()}, label="unit")
        self.other = LayerChoice({"k1": other, "k3": nn.ReLU()}, label="unit")

    def body(self, x):
        return self.other(self.one(super().body(x)))


class Turns(OneLabel):
    """As before, but the layers are never in one path."""

    def build(self):
        one, other = pair()
        self.one = LayerChoice({"k1": one, "k3": nn.ReLU()}, label="unit")
        self.other = LayerChoice({"k1": nn.ReLU(), "k3": other}, label="unit")


class OtherUnits(OneLabel):
    """As before, but some paths have one of them, some both."""

    def build(self):
        one, other = pair()
        self.one = LayerChoice({"k1": one, "none": nn.ReLU()}, label="one")
        self.other = LayerChoice({"k1": other, "none": nn.ReLU()}, label="other")


@pytest.mark.parametrize("space", [Tied, InList, Parametrized, OneLabel, Turns])
def test_a_shared_parameter_counts_once(space):
    assert_right(build_costs(space(), IMAGE), space)
    supernet = SinglePathOneShot().mutate_model(space())
    assert_right(build_costs(supernet, IMAGE), space)


def test_a_table_by_hand():
    # Stem, its norm, unit, head; the encoder, and only the bias of the decoder.
    stem_and_head = (36 + 4) + 8 + (40 + 10)
    costs = build_costs(Tied(), IMAGE)
    assert costs["params"].price({"unit": "k1"}) == stem_and_head + (16 + 4) + (16 + 4) + 4


class Beside(ModelSpace):
    """One layer in a unit, in a unit inside of it, and beside them."""

    def __init__(self, order):
        super().__init__()
        layer = nn.Conv2d(1, 1, 3, 1, 1)
        inner = LayerChoice({"p": layer, "q": nn.ReLU()}, label="inner")
        blocks = {"x": nn.Sequential(inner, layer), "y": nn.Conv2d(1, 1, 1)}
        parts = {"unit": LayerChoice(blocks, label="unit"), "layer": layer}
        for name in order:
            setattr(self, name, parts[name])

    def forward(self, x):
        return self.layer(self.unit(x))


@pytest.mark.parametrize("order", [("layer", "unit"), ("unit", "layer")])
def test_a_layer_beside_units_and_in_them(order):
    assert_right(build_costs(Beside(order), IMAGE), Beside, order)


def test_layers_under_different_units_are_refused():
    with pytest.raises(CostError) as error:
        build_costs(OtherUnits(), IMAGE)
    assert str(error.value) == (
        "parameter 'weight' of a Conv2d is shared by modules ('one.k1' and 'other.k1') under "
        "different choice units, which cannot be counted by choice."
    )


class Sliced(ModelSpace):
    """Two layers with choices as arguments, and one weight."""

    def __init__(self, make, labels):
        super().__init__()
        one, other = (nni.choice(label, [2, 4]) for label in labels)
        self.stem = MutableConv2d(1, one, 1)
        self.convs = nn.ModuleList(make(one, other))
        self.convs[1].weight = self.convs[0].weight
        self.head = MutableLinear(other, 5)

    def forward(self, x):
        x = self.convs[0](self.stem(x).relu()).relu()
        return self.head(self.convs[1](x).mean((2, 3)))


def plain(one, other):
    return MutableConv2d(one, other, 1), MutableConv2d(one, other, 1)


def at_bits(bits):
    def make(one, other):
        first = nni.choice("bits", [2, 4])
        second = nni.choice("bits", [2, 4]) if bits is None else bits
        return [QuantConv2d(one, other, 1, weight_bits=number) for number in (first, second)]

    return make


def tied_supernet(make, *labels):
    """The layers of the supernet are tied, as those of its networks are."""
    supernet = SinglePathOneShot().mutate_model(Sliced(make, labels))
    supernet.convs[1].weight = supernet.convs[0].weight
    return supernet


@pytest.mark.parametrize("make", [plain, at_bits(None)], ids=["plain", "bits"])
def test_ties_of_layers_with_choices_of_their_own(make):
    costs = build_costs(tied_supernet(make, "w", "w"), IMAGE)
    assert_right(costs, Sliced, make, ("w", "w"))
    if "size_bytes" in costs:
        # Float stem, head and biases; 16 weights of 4 bits, once.
        path = {"w": 4, "bits": 4}
        assert costs["size_bytes"].price(path) == 4 * (4 + 4 + 20 + 5 + 4 + 4) + 8


def test_ties_that_are_not_the_same_in_every_path_are_refused():
    def narrow(one, other):
        return MutableConv2d(one, 4, 1), MutableConv2d(4, other, 1)

    with pytest.raises(CostError, match=r"'weight' of a SlicedConv2d .* with different sizes"):
        build_costs(tied_supernet(narrow, "w", "w"), IMAGE)
    with pytest.raises(CostError, match="under different choice units"):
        build_costs(tied_supernet(narrow, "w", "v"), IMAGE)
    with pytest.raises(CostError, match="with different bit widths, which cannot be counted"):
        build_costs(tied_supernet(at_bits(8), "w", "w"), IMAGE)


class Random(ModelSpace):
    """Convolutions one behind the other, in units and beside them, some tied or used again."""

    def __init__(self, seed):
        super().__init__()
        draw = np.random.default_rng(seed)
        made = []

        def conv():
            if made and draw.random() < 0.2:
                return made[draw.integers(len(made))]
            layer = nn.Conv2d(3, 3, int(draw.choice([1, 3])), padding="same")
            alike = [x for x in made if x.weight.shape == layer.weight.shape]
            if alike and draw.random() < 0.5:
                layer.weight = alike[draw.integers(len(alike))].weight
            made.append(layer)
            return layer

        def part(depth):
            if draw.random() < 0.5 or depth > 1:
                return conv()
            blocks = {"a": nn.Sequential(part(depth + 1), nn.ReLU()), "b": part(depth + 1)}
            return LayerChoice(blocks, label=str(draw.choice(["u", "v"])))

        self.layers = nn.ModuleList([part(0) for _ in range(4)])
        self.last = LayerChoice({"a": conv(), "b": nn.Identity()}, label="w")

    def forward(self, x):
        for layer in self.layers:
            x = layer(x)
        return self.last(x)


def ties(seed):
    """Return the names of each parameter that has several."""
    users = {}
    for name, parameter in Random(seed).named_parameters(remove_duplicate=False):
        users.setdefault(id(parameter), []).append(name)
    return [names for names in users.values() if len(names) > 1]


@pytest.mark.slow
def test_random_networks_with_ties():
    refused = {}
    for seed in range(30):
        space = Random(seed)
        try:
            costs = build_costs(space, (3, 4, 4))
        except CostError as problem:
            refused[seed] = str(problem)
        else:
            assert_right(costs, Random, seed, image=(3, 4, 4))
    assert 0 < len(refused) < 15  # not what can be counted, too
    assert all("is shared by modules" in reason for reason in refused.values())
    assert all(map(ties, refused))


def test_the_space_itself_stays_tied_and_as_it_was():
    space = Tied()
    before = {name: value.clone() for name, value in space.state_dict().items()}
    build_costs(space, IMAGE)
    assert space.decode.weight is space.encode.weight
    assert all(torch.equal(value, before[name]) for name, value in space.state_dict().items())
    assert PathSpace.from_model_space(space).size == 2
    assert_right(build_costs(small()(), IMAGE), small())
