"""Quantized layers: outputs against the published formulas, clipping values, what is refused."""

from __future__ import annotations

import math

import pytest
import torch
from small_spaces import Chain, build_supernet, choose, images, paths_of, set_path, state_of
from torch import Tensor, nn
from torch.nn import functional

from nni_spos.errors import QuantizationError
from nni_spos.metrics import Layer
from nni_spos.metrics.bitops import BitOps
from nni_spos.modules.subnet import extract_subnet
from nni_spos.mutables import (
    MutableConv2d,
    MutableLinear,
    QuantConv2d,
    QuantLinear,
    SwitchableBatchNorm2d,
    bits_choice,
    share_weights,
)
from nni_spos.mutables.quantization import INITIAL_CLIP, QuantizedConv2d, QuantizedLinear
from nni_spos.profilers import count_macs
from nni_spos.recipe.training_settings import TrainSettings
from nni_spos.training import TaskModule

PAIRS = [(1, 2), (2, 4), (4, 4), (8, 1), (32, 3), (3, 32), (32, 32)]


def pair_arguments(label="b", pairs=PAIRS):
    bits = bits_choice(label, pairs)
    return {"weight_bits": bits.weight, "activation_bits": bits.activation}


def bits_of(path):
    weight, activation = path["b"].removesuffix("a").split("w")
    return int(weight), int(activation)


def published_weight(w: Tensor, bits: int) -> Tensor:
    if bits == 32:
        return w
    if bits == 1:
        return torch.where(w >= 0, w.abs().mean(), -w.abs().mean())
    t, n = w.tanh(), 2**bits - 1
    m = t.abs().max()
    return m * (2 * torch.round(n * (t / (2 * m) + 0.5)) / n - 1)


def published_activation(x: Tensor, clip: float, bits: int, signed: bool = False) -> Tensor:
    if bits == 32:
        return x
    n = 2 ** (bits - signed) - 1
    return torch.round(x.clamp(-clip if signed else 0, clip) * n / clip) * clip / n


@pytest.mark.parametrize("signed", [False, True])
@pytest.mark.parametrize("bias", [False, True])
def test_a_convolution_follows_the_formulas_on_the_slice_of_the_path(signed, bias):
    pairs = [pair for pair in PAIRS if pair[1] != 1] if signed else PAIRS
    c, d, k = choose("c", 2, 4), choose("d", 3, 5), choose("k", 1, 3)
    supernet = build_supernet(
        lambda: QuantConv2d(
            c, d, k, padding=k // 2, bias=bias, signed=signed, **pair_arguments(pairs=pairs)
        )
    ).double()
    layer = supernet.layers[0]
    clips = {bits: 0.5 + bits / 4 for bits in {a for _, a in pairs} - {32}}
    with torch.no_grad():
        for bits, clip in clips.items():
            layer.clips[str(bits)].fill_(clip)
    for path in paths_of(supernet):
        weight_bits, bits = bits_of(path)
        x = images(2, path["c"], 5, 5).double() * 2
        x = x if signed else x.abs()
        cut = slice(1, 2) if path["k"] == 1 else slice(3)
        weight = published_weight(layer.weight[: path["d"], : path["c"], cut, cut], weight_bits)
        inputs = published_activation(x, clips.get(bits, 0), bits, signed)
        shift = layer.bias[: path["d"]] if bias else None
        expected = functional.conv2d(inputs, weight, shift, padding=path["k"] // 2)
        frozen = extract_subnet(supernet, path)
        assert type(frozen.layers[0]) is QuantizedConv2d
        for network in (supernet, frozen):
            torch.testing.assert_close(network(x), expected, rtol=0, atol=1e-12)


def test_a_linear_layer_follows_the_formulas_on_the_slice_of_the_path():
    supernet = build_supernet(
        lambda: QuantLinear(choose("c", 2, 4), choose("d", 3, 5), **pair_arguments())
    ).double()
    layer = supernet.layers[0]
    for path in paths_of(supernet):
        weight_bits, bits = bits_of(path)
        x = images(6, path["c"]).double().abs() * 5
        weight = published_weight(layer.weight[: path["d"], : path["c"]], weight_bits)
        inputs = published_activation(x, INITIAL_CLIP, bits)
        expected = inputs @ weight.T + layer.bias[: path["d"]]
        frozen = extract_subnet(supernet, path)
        assert type(frozen.layers[0]) is QuantizedLinear
        for network in (supernet, frozen):
            torch.testing.assert_close(network(x), expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize(
    ("bits", "wide", "narrow"),
    [
        # Scales tanh(2) and tanh(0.5). Under the larger one 0.5 is nearer to the inner level, as
        # tanh(0.5) < 2/3 tanh(2).
        (2, [math.tanh(2) / 3, math.tanh(2) / 3], [math.tanh(0.5) / 3, math.tanh(0.5)]),
        (1, [0.65, 0.65], [0.3, 0.3]),  # means of 0.1, 2, 0.5, 0, and of 0.1, 0.5
    ],
)
def test_the_scale_of_the_weights_is_that_of_the_slice(bits, wide, narrow):
    supernet = build_supernet(
        lambda: QuantConv2d(choose("c", 1, 2), 2, 1, bias=False, weight_bits=bits)
    )
    with torch.no_grad():
        supernet.layers[0].weight.copy_(torch.tensor([[0.1, 2.0], [0.5, 0.0]])[:, :, None, None])
    for channels, expected in ((2, wide), (1, narrow)):
        set_path(supernet, {"c": channels})
        x = torch.zeros(1, channels, 1, 1)
        x[0, 0] = 1
        torch.testing.assert_close(supernet(x).flatten(), torch.tensor(expected))


@pytest.mark.parametrize(
    "make",
    [
        lambda: QuantConv2d(choose("c", 2, 4), 3, 3, **pair_arguments()),
        lambda: QuantLinear(choose("c", 2, 4), 3, **pair_arguments()),
    ],
)
def test_another_bit_width_in_between_changes_nothing(make):
    supernet = build_supernet(make)
    shape = (2, 4, 5, 5) if isinstance(supernet.layers[0], nn.Conv2d) else (2, 4)
    outputs = []
    for pair, c in (("4w4a", 4), ("1w2a", 2), ("2w4a", 4), ("4w4a", 4)):
        set_path(supernet, {"b": pair, "c": c})
        x = images(*shape).abs()[:, :c]
        outputs.append(supernet(x))
    assert torch.equal(outputs[0], outputs[3])
    assert not torch.equal(outputs[0], outputs[2])


@pytest.mark.parametrize("path", [{}, {"c": 2}, {"c": 4}])
def test_32_bits_are_the_layer_of_floats(path):
    bits = {"weight_bits": 32, "activation_bits": 32}
    c = choose("c", 2, 4) if path else 4
    pairs = (
        (lambda: QuantConv2d(c, 3, 3, **bits), lambda: MutableConv2d(c, 3, 3), (2, 4, 5, 5)),
        (lambda: QuantLinear(c, 3, **bits), lambda: MutableLinear(c, 3), (2, 4)),
    )
    for quantized, plain, shape in pairs:
        one, other = build_supernet(quantized), build_supernet(plain)
        assert list(one.state_dict()) == list(other.state_dict())
        x = images(*shape)[:, : path.get("c", 4)]  # also negative ones
        for network in (one, other):
            set_path(network, path)
        assert torch.equal(one(x), other(x))
        assert torch.equal(one.freeze(path)(x), other.freeze(path)(x))


def test_there_is_a_clipping_value_for_each_bit_width_and_a_path_has_its_own():
    supernet = build_supernet(lambda: QuantConv2d(2, 2, 1, initial_clip=3.5, **pair_arguments()))
    layer = supernet.layers[0]
    clips = {name: x for name, x in layer.named_parameters() if "clip" in name}
    assert sorted(clips) == ["clips.1", "clips.2", "clips.3", "clips.4"]
    assert {x.item() for x in clips.values()} == {3.5}
    assert {x.dim() for x in clips.values()} == {0}
    with torch.no_grad():
        clips["clips.4"].fill_(1.25)
    for pair, clip in (("2w4a", 1.25), ("4w4a", 1.25), ("1w2a", 3.5), ("3w32a", None)):
        frozen = extract_subnet(supernet, {"b": pair}).layers[0]
        assert frozen.state_dict().get("clip") == clip
        assert f"bits={pair}" in repr(frozen)


def test_only_the_drawn_clipping_value_is_trained():
    supernet = build_supernet(
        lambda: MutableConv2d(1, choose("c", 2, 4), 1),
        nn.ReLU,
        lambda: QuantConv2d(choose("c", 2, 4), 3, 1, initial_clip=0.2, **pair_arguments()),
        nn.Flatten,
        lambda: QuantLinear(
            27, 3, initial_clip=0.5, activation_bits=choose("a", 2, 4), signed=True
        ),
    )
    with torch.no_grad():
        supernet.layers[2].weight.abs_()  # so that what clipped inputs add up to is not zero
    module = TaskModule(TrainSettings(steps=5, momentum=0.9, weight_decay=0.1, learning_rate=0.1))
    module.set_model(supernet)
    optimizer = module.build_optimizer()
    momenta: dict[str, Tensor] = {}
    drawn = [("2w4a", 4, 2), ("1w2a", 2, 2), ("4w4a", 4, 4), ("3w32a", 2, 4), ("8w1a", 4, 4)]
    for pair, c, a in drawn:
        set_path(supernet, {"b": pair, "c": c, "a": a})
        optimizer.zero_grad()
        (supernet(images(8, 1, 3, 3) * 3) * images(8, 3)).mean().backward()
        used = {f"layers.4.clips.{a}", f"layers.2.clips.{bits_of({'b': pair})[1]}"}
        clips = {name: x for name, x in supernet.named_parameters() if ".clips." in name}
        before = {name: x.detach().clone() for name, x in clips.items()}
        for name, clip in clips.items():
            assert (clip.grad is not None) == (name in used), (pair, a, name)
        optimizer.step()
        for name, clip in clips.items():
            assert (not torch.equal(clip, before[name])) == (name in used), (pair, a, name)
            momentum = optimizer.state.get(clip, {}).get("momentum_buffer")
            if name not in used and name in momenta:
                assert torch.equal(momentum, momenta[name])
            if momentum is not None:
                momenta[name] = momentum.clone()
    assert {name.rpartition(".")[2] for name in momenta} == {"1", "2", "4"}
    decays = {id(x): g["weight_decay"] for g in optimizer.param_groups for x in g["params"]}
    assert {decays[id(x)] for x in clips.values()} == {0}
    assert decays[id(supernet.layers[2].weight)] == 0.1


def test_a_switchable_norm_keeps_statistics_and_weights_apart():
    pairs = [(2, 2), (2, 4), (4, 4)]
    supernet = build_supernet(
        lambda: SwitchableBatchNorm2d(choose("c", 2, 4), **pair_arguments(pairs=pairs))
    )
    norm = supernet.layers[0].train()
    assert sorted(norm.sets) == ["2w2a", "2w4a", "4w4a"]
    assert not [name for name in norm.state_dict() if not name.startswith("sets.")]
    for step, (pair, c) in enumerate([("2w2a", 4), ("2w4a", 2), ("2w2a", 2), ("4w4a", 4)]):
        set_path(supernet, {"b": pair, "c": c})
        before, expected = state_of(norm), nn.BatchNorm2d(c)
        own = norm.sets[pair]
        cut = {n: t[:c] if t.dim() else t for n, t in own.state_dict().items()}
        expected.load_state_dict(cut)
        x = images(4, c, 3, 3) * (step + 2)
        supernet.zero_grad()
        output = supernet(x)
        torch.testing.assert_close(output, expected(x), rtol=0, atol=1e-6)
        output.square().sum().backward()
        for name, tensor in norm.state_dict().items():
            if f"sets.{pair}." in name and tensor.dim():
                own_name = name.rpartition(".")[2]
                assert torch.equal(tensor[:c], expected.state_dict()[own_name]), name
                assert torch.equal(tensor[c:], before[name][c:]), name
            else:
                assert torch.equal(tensor, before[name]) or f"sets.{pair}.num_b" in name, name
        for name, parameter in norm.named_parameters():
            assert (parameter.grad is not None) == (f"sets.{pair}." in name), name
        frozen = extract_subnet(supernet, {"b": pair, "c": c}).layers[0]
        assert isinstance(frozen, nn.BatchNorm2d)
        torch.testing.assert_close(frozen.running_mean, expected.running_mean, rtol=0, atol=0)
        assert (frozen.weight_bits, frozen.activation_bits) == bits_of({"b": pair})
    assert [int(x.num_batches_tracked) for x in norm.sets.values()] == [2, 1, 1]


def test_a_switchable_norm_can_be_shared_by_pairs_of_the_same_activation_bits():
    pairs = [(2, 2), (2, 4), (4, 4)]
    supernet = build_supernet(
        lambda: SwitchableBatchNorm2d(
            choose("c", 2, 4), **pair_arguments(pairs=pairs), per="activation_bits"
        )
    )
    norm = supernet.layers[0].train()
    assert sorted(norm.sets) == ["2a", "4a"]
    expected = nn.BatchNorm2d(4)
    expected.load_state_dict(norm.sets["4a"].state_dict())
    for step, pair in enumerate(["2w4a", "2w2a", "4w4a"]):
        set_path(supernet, {"b": pair, "c": 4})
        before = state_of(norm)
        x = images(4, 4, 3, 3) * (step + 2)
        output = supernet(x)
        own = pair[2:]
        if own == "4a":
            torch.testing.assert_close(output, expected(x), rtol=0, atol=1e-6)
        changed = {n for n, t in norm.state_dict().items() if not torch.equal(t, before[n])}
        assert changed
        assert all(name.startswith(f"sets.{own}.") for name in changed)
        frozen = extract_subnet(supernet, {"b": pair, "c": 4}).layers[0]
        assert torch.equal(frozen.running_mean, norm.sets[own].running_mean)
        assert (frozen.weight_bits, frozen.activation_bits) == bits_of({"b": pair})
    torch.testing.assert_close(norm.sets["4a"].running_var, expected.running_var)
    with pytest.raises(QuantizationError, match="per must be pair or activation_bits, got 'a'"):
        SwitchableBatchNorm2d(4, 2, 2, per="a")


@pytest.mark.parametrize("form", [{"affine": False}, {"track_running_stats": False}, {"eps": 0.5}])
def test_a_switchable_norm_takes_the_options_of_a_norm(form):
    supernet = build_supernet(
        lambda: SwitchableBatchNorm2d(choose("c", 2, 4), **pair_arguments(), **form)
    )
    for path in paths_of(supernet):
        frozen = extract_subnet(supernet, path)
        expected = nn.BatchNorm2d(path["c"], **form).eval()
        expected.load_state_dict(frozen.layers[0].state_dict())
        x = images(3, path["c"], 4, 4)
        for network in (supernet, frozen):
            torch.testing.assert_close(network(x), expected(x), rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    ("channels", "size", "expected"),
    [
        # 2 x 64 x 64 x 9 multiply-adds at each of 56 x 56 places
        ([(64, 64, 3), (64, 64, 3)], 56, 231_211_008),
        # (64 x 128 x 9 + 128 x 128 x 9 + 64 x 128) x 28 x 28
        ([(64, 128, 3), (128, 128, 3), (64, 128, 1)], 28, 179_830_784),
    ],
)
def test_a_paths_layers_say_how_many_bits_their_multiply_adds_have(channels, size, expected):
    makers = [
        lambda i=i, o=o, k=k: QuantConv2d(i, o, k, padding=k // 2, bias=False, **pair_arguments())
        for i, o, k in channels
    ]
    supernet = share_weights(Chain(*makers))
    for pair, product in (("2w4a", 8), ("4w4a", 16), ("1w2a", 2), ("32w32a", 1024)):
        total = 0
        for layer in supernet.freeze({"b": pair}).layers:
            macs = count_macs(layer, (layer.in_channels, size, size))
            bits = (layer.weight_bits, layer.activation_bits)
            total += BitOps().of_layer(Layer("", layer, (), (), (), macs, *bits))
        assert total == product * expected
