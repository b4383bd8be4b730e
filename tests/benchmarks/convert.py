"""Convert the networks of torchvision and timm, and check each against independent figures.

    python -W ignore tests/benchmarks/convert.py [--library timm] [NAME ...]

For each: units, seconds of CPU, the largest difference of the largest path's outputs as a share of
the largest output, and whether multiply-adds and parameters of the largest and of a random path are
those that PyTorch's counter and the networks themselves have, and whether the supernet on that path
computes what its network does.
"""

from __future__ import annotations

import argparse
import random
import time

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from nni_spos import SinglePathOneShot, build_costs, convert, extract_subnet
from nni_spos.conversion.choices import choices_of, largest
from nni_spos.errors import SposError
from nni_spos.modules.active_path import choice_units, set_path

TIMM = (
    "resnet18",
    "resnet50",
    "resnet50d",
    "resnext50_32x4d",
    "seresnet50",
    "ecaresnet26t",
    "res2net50_26w_4s",
    "resnest26d",
    "wide_resnet50_2",
    "densenet121",
    "dla34",
    "vgg11_bn",
    "mobilenetv2_100",
    "mobilenetv3_large_100",
    "mobilenetv3_small_050",
    "mnasnet_100",
    "efficientnet_b0",
    "tf_efficientnet_b0",
    "tf_efficientnetv2_b0",
    "efficientnet_lite0",
    "fbnetc_100",
    "spnasnet_100",
    "regnetx_004",
    "regnety_004",
    "ghostnet_100",
    "hrnet_w18_small",
    "inception_v3",
    "xception41",
    "convnext_atto",
    "repvgg_a0",
)


def networks(library: str) -> list[str]:
    if library == "timm":
        return list(TIMM)
    from torchvision import models

    return list(models.list_models(module=models))


def build(library: str, name: str) -> nn.Module:
    if library == "timm":
        import timm

        return timm.create_model(name)
    from torchvision import models

    more = {"init_weights": False} if name in ("googlenet", "inception_v3") else {}
    return models.get_model(name, **more)


def give_statistics(network: nn.Module) -> None:
    """Let BatchNorm have statistics of its own, so that outputs say something."""
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d) and module.running_mean is not None:
            module.running_var.uniform_(0.5, 1.5)
            module.running_mean.normal_(0, 0.1)
            if module.affine:
                nn.init.uniform_(module.weight, 0.5, 1.5)


def multiply_adds(network: nn.Module, x: torch.Tensor) -> int:
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        network(x)
    return counter.get_total_flops() // 2


def check(library: str, name: str, size: int) -> tuple[bool, str]:
    torch.manual_seed(0)
    network = build(library, name).eval()
    give_statistics(network)
    size = max(size, 96) if "inception" in name else size
    x = torch.randn(1, 3, size, size)
    start = time.process_time()
    space = convert(network, x)
    seconds = time.process_time() - start
    costs = build_costs(space, x.shape[1:])
    whole = largest(space.plan)
    draws = random.Random(0)
    path = {label: draws.choice(choices) for label, choices in choices_of(space.plan)}
    supernet = SinglePathOneShot().mutate_model(space).eval()
    problems = []
    with torch.no_grad():
        expected = network(x)
        difference = float((extract_subnet(supernet, whole)(x) - expected).abs().max())
        difference /= float(expected.abs().max())
        if not difference <= 1e-4:  # in single precision; in double: tests/conversion
            problems.append(f"outputs differ by {difference:.1e}")
        for drawn in (whole, path):
            subnet = extract_subnet(supernet, drawn)
            counted = multiply_adds(subnet, x), sum(p.numel() for p in subnet.parameters())
            priced = costs["flops"].price(drawn), costs["params"].price(drawn)
            if counted != priced:
                problems.append(f"counted {counted}, priced {priced}")
        set_path(choice_units(supernet), path)
        one, other = supernet(x), subnet(x)
        if not float((one - other).abs().max()) <= 1e-5 * float(other.abs().max()):
            problems.append("the supernet computes something else than the network of a path")
    if multiply_adds(network, x) != costs["flops"].price(whole):
        problems.append("the largest path costs something else than the network")
    text = f"{len(space.plan.labels)} units, {seconds:.1f} s, difference {difference:.1e}"
    return not problems, "; ".join([text, *problems])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*")
    parser.add_argument("--library", choices=["torchvision", "timm"], default="torchvision")
    parser.add_argument("--size", type=int, default=64)
    options = parser.parse_args()
    names = options.names or networks(options.library)
    good = 0
    for name in names:
        try:
            is_good, text = check(options.library, name, options.size)
        except SposError as problem:
            is_good, text = False, f"refused: {problem}"
        except Exception as problem:
            is_good, text = False, f"{type(problem).__name__}: {problem}"
        good += is_good
        print(f"{name:<28}{'ok' if is_good else 'NOT':<4}{text[:300]}", flush=True)
    print(f"{good} of {len(names)}")


if __name__ == "__main__":
    main()
