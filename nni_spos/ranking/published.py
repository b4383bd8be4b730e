"""Published accuracies of all paths of a space."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Mapping

from nni_spos.cost_table import Costs
from nni_spos.errors import DataError
from nni_spos.path import PathSpace
from nni_spos.spaces import channelbench, nasbench_macro
from nni_spos.spaces.trained_networks import TrainedNetworks

TABLES: Mapping[str, tuple[PathSpace, Callable[[str | os.PathLike[str]], TrainedNetworks]]] = {
    "nasbench_macro": (nasbench_macro.SPACE, nasbench_macro.load_nas_bench_macro),
    **{
        f"channelbench_{network}": (
            space,
            functools.partial(channelbench.load_channel_bench_macro, network=network),
        )
        for network, space in channelbench.PATH_SPACES.items()
    },
}
"""Published tables by the name of their space."""


def load_table(file: str | os.PathLike[str], space: PathSpace, costs: Costs) -> TrainedNetworks:
    """Read the published table of the space of a recipe.

    Raises
    ------
    DataError
        The file is missing or not the whole table, there is none of the space, or its networks are
        others, since the recipe's images are.
    """
    load = next((load for own, load in TABLES.values() if own == space), None)
    if load is None:
        raise DataError(
            f"{file}: there are tables of the spaces {', '.join(TABLES)}, and the recipe's space "
            "is another one. Train paths of it instead: --retrain N."
        )
    table = load(file)
    own = costs["flops"].price_many(space.enumerate())
    if differing := (own != table.flops).nonzero()[0].tolist():
        first = differing[0]
        raise DataError(
            f"{file}: network '{table.codes[first]}' has {table.flops[first]:,} multiply-adds, "
            f"but {own[first]:,} in the recipe. The table is of CIFAR-10: 3 channels, 32 pixels, "
            "10 classes."
        )
    return table
