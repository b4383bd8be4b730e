"""BatchNorm goes into the convolution before it, wherever nobody else sees what is between."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from nni_spos.export.folding import fold_batchnorm

pytestmark = pytest.mark.slow


class Network(nn.Module):
    """What is folded: one, two and up. What is not: seen, twice, hooked and alone."""

    def __init__(self):
        super().__init__()
        names = ("one", "two", "seen", "twice", "hooked", "alone")
        self.convs = nn.ModuleDict({x: nn.Conv2d(4, 4, 3, padding=1) for x in names})
        self.convs["two"] = nn.Conv2d(4, 4, 3, padding=1, groups=2, bias=False)
        self.norms = nn.ModuleDict({x: nn.BatchNorm2d(4) for x in names})
        self.norms["two"] = nn.BatchNorm2d(4, affine=False)
        self.up = nn.ConvTranspose2d(4, 2, 2, stride=2)
        self.up_norm = nn.BatchNorm2d(2)
        self.norms["hooked"].register_forward_hook(lambda module, inputs, output: output * 2)

    def forward(self, x):
        x = torch.relu(self.norms["one"](self.convs["one"](x)))
        x = x + self.norms["two"](self.convs["two"](x))
        y = self.convs["seen"](x)
        x = self.norms["seen"](y) + y
        x = self.norms["twice"](self.convs["twice"](x))
        x = self.norms["twice"](self.convs["twice"](x))
        x = self.norms["hooked"](self.convs["hooked"](x))
        x = self.norms["alone"](torch.relu(self.convs["alone"](x)))
        return self.up_norm(self.up(x))


@pytest.fixture
def network():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = Network().eval()
        for module in network.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.running_mean.uniform_(-1, 1)
                module.running_var.uniform_(0.5, 2)
                if module.affine:
                    nn.init.uniform_(module.weight, 0.5, 2)
    return network


def test_only_what_nobody_else_sees_is_folded(network):
    images = torch.randn(2, 4, 6, 6, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        wanted = network(images)
        found = fold_batchnorm(network, images)(images)
    assert (wanted - found).abs().max() < 1e-4 * wanted.abs().max()
    kept = [name for name, x in network.named_modules() if isinstance(x, nn.BatchNorm2d)]
    assert kept == ["norms.seen", "norms.twice", "norms.hooked", "norms.alone"]
    assert network.convs["two"].bias is not None
