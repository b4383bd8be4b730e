"""Who owns the weights: frozen paths have copies, and gradients stay in the slices of a path."""

from __future__ import annotations

import copy

import pytest
import torch
from nni.nas.nn.pytorch import LayerChoice
from small_spaces import build_supernet, choose, images, paths_of, set_path, state_of
from torch import nn

from nni_spos.mutables import (
    ActiveSlices,
    MutableBatchNorm2d,
    MutableConv2d,
    MutableLinear,
    QuantConv2d,
    QuantLinear,
    SwitchableBatchNorm2d,
    sliced_operations,
)

WIDTH = ("w", 4, 8)
BITS = {"weight_bits": 2, "activation_bits": 4}
ALL_KINDS = (
    lambda: MutableConv2d(3, choose(*WIDTH), choose("k", 1, 3), padding=choose("k", 1, 3) // 2),
    lambda: MutableBatchNorm2d(choose(*WIDTH)),
    nn.ReLU,
    lambda: QuantConv2d(choose(*WIDTH), choose(*WIDTH), 3, groups=2, **BITS),
    lambda: SwitchableBatchNorm2d(choose(*WIDTH), 2, 4),
    nn.ReLU,
    lambda: MutableBatchNorm2d(choose(*WIDTH), affine=False, track_running_stats=False),
    lambda: nn.AdaptiveAvgPool2d(1),
    nn.Flatten,
    nn.ReLU,
    lambda: QuantLinear(choose(*WIDTH), 6, **BITS),
    lambda: MutableLinear(6, choose("d", 2, 3)),
)


def storages(network):
    tensors = [*network.parameters(), *network.buffers()]
    return {tensor.untyped_storage().data_ptr() for tensor in tensors}


def test_a_frozen_path_shares_no_storage_and_the_supernet_does_not_notice_its_training():
    supernet = build_supernet(*ALL_KINDS)
    for path in paths_of(supernet):
        before = state_of(supernet)
        # NNI's own freezing, without the further copy that extract_subnet makes.
        frozen = supernet.freeze(path)
        assert not storages(frozen) & storages(supernet)
        frozen.train()
        frozen(images(5, 3, 6, 6)).square().sum().backward()
        with torch.no_grad():
            for tensor in frozen.parameters():
                tensor.sub_(tensor.grad + 1)
        after = supernet.state_dict()
        assert all(torch.equal(before[name], after[name]) for name in before)
        assert all(tensor.grad is None for tensor in supernet.parameters())


def test_a_frozen_path_is_plain_layers_with_equal_slices_and_all_their_buffers():
    supernet = build_supernet(*ALL_KINDS)
    supernet.train()
    set_path(supernet, {"w": 8, "k": 3, "d": 2})
    supernet(images(5, 3, 6, 6))  # so that there are statistics, and a number of batches
    first, norm, _, quantized, switchable, *_ = supernet.layers
    frozen = supernet.freeze({"w": 4, "k": 1, "d": 3})
    assert torch.equal(frozen.layers[0].weight, first.weight[:4, :, 1:2, 1:2])
    assert torch.equal(frozen.layers[1].running_mean, norm.running_mean[:4])
    assert frozen.layers[1].num_batches_tracked == 1
    assert torch.equal(frozen.layers[3].weight, quantized.weight[:4, :2])
    assert frozen.layers[3].clip == quantized.clips["4"]
    assert torch.equal(frozen.layers[4].running_var, switchable.sets["2w4a"].running_var[:4])
    assert torch.equal(frozen.layers[11].weight, supernet.layers[11].weight)
    assert not list(sliced_operations(frozen))
    assert not any(hasattr(module, "mutables") for module in frozen.layers.modules())
    assert frozen.training
    assert not build_supernet(*ALL_KINDS).freeze({"w": 4, "k": 1, "d": 3}).layers[0].training


POINTWISE = lambda: MutableConv2d(3, choose(*WIDTH), 1)  # noqa: E731
ONE_CHANNEL = lambda: MutableConv2d(1, choose(*WIDTH), 3)  # noqa: E731


@pytest.mark.parametrize("make", [POINTWISE, ONE_CHANNEL], ids=["1x1", "one channel"])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_a_frozen_path_is_in_the_memory_format_of_the_supernet(make, layout):
    """Of these weights only the strides tell it, and convolutions give their output by them."""
    supernet = build_supernet(make).to(memory_format=layout)
    channels = next(supernet.parameters()).shape[1]
    for path in paths_of(supernet):
        frozen = supernet.freeze(path)
        (weight,) = (x for x in frozen.parameters() if x.dim() == 4)
        assert weight.stride() == torch.empty_like(weight, memory_format=layout).stride()
        assert frozen(images(5, channels, 6, 6)).is_contiguous(memory_format=layout)


def test_a_supernet_in_double_precision_has_paths_in_double_precision():
    supernet = build_supernet(*ALL_KINDS).double()
    for path in paths_of(supernet):
        frozen = supernet.freeze(path)
        assert {tensor.dtype for tensor in frozen.parameters()} == {torch.float64}
        x = images(2, 3, 6, 6).double()
        with torch.no_grad():
            torch.testing.assert_close(supernet(x), frozen(x), rtol=0, atol=1e-12)


def test_a_copied_supernet_has_weights_and_paths_of_its_own():
    supernet = build_supernet(*ALL_KINDS)
    set_path(supernet, {"w": 4, "k": 1, "d": 3})
    x = images(2, 3, 6, 6)
    expected = supernet(x)
    twin = copy.deepcopy(supernet)
    assert torch.equal(twin(x), expected)
    assert not storages(twin) & storages(supernet)
    set_path(twin, {"w": 8, "k": 3, "d": 2})
    assert twin(x).shape == (2, 2)
    assert torch.equal(supernet(x), expected)


@pytest.mark.parametrize("plain", [False, True])
def test_weights_are_saved_and_loaded(plain):
    supernet, other = build_supernet(*ALL_KINDS), build_supernet(*ALL_KINDS)
    with torch.no_grad():
        for tensor in other.parameters():
            tensor.add_(1)
    state = state_of(supernet) if plain else supernet.state_dict()  # plain: without versions
    other.load_state_dict(state)
    loaded = other.state_dict()
    assert list(loaded) == list(state)
    assert all(torch.equal(loaded[name], state[name]) for name in state)


def middle(size, most):
    return slice((most - size) // 2, (most - size) // 2 + size)


CUTS = {
    "convolution": (
        lambda: MutableConv2d(
            choose("c", 4, 6), choose("d", 2, 5), choose("k", 1, 3, 4), padding=choose("k", 1, 3, 4)
        ),
        lambda c, d, k: {
            "weight": (slice(d), slice(c), middle(k, 4), middle(k, 4)),
            "bias": (slice(d),),
        },
    ),
    "depth-wise": (
        lambda: MutableConv2d(choose("c", 4, 6), choose("c", 4, 6), 3, groups=choose("c", 4, 6)),
        lambda c: {"weight": (slice(c),), "bias": (slice(c),)},
    ),
    "grouped": (
        lambda: MutableConv2d(choose("c", 4, 8), 4, 1, groups=2, bias=False),
        lambda c: {"weight": (slice(4), slice(c // 2))},
    ),
    "linear": (
        lambda: MutableLinear(choose("c", 4, 6), choose("d", 2, 5)),
        lambda c, d: {"weight": (slice(d), slice(c)), "bias": (slice(d),)},
    ),
    "quantized": (
        lambda: QuantConv2d(choose("c", 4, 6), choose("d", 2, 5), 1, **BITS),
        lambda c, d: {"weight": (slice(d), slice(c)), "bias": (slice(d),), "clips.4": ()},
    ),
}


@pytest.mark.parametrize("name", CUTS)
def test_gradients_outside_of_a_paths_slices_are_exactly_zero(name):
    make, slices_of = CUTS[name]
    supernet = build_supernet(make)
    layer = supernet.layers[0]
    with torch.no_grad():
        for parameter in layer.parameters():
            if parameter.dim():
                parameter.abs_()  # so that no gradient cancels
    for path in paths_of(supernet):
        supernet.zero_grad()
        x = images(3, path["c"], 5, 5).abs() + 0.1
        y = supernet(x.mean((2, 3)) if isinstance(layer, nn.Linear) else x)
        y.sum().backward()
        slices = slices_of(**path)
        assert {n for n, _ in layer.named_parameters()} == set(slices)
        active = ActiveSlices(supernet)()
        for parameter_name, used in slices.items():
            parameter = layer.get_tensor(parameter_name)
            is_used = torch.zeros_like(parameter, dtype=torch.bool)
            is_used[used] = True
            if used:
                assert torch.equal(parameter.grad != 0, is_used), (path, parameter_name)
            is_active = torch.zeros_like(is_used)
            for part in active.get(parameter, [()]):
                is_active[part] = True
            assert torch.equal(is_active, is_used), (path, parameter_name)
            assert (parameter in active) != bool(is_used.all())


def test_layers_that_are_not_on_the_path_get_no_gradient():
    def unit():
        kinds = {
            f"k{k}": nn.Sequential(
                MutableConv2d(choose(*WIDTH), choose(*WIDTH), k, padding=k // 2),
                MutableBatchNorm2d(choose(*WIDTH)),
            )
            for k in (1, 3)
        }
        return LayerChoice({**kinds, "conv": MutableConv2d(choose(*WIDTH), 4, 1)}, label="unit")

    supernet = build_supernet(lambda: MutableConv2d(1, choose(*WIDTH), 1), unit)
    supernet.train()
    for path in paths_of(supernet):
        supernet.zero_grad()
        before = state_of(supernet)
        supernet(images(4, 1, 4, 4)).square().sum().backward()
        after = supernet.state_dict()
        for name, parameter in supernet.named_parameters():
            is_used = not name.startswith("layers.1.") or f".{path['unit']}." in name
            assert (parameter.grad is not None) == is_used, (path, name)
        for name, tensor in after.items():
            if ".running_" in name:
                changes = f".{path['unit']}." in name
                assert (not torch.equal(before[name], tensor)) == changes, (path, name)
            else:
                assert torch.equal(before[name], tensor) or "num_batches" in name


def test_only_parameters_of_which_some_is_left_out_have_active_slices():
    supernet = build_supernet(lambda: MutableConv2d(1, choose("w", 2, 4), 1, bias=False))
    slices = ActiveSlices(supernet)
    weight = supernet.layers[0].weight
    set_path(supernet, {"w": 2})
    assert slices() == {}  # no gradient
    supernet(images(1, 1, 2, 2)).sum().backward()
    assert slices() == {weight: [(slice(2), slice(1), slice(0, 1), slice(0, 1))]}
    set_path(supernet, {"w": 4})
    assert slices() == {}
