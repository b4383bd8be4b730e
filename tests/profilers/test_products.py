"""Multiply-adds outside of layers count as those in layers do, or are refused by name."""

import pytest
import torch
from small_networks import IMAGE, MACS, assert_right, features, small
from torch import nn
from torch.nn import functional as F

from nni_spos.errors import CostError
from nni_spos.profilers import build_costs
from nni_spos.profilers.products import ProductCounter


def vector(space, x):
    return features(space, x) * (x.flatten(1) @ torch.ones(64, device=x.device)).sigmoid()


def vector_of_another_size(space, x):
    return features(space, x) * torch.mv(x[0, 0, :4], torch.ones(8, device=x.device)).sum()


def scalar_product(space, x):
    return features(space, x) * torch.dot(x.flatten(), x.flatten())


def inner_product(space, x):
    return features(space, x) * torch.inner(x.flatten(), x.flatten())


def in_place(space, x):
    return features(space, x) * torch.zeros_like(x[0]).baddbmm_(x[0], x[0]).sum()


def added_outer_product(space, x):
    return features(space, x) * x[0, 0].addr(x[0, 0, 0], x[0, 0, 1]).sum()


def summed_products(space, x):
    return features(space, x) * torch.zeros_like(x[0, 0]).addbmm(x[0], x[0]).sum()


def attention(space, x):
    return features(space, F.scaled_dot_product_attention(x, x, x))


def attention_with_values(space, x):
    return features(space, F.scaled_dot_product_attention(x, x, x) * float(x.sum()))


def einsum(space, x):
    return features(space, x) * torch.einsum("nchw,nchw->n", x, x)


def transposed(space, x):
    return features(space, F.conv_transpose2d(x, torch.ones(1, 1, 1, 1, device=x.device)))


def recurrent(space, x):
    shapes = [(4, 8), (4, 4), (4,), (4,), (1, 1, 4)]
    *weights, state = [torch.ones(shape, device=x.device) for shape in shapes]
    output, _ = torch._VF.rnn_tanh(x[:, 0], state, weights, True, 1, 0.0, False, False, True)
    return features(space, x) * output.sum()


@pytest.mark.parametrize(
    ("body", "macs"),
    [
        (vector, 64),
        (recurrent, 8 * 4 * (8 + 4)),
        (vector_of_another_size, 4 * 8),
        (scalar_product, 64),
        (inner_product, 64),
        (in_place, 8 * 8 * 8),
        (added_outer_product, 8 * 8),
        (summed_products, 8 * 8 * 8),
        (attention, 2 * 8 * 8 * 8),
        (attention_with_values, 2 * 8 * 8 * 8),
        (einsum, 64),
        (transposed, 64),
    ],
)
def test_functional_products(body, macs):
    table = build_costs(small(body)(), IMAGE)["flops"]
    assert {x: table.price({"unit": x}) - macs for x in MACS} == MACS


def bilinear(space, x):
    rows = x[:, 0, 0]
    return features(space, x) * F.bilinear(rows, rows, torch.ones(1, 8, 8, device=x.device)).sum()


def distances(space, x):
    return features(space, x) * torch.cdist(x[:, 0], x[:, 0]).mean()


def spectrum(space, x):
    return features(space, torch.fft.fft2(x).real)


def singular_values(space, x):
    return features(space, x) * torch.linalg.svdvals(x[0, 0]).sum()


@torch.library.custom_op("nni_spos_tests::double", mutates_args=())
def double(x: torch.Tensor) -> torch.Tensor:
    return x * 2


def custom(space, x):
    return features(space, double(x))


@pytest.mark.parametrize(
    ("body", "name"),
    [
        (bilinear, "aten._trilinear"),
        (distances, "aten._cdist_forward"),
        (spectrum, "aten._fft_c2c"),
        (singular_values, "aten._linalg_svd"),
        (custom, "nni_spos_tests.double"),
    ],
)
def test_operators_that_cannot_be_counted_are_named(body, name):
    with pytest.raises(CostError) as error:
        build_costs(small(body)(), IMAGE)
    line = max(line for *_, line in body.__code__.co_lines() if line)
    assert str(error.value) == (
        f"the space calls {name} (test_products.py, line {line}), whose multiply-adds cannot be "
        "counted. Put it into an nn.Module, and give that a formula with "
        "nni_spos.profilers.register_macs."
    )


def elementwise(space, x):
    x = F.interpolate(F.normalize(x), scale_factor=2, mode="bilinear") * (x * x).sum()
    return F.leaky_relu(features(space, F.max_pool2d(x, 2)))


def test_what_is_no_product_is_none():
    assert_right(build_costs(small(elementwise)(), IMAGE), small(elementwise))
    costs = build_costs(small(elementwise)(), IMAGE)
    assert {x: costs["flops"].price({"unit": x}) for x in MACS} == MACS


class Upscaled(nn.Conv2d):
    def forward(self, x):
        return F.interpolate(super().forward(x), scale_factor=2)


class UpscaledByLayer(nn.Conv2d):
    def __init__(self, *arguments):
        super().__init__(*arguments)
        self.up = nn.Upsample(scale_factor=2)

    def forward(self, x):
        return self.up(super().forward(x))


class Doubled(nn.Conv2d):
    def forward(self, x):
        return super().forward(super().forward(x))


def last(space, x):
    return space.last(features(space, x))


@pytest.mark.parametrize(
    ("layer", "macs"), [(Upscaled, 256), (UpscaledByLayer, 256), (Doubled, 512)]
)
def test_a_subclass_that_does_not_do_what_its_base_does(layer, macs):
    # 16 pixels of 4 outputs from 4 inputs; an output may have 64 pixels.
    table = build_costs(small(last, last=lambda: layer(4, 4, 1))(), IMAGE)["flops"]
    assert {x: table.price({"unit": x}) - macs for x in MACS} == MACS


class ConvAndMore(nn.Conv2d):
    """A convolution that has another one for a sub-layer."""

    def __init__(self, *arguments):
        super().__init__(*arguments)
        self.more = nn.Conv2d(4, 4, 3, 1, 1)

    def forward(self, x):
        return self.more(super().forward(x))


def test_a_subclass_with_layers_of_its_own():
    space = small(last, last=lambda: ConvAndMore(4, 4, 1))
    costs = build_costs(space(), IMAGE)
    assert_right(costs, space)
    assert costs["flops"].price({"unit": "k1"}) == MACS["k1"] + 16 * 4 * (4 + 4 * 9)


def test_the_counter_knows_forms_that_pytorchs_does_not():
    matrix, row = torch.ones(3, 5), torch.ones(5)
    counter = ProductCounter()

    def run():
        torch.mv(matrix, row)
        torch.addmv(torch.ones(3), matrix, row)
        torch.ones(3).addmv_(matrix, row)
        torch.vdot(row, row)
        torch.ones(3, 3).addmm_(matrix, matrix.T)

    with torch.no_grad():
        counter.run(run)
    assert [product.macs for product in counter.products] == [15, 15, 15, 5, 45]
    first = run.__code__.co_firstlineno + 1
    assert [product.line for product in counter.products] == list(range(first, first + 5))
