"""The multiply-adds of many kinds of layers and functions, against sums by hand."""

import math
import random

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from nni_spos.errors import CostError
from nni_spos.profilers import count_macs


class Calls(nn.Module):
    """Calls a function of its layer and the input."""

    def __init__(self, function, layer=None):
        super().__init__()
        self.function = function
        self.layer = layer

    def forward(self, x):
        return self.function(self.layer, x) if self.layer is not None else self.function(x)


class AtValue(Calls):
    """Asks for a value, so that it runs on the CPU with random images."""

    def forward(self, x):
        return super().forward(x) * float(x.abs().sum())


FREE = {
    "Softplus": (nn.Softplus(), (4,)),
    "ELU": (nn.ELU(), (4,)),
    "Mish": (nn.Mish(), (4,)),
    "PReLU": (nn.PReLU(), (4, 5, 5)),
    "GLU": (nn.GLU(1), (4, 5, 5)),
    "Softmax2d": (nn.Softmax2d(), (4, 5, 5)),
    "InstanceNorm2d": (nn.InstanceNorm2d(4, affine=True), (4, 5, 5)),
    "InstanceNorm2d with statistics": (nn.InstanceNorm2d(4, track_running_stats=True), (4, 5, 5)),
    "GroupNorm": (nn.GroupNorm(2, 4), (4, 5, 5)),
    "LayerNorm": (nn.LayerNorm(5), (4, 5, 5)),
    "RMSNorm": (nn.RMSNorm(5), (4, 5, 5)),
    "LocalResponseNorm": (nn.LocalResponseNorm(2), (4, 5, 5)),
    "LPPool2d": (nn.LPPool2d(2, 2), (4, 6, 6)),
    "AdaptiveMaxPool2d": (nn.AdaptiveMaxPool2d(2), (4, 5, 5)),
    "PixelShuffle": (nn.PixelShuffle(2), (4, 5, 5)),
    "Unfold": (nn.Unfold(2), (4, 5, 5)),
    "Upsample": (nn.Upsample(scale_factor=2, mode="bicubic"), (4, 5, 5)),
    "Upsample 3d": (nn.Upsample(scale_factor=2, mode="trilinear"), (4, 5, 5, 5)),
    "antialias": (
        Calls(lambda x: F.interpolate(x, scale_factor=0.5, mode="bilinear", antialias=True)),
        (4, 6, 6),
    ),
    "fold": (Calls(lambda x: F.fold(F.unfold(x, 2), (6, 6), 2)), (4, 6, 6)),
    "grid_sample": (
        Calls(lambda x: F.grid_sample(x, torch.zeros_like(x[:, :5, :, :2]))),
        (5, 6, 6),
    ),
    "Embedding": (
        Calls(lambda layer, x: layer(x.argmax(-1, keepdim=True)), nn.Embedding(6, 3)),
        (6,),
    ),
    "EmbeddingBag": (
        Calls(lambda layer, x: layer(x.argmax(-1, keepdim=True)), nn.EmbeddingBag(6, 3)),
        (6,),
    ),
    "element by element": (
        Calls(lambda x: (x * x).sum() + x.outer(x) if x.dim() == 1 else x * x),
        (4,),
    ),
    "einsum of elements": (Calls(lambda x: torch.einsum("bij,bij->bij", x, x)), (3, 4)),
    "einsum of one": (Calls(lambda x: torch.einsum("bii->b", x)), (4, 4)),
}


@pytest.mark.parametrize(("layer", "shape"), FREE.values(), ids=FREE)
def test_what_is_computed_element_by_element_costs_nothing(layer, shape):
    assert count_macs(layer, shape) == 0


CONVS = [
    (nn.Conv1d, nn.ConvTranspose1d, (7,)),
    (nn.Conv2d, nn.ConvTranspose2d, (7, 6)),
    (nn.Conv3d, nn.ConvTranspose3d, (7, 6, 5)),
]


@pytest.mark.parametrize(("conv", "transposed", "sizes"), CONVS, ids=["1d", "2d", "3d"])
@pytest.mark.parametrize("groups", [1, 2, 4])
def test_convolutions(conv, transposed, sizes, groups):
    kernel = 3 ** len(sizes)
    layer = conv(4, 8, 3, stride=2, padding=1, groups=groups)
    # Every output element is a filter times the input channels of its group.
    outputs = 8 * math.prod((size - 1) // 2 + 1 for size in sizes)
    assert count_macs(layer, (4, *sizes)) == outputs * kernel * 4 // groups
    # Every input element meets the filters of all output channels of its group.
    layer = transposed(4, 8, 3, stride=2, padding=1, output_padding=1, groups=groups)
    assert count_macs(layer, (4, *sizes)) == 4 * math.prod(sizes) * kernel * 8 // groups


@pytest.mark.parametrize(
    ("layer", "shape", "macs"),
    [
        # 6x6 outputs of 8 channels, each from 3x3 of 4 channels.
        (nn.Conv2d(4, 8, 3), (4, 8, 8), 6 * 6 * 8 * 3 * 3 * 4),
        (nn.Conv2d(4, 8, (1, 3), groups=2, bias=False), (4, 8, 8), 8 * 6 * 8 * 3 * 2),
        (nn.Conv2d(4, 4, 3, padding=1, groups=4), (4, 7, 7), 7 * 7 * 4 * 9),
        (nn.Conv2d(4, 8, 3, padding=2, dilation=2), (4, 8, 8), 8 * 8 * 8 * 9 * 4),
        (nn.Conv2d(4, 6, 2, padding="same"), (4, 7, 6), 7 * 6 * 6 * 4 * 4),
        (nn.Conv2d(4, 6, 2, padding="same", padding_mode="reflect"), (4, 7, 6), 7 * 6 * 6 * 16),
        (nn.Linear(5, 7), (5,), 35),
        (nn.Linear(5, 7, bias=False), (11, 5), 11 * 35),
        (nn.Sequential(nn.BatchNorm2d(4), nn.ReLU(), nn.MaxPool2d(2)), (4, 8, 8), 0),
        (nn.Sequential(), (4,), 0),
    ],
    ids=str,
)
def test_more_convolutions_and_linear_layers(layer, shape, macs):
    assert count_macs(layer, shape) == macs


def count_by_ones(layer, shape):
    """Every multiply-add of ones adds 1 to one of the outputs."""
    with torch.no_grad():
        for name, parameter in layer.named_parameters():
            parameter.fill_(0 if name == "bias" else 1)
        return int(layer.double()(torch.ones(1, *shape, dtype=torch.float64)).sum())


@pytest.mark.parametrize("seed", range(60))
def test_convolutions_of_random_arguments(seed):
    draw = random.Random(seed)
    conv = draw.choice([kind for row in CONVS for kind in row[:2]])
    num_sizes = int(conv.__name__[-2])
    groups = draw.choice([1, 1, 2, 3])
    channels = [groups * draw.randint(1, 3) for _ in range(2)]
    kernel, stride = ([draw.randint(1, 3) for _ in range(num_sizes)] for _ in range(2))
    layer = conv(*channels, kernel, stride, groups=groups, dilation=draw.randint(1, 2))
    shape = [channels[0], *(draw.randint(5, 7) for _ in range(num_sizes))]
    assert count_macs(layer, shape) == count_by_ones(layer, shape) > 0


@pytest.mark.parametrize("seed", range(40))
def test_einsums_of_random_letters(seed):
    """Of two operands, where every letter that is summed over is in both."""
    draw = random.Random(seed)
    sizes = dict(zip("abcdefg", (draw.randint(2, 4) for _ in range(7)), strict=True))
    shared = draw.sample("abcd", draw.randint(1, 4))
    summed = draw.sample(shared, draw.randint(1, len(shared)))
    own = draw.sample("efg", draw.randint(1, 3))
    one, other = ([*shared, *letters] for letters in (own[::2], own[1::2]))
    for letters in (one, other):
        draw.shuffle(letters)
    result = [x for x in dict.fromkeys([*one, *other]) if x not in summed]
    equation = f"{''.join(one)},{''.join(other)}->{''.join(result)}"

    def run(x):
        operands = [ones(x, *(sizes[letter] for letter in letters)) for letters in (one, other)]
        return torch.einsum(equation, *operands)

    assert count_macs(Calls(run), (1,)) == int(run(torch.ones(1)).sum()), equation


SEQUENCE, WIDTH = 5, 8
PROJECTIONS, PAIRS = 4 * SEQUENCE * WIDTH**2, 2 * SEQUENCE**2 * WIDTH
ATTENTION, FEED_FORWARD = PROJECTIONS + PAIRS, 2 * SEQUENCE * WIDTH * 16


def encoder_layer(**arguments):
    return nn.TransformerEncoderLayer(WIDTH, 2, 16, batch_first=True, **arguments)


def with_padding(layer, x):
    mask = torch.zeros(1, SEQUENCE, dtype=torch.bool, device=x.device)
    return layer(x, src_key_padding_mask=mask)


def attend(layer, x, **arguments):
    return layer(x, x, x, **arguments)[0]


def other_widths(layer, x):
    return layer(x, x[..., :4], x[..., :6])[0]


SELF = nn.MultiheadAttention(WIDTH, 2, batch_first=True)
OTHER = nn.MultiheadAttention(WIDTH, 2, kdim=4, vdim=6, batch_first=True)
TRANSFORMERS = {
    "attention": (attend, SELF, ATTENTION),
    "without weights": (lambda layer, x: attend(layer, x, need_weights=False), SELF, ATTENTION),
    "of other widths": (other_widths, OTHER, 5 * (2 * 64 + 4 * 8 + 6 * 8) + PAIRS),
    "encoder layer": (nn.Module.__call__, encoder_layer(), ATTENTION + FEED_FORWARD),
    "norm first": (
        nn.Module.__call__,
        encoder_layer(norm_first=True, activation="gelu"),
        ATTENTION + FEED_FORWARD,
    ),
    "encoder": (
        with_padding,
        nn.TransformerEncoder(encoder_layer(), 3),
        3 * (ATTENTION + FEED_FORWARD),
    ),
    "decoder layer": (
        lambda layer, x: layer(x, x),
        nn.TransformerDecoderLayer(WIDTH, 2, 16, batch_first=True),
        2 * ATTENTION + FEED_FORWARD,
    ),
}


@pytest.mark.parametrize("kind", [Calls, AtValue])
@pytest.mark.parametrize(("call", "layer", "macs"), TRANSFORMERS.values(), ids=TRANSFORMERS)
def test_transformers(kind, call, layer, macs):
    assert count_macs(kind(call, layer), (SEQUENCE, WIDTH)) == macs


def masked(x):
    mask = torch.ones(SEQUENCE, SEQUENCE, dtype=torch.bool, device=x.device)
    return F.scaled_dot_product_attention(x, x, x, attn_mask=mask)


def few_keys(x):
    return F.scaled_dot_product_attention(x, x[:, :2], x[:, :2], enable_gqa=True)


def wide_values(x):
    keys, values = x[:, :, :3], torch.cat([x, x], -1)[:, :, :3]
    return F.scaled_dot_product_attention(x, keys, values)


SCALED = {
    "plain": (lambda x: F.scaled_dot_product_attention(x, x, x), 2 * 4 * 5 * 5 * 4),
    "causal": (
        lambda x: F.scaled_dot_product_attention(x, x, x, is_causal=True),
        2 * 4 * 5 * 5 * 4,
    ),
    "masked": (masked, 2 * 4 * 5 * 5 * 4),
    "with few keys": (few_keys, 2 * 4 * 5 * 5 * 4),
    "with wide values": (wide_values, 4 * 5 * 3 * (4 + 8)),
}


@pytest.mark.parametrize("kind", [Calls, AtValue])
@pytest.mark.parametrize(("function", "macs"), SCALED.values(), ids=SCALED)
def test_scaled_dot_products(kind, function, macs):
    assert count_macs(kind(function), (4, SEQUENCE, 4)) == macs


def packed(layer, x):
    sequence = nn.utils.rnn.pack_padded_sequence(x, [SEQUENCE], batch_first=True)
    return nn.utils.rnn.pad_packed_sequence(layer(sequence)[0], batch_first=True)[0]


def first(layer, x):
    return layer(x)[0]


RECURRENT = {
    "LSTM": (first, nn.LSTM(6, 4, batch_first=True), 5 * 4 * 4 * (6 + 4)),
    "LSTM of two directions": (
        first,
        nn.LSTM(6, 4, 2, batch_first=True, bidirectional=True),
        5 * 2 * 4 * 4 * ((6 + 4) + (8 + 4)),
    ),
    "LSTM with a projection": (
        first,
        nn.LSTM(6, 4, batch_first=True, proj_size=3),
        5 * (4 * 4 * (6 + 3) + 4 * 3),
    ),
    "packed LSTM": (packed, nn.LSTM(6, 4, batch_first=True), 5 * 4 * 4 * (6 + 4)),
    "GRU": (first, nn.GRU(6, 4, 2, batch_first=True), 5 * 3 * 4 * ((6 + 4) + (4 + 4))),
    "RNN": (first, nn.RNN(6, 4, batch_first=True, nonlinearity="relu"), 5 * 4 * (6 + 4)),
}


@pytest.mark.parametrize("kind", [Calls, AtValue])
@pytest.mark.parametrize(("call", "layer", "macs"), RECURRENT.values(), ids=RECURRENT)
def test_recurrent_layers(kind, call, layer, macs):
    assert count_macs(kind(call, layer), (SEQUENCE, 6)) == macs


@pytest.mark.parametrize(
    ("layer", "macs"), [(nn.LSTMCell(6, 4), 4 * 4 * 10), (nn.GRUCell(6, 4), 3 * 4 * 10)]
)
def test_recurrent_cells(layer, macs):
    assert count_macs(layer, (6,)) == macs


def ones(x, *shape):
    return torch.ones(shape, device=x.device)


def into(x):
    result = x.new_empty(x.shape[0], 4, 4)
    torch.bmm(x, x, out=result)
    torch.mm(x[0], x[0], out=result[0])
    torch.mv(x[0], x[0, 0], out=x.new_empty(4))
    return result


def in_inference_mode(x):
    with torch.inference_mode():
        return F.linear(x, x[0])


def in_autocast(x):
    with torch.autocast("cpu"):
        return F.linear(x, x[0])


class Square(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        return x @ x

    @staticmethod
    def backward(ctx, gradient):
        return gradient


def computed_kernel(x):
    kernel = (x[:, 0] @ ones(x, 4, 16)).reshape(4, 16)[:, :4].reshape(4, 4, 1, 1)
    return F.conv2d(x, kernel)


def checkpointed(layer, x):
    return torch.utils.checkpoint.checkpoint(layer, x, use_reentrant=False)


def caught(x):
    try:
        F.linear(x[0], ones(x, 4, 3))
    except RuntimeError:
        return F.linear(x[0], ones(x, 4, 4))


FUNCTIONS = {
    # All inputs are (1, 4, 4), so that a product of two matrices has 64.
    "bmm": (lambda x: torch.bmm(x, x), 64),
    "baddbmm": (lambda x: torch.baddbmm(x, x, x), 64),
    "addbmm": (lambda x: torch.addbmm(x[0], x, x), 64),
    "mv": (lambda x: torch.mv(x[0], x[0, 0]), 16),
    "addmv": (lambda x: torch.addmv(x[0, 0], x[0], x[0, 0]), 16),
    "dot": (lambda x: torch.dot(x[0, 0], x[0, 0]), 4),
    "inner": (lambda x: torch.inner(x[0], x[0]), 64),
    "tensordot": (lambda x: torch.tensordot(x, ones(x, 4, 2, 4), ([1, 2], [2, 0])), 16 * 2),
    "multi_dot": (lambda x: torch.linalg.multi_dot([x[0], x[0], x[0]]), 128),
    "matrix_power": (lambda x: torch.linalg.matrix_power(x, 3), 128),
    "cov": (lambda x: torch.cov(x[0]), 64),
    "broadcast": (lambda x: torch.matmul(x, ones(x, 3, 1, 4, 5)), 3 * 4 * 4 * 5),
    "einsum": (lambda x: torch.einsum("bij,bkj->bik", x, x), 64),
    "einsum of three": (
        lambda x: torch.einsum("bij,jk,kl->bil", x, ones(x, 4, 5), ones(x, 5, 6)),
        4 * 4 * 5 + 4 * 5 * 6,
    ),
    "half precision": (lambda x: x.half() @ x.half(), 64),
    "whole numbers": (lambda x: torch._int_mm(x[0].char(), x[0].char()), 64),
    "out": (into, 64 + 64 + 16),
    "inference mode": (in_inference_mode, 64),
    "autocast": (in_autocast, 64),
    "own gradient": (Square.apply, 64),
    "vmap": (lambda x: torch.vmap(lambda row: row @ row)(x), 64),
    "gradient": (lambda x: torch.func.grad(lambda y: (y @ y).sum())(x), 3 * 64),
    "caught": (caught, 64),
}


@pytest.mark.parametrize(("function", "macs"), FUNCTIONS.values(), ids=FUNCTIONS)
def test_functions(function, macs):
    assert count_macs(Calls(function), (4, 4)) == macs


def test_more_functions():
    assert count_macs(Calls(computed_kernel), (4, 4, 4)) == 4 * 4 * 16 + 16 * 16
    assert count_macs(Calls(checkpointed, nn.Linear(4, 3)), (4,)) == 12
    grid = Calls(lambda x: F.affine_grid(ones(x, 2, 2, 3), [2, 4, 5, 6]))
    assert count_macs(grid, (1,)) == 2 * 5 * 6 * 6  # a matrix of 2 x 3 for each place
    grid = Calls(lambda x: F.affine_grid(ones(x, 1, 3, 4), [1, 4, 5, 6, 7]))
    assert count_macs(grid, (1,)) == 5 * 6 * 7 * 12
    # A convolution of complex numbers is computed as three of real ones.
    conv = Calls(lambda x: F.conv1d(x.cfloat(), ones(x, 2, 4, 1).cfloat()))
    assert count_macs(conv, (4, 5)) == 3 * 2 * 4 * 5


@torch.library.custom_op("nni_spos_tests::square", mutates_args=())
def square(x: torch.Tensor) -> torch.Tensor:
    return x @ x


def two_in_one(x):
    layer = encoder_layer()
    attention = layer.self_attn
    return torch._native_multi_head_attention(
        *(x, x, x, 4, 2),
        *(ones(x, 12, 4), ones(x, 12), ones(x, 4, 4), attention.out_proj.bias[:4].to(x.device)),
    )[0]


REFUSED = {
    "a custom operator": (square, "nni_spos_tests.square"),
    "Bilinear": (lambda x: F.bilinear(x, x, ones(x, 3, 4, 4)), "aten._trilinear"),
    "fast attention": (two_in_one, "aten._native_multi_head_attention"),
    "cdist": (lambda x: torch.cdist(x, x), "aten._cdist_forward"),
    "pdist": (lambda x: F.pdist(x[0]), "aten._pdist_forward"),
    "fft": (torch.fft.rfft2, "aten._fft_r2c"),
    "stft": (
        lambda x: torch.stft(x[0], 4, window=ones(x, 4), return_complex=True),
        "aten._fft_r2c",
    ),
    "svd": (torch.linalg.svdvals, "aten._linalg_svd"),
    "norm of singular values": (lambda x: torch.linalg.norm(x[0], "nuc"), "aten._linalg_svd"),
    "solve": (lambda x: torch.linalg.solve(x + x.mT, x), "aten._linalg_solve_ex"),
    "inverse": (lambda x: torch.linalg.inv(x), "aten.linalg_inv_ex"),
    "determinant": (torch.linalg.det, "aten._linalg_det"),
    "cholesky": (lambda x: torch.linalg.cholesky_ex(x)[0], "aten.linalg_cholesky_ex"),
    "qr": (lambda x: torch.linalg.qr(x)[0], "aten.linalg_qr"),
    "eigenvalues": (lambda x: torch.linalg.eigvalsh(x), "aten._linalg_eigh"),
    "least squares": (lambda x: torch.linalg.lstsq(x, x)[0], "aten.linalg_lstsq"),
    "matrix exponential": (torch.matrix_exp, "aten.linalg_matrix_exp"),
    "triangular": (
        lambda x: torch.linalg.solve_triangular(x, x, upper=True),
        "aten.linalg_solve_triangular",
    ),
    "conv_tbc": (lambda x: torch.conv_tbc(x, ones(x, 2, 4, 3), ones(x, 3)), "aten.conv_tbc"),
    "complex": (lambda x: x.cfloat() @ x.cfloat(), "aten.bmm of complex numbers"),
    "sparse": (
        lambda x: torch.mm(x[0].to_sparse(), x[0]),
        "aten.mm of sparse tensors or the like",
    ),
    "MKL-DNN": (
        lambda x: F.linear(x.to_mkldnn(), ones(x, 4, 4).to_mkldnn()).to_dense(),
        "aten.mkldnn_linear",
    ),
    "control flow": (
        lambda x: torch.cond(x.sum() > 0, lambda y: y @ y, lambda y: y + 1, (x,)),
        "cond",
    ),
}


@pytest.mark.parametrize(("function", "name"), REFUSED.values(), ids=REFUSED)
def test_what_multiplies_and_has_no_formula_is_refused_by_name(function, name):
    with pytest.raises(CostError) as error:
        count_macs(Calls(function), (4, 4))
    message = str(error.value)
    assert message.startswith(f"the network calls {name} (test_any_layer.py, line ")
    assert message.endswith(
        "Put it into an nn.Module, and give that a formula with nni_spos.profilers.register_macs."
    )


def test_quantized_modules_are_refused():
    dynamic = torch.ao.quantization.quantize_dynamic(nn.Sequential(nn.Linear(4, 4)))
    with pytest.raises(CostError, match=r"layer '0' \(Linear\) calls quantized.linear_dynamic, "):
        count_macs(dynamic, (4,))


def test_layers_in_threads_are_refused():
    from concurrent.futures import ThreadPoolExecutor

    def run(layer, x):
        with ThreadPoolExecutor(1) as threads:
            return threads.submit(layer, x).result()

    with pytest.raises(CostError, match="layer 'layer' runs in a thread of its own"):
        count_macs(Calls(run, nn.Linear(4, 4)), (4,))
    assert count_macs(Calls(nn.Module.__call__, nn.Linear(4, 4)), (4,)) == 16


def test_what_depends_on_values_is_refused():
    def run(layer, x):
        return layer(x) if x.mean() > 0 else x

    with pytest.raises(CostError, match="for images of other values"):
        count_macs(Calls(run, nn.Linear(4, 4)), (4,))


def test_the_line_is_the_users_own_and_not_that_of_a_package():
    import torchvision

    offsets = Calls(
        lambda layer, x: layer(x, x.new_zeros(1, 18, 5, 5)),
        torchvision.ops.DeformConv2d(4, 4, 3, padding=1),
    )
    with pytest.raises(CostError, match=r"torchvision.deform_conv2d \(test_any_layer.py, line"):
        count_macs(offsets, (4, 5, 5))
    boxes = Calls(lambda x: torchvision.ops.roi_align(x, [x.new_ones(1, 4)], 2))
    assert count_macs(boxes, (4, 5, 5)) == 0  # it interpolates
