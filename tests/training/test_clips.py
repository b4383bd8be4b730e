"""Clipping values and steps that begin with a quantile of their inputs, and how fast they learn."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from small_spaces import build_supernet, paths_of, set_path
from torch import nn
from torch.nn import functional

from nni_spos.data import open_data
from nni_spos.errors import RecipeError
from nni_spos.mutables import QuantConv2d, bits_choice
from nni_spos.mutables.quantization import QuantizedConv2d, QuantizedLinear
from nni_spos.mutables.quantizer_kinds import QUANTIZERS
from nni_spos.recipe.data_settings import DataSettings
from nni_spos.recipe.techniques import TechniqueSettings
from nni_spos.recipe.training_settings import RetrainSettings
from nni_spos.testing.techniques import CHECKS, TechniqueCase
from nni_spos.training import TaskModule
from nni_spos.training.composed import build_techniques
from nni_spos.training.input_quantiles import LEAST_RUNS, quantile

BATCH = 20
PAIRS = [(2, 2), (4, 2), (4, 4)]


@pytest.fixture(scope="module")
def data():
    return open_data(DataSettings("digits", image_size=8, num_train=60, num_validation=20))


class QuantizedNet(nn.Module):
    """The inputs of its quantized layers are easy to compute by hand."""

    def __init__(self, bits=2, quantizer="dorefa"):
        super().__init__()
        kind = {"activation_bits": bits, "quantizer": quantizer}
        self.conv = nn.Conv2d(1, 4, 3, padding=1)
        self.norm = nn.BatchNorm2d(4)
        self.dropout = nn.Dropout(0.5)
        self.quantized = QuantizedConv2d(4, 4, 3, padding=1, bias=False, **kind)
        self.classifier = QuantizedLinear(4, 10, signed=bits > 1, **kind)

    def forward(self, x):
        x = self.dropout(self.norm(self.conv(x)).relu())
        return self.classifier(self.quantized(x).mean((2, 3)))

    def inputs(self, x):
        """What the two layers get if no input is rounded, with the statistics of the batch."""
        x = functional.conv2d(x, self.conv.weight, self.conv.bias, padding=1)
        mean = x.mean((0, 2, 3), keepdim=True)
        variance = x.var((0, 2, 3), keepdim=True, correction=0)
        first = ((x - mean) / (variance + 1e-5).sqrt()).clamp_min(0)
        return first, functional.conv2d(first, self.quantized.weight, padding=1).mean((2, 3))


def settings(**keys):
    technique = TechniqueSettings("clips", keys)
    return RetrainSettings(epochs=1, batch_size=BATCH, learning_rate=0.1, techniques=(technique,))


def made(data, **keys):
    return build_techniques(settings(**keys), data.spec)


def only(data, **keys):
    (technique,) = made(data, **keys)
    return technique


def batches(data, number=LEAST_RUNS):
    per_epoch = len(data.train_loader(BATCH, 0))
    epochs = [x for e in range(-(-number // per_epoch)) for x, _ in data.train_loader(BATCH, 0, e)]
    return epochs[:number]


@pytest.mark.parametrize(("share", "size"), [(0.5, 9), (0.9, 10), (0.999, 5000), (1.0, 7)])
def test_a_quantile_is_numpys(share, size):
    x = torch.randn(size, generator=torch.Generator().manual_seed(0))
    expected = np.quantile(x.numpy(), share, method="inverted_cdf")
    assert float(quantile(x, share)) == expected


@pytest.mark.parametrize("quantizer", ["dorefa", "symmetric"])
@pytest.mark.parametrize("bits", [2, 4])
def test_the_highest_level_is_a_quantile_of_the_inputs(data, bits, quantizer):
    torch.manual_seed(0)
    network = QuantizedNet(bits, quantizer)
    with torch.no_grad():
        inputs = [network.inputs(x) for x in batches(data)]
    only(data, clip_quantile=0.95).begin(network, data)
    for layer, values in zip(
        (network.quantized, network.classifier), zip(*inputs, strict=True), strict=True
    ):
        each = [np.quantile(x.abs().numpy(), 0.95, method="inverted_cdf") for x in values]
        (learned,) = layer.activation_tensors().values()
        grid = QUANTIZERS[quantizer].grid(learned, bits, signed=layer.signed, initial_clip=6.0)
        assert grid.scale * grid.high == pytest.approx(np.mean(each), rel=1e-5)


def test_nothing_else_changes(data):
    network = QuantizedNet()
    network.norm.eval()
    before = {name: x.clone() for name, x in network.state_dict().items()}
    torch.manual_seed(3)
    only(data, clip_quantile=0.99).begin(network, data)
    drawn = torch.rand(1)
    torch.manual_seed(3)
    assert torch.equal(drawn, torch.rand(1))
    changed = [name for name, x in network.state_dict().items() if not torch.equal(x, before[name])]
    assert changed == ["quantized.clip", "classifier.clip"]
    modes = {name: x.training for name, x in network.named_modules()}
    assert [name for name, mode in modes.items() if not mode] == ["norm"]
    assert "quantize" not in vars(network.quantized)


@pytest.mark.parametrize("quantizer", ["dorefa", "symmetric"])
def test_every_bit_width_of_a_supernet_begins(data, quantizer):
    bits = bits_choice("b", PAIRS)
    widths = {"weight_bits": bits.weight, "activation_bits": bits.activation}
    supernet = build_supernet(
        lambda: nn.Conv2d(1, 4, 3),
        nn.ReLU,
        lambda: QuantConv2d(4, 4, 3, **widths, quantizer=quantizer),
    )
    conv, _, layer = supernet.layers
    found = [
        quantile(functional.conv2d(x, conv.weight, conv.bias).clamp_min(0), 0.99)
        for x in batches(data)
    ]
    only(data, clip_quantile=0.99).begin(supernet, data)
    expected = float(torch.stack(found).mean())
    learned = layer.activation_tensors()
    assert set(learned) == {2, 4}
    for width, tensor in learned.items():
        grid = QUANTIZERS[quantizer].grid(tensor, width, signed=False, initial_clip=6.0)
        assert grid.scale * grid.high == pytest.approx(expected, rel=1e-5)
    for path in paths_of(supernet):  # and paths run as before
        set_path(supernet, path)
        levels = layer.quantize(torch.rand(999) * 9, learned[int(path["b"][2])], int(path["b"][2]))
        assert len(levels.unique()) == 2 ** int(path["b"][2])


@pytest.mark.parametrize("bits", [2, 3])
def test_what_comes_out_is_nearer_to_the_float_network(data, bits):
    torch.manual_seed(0)
    network = QuantizedNet(bits)
    (x,) = batches(data, 1)
    features, _ = network.inputs(x)
    with torch.no_grad():
        as_float = functional.conv2d(features, network.quantized.weight, padding=1)

    @torch.no_grad()
    def distance():
        return float((network.quantized(features) - as_float).norm())

    before = distance()
    only(data, clip_quantile={2: 0.97, 3: 0.99}).begin(network, data)
    assert distance() < before / 2


def test_each_bit_width_has_a_quantile_of_its_own(data):
    bits = bits_choice("b", [(4, 2), (4, 4), (4, 8)])
    widths = {"weight_bits": bits.weight, "activation_bits": bits.activation}
    supernet = build_supernet(
        lambda: nn.Conv2d(1, 4, 3), nn.ReLU, lambda: QuantConv2d(4, 4, 3, **widths)
    )
    clips = supernet.layers[2].activation_tensors()
    found = {}
    for share in (0.9, 0.99):
        only(data, clip_quantile=share).begin(supernet, data)
        found[share] = float(clips[2])
        assert float(clips[2]) == float(clips[4]) == float(clips[8])
    with torch.no_grad():
        clips[4].fill_(6.0)
    only(data, clip_quantile={2: 0.9, 8: 0.99}).begin(supernet, data)
    assert [float(clips[x]) for x in (2, 4, 8)] == [found[0.9], 6.0, found[0.99]]


def test_inputs_that_are_all_zero_say_nothing(data):
    network = QuantizedNet()
    with torch.no_grad():
        network.norm.bias.fill_(-99.0)
    only(data, clip_quantile=0.9).begin(network, data)
    assert float(network.quantized.clip) == float(network.classifier.clip) == 6.0


def test_a_resumed_training_keeps_what_was_learned(data):
    network, technique = QuantizedNet(), only(data, clip_quantile=0.99)
    with torch.no_grad():
        network.quantized.clip.fill_(1.25)
    before = copy.deepcopy(network.state_dict())
    technique.begin(network, data)
    assert float(network.quantized.clip) != 1.25
    technique.load_state_dict(technique.state_dict())
    assert all(torch.equal(x, before[name]) for name, x in network.state_dict().items())


def test_the_learning_rate_of_clips_is_multiplied(data):
    asked = settings(clip_learning_rate_factor=5.0)
    network = QuantizedNet()
    module = TaskModule(asked, techniques=build_techniques(asked, data.spec))
    module.set_model(network)
    groups = module.build_optimizer().param_groups
    rates = {id(p): (g["lr"], g["weight_decay"]) for g in groups for p in g["params"]}
    assert groups[0]["lr"] == 0.1
    assert sum(len(g["params"]) for g in groups) == len(list(network.parameters()))
    for name, parameter in network.named_parameters():
        decay = asked.weight_decay if parameter.dim() > 1 else 0.0
        factor = 5 if name.endswith("clip") else 1
        assert rates[id(parameter)] == (pytest.approx(0.1 * factor), decay)


def test_it_is_off_by_default(data):
    assert not list(made(data, clip_quantile=None))
    assert not list(made(data, clip_learning_rate_factor=1.0))
    assert len(list(made(data, clip_quantile=0.99))) == 1
    assert len(list(made(data, clip_learning_rate_factor=0.0))) == 1


@pytest.mark.parametrize("key", ["clip_quantile", "clip_learning_rate_factor"])
def test_a_network_without_quantized_activations_is_refused(data, key):
    technique = only(data, **{key: 0.9})
    technique.check_network(QuantizedNet())
    with pytest.raises(RecipeError) as raised:
        technique.check_network(QuantizedNet(32))
    assert str(raised.value) == (
        f"{key}: no layer of the network quantizes its inputs. Leave {key} out, or choose a space "
        "or a path with quantized activations."
    )


@pytest.mark.parametrize("share", [0.4, 1.1, "high", {9: 0.9}, {2: 1.1}, [0.9]])
def test_other_quantiles_are_refused(data, share):
    words = (
        r"from 0\.5 to 1, or a mapping of bits from 1 to 8 to such, \{2: 0.97, 4: 0.999\}, or null"
    )
    with pytest.raises(RecipeError, match=words):
        made(data, clip_quantile=share)


class QuantizedCase(TechniqueCase):
    def network(self):
        torch.manual_seed(0)
        return QuantizedNet(quantizer=self.quantizer)


@pytest.mark.slow
@pytest.mark.parametrize("quantizer", ["dorefa", "symmetric"])
@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
def test_it_keeps_the_promises_of_techniques(check, quantizer):
    case = QuantizedCase("clips", clip_quantile=0.95, clip_learning_rate_factor=3.0)
    case.quantizer = quantizer
    check(case)
