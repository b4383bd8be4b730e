"""Layers with the quantizer ``symmetric``: steps, sharing, freezing, and the first batch."""

from __future__ import annotations

import copy

import pytest
import torch
from small_spaces import Chain, assert_close, build_supernet, choose, images, paths_of, set_path
from torch import nn
from torch.nn import functional

from nni_spos.errors import QuantizationError
from nni_spos.modules.subnet import extract_subnet
from nni_spos.mutables import QuantConv2d, QuantLinear, bits_choice, share_weights
from nni_spos.mutables.learned_steps import first_step, integer_range, weight_steps
from nni_spos.mutables.quantization import QuantizedConv2d, QuantizedLinear, beginning
from nni_spos.path import PathSpace
from nni_spos.profilers import build_costs
from nni_spos.recipe.training_settings import TrainSettings
from nni_spos.scoring.population import Statistics, sharing
from nni_spos.scoring.prefix_tree import PrefixTree
from nni_spos.spaces import build_network
from nni_spos.training import TaskModule

PAIRS = [(2, 2), (4, 4), (4, 8), (8, 8), (32, 4), (3, 32), (32, 32)]


def bits_of(path):
    weight, activation = path["b"].removesuffix("a").split("w")
    return int(weight), int(activation)


def symmetric(pairs=PAIRS, **options):
    bits = bits_choice("b", pairs)
    widths = {"weight_bits": bits.weight, "activation_bits": bits.activation}
    return {**widths, "quantizer": "symmetric", **options}


def on_grid(x, step, bits, signed):
    if bits == 32:
        return x
    step = step.view(-1, *[1] * (x.dim() - 1)) if step.dim() else step
    return (x / step).round().clamp(*integer_range(bits, signed)) * step


@pytest.mark.parametrize("signed", [False, True])
def test_a_convolution_is_on_the_grid_of_the_path(signed):
    c, d, k = choose("c", 2, 4), choose("d", 3, 5), choose("k", 1, 3)
    supernet = build_supernet(
        lambda: QuantConv2d(c, d, k, padding=k // 2, signed=signed, **symmetric())
    ).double()
    layer = supernet.layers[0]
    steps = {bits: 0.1 + bits / 10 for bits in (2, 4, 8)}
    with torch.no_grad():
        for bits, step in steps.items():
            layer.steps[str(bits)].fill_(step)
    for path in paths_of(supernet):
        weight_bits, bits = bits_of(path)
        x = images(2, path["c"], 5, 5).double() * 2
        x = x if signed else x.abs()
        cut = slice(1, 2) if path["k"] == 1 else slice(3)
        weight = layer.weight[: path["d"], : path["c"], cut, cut]
        if weight_bits != 32:
            factor = layer.weight_factors[str(weight_bits)][: path["d"]]
            weight = on_grid(weight, weight_steps(weight, factor, weight_bits), weight_bits, True)
        step = torch.tensor(steps.get(bits, 1.0), dtype=torch.float64)
        inputs = on_grid(x, step, bits, signed)
        bias = layer.bias[: path["d"]]
        expected = functional.conv2d(inputs, weight, bias, padding=path["k"] // 2)
        frozen = extract_subnet(supernet, path)
        assert type(frozen.layers[0]) is QuantizedConv2d
        for network in (supernet, frozen):
            torch.testing.assert_close(network(x), expected, rtol=0, atol=1e-12)


def test_a_linear_layer_of_a_path_is_that_of_the_supernet():
    supernet = build_supernet(
        lambda: QuantLinear(choose("c", 2, 4), choose("d", 3, 5), **symmetric())
    )
    for path in paths_of(supernet):
        x = images(6, path["c"]).abs()
        frozen = extract_subnet(supernet, path)
        assert type(frozen.layers[0]) is QuantizedLinear
        assert_close(frozen(x), supernet(x))


def test_a_path_has_the_steps_of_its_bits_and_loads_them_again():
    supernet = build_supernet(lambda: QuantConv2d(2, choose("d", 3, 5), 1, **symmetric()))
    names = dict(supernet.layers[0].named_parameters())
    assert [x for x in names if x not in ("weight", "bias")] == [
        "steps.2", "steps.4", "steps.8",
        "weight_factors.2", "weight_factors.3", "weight_factors.4", "weight_factors.8",
    ]  # fmt: skip
    assert {tuple(x.shape) for name, x in names.items() if "factors" in name} == {(5,)}
    for path in paths_of(supernet):
        weight_bits, bits = bits_of(path)
        frozen = extract_subnet(supernet, path)
        expected = {"weight", "bias"} | ({"step"} if bits != 32 else set())
        expected |= {"weight_factor"} if weight_bits != 32 else set()
        assert set(frozen.layers[0].state_dict()) == expected
        again = build_network(
            Chain(lambda: QuantConv2d(2, choose("d", 3, 5), 1, **symmetric())), path
        )
        again.load_state_dict(frozen.state_dict())
        x = images(2, 2, 3, 3).abs()
        assert_close(again.eval()(x), frozen.eval()(x))


def test_steps_of_inputs_begin_with_the_first_batch_of_a_training():
    supernet = build_supernet(nn.ReLU, lambda: QuantConv2d(2, 3, 1, **symmetric()))
    layer, x = supernet.layers[1], images(4, 2, 5, 5)
    set_path(supernet, {"b": "4w4a"})
    supernet(x)
    assert {float(step) for step in layer.steps.values()} == {0}
    frozen = extract_subnet(supernet, {"b": "4w4a"})
    assert_close(frozen(x), supernet(x))
    expected = {
        bits: first_step(x.relu().mean(), x.amax(), int(bits), False) for bits in layer.steps
    }
    supernet.train()(x)
    assert {bits: step.item() for bits, step in layer.steps.items()} == pytest.approx(expected)
    supernet(5 * x)
    assert {bits: step.item() for bits, step in layer.steps.items()} == pytest.approx(expected)
    frozen.train()(x)
    assert frozen.layers[1].step.item() == pytest.approx(expected["4"])
    assert_close(frozen(x), supernet(x))


def test_steps_begin_without_a_training_at_any_bits():
    supernet = build_supernet(nn.ReLU, lambda: QuantConv2d(2, 3, 1, **symmetric()), nn.Dropout)
    layer, x = supernet.layers[1], images(4, 2, 5, 5)
    set_path(supernet, {"b": "32w32a"})
    before = supernet(x)
    with beginning(supernet), torch.no_grad():
        assert torch.equal(supernet(x), before)  # no dropout
    assert not any(module.training for module in supernet.modules())
    expected = first_step(x.relu().mean(), x.amax(), 8, False)
    assert layer.steps["8"].item() == pytest.approx(expected.item())


def test_steps_that_were_loaded_stay_and_a_batch_of_zeros_sets_none():
    layer = QuantizedConv2d(2, 3, 1, weight_bits=4, activation_bits=4, quantizer="symmetric")
    layer(torch.zeros(1, 2, 3, 3))
    assert layer.step.item() == 0
    other = QuantizedConv2d(2, 3, 1, weight_bits=4, activation_bits=4, quantizer="symmetric")
    with torch.no_grad():
        other.step.fill_(0.5)
    layer.load_state_dict(other.state_dict())
    layer.train()(torch.full((1, 2, 3, 3), 9.0))
    assert layer.step.item() == 0.5


def test_weights_that_are_given_later_begin_with_their_own_steps():
    layer = QuantizedConv2d(
        2, 3, 3, bias=False, weight_bits=8, activation_bits=32, quantizer="symmetric"
    )
    with torch.no_grad():
        layer.weight.mul_(torch.tensor([1.0, 100.0, 0.01]).view(-1, 1, 1, 1))
    _, weight = layer.operands_of(images(1, 2, 4, 4))
    error = (weight - layer.weight).abs().amax((1, 2, 3)) / layer.weight.abs().amax((1, 2, 3))
    assert float(error.max()) < 1 / 127


def test_only_what_a_path_uses_is_trained_and_steps_do_not_decay():
    supernet = build_supernet(
        lambda: QuantConv2d(2, choose("d", 2, 4), 1, bias=False, signed=True, **symmetric())
    )
    module = TaskModule(TrainSettings(steps=5, momentum=0.9, weight_decay=0.1, learning_rate=0.1))
    module.set_model(supernet.train())
    optimizer = module.build_optimizer()
    layer, x = supernet.layers[0], images(8, 2, 3, 3)
    set_path(supernet, {"b": "4w8a", "d": 2})
    supernet(x)
    before = copy.deepcopy(layer.state_dict())
    optimizer.zero_grad()
    (supernet(x) * images(8, 2, 3, 3)).mean().backward()
    optimizer.step()
    after = layer.state_dict()
    changed = {name for name in after if not torch.equal(after[name], before[name])}
    assert changed == {"weight", "steps.8", "weight_factors.4"}
    assert torch.equal(after["weight_factors.4"][2:], before["weight_factors.4"][2:])
    decays = {id(x): g["weight_decay"] for g in optimizer.param_groups for x in g["params"]}
    learned = [x for name, x in layer.named_parameters() if name != "weight"]
    assert {decays[id(x)] for x in learned} == {0}


def test_paths_that_are_scored_together_score_as_alone():
    supernet = build_supernet(
        nn.ReLU,
        lambda: QuantConv2d(2, choose("d", 2, 4), 3, **symmetric()),
        nn.ReLU,
        lambda: QuantConv2d(
            choose("d", 2, 4), 3, 3, quantizer="symmetric",
            weight_bits=choose("w", 2, 8), activation_bits=4,
        ),
        nn.Flatten,
    )  # fmt: skip
    supernet.train()
    x = images(4, 2, 8, 8)
    for _ in paths_of(supernet):
        supernet(x)
    paths = list(paths_of(supernet.eval()))
    found = {}
    with sharing(supernet) as run:
        calls = run.trace(paths[0], x)
        space = PathSpace.from_model_space(supernet)
        tree = PrefixTree(space, paths, [part.labels for part in calls])
        batches = [(x, torch.zeros(4))]
        run.walk(
            tree, paths, batches, Statistics.OF_SUPERNET, lambda i, out, _: found.update({i: out})
        )
    for index, path in enumerate(paths):
        torch.testing.assert_close(found[index], extract_subnet(supernet, path)(x))


def test_multiply_adds_and_bitops_are_those_of_dorefa():
    pairs = [(2, 4), (4, 4), (8, 8)]
    costs = {}
    for name in ("dorefa", "symmetric"):
        options = symmetric(pairs, quantizer=name, bias=False)
        space = Chain(lambda options=options: QuantConv2d(3, choose("d", 4, 8), 3, **options))
        costs[name] = build_costs(space, (3, 8, 8))
    path = {"b": "4w4a", "d": 8}
    for metric in ("flops", "bitops"):
        assert costs["symmetric"][metric].price(path) == costs["dorefa"][metric].price(path)
    # Eight steps in the place of nothing, one in the place of a clipping value.
    assert costs["symmetric"]["params"].price(path) == costs["dorefa"]["params"].price(path) + 8
    assert costs["symmetric"]["size_bytes"].price(path) == 3 * 8 * 9 / 2 + 4 * 8 + 4


@pytest.mark.parametrize("make", [QuantConv2d, QuantizedConv2d])
def test_1_bit_weights_and_unknown_quantizers_are_refused(make):
    with pytest.raises(QuantizationError) as error:
        make(2, 2, 1, weight_bits=1, quantizer="symmetric")
    assert str(error.value) == (
        "the quantizer 'symmetric' has no 1-bit weights, since zero is one of its levels. Use 2 or "
        "more bits, or the quantizer 'dorefa'."
    )
    with pytest.raises(QuantizationError, match="unknown quantizer 'symetric'; did you mean"):
        make(2, 2, 1, weight_bits=2, quantizer="symetric")
    assert make(2, 2, 1, weight_bits=2, activation_bits=1, quantizer="symmetric").weight_bits == 2
    space = Chain(
        lambda: QuantConv2d(2, 2, 1, weight_bits=choose("a", 2, 1), quantizer="symmetric")
    )
    with pytest.raises(QuantizationError, match=r"layer 'layers\.0': the quantizer 'symmetric'"):
        share_weights(space)


def test_negative_inputs_are_refused_as_with_dorefa():
    supernet = build_supernet(
        lambda: QuantConv2d(2, 2, 1, activation_bits=4, quantizer="symmetric")
    )
    set_path(supernet, {})
    with pytest.raises(QuantizationError, match="Put a ReLU before it"):
        supernet(images(1, 2, 3, 3))
    assert supernet(images(1, 2, 3, 3).abs()).isfinite().all()
