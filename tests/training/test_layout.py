"""The memory format of a training, which is not always the one that is wanted."""

import copy

import pytest
import torch
from nni.nas.nn.pytorch import ModelSpace, MutableConv2d
from torch import nn

from nni_spos.mutables import channel_choice
from nni_spos.spaces import SPACES, Form, build_space
from nni_spos.supernet import SinglePathOneShot
from nni_spos.training.layout import choose_layout

CPU, CUDA = torch.device("cpu"), torch.device("cuda")
UNSAFE = [(4, 8, 1, 2), (15, 8, (1, 1), (1, 2)), (3, 64, 1, 3)]
SAFE = [(16, 8, 1, 2), (4, 8, 1, 1), (4, 8, 3, 2), (8, 8, 1, 2, 0, 1, 2)]


def layouts(arguments, device=CPU):
    network = nn.Sequential(nn.ReLU(), nn.Conv2d(*arguments))
    assert choose_layout(network, False, device) is torch.contiguous_format
    return choose_layout(network, True, device)


@pytest.mark.parametrize("arguments", UNSAFE)
def test_convolutions_that_would_corrupt_memory_are_not_channels_last(arguments):
    assert layouts(arguments) is torch.contiguous_format
    assert layouts(arguments, CUDA) is torch.channels_last


@pytest.mark.parametrize("arguments", SAFE)
def test_others_are_channels_last(arguments):
    assert layouts(arguments) is torch.channels_last


@pytest.mark.parametrize("arguments", [*UNSAFE, *SAFE])
def test_gradients_are_right_in_the_format_that_is_chosen(arguments):
    torch.manual_seed(0)
    conv = nn.Conv2d(*arguments, bias=False) if len(arguments) == 4 else nn.Conv2d(*arguments)
    expected, images = copy.deepcopy(conv).double(), torch.randn(10, arguments[0], 9, 9)
    layout = choose_layout(conv, True, CPU)
    conv.to(memory_format=layout)
    for _ in range(3):
        conv.zero_grad()
        conv(images.contiguous(memory_format=layout)).square().sum().backward()
    expected(images.double()).square().sum().backward()
    torch.testing.assert_close(
        conv.weight.grad.double(), expected.weight.grad, rtol=1e-4, atol=1e-4
    )


class Narrowing(ModelSpace):
    """Its narrowest path has few channels before a stride."""

    def __init__(self):
        super().__init__()
        width = channel_choice("width", 16, [0.5, 2.0])
        self.first = MutableConv2d(1, width, 3)
        self.second = MutableConv2d(width, 8, 1, stride=2)


@pytest.mark.parametrize("device", [CPU, CUDA])
def test_the_narrowest_path_decides(device):
    supernet = SinglePathOneShot().mutate_model(Narrowing())
    expected = torch.contiguous_format if device is CPU else torch.channels_last
    assert choose_layout(supernet, True, device) is expected


@pytest.mark.parametrize("name", sorted(SPACES.ours))
@pytest.mark.slow
def test_our_spaces(name):
    supernet = SinglePathOneShot().mutate_model(build_space(name, {}, Form.SUPERNET))
    # Its residual units with a stride have a 1x1 convolution of 8 channels.
    expected = torch.contiguous_format if name == "resnet_small" else torch.channels_last
    assert choose_layout(supernet, True, CPU) is expected
