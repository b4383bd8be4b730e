"""The published tables of networks that were trained alone, by name.

NAS-Bench-Macro, and the two of Channel-Bench-Macro: Su et al., BCNet, CVPR 2021. They are looked
for in the folder ``shared/data`` beside the repository.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path as FilePath

from nasbench_macro import TABLE, MacroTable, load_macro

CHANNEL_TABLE = TABLE.with_name("channel-bench-macro_cifar10.json")


def load_channel(network: str) -> MacroTable:
    """Read a table of Channel-Bench-Macro, with the costs of our own network."""
    from nni_spos.profilers import build_costs
    from nni_spos.spaces import (
        ChannelBenchMobileNetSpace,
        ChannelBenchResNetSpace,
        load_channel_bench_macro,
    )

    spaces = {"resnet": ChannelBenchResNetSpace, "mobilenet": ChannelBenchMobileNetSpace}
    published = load_channel_bench_macro(CHANNEL_TABLE, network)
    costs = build_costs(spaces[network](affine=True), (3, 32, 32))
    keys = map(tuple, published.space.enumerate().tolist())
    accuracies = dict(zip(keys, published.accuracies.mean(axis=1).tolist(), strict=True))
    return MacroTable(accuracies, costs, published.space)


TABLES: Mapping[str, tuple[FilePath, Callable[[], MacroTable]]] = {
    "NAS-Bench-Macro": (TABLE, load_macro),
    "Channel-Bench-Macro, resnet": (CHANNEL_TABLE, lambda: load_channel("resnet")),
    "Channel-Bench-Macro, mobilenet": (CHANNEL_TABLE, lambda: load_channel("mobilenet")),
}
"""File and loader of each."""
