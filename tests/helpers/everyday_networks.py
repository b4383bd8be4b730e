"""Small networks as people write them, for tests of their conversion."""

import torch
from torch import nn
from torch.nn import functional as F


def conv(inputs, outputs, size=1, **more):
    return nn.Conv2d(inputs, outputs, size, padding=size // 2, **more)


class Plain(nn.Module):
    """Convolutions, flattening, linear layers."""

    def __init__(self):
        super().__init__()
        self.features = nn.Sequential(
            conv(3, 16, 3), nn.BatchNorm2d(16), nn.ReLU(inplace=True), nn.MaxPool2d(2), conv(16, 24)
        )
        self.drop = nn.Dropout(0.2)
        self.hidden = nn.Linear(24 * 16, 32)
        self.fc = nn.Linear(32, 10)

    def forward(self, x):
        x = torch.flatten(F.relu(self.features(x)), 1)
        return self.fc(self.drop(F.relu(self.hidden(x))))


class Residual(nn.Module):
    """A block that may be skipped, with a depthwise convolution and squeeze-excitation."""

    def __init__(self, width=16, hidden=32):
        super().__init__()
        self.expand = conv(width, hidden, bias=False)
        self.bn1 = nn.BatchNorm2d(hidden)
        self.dw = conv(hidden, hidden, 5, groups=hidden, bias=False)
        self.bn2 = nn.BatchNorm2d(hidden)
        self.squeeze = conv(hidden, 16)
        self.excite = conv(16, hidden)
        self.project = conv(hidden, width, bias=False)
        self.bn3 = nn.BatchNorm2d(width)

    def forward(self, x):
        y = F.relu6(self.bn1(self.expand(x)))
        y = F.silu(self.bn2(self.dw(y)))
        gate = self.excite(F.relu(self.squeeze(y.mean((2, 3), keepdim=True)))).sigmoid()
        return x + self.bn3(self.project(y * gate))


class Mobile(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem = conv(3, 16, 3)
        self.blocks = nn.ModuleList([Residual(), Residual()])
        self.fc = nn.Linear(16, 10)

    def forward(self, x):
        x = self.stem(x).relu()
        for block in self.blocks:  # control flow, and values that are looked at
            x = block(x) if float(x.abs().sum()) >= 0 else x
        return self.fc(x.mean((2, 3)))


class Grouped(nn.Module):
    """Groups, channels that follow them, and a shuffle of all."""

    def __init__(self):
        super().__init__()
        self.one = conv(3, 32)
        self.two = conv(32, 64, 3, groups=4)
        self.three = conv(64, 16)
        self.shuffled = conv(16, 8)
        self.fc = nn.Linear(8, 10)

    def forward(self, x):
        x = self.three(F.relu(self.two(F.relu(self.one(x)))))
        n, c, h, w = x.shape
        x = x.view(n, 2, c // 2, h, w).transpose(1, 2).reshape(n, c, h, w)
        return self.fc(F.relu(self.shuffled(x)).mean((2, 3)))


class Branches(nn.Module):
    """Two inputs, a concatenation, a layer that is used twice, a dict of outputs."""

    def __init__(self):
        super().__init__()
        self.left = conv(3, 16)
        self.right = conv(1, 16)
        self.inner = conv(16, 32)
        self.outer = conv(32, 16)
        self.norm = nn.LayerNorm([16, 8, 8])
        self.join = conv(32, 16)
        self.fc = nn.Linear(16, 10)

    def forward(self, x, mask):
        both = [self.outer(F.relu(self.inner(self.left(x)))), self.right(mask)]
        both[1] = self.outer(F.relu(self.inner(both[1])))
        y = self.norm(self.join(torch.cat(both, 1)))
        return {"logits": self.fc(y.mean((2, 3))), "maps": [y]}


class Concatenated(nn.Module):
    """Parts of several widths side by side, what follows them all, and a gate of two halves."""

    def __init__(self, channels=3):
        super().__init__()
        self.stem = conv(channels, 16, 3)
        self.one, self.two = conv(16, 16), conv(16, 24, 3)
        self.norm = nn.BatchNorm2d(40)
        self.dw = conv(40, 40, 3, groups=40, bias=False)
        self.squeeze, self.excite = conv(40, 8), conv(8, 40)
        self.gated = conv(40, 32)
        self.last = conv(56, 16)
        self.head = nn.Linear(56 * 4, 10)
        self.fc = nn.Linear(16, 10)

    def forward(self, x):
        x = F.relu(self.stem(x))
        y = F.relu(self.norm(torch.cat([self.one(x), self.two(x)], 1)))
        y = self.dw(y)
        y = y * self.excite(F.relu(self.squeeze(y.mean((2, 3), keepdim=True)))).sigmoid()
        half, gate = self.gated(y).chunk(2, 1)
        y = torch.cat([y, half * gate.sigmoid()], 1)
        flat = F.adaptive_avg_pool2d(y, 2).flatten(1)
        return self.fc(F.relu(self.last(y)).mean((2, 3))) + self.head(flat)


class Auxiliary(nn.Module):
    """A head that is there in training only."""

    def __init__(self):
        super().__init__()
        self.one = conv(3, 16)
        self.two = conv(16, 16)
        self.head = nn.Linear(16, 10)
        self.fc = nn.Linear(16, 10)

    def forward(self, x):
        x = self.one(x).relu()
        logits = self.fc(self.two(x).relu().mean((2, 3)))
        return (logits, self.head(x.mean((2, 3)))) if self.training else logits


class SameConv(nn.Conv2d):
    """A convolution that pads for itself, by the size of what it gets."""

    def forward(self, x):
        size, stride = self.kernel_size[0], self.stride[0]
        margins = []
        for pixels in (x.shape[-1], x.shape[-2]):
            total = max(0, (-(-pixels // stride) - 1) * stride + size - pixels)
            margins += [total // 2, total - total // 2]
        return F.conv2d(F.pad(x, margins), self.weight, self.bias, self.stride)


class NormAct(nn.BatchNorm2d):
    def __init__(self, width):
        super().__init__(width)
        self.act = nn.SiLU()

    def forward(self, x):
        return self.act(super().forward(x))


class Standardized(nn.Conv2d):
    """A convolution whose weights are no plain ones."""

    def forward(self, x):
        weight = self.weight - self.weight.mean((1, 2, 3), keepdim=True)
        return F.conv2d(x, weight, self.bias, self.stride, self.padding)


class Derived(nn.Module):
    def __init__(self):
        super().__init__()
        self.one = SameConv(3, 16, 3, stride=2)
        self.norm = NormAct(16)
        self.two = SameConv(16, 32, 3)
        self.three = Standardized(32, 16, 3, padding=1)
        self.fc = nn.Linear(16, 10)

    def forward(self, x):
        x = self.two(self.norm(self.one(x))).relu()
        return self.fc(self.three(x).mean((2, 3)))


NETWORKS = {
    "plain": (Plain, ((2, 3, 8, 8),)),
    "mobile": (Mobile, ((2, 3, 8, 8),)),
    "grouped": (Grouped, ((2, 3, 8, 8),)),
    "branches": (Branches, ((2, 3, 8, 8), (2, 1, 8, 8))),
    "concatenated": (Concatenated, ((2, 3, 8, 8),)),
    "auxiliary": (Auxiliary, ((2, 3, 8, 8),)),
    "derived": (Derived, ((2, 3, 9, 8),)),
}


def make(name, dtype=torch.float64):
    """Return a network with weights and statistics of its own, and inputs for it."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        kind, shapes = NETWORKS[name]
        network = kind()
        for module in network.modules():
            if isinstance(module, nn.BatchNorm2d):
                nn.init.uniform_(module.weight, 0.5, 1.5)
                nn.init.normal_(module.bias, 0, 0.1)
                module.running_mean.normal_(0, 0.1)
                module.running_var.uniform_(0.5, 1.5)
        inputs = tuple(torch.randn(shape, dtype=dtype) for shape in shapes)
    return network.to(dtype).eval(), inputs
