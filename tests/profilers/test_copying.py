"""Networks that copy.deepcopy refuses, and layers that take no hooks or have no sizes."""

import threading

import pytest
import torch
from small_networks import IMAGE, MACS, Small, assert_right, features, small
from torch import nn

from nni_spos.errors import CostError
from nni_spos.profilers import build_costs, macs, register_macs
from nni_spos.profilers.copying import copy_network


@pytest.fixture(autouse=True)
def _restore_formulas():
    before = dict(macs._FORMULAS)
    yield
    macs._FORMULAS.clear()
    macs._FORMULAS.update(before)


def last(space, x):
    return space.last(features(space, x))


def refusal(space):
    with pytest.raises(CostError) as error:
        build_costs(space(), IMAGE)
    assert "\n" not in str(error.value)
    return str(error.value)


class Ready(Small):
    """A lazy layer that has run."""

    def build(self):
        self.last = nn.LazyConv2d(4, 1)
        self.last(torch.zeros(1, 4, 4, 4))

    body = last


@pytest.mark.parametrize(
    ("make", "kind", "name"),
    [
        (lambda: nn.LazyConv2d(4, 1), "LazyConv2d", "Conv2d"),
        (lambda: nn.LazyBatchNorm2d(), "LazyBatchNorm2d", "BatchNorm2d"),
        (lambda: nn.LazyConvTranspose2d(4, 1), "LazyConvTranspose2d", "ConvTranspose2d"),
    ],
)
def test_lazy_layers(make, kind, name):
    assert refusal(small(last, last=make)) == (
        f"layer 'last' ({kind}): has no sizes before it has run. Use nn.{name} with the sizes of "
        "its input."
    )
    assert_right(build_costs(Ready(), IMAGE), Ready)


def scripted_conv():
    return torch.jit.script(nn.Conv2d(4, 4, 3, 1, 1))


def test_scripted_layers_without_layers():
    space = small(last, last=lambda: torch.jit.script(nn.SiLU()))
    assert_right(build_costs(space(), IMAGE), space)
    costs = build_costs(small(last, last=scripted_conv)(), IMAGE)
    assert costs["flops"].price({"unit": "k1"}) == MACS["k1"] + 16 * 16 * 9
    assert costs["params"].price({"unit": "k1"}) == 40 + 8 + 20 + 50 + (144 + 4)


class Tied(Small):
    """A layer, and its scripted form, which has the same tensors."""

    def build(self):
        self.last = nn.Conv2d(4, 4, 1)
        self.scripted = torch.jit.script(self.last)

    def body(self, x):
        return self.scripted(last(self, x))


def test_a_scripted_layer_that_shares_its_tensors():
    costs = build_costs(Tied(), IMAGE)
    assert costs["flops"].price({"unit": "k1"}) == MACS["k1"] + 2 * 16 * 16
    assert costs["params"].price({"unit": "k1"}) == 40 + 8 + 20 + 50 + 20


class Twice(nn.Module):
    def forward(self, x: torch.Tensor):
        return 2 * x


@pytest.mark.parametrize(
    ("make", "number"),
    [
        (lambda: torch.jit.script(nn.Sequential(nn.Conv2d(4, 4, 1), nn.ReLU())), 256),
        (lambda: torch.jit.script(Twice()), 0),
        (lambda: torch.jit.trace(nn.Conv2d(4, 4, 1), torch.zeros(1, 4, 4, 4)), 256),
        (lambda: torch.jit.freeze(torch.jit.script(nn.Conv2d(4, 4, 1).eval())), 256),
    ],
)
def test_scripted_modules_count_as_what_they_compute(make, number):
    table = build_costs(small(last, last=make)(), IMAGE)["flops"]
    assert table.price({"unit": "k1"}) == MACS["k1"] + number


class Spectrum(nn.Module):
    def forward(self, x: torch.Tensor):
        return torch.fft.fft2(x).real


def test_a_scripted_module_that_cannot_be_counted():
    assert refusal(small(last, last=lambda: torch.jit.script(Spectrum()))) == (
        "layer 'last' (scripted Spectrum) calls aten._fft_c2c "
        f"(test_copying.py, line {last.__code__.co_firstlineno + 1}), whose multiply-adds cannot "
        "be counted. Give the layer a formula with nni_spos.profilers.register_macs."
    )


def test_a_formula_for_a_scripted_module():
    register_macs(Twice, lambda layer, x, y: y[1] * y[2] * y[3])
    costs = build_costs(small(last, last=lambda: torch.jit.script(Twice()))(), IMAGE)
    assert costs["flops"].price({"unit": "k1"}) == MACS["k1"] + 64


@torch.jit.script
def swish(x: torch.Tensor):
    return x * x.sigmoid()


@pytest.mark.parametrize(
    "make",
    [lambda: swish, threading.Lock, lambda: nn.functional.relu, lambda: nn],
    ids=["scripted function", "lock", "function", "module"],
)
def test_attributes_that_cannot_be_copied(make):
    space = small(features, attribute=make)
    assert_right(build_costs(space(), IMAGE), space)


def test_a_module_that_cannot_be_copied():
    class Stubborn(nn.ReLU):
        def __deepcopy__(self, memo):
            raise RuntimeError("never\ntwice")

    assert refusal(small(last, last=Stubborn)) == (
        "the space cannot be copied (RuntimeError: never twice). Keep what copy.deepcopy refuses "
        "out of its modules."
    )


def test_a_copy_computes_the_same_and_is_apart():
    network = nn.Sequential(
        nn.Conv2d(1, 2, 1),
        nn.utils.weight_norm(nn.Conv2d(2, 2, 1)),
        nn.utils.spectral_norm(nn.Conv2d(2, 2, 1)),
        torch.jit.script(nn.Conv2d(2, 4, 1)),
    ).eval()
    x = torch.rand(1, 1, 3, 3)
    expected = network(x)
    copied = copy_network(network, "cpu")
    assert torch.equal(copied(x), expected)
    with torch.no_grad():
        for parameter in copied.parameters():
            parameter.zero_()
    assert torch.equal(network(x), expected)
    assert not torch.equal(copied(x), expected)
