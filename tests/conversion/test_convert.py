"""A network becomes a space whose largest path is that network."""

import random

import pytest
import torch
from everyday_networks import NETWORKS, Residual, conv, make
from nni.nas.nn.pytorch import ModelSpace
from small_spaces import set_path
from torch import nn
from torch.nn import functional as F
from torch.utils._pytree import tree_map_only
from torch.utils.flop_counter import FlopCounterMode

from nni_spos import SinglePathOneShot, build_costs, convert, extract_subnet
from nni_spos.conversion.choices import choices_of, largest, smallest
from nni_spos.conversion.tracing import call, tensors
from nni_spos.errors import RecipeError, SpaceError

SETTINGS = {
    "plain": {"choices": {"channels": [0.5, 1.0]}},
    "residual": {"choices": {"residual": True}},
    "bits": {"choices": {"bits": [[4, 8], 8, 32]}},
}


def outputs(network, inputs):
    return list(tensors(call(network, inputs)))


def multiply_adds(network, inputs):
    with FlopCounterMode(display=False) as counter:
        call(network, inputs)
    return counter.get_total_flops() // 2 // len(inputs[0])


def agree(one, other):
    return all(torch.allclose(x, y, rtol=0, atol=1e-10) for x, y in zip(one, other, strict=True))


@pytest.mark.parametrize("settings", SETTINGS)
@pytest.mark.parametrize("name", NETWORKS)
def test_paths_are_the_network_and_narrower_ones(name, settings):
    network, inputs = make(name)
    space = convert(network, inputs, **SETTINGS[settings])
    assert not space.training
    supernet = SinglePathOneShot().mutate_model(space).eval()
    whole = extract_subnet(supernet, largest(space.plan))
    assert agree(outputs(whole, inputs), outputs(network, inputs))
    assert sum(p.numel() for p in whole.parameters()) >= sum(
        p.numel() for p in network.parameters()
    )
    draws = random.Random(1)
    for _ in range(3):
        path = {label: draws.choice(choices) for label, choices in choices_of(space.plan)}
        set_path(supernet, path)
        subnet = extract_subnet(supernet, path)
        assert agree(outputs(subnet, inputs), outputs(supernet, inputs))
    least = extract_subnet(supernet, smallest(space.plan))
    assert multiply_adds(least, inputs) < multiply_adds(network, inputs)
    if "training" not in name:  # every path trains
        call(least.train(), inputs)


class Pooled(nn.Module):
    """A network whose gate and head read images of one pixel."""

    def __init__(self, pool):
        super().__init__()
        self.pool = pool
        self.layers = nn.Sequential(conv(3, 16), nn.ReLU(), conv(16, 24))
        self.gate = nn.Conv2d(24, 24, 1)
        self.head = nn.Linear(24, 5)

    def forward(self, x):
        x = self.layers(x)
        x = x * self.gate(self.pool(x)).sigmoid()
        return self.head(self.pool(x).flatten(1))


POOLED = {
    "a layer": nn.AdaptiveAvgPool2d(1),
    "a function": lambda x: F.adaptive_avg_pool2d(x, (1, 1)),
    "a mean": lambda x: x.mean((2, 3), keepdim=True),
    "of windows": lambda x: F.avg_pool2d(x, x.shape[-2:]),
    "the largest": lambda x: F.adaptive_max_pool2d(x, 1),
}


def in_channels_last(x):
    return x.to(memory_format=torch.channels_last) if x.dim() == 4 else x


@pytest.mark.parametrize("name", [*NETWORKS, *POOLED])
def test_the_memory_format_decides_nothing(name):
    if name in POOLED:
        network, inputs = Pooled(POOLED[name]).eval(), (torch.randn(2, 3, 8, 8),)
    else:
        network, inputs = make(name)
    settings = {"residual": True, "round_to": 2}
    usual = convert(network, inputs, settings)
    network.to(memory_format=torch.channels_last)
    other = convert(network, tree_map_only(torch.Tensor, in_channels_last, inputs), settings)
    assert list(choices_of(other.plan)) == list(choices_of(usual.plan))
    if name in POOLED:
        assert {"layers.0.channels", "layers.2.channels"} <= {*usual.plan.labels}


@pytest.mark.parametrize("name", ["plain", "mobile", "grouped", "derived"])
def test_costs_are_those_of_an_independent_count(name):
    network, inputs = make(name, torch.float32)
    space = convert(network, inputs, {"bits": [8, 32]})
    costs = build_costs(space, inputs[0].shape[1:])
    whole = largest(space.plan)
    assert costs["flops"].price(whole) == multiply_adds(network, inputs)
    assert costs["params"].price(whole) == sum(p.numel() for p in network.parameters())
    draws = random.Random(2)
    for _ in range(3):
        path = {label: draws.choice(choices) for label, choices in choices_of(space.plan)}
        subnet = extract_subnet(space, path).eval()
        assert costs["flops"].price(path) == multiply_adds(subnet, inputs)


def units(space):
    return dict(choices_of(space.plan))


def reasons(space):
    return dict(space.plan.left)


def test_units_of_a_block_with_squeeze_and_excitation():
    space = convert(*make("mobile"))
    assert units(space) == {
        "blocks.0.expand.channels": [32, 24, 16, 8],
        "blocks.0.squeeze.channels": [16, 8],
        "blocks.1.expand.channels": [32, 24, 16, 8],
        "blocks.1.squeeze.channels": [16, 8],
        "blocks.0.dw.kernel": [5, 3],
        "blocks.1.dw.kernel": [5, 3],
        "blocks.0.skip": ["block", "identity"],
        "blocks.1.skip": ["block", "identity"],
    }
    assert reasons(space) == {
        "stem.channels": "they are added to others (residual: true lets them be chosen)",
        "fc.channels": "they are an output of the network",
    }
    together = units(convert(*make("mobile"), {"residual": True}))
    assert together["stem.channels"] == [16, 8]


def test_groups_are_kept_or_dropped_as_one():
    space = convert(*make("grouped"))
    assert units(space)["one.channels"] == [32, 24, 16, 8]
    half = extract_subnet(space, {**largest(space.plan), "one.channels": 16}).network
    assert (half.one.out_channels, half.two.groups, half.two.out_channels) == (16, 2, 32)
    assert reasons(space)["three.channels"] == "they are concatenated or rearranged with others"


def test_groups_of_two_sizes_have_the_sets_that_both_keep():
    network = nn.Sequential(
        conv(3, 24), conv(24, 24, 3, groups=4), conv(24, 24, 3, groups=6), conv(24, 8)
    )
    network, x = network.double().eval(), torch.randn(1, 3, 8, 8, dtype=torch.float64)
    space = convert(network, x, round_to=4)
    assert units(space) == {"0.channels": [24, 12]}
    assert space.plan.widths["0.channels"].sets == 2
    assert agree([extract_subnet(space, largest(space.plan))(x)], [network(x)])


def test_what_is_not_understood_stays_and_says_why():
    space = convert(*make("branches"))
    assert units(space) == {"left.channels": [16, 8], "inner.channels": [32, 24, 16, 8]}
    assert set(space.plan.widths["left.channels"].makes) == {"left", "right"}
    found = reasons(space)
    assert "native_layer_norm" in found["join.channels"]
    assert "'norm' (LayerNorm, normalization.py:" in found["join.channels"]
    assert "concatenated" in found["outer.channels"]


def test_heads_of_training_read_channels_too():
    space = convert(*make("auxiliary"))
    width = space.plan.widths["one.channels"]
    assert "head" in width.reads
    least = extract_subnet(space, smallest(space.plan)).train()
    assert least.network.head.in_features == 8
    assert len(call(least, make("auxiliary")[1])) == 2


def test_layers_of_derived_classes_that_compute_what_plain_ones_do():
    network, inputs = make("derived")
    space = convert(network, inputs)
    assert set(units(space)) == {"one.1.channels"}
    assert (
        "'convolution' in 'three' (Standardized, everyday_networks.py:"
        in reasons(space)["two.channels"]
    )
    for size in ((8, 8), (11, 7)):  # the padding follows the size
        x = torch.randn(2, 3, *size, dtype=torch.float64)
        assert agree(
            outputs(extract_subnet(space, largest(space.plan)), (x,)), outputs(network, (x,))
        )


def test_narrow_paths_keep_what_matters_most():
    network, inputs = make("plain")
    with torch.no_grad():
        network.features[0].weight[[3, 7, 11, 12, 1, 2, 14, 15]] *= 100
    space = convert(network, inputs, {"channels": [0.5, 1.0]})
    half = extract_subnet(space, {**largest(space.plan), "features.0.channels": 8}).network
    kept = {float(row.abs().sum()) for row in half.features[0].weight}
    loud = {
        float(row.abs().sum()) for row in network.features[0].weight[[3, 7, 11, 12, 1, 2, 14, 15]]
    }
    assert kept == loud
    with torch.no_grad():
        network.features[1].weight[[0, 4, 5, 6, 8, 9, 10, 13]] *= 100
    space = convert(network, inputs, {"channels": [0.5, 1.0], "importance": "batchnorm"})
    half = extract_subnet(space, {**largest(space.plan), "features.0.channels": 8}).network
    assert float(half.features[1].weight.min()) > 10


def test_inputs_that_can_be_negative_are_signed():
    space = convert(*make("mobile"), {"bits": [8, 32]})
    signs = {label: bits.is_signed for label, bits in space.plan.bits.items()}
    assert signs["stem.bits"]  # images
    assert signs["blocks.0.squeeze.bits"]  # behind SiLU
    assert not signs["blocks.0.dw.bits"]
    assert not signs["blocks.0.excite.bits"]


def test_the_network_is_not_changed():
    network, inputs = make("mobile")
    before = {name: x.clone() for name, x in network.state_dict().items()}
    convert(network, inputs)
    assert list(network.state_dict()) == list(before)
    assert all(torch.equal(x, before[name]) for name, x in network.state_dict().items())


def test_the_table():
    text = str(convert(*make("plain"), {"channels": [0.5, 1.0]}))
    lines = text.splitlines()
    assert lines[0].split() == ["unit", "choices", "multiply-adds"]
    assert lines[1].split() == ["features.0.channels", "16", "8", "72.8", "%"]
    assert "  fc.channels: they are an output of the network" in lines


def test_ignored_modules_stay():
    network, inputs = make("mobile")
    space = convert(network, inputs, ignore=["blocks.1"])
    assert all(label.startswith("blocks.0") for label in units(space))
    everything = units(convert(network, inputs, ignore=["fc", "*.squeeze"]))
    assert "blocks.0.squeeze.channels" not in everything
    assert "blocks.0.skip" not in everything


class Gated(nn.Module):
    """A gate of one channel, computed of all, and a layer that is not followed."""

    def __init__(self):
        super().__init__()
        self.one, self.gate, self.two = conv(3, 32), conv(2, 1, 3), conv(32, 8)
        self.three = nn.Conv1d(8, 4, 1)

    def forward(self, x):
        y = self.one(x)
        gate = self.gate(torch.cat([y.mean(1, keepdim=True), y.amax(1, keepdim=True)], 1))
        return self.three(self.two(y * gate.sigmoid()).flatten(2))


def test_a_gate_that_is_spread_over_all_channels():
    space = convert(Gated().eval(), torch.randn(1, 3, 8, 8))
    assert units(space) == {"one.channels": [32, 24, 16, 8]}
    found = reasons(space)
    assert (
        found["three"] == "a Conv1d is used as it is; Conv2d, Linear, BatchNorm2d can be narrower"
    )
    assert "'convolution' in 'three' (Conv1d" in found["two.channels"]


class Counting(nn.Module):
    def __init__(self):
        super().__init__()
        self.one, self.two = conv(3, 16), conv(16, 16)
        self.register_buffer("seen", torch.zeros(()))

    def forward(self, x):
        self.seen += 1
        return self.two(self.one(x))


class Noisy(nn.Module):
    def __init__(self):
        super().__init__()
        self.one, self.two = conv(3, 16), conv(16, 16)

    def forward(self, x):
        return self.two(self.one(x)) + torch.rand(1)


class Hard(nn.Module):
    """Its second layer cannot be narrower: a number is written down."""

    def __init__(self):
        super().__init__()
        self.one, self.two, self.three = conv(3, 16), conv(16, 16), nn.Linear(16, 16)
        self.fc = nn.Linear(16, 10)

    def forward(self, x):
        x = self.two(F.relu(self.one(x))).mean((2, 3))
        return self.fc(self.three(x.reshape(-1, 16)))


def test_a_number_that_is_written_down():
    space = convert(Hard().eval(), torch.randn(1, 3, 4, 4))
    assert set(units(space)) == {"one.channels", "three.channels"}
    assert "RuntimeError: shape '[-1, 16]' is invalid" in reasons(space)["two.channels"]
    assert "(test_convert.py, line" in reasons(space)["two.channels"]


def hooked(network):
    network.register_forward_hook(lambda *_: None)
    return network


def parametrized(network):
    nn.utils.parametrizations.weight_norm(network[0])
    return network


def two_layers():
    return nn.Sequential(conv(3, 16), nn.ReLU(), conv(16, 16)).eval()


X = torch.randn(1, 3, 4, 4)


@pytest.mark.parametrize(
    ("network", "inputs", "more", "message"),
    [
        (two_layers().train(), X, {}, "in training mode (module itself). Call .eval() first."),
        (
            two_layers().to("meta"),
            X,
            {},
            "the network is on meta and the example inputs are on cpu",
        ),
        (nn.Sequential(nn.LazyConv2d(4, 1)).eval(), X, {}, "module '0' (LazyConv2d) is lazy"),
        (hooked(two_layers()), X, {}, "the network has hooks"),
        (parametrized(two_layers()), X, {}, "module '0' (ParametrizedConv2d) has parametrizations"),
        (ModelSpace(), X, {}, "a model space already"),
        (Counting().eval(), X, {}, "a run changes the buffer 'seen'"),
        (Noisy().eval(), X, {}, "two runs of the network on the same inputs differ"),
        (
            two_layers(),
            torch.randn(1, 4, 4, 4),
            {},
            "does not run on the example inputs ((1, 4, 4, 4))",
        ),
        (two_layers(), X, {"ignore": ["layer9.*"]}, "ignore: 'layer9.*' matches no module"),
        (two_layers(), X, {"round_to": 16}, "round_to 16 leaves one choice of 16"),
        (
            nn.Sequential(conv(3, 8)).eval(),
            X,
            {},
            "'0.channels': they are an output of the network",
        ),
        (nn.ReLU().eval(), X, {}, "it has no layer that ran and that choices are made for"),
        (
            two_layers(),
            X,
            {"choices": {"channels": None, "skip": False, "kernel": False}},
            "it has no layer that ran and that choices are made for (channels, kernel, bits, skip)",
        ),
        (
            two_layers().half(),
            X,
            {},
            "the network is of torch.float16 and the example inputs are of torch.float32. Bring "
            "both to one",
        ),
        (two_layers(), X.bfloat16(), {}, "the network is of torch.float32 and the example inputs"),
        (two_layers, X, {}, "needs a torch.nn.Module, got a function"),
    ],
)
def test_refuses_a_network(network, inputs, more, message):
    with pytest.raises(SpaceError) as caught:
        convert(network, inputs, **more)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("shares", [None, [], [1.0]])
def test_all_channels_stay(shares):
    space = convert(two_layers(), X, {"channels": shares, "bits": [8, 32]})
    assert list(units(space)) == ["0.bits", "2.bits"]
    assert space.plan.left == ()


@pytest.mark.parametrize(
    ("choices", "message"),
    [
        ({"chanels": [1.0]}, "unknown key 'chanels'; did you mean 'channels'?"),
        ({"channels": [0.5]}, "with 1 among them, which is the given network"),
        ({"channels": [0, 1.0]}, "a list of shares above 0 and up to 1"),
        ({"bits": [8]}, "with 32 among them, which is the given network"),
        ({"bits": [9, 32]}, "a list of bit widths from 1 to 8 or 32"),
        ({"skip": "yes"}, "choices.skip: got 'yes'; must be true or false"),
        ({"round_to": 0}, "choices.round_to: got 0; must be a whole number > 0"),
        ({"importance": "l1"}, "must be one of l2, batchnorm, taylor"),
    ],
)
def test_refuses_choices(choices, message):
    with pytest.raises(RecipeError) as caught:
        convert(two_layers(), X, choices)
    assert message in str(caught.value)


def test_a_part_that_many_modules_hold():
    block = Residual().eval()
    network = nn.Sequential(conv(3, 16), nn.ReLU(), block, block).eval()
    space = convert(network, torch.randn(1, 3, 8, 8))
    assert units(space)["2.expand.channels"] == [32, 24, 16, 8]
    path = {**largest(space.plan), "2.skip": "identity"}
    x = torch.randn(1, 3, 8, 8)
    skipped = extract_subnet(space, path).eval()
    assert torch.allclose(skipped(x), network[1](network[0](x)))
