"""The parts of a supernet that one path after another can share the outputs of."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass

from nni.nas.nn.pytorch import LayerChoice, ModelSpace, MutableModule, Repeat
from torch import nn

from nni_spos.mutables import SlicedOperation


@dataclass(frozen=True)
class SupernetPart:
    """A module that is called as a whole.

    Parameters
    ----------
    name
        Dotted name in the supernet.
    module
        The module.
    labels
        Labels that choices inside of it have; none for a module that all paths have.
    """

    name: str
    module: nn.Module
    labels: frozenset[str]


def find_parts(supernet: ModelSpace) -> list[SupernetPart]:
    """Return the parts of a supernet: together they hold all its layers, each once.

    A part is a choice unit, blocks whose number is a choice, a block whose choices belong together,
    or a module without choices beside such. Modules with choices that have nothing to do with each
    other are taken apart: a stage into its blocks, but not a block into its layers.
    """
    return list(_children(supernet, "", {}))


def _children(
    module: nn.Module, name: str, known: dict[int, frozenset[str]]
) -> Iterator[SupernetPart]:
    for own, child in module.named_children():
        full = f"{name}.{own}" if name else own
        # A list of modules is never called itself.
        if isinstance(child, nn.ModuleList | nn.ModuleDict) or _splits(child, known):
            yield from _children(child, full, known)
        else:
            yield SupernetPart(full, child, labels_under(child, known))


def _splits(module: nn.Module, known: dict[int, frozenset[str]]) -> bool:
    """Whether a module has several parts."""
    if isinstance(module, LayerChoice | SlicedOperation | Repeat):
        return False
    children = list(module.children())
    sets = [labels for child in children if (labels := labels_under(child, known))]
    if any(one.isdisjoint(other) for one, other in itertools.combinations(sets, 2)):
        return True
    return any(_splits(child, known) for child in children)


def labels_under(module: nn.Module, known: dict[int, frozenset[str]]) -> frozenset[str]:
    """Return the labels of all choices in a module; `known` keeps what was found by id."""
    if id(module) not in known:
        found = set(own_labels(module))
        for child in module.children():
            found |= labels_under(child, known)
        known[id(module)] = frozenset(found)
    return known[id(module)]


def own_labels(module: nn.Module) -> Iterator[str]:
    """Yield the labels of a module's own choices, without those of its children."""
    if isinstance(module, MutableModule):
        for mutable in module.mutables:
            yield from (str.__str__(label) for label in mutable.simplify())
