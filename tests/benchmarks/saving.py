"""What sharing saves, counted."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from nni.nas.nn.pytorch import ModelSpace

    from nni_spos.cost_table import CostTable
    from nni_spos.path import Path


def arithmetic_saving(
    supernet: ModelSpace, flops: CostTable, paths: Sequence[Path], shape: tuple[int, int, int]
) -> float:
    """Return the multiply-adds of all paths over those that a shared pass over an image does."""
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    from nni_spos.scoring.population import Statistics, sharing
    from nni_spos.scoring.prefix_tree import PrefixTree

    images, labels = torch.zeros(2, *shape), torch.zeros(2, dtype=torch.int64)
    with sharing(supernet) as run:
        calls = run.trace(paths[0], images)
        tree = PrefixTree(flops.space, paths, [part.labels for part in calls])
        with FlopCounterMode(display=False) as counter:
            run.walk(tree, paths, [(images, labels)], Statistics.OF_SUPERNET, lambda *_: None)
    every = sum(flops.price(path) for path in paths)
    return float(every) / (counter.get_total_flops() / 2 / len(images))
