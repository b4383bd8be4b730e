"""What was done to a layer before its space became a supernet stays, or is refused by name."""

import copy

import nni
import pytest
import torch
from nni.nas.nn.pytorch import (
    LayerChoice,
    ModelSpace,
    MutableBatchNorm2d,
    MutableConv2d,
    MutableLinear,
)
from nni.nas.space import model_context
from torch import nn
from torch.nn.utils import parametrizations

from nni_spos.errors import SpaceError
from nni_spos.modules.active_path import choice_units, set_path
from nni_spos.modules.subnet import extract_subnet
from nni_spos.mutables import QuantConv2d, SlicedOperation, SwitchableBatchNorm2d, share_weights
from nni_spos.supernet import SinglePathOneShot


def supernet_of(space, path=None):
    supernet = SinglePathOneShot().mutate_model(space)
    if path is not None:
        set_path(choice_units(supernet), path)
    return supernet.eval()


def frozen(space_class, path):
    with model_context(path):
        return space_class().eval()


class Wide(ModelSpace):
    """Layers with a number of channels to choose; sub-classes say what is done to them."""

    def __init__(self):
        super().__init__()
        w = nni.choice("w", [4, 8])
        self.stem = MutableConv2d(1, w, 3, 2, 1)
        self.norm = MutableBatchNorm2d(w)
        self.one = MutableLinear(w, w, bias=False)
        self.other = MutableLinear(w, w, bias=False)
        self.head = MutableLinear(w, 10)
        self.fixed = MutableLinear(10, 10)
        self.prepare()

    def prepare(self):
        pass

    def forward(self, x):
        x = self.norm(self.stem(x)).relu().mean((2, 3))
        return self.fixed(self.head(self.other(self.one(x))))


class Tied(Wide):
    def prepare(self):
        self.other.weight = self.one.weight


class Frozen(Wide):
    def prepare(self):
        self.one.weight.requires_grad_(False)
        self.stem.requires_grad_(False)
        self.fixed.requires_grad_(False)


class Constant(Wide):
    def prepare(self):
        nn.init.constant_(self.head.bias, -4.6)
        nn.init.zeros_(self.norm.weight)
        self.norm.running_var.fill_(3.0)


class Drawn(Wide):
    def prepare(self):
        nn.init.normal_(self.stem.weight, 5.0, 0.001)
        self.one.weight.data.uniform_(7.0, 7.001)  # which PyTorch does not count as a change


class Hooked(Wide):
    def prepare(self):
        self.calls = []
        for layer in (self.head, self.fixed, self.norm):
            layer.register_forward_hook(lambda *_: self.calls.append(1))
        self.head.register_forward_pre_hook(lambda _, inputs: (inputs[0] * 2,))


class Held(Wide):
    """Forward uses the layers by a list, a function and a bound method."""

    def prepare(self):
        self.held = [self.stem, self.norm]
        head = self.head
        self.function = lambda x: head(x)
        self.method = self.one.forward

    def forward(self, x):
        for layer in self.held:
            x = layer(x)
        return self.function(self.other(self.one(x.relu().mean((2, 3)))))


PATHS = [{"w": 4}, {"w": 8}]
KEPT = [Wide, Tied, Frozen, Constant, Drawn, Hooked, Held]


def ties(network):
    names = {}
    for name, parameter in network.named_parameters(remove_duplicate=False):
        names.setdefault(id(parameter), []).append(name)
    return sorted(names.values())


@pytest.mark.parametrize("path", PATHS, ids=str)
@pytest.mark.parametrize("space", KEPT)
def test_a_path_of_the_supernet_is_its_frozen_network(space, path):
    supernet, own = supernet_of(space(), path), frozen(space, path)
    subnet = extract_subnet(supernet, path)
    own.load_state_dict(subnet.state_dict())
    images = torch.randn(2, 1, 8, 8)
    with torch.no_grad():
        expected = own(images)
        torch.testing.assert_close(subnet(images), expected)
        torch.testing.assert_close(supernet(images), expected)
    assert ties(subnet) == ties(own)
    assert {n: p.requires_grad for n, p in subnet.named_parameters()} == {
        n: p.requires_grad for n, p in own.named_parameters()
    }
    assert sum(p.numel() for p in subnet.parameters()) == sum(p.numel() for p in own.parameters())


def test_layers_stay_the_objects_that_they_were():
    space = Wide()
    before = dict(space.named_modules())
    supernet = supernet_of(space)
    assert dict(supernet.named_modules()) == before
    assert isinstance(supernet.stem, SlicedOperation)
    assert type(supernet.fixed) is nn.Linear


def test_tied_layers_stay_tied_when_they_grow():
    supernet = supernet_of(Tied())
    assert supernet.one.weight is supernet.other.weight
    assert supernet.one.weight.shape == (8, 8)


def test_constants_fill_what_has_grown():
    supernet = supernet_of(Constant())
    assert supernet.head.bias.tolist() == [pytest.approx(-4.6)] * 10
    assert supernet.norm.weight.tolist() == [0.0] * 8
    assert supernet.norm.running_var.tolist() == [3.0] * 8


def test_what_has_grown_is_drawn_as_the_space_draws_it():
    supernet = supernet_of(Drawn())
    assert supernet.stem.weight.shape[0] == 8
    assert float((supernet.stem.weight - 5).abs().max()) < 0.01
    assert 7.0 <= float(supernet.one.weight.min()) <= float(supernet.one.weight.max()) < 7.002


def test_hooks_run_in_the_supernet_and_in_its_subnets():
    space = Hooked()
    supernet = supernet_of(space, {"w": 4})
    supernet(torch.randn(2, 1, 8, 8))
    assert len(space.calls) == 3
    assert len(extract_subnet(supernet, {"w": 4}).head._forward_hooks) == 1


def test_loaded_weights_of_layers_that_do_not_grow_stay():
    space = Wide()
    space.fixed.load_state_dict({"weight": torch.full((10, 10), 2.0), "bias": torch.ones(10)})
    supernet = supernet_of(space)
    assert (supernet.fixed.weight == 2).all()
    assert (supernet.fixed.bias == 1).all()


def load(space):
    space.load_state_dict({k: torch.randn_like(v.float()) for k, v in space.state_dict().items()})


def draw_in_place(space):
    nn.init.orthogonal_(space.one.weight)


def draw_behind(space):
    space.stem.weight.data.normal_(0.0, 20.0)


@pytest.mark.parametrize(
    ("change", "where"),
    [
        (load, "layer 'stem': the values of its 'weight'"),
        (draw_in_place, "layer 'one': the values of its 'weight'"),
        (draw_behind, "layer 'stem': the values of its 'weight'"),
    ],
)
def test_what_was_set_after_the_constructor_and_has_grown_is_refused(change, where):
    space = Wide()
    change(space)
    with pytest.raises(SpaceError, match=where) as caught:
        supernet_of(space)
    assert "in the constructor of the space" in str(caught.value)


def normed(layer):
    return parametrizations.weight_norm(layer)


def normed_before(layer):
    with pytest.warns(FutureWarning):
        return nn.utils.weight_norm(layer)


def spectral(layer):
    return parametrizations.spectral_norm(layer)


def pruned(layer):
    torch.nn.utils.prune.random_unstructured(layer, "weight", 0.5)
    return layer


COMPUTED = [normed, normed_before, spectral, pruned]


@pytest.mark.parametrize("change", COMPUTED)
def test_computed_weights_of_a_layer_with_choices_are_refused(change):
    space = Wide()
    change(space.one)
    with pytest.raises(SpaceError, match="layer 'one': its 'weight' is computed"):
        supernet_of(space)


@pytest.mark.parametrize("change", COMPUTED)
def test_computed_weights_of_a_layer_without_choices_stay(change):
    class Computed(Wide):
        def prepare(self):
            self.fixed = change(self.fixed)

    path, images = {"w": 4}, torch.randn(2, 1, 8, 8)
    supernet, own = supernet_of(Computed(), path), frozen(Computed, path)
    subnet = extract_subnet(supernet, path)
    own.load_state_dict(subnet.state_dict())
    with torch.no_grad():
        torch.testing.assert_close(subnet(images), own(images))
        torch.testing.assert_close(supernet(images), own(images))


def test_ties_between_layers_of_different_sizes_are_refused():
    class Unequal(ModelSpace):
        def __init__(self):
            super().__init__()
            self.one = MutableLinear(nni.choice("a", [4, 8]), 4, bias=False)
            self.other = MutableLinear(nni.choice("b", [4, 16]), 4, bias=False)
            self.other.weight = self.one.weight

    with pytest.raises(SpaceError, match="layer 'other': its 'weight' is tied"):
        supernet_of(Unequal())


def test_a_class_derived_from_a_mutable_layer_keeps_its_own_forward_or_is_refused():
    class Doubled(MutableLinear):
        def forward(self, x):
            return 2 * super().forward(x)

    class Derived(ModelSpace):
        def __init__(self, width):
            super().__init__()
            self.u = LayerChoice({"a": nn.Identity(), "b": nn.ReLU()}, label="u")
            self.head = Doubled(4, width)

        def forward(self, x):
            return self.head(self.u(x))

    supernet = supernet_of(Derived(3), {"u": "a"})
    weight, bias = supernet.head.weight, supernet.head.bias
    x = torch.randn(2, 4)
    torch.testing.assert_close(supernet(x), 2 * nn.functional.linear(x, weight, bias))
    with pytest.raises(SpaceError, match="layer 'head': its class is derived from MutableLinear"):
        supernet_of(Derived(nni.choice("w", [3, 5])))


def test_every_bit_width_begins_with_what_the_space_set():
    bits = nni.choice("bits", [2, 4])

    class Bits(ModelSpace):
        def __init__(self):
            super().__init__()
            self.conv = QuantConv2d(1, 4, 3, activation_bits=bits, weight_bits=bits)
            self.norm = SwitchableBatchNorm2d(4, activation_bits=bits, weight_bits=bits)
            nn.init.constant_(self.conv.clip, 6.0)
            nn.init.zeros_(self.norm.weight)
            self.norm.bias.requires_grad_(False)

    supernet = supernet_of(Bits())
    for number in (2, 4):
        subnet = extract_subnet(supernet, {"bits": number})
        assert float(subnet.conv.clip) == 6.0
        assert subnet.norm.weight.tolist() == [0.0] * 4
        assert not subnet.norm.bias.requires_grad


def test_units_in_a_plain_list_are_those_of_the_path():
    class Listed(ModelSpace):
        def __init__(self):
            super().__init__()
            self.units = []
            for i in range(2):
                layers = {"twice": Scale(2.0), "thrice": Scale(3.0)}
                unit = LayerChoice(layers, label=f"u{i}")
                self.add_module(f"unit{i}", unit)
                self.units.append(unit)

        def forward(self, x):
            for unit in self.units:
                x = unit(x)
            return x

    path = {"u0": "twice", "u1": "thrice"}
    supernet = supernet_of(Listed(), path)
    assert supernet(torch.ones(1)).tolist() == [6.0]
    assert copy.deepcopy(supernet)(torch.ones(1)).tolist() == [6.0]


class Scale(nn.Module):
    def __init__(self, factor):
        super().__init__()
        self.factor = factor

    def forward(self, x):
        return self.factor * x


def test_sharing_weights_alone_keeps_them_too():
    space = share_weights(Constant())
    assert space.norm.weight.tolist() == [0.0] * 8
