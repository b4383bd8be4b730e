"""BatchNorm over two processes: outputs, gradients and statistics of the undivided batch."""

from __future__ import annotations

import pytest
import torch
from forked import run
from torch import nn

from nni_spos.training.batchnorm import SynchronisedBatchNorm


def build(kind, options, dtype):
    torch.manual_seed(0)
    norm = {2: nn.BatchNorm1d, 4: nn.BatchNorm2d, 5: nn.BatchNorm3d}[kind](3, **options)
    for parameter in norm.parameters():
        nn.init.uniform_(parameter, 0.5, 1.5)
    return norm.to(dtype)


def trained(norm, x):
    """Output, gradient of the input, gradients of the weights, statistics."""
    x = x.clone().requires_grad_()
    y = norm(x)
    y = norm(y * 2 - 1)  # behind itself, so that a gradient flows through the statistics
    (y.pow(3).sum() / 10).backward()
    return y.detach(), x.grad, [p.grad for p in norm.parameters()], list(norm.buffers())


def batch(shape, dtype):
    torch.manual_seed(1)
    x = torch.randn(shape, dtype=dtype) * torch.arange(1, 4).view(1, 3, *[1] * (len(shape) - 2)) + 5
    return x.to(memory_format=torch.channels_last) if len(shape) == 4 else x


def part_of(rank, cases):
    torch.distributed.init_process_group("gloo")
    found = []
    for shape, options, dtype, cut in cases:
        norm = build(len(shape), options, dtype)
        part = slice(cut) if rank == 0 else slice(cut, None)
        with SynchronisedBatchNorm():
            y, d_x, gradients, statistics = trained(norm, batch(shape, dtype)[part])
        for gradient in gradients:
            torch.distributed.all_reduce(gradient)
        found.append([t.tolist() for t in (y, d_x, *gradients, *statistics)])
    return found


CASES = [
    ((6, 3, 4, 5), {}, torch.float64, 3),
    ((6, 3, 4, 5), {"affine": False}, torch.float64, 3),
    ((6, 3, 4, 5), {"momentum": None}, torch.float64, 3),
    ((6, 3, 4, 5), {"track_running_stats": False}, torch.float64, 3),
    ((6, 3, 4, 5), {}, torch.float64, 5),  # parts of different sizes
    ((2, 3), {}, torch.float64, 1),  # one value in each process, too few for one alone
    ((4, 3, 2, 2, 2), {"momentum": 0.3}, torch.float64, 2),
    ((6, 3, 4, 5), {}, torch.float32, 3),
]


@pytest.fixture(scope="module")
def parts():
    return run(part_of, CASES)


@pytest.mark.parametrize("number", range(len(CASES)))
def test_two_processes_do_what_one_does(parts, number):
    shape, options, dtype, _ = CASES[number]
    y, d_x, gradients, statistics = trained(build(len(shape), options, dtype), batch(shape, dtype))
    first, second = ([torch.tensor(value, dtype=dtype) for value in rank[number]] for rank in parts)
    tolerance = (
        {"rtol": 1e-9, "atol": 1e-9} if dtype == torch.float64 else {"rtol": 1e-3, "atol": 1e-3}
    )
    joined = [torch.cat([first[0], second[0]]), torch.cat([first[1], second[1]]), *first[2:]]
    for expected, found in zip([y, d_x, *gradients, *statistics], joined, strict=True):
        torch.testing.assert_close(found, expected.to(dtype), **tolerance)
    for one, other in zip(first[2:], second[2:], strict=True):
        assert torch.equal(one, other)


def test_evaluation_is_that_of_the_layer():
    norm = build(4, {}, torch.float64)
    norm.running_mean += 2
    norm.eval()
    x = batch((6, 3, 4, 5), torch.float64)
    with SynchronisedBatchNorm():  # without a process group: nothing is sent
        found = norm(x)
    assert torch.equal(found, norm(x))
