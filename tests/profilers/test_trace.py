import itertools

import nni
import pytest
import torch
from nni.nas.nn.pytorch import LayerChoice, ModelSpace
from nni.nas.oneshot.pytorch.strategy import RandomOneShot
from torch import nn

from nni_spos.errors import CostError
from nni_spos.path import PathSpace
from nni_spos.profilers import build_costs
from nni_spos.profilers.trace import trace_space

IMAGE = (3, 6, 6)


class Space(ModelSpace):
    """Layers one behind the other, built within the constructor as NNI wants it."""

    def __init__(self, build_layers):
        super().__init__()
        self.layers = nn.Sequential(*build_layers())

    def forward(self, x):
        return self.layers(x)


def conv(inputs, outputs, kernel_size=1):
    return nn.Conv2d(inputs, outputs, kernel_size, padding=kernel_size // 2)


def kernels(inputs, outputs, label):
    return LayerChoice({"k1": conv(inputs, outputs), "k3": conv(inputs, outputs, 3)}, label=label)


def unit():
    """Return a unit without cost."""
    return LayerChoice({"a": nn.Identity(), "b": nn.ReLU()}, label="unit")


def nested():
    inner = LayerChoice({"a": conv(8, 4), "b": conv(8, 4, 3)}, label="inner")
    deep = nn.Sequential(conv(3, 8), inner)
    yield LayerChoice({"plain": conv(3, 4, 3), "deep": deep}, label="outer")
    yield LayerChoice([conv(4, 4), nn.Identity()], label="last")


def shared_label():
    """One label in two places of different sizes."""
    yield kernels(3, 4, "kernel")
    yield nn.ReLU()
    yield kernels(4, 6, "kernel")
    yield kernels(6, 6, "other")


def shared_label_inside():
    """One label in a unit and in a unit inside of it: the inner one is decided already."""
    deep = nn.Sequential(conv(3, 4, 3), kernels(4, 4, "kernel"))
    yield LayerChoice({"k1": conv(3, 4), "k3": deep}, label="kernel")
    yield LayerChoice([nn.Sequential(kernels(4, 4, "kernel")), nn.Identity()], label="other")


def repeated_layer():
    """One layer called twice: it costs twice, its parameters count once."""
    layer = conv(3, 3, 3)
    yield from [layer, layer]
    yield LayerChoice([nn.Identity(), conv(3, 3)], label="unit")


def repeated_in_choices():
    """Choices of one unit with the same weights: each has them."""
    layer = conv(3, 3, 3)
    yield LayerChoice({"once": layer, "twice": nn.Sequential(layer, layer)}, label="unit")


def brute_force(subnet):
    macs = 0

    def count(layer, _, output):
        nonlocal macs
        macs += output.numel() * layer.weight[0].numel()

    for layer in subnet.modules():
        if isinstance(layer, nn.Conv2d):
            layer.register_forward_hook(count)
    subnet(torch.zeros(1, *IMAGE))
    return macs, sum(parameter.numel() for parameter in subnet.parameters())


LAYERS = [nested, shared_label, shared_label_inside, repeated_layer, repeated_in_choices]


@pytest.mark.parametrize("mutated", [False, True], ids=["space", "supernet"])
@pytest.mark.parametrize("layers", LAYERS)
def test_every_path_costs_what_its_network_does(layers, mutated):
    space = Space(layers)
    if mutated:
        RandomOneShot().mutate_model(space)
    costs = build_costs(space, IMAGE)
    path_space = PathSpace.from_model_space(space)
    for choices in itertools.product(*path_space.values()):
        path = dict(zip(path_space, choices, strict=True))
        expected = brute_force(Space(layers).freeze(path))
        assert (costs["flops"].price(path), costs["params"].price(path)) == expected


def test_nested_units_make_a_factor_over_both_labels():
    table = build_costs(Space(nested), IMAGE)["flops"]
    factors = {frozenset(factor.labels): factor for factor in table.factors}
    assert set(factors) == {frozenset(x) for x in (["outer"], ["outer", "inner"], ["last"])}
    joint = factors[frozenset(["outer", "inner"])]
    position = [0, 0]
    position[joint.labels.index("outer")] = 0
    position[joint.labels.index("inner")] = 1
    # The inner unit costs nothing where the outer one chose "plain".
    assert joint.table[tuple(position)] == 0
    position[joint.labels.index("outer")] = 1
    assert joint.table[tuple(position)] == 36 * 4 * 9 * 8


def test_a_shared_label_makes_one_factor():
    table = build_costs(Space(shared_label), IMAGE)["flops"]
    assert sorted(factor.labels for factor in table.factors) == [("kernel",), ("other",)]
    k1, k3 = 36 * (3 * 4 + 4 * 6), 9 * 36 * (3 * 4 + 4 * 6)
    assert next(f for f in table.factors if f.labels == ("kernel",)).table.tolist() == [k1, k3]


def test_calls_name_layers_shapes_and_conditions():
    calls = {call.name: call for call in trace_space(Space(nested), IMAGE).calls}
    call = calls["layers.0.deep.1.b"]
    assert (call.input_shape, call.output_shape) == ((1, 8, 6, 6), (1, 4, 6, 6))
    assert call.condition == (("outer", "deep"), ("inner", "b"))
    assert call.module.weight.is_meta


def test_parameters_shared_under_different_units_are_refused():
    layer = conv(3, 3)

    def units():
        yield LayerChoice([layer, nn.Identity()], label="one")
        yield LayerChoice([layer, nn.Identity()], label="two")

    with pytest.raises(CostError, match=r"'weight' of a Conv2d is shared .* different choice"):
        build_costs(Space(units), IMAGE)
    # Accepted: it is part of every path anyway.
    table = build_costs(Space(lambda: [layer, *units()]), IMAGE)["params"]
    assert table.cheapest()[0] == table.dearest()[0] == 12


class Named(Space):
    def forward(self, x):
        unit, layer = self.layers
        return layer(input=unit(x))


def test_inputs_given_by_name_are_seen():
    space = Named(lambda: [unit(), conv(3, 4)])
    assert build_costs(space, IMAGE)["flops"].price({"unit": "a"}) == 36 * 12


def test_choices_with_different_outputs():
    def layers(width):
        yield LayerChoice({"a": conv(3, 4), "b": conv(3, width)}, label="unit")

    with pytest.raises(CostError) as error:
        build_costs(Space(lambda: layers(5)), IMAGE)
    assert str(error.value) == (
        "unit 'unit': its choices have different outputs: {'a': (1, 4, 6, 6), 'b': (1, 5, 6, 6)}."
    )
    build_costs(Space(lambda: layers(4)), IMAGE)


class Several(nn.Module):
    def __init__(self, num_outputs):
        super().__init__()
        self.convs = nn.ModuleList(conv(3, 3) for _ in range(num_outputs))

    def forward(self, x):
        return tuple(conv(x) for conv in self.convs)


class First(Space):
    def forward(self, x):
        return self.layers(x)[0]


def test_choices_with_several_outputs():
    def layers(num_outputs):
        yield LayerChoice({"a": Several(2), "b": Several(num_outputs)}, label="unit")

    with pytest.raises(CostError, match="unit 'unit': its choices have different outputs"):
        build_costs(First(lambda: layers(3)), IMAGE)
    table = build_costs(First(lambda: layers(2)), IMAGE)["flops"]
    assert table.price({"unit": "a"}) == 2 * 36 * 9


@pytest.mark.parametrize("shape", [(1, 6, 6), (4, 6, 6), (3,), (6, 6)])
def test_wrong_image_shape(shape):
    with pytest.raises(CostError) as error:
        build_costs(Space(nested), shape)
    assert str(error.value).startswith(f"images of shape {shape} do not fit the space (")
    build_costs(Space(nested), (3, 5, 7))


class Dangling(Space):
    def __init__(self, build_layers):
        super().__init__(build_layers)
        self.depth = nni.choice("depth", [1, 2])
        self.add_mutable(self.depth)


def test_mutables_of_the_space_itself_are_refused():
    with pytest.raises(CostError, match=r"'space' \(Dangling\): nni_spos shares no"):
        build_costs(Dangling(lambda: [unit()]), IMAGE)
    build_costs(Space(lambda: [unit()]), IMAGE)
