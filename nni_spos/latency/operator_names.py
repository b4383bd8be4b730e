"""Operators of an ONNX file, named after the layer whose choices decide what they take.

A runtime fuses a convolution with what comes after it, and names the result after either of them.
So what has no multiply-adds of its own gets the name of the layer that its input comes from.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Any


def name_by_layer(model: Any, layers: Collection[str], module_of: Callable[[Any], str]) -> None:
    """Rename all operators and what they return, in place: "/blocks/3/op_17" is of "blocks.3".

    Parameters
    ----------
    model
        An ONNX ``ModelProto``, sorted so that tensors are made before they are used.
    layers
        Dotted names of layers and units that operators are to be named after.
    module_of
        Gives the dotted name of the module that an operator is of.
    """
    graph = model.graph
    kept = {output.name for output in graph.output}
    names: dict[str, str] = {}
    makers: dict[str, tuple[int, str]] = {}
    for number, node in enumerate(graph.node):
        last = max((makers[x] for x in node.input if x in makers), default=(0, ""))
        layer = _enclosing(module_of(node), layers) or last[1]
        _rename_inputs(node, names)
        place = f"/{layer.replace('.', '/')}/" if layer else ""
        node.name = f"{place}op_{number}"
        for i, output in enumerate(node.output):
            if layer:
                makers[output] = (number, layer)
            if output and output not in kept:
                names[output] = node.output[i] = f"{node.name}_output_{i}"
    del graph.value_info[:]  # of the names before


def _enclosing(module: str, layers: Collection[str]) -> str:
    """Return the layer or unit that a module is or lies in; "" if there is none."""
    while module and module not in layers:
        module = module.rpartition(".")[0]
    return module


def _rename_inputs(node: Any, names: dict[str, str]) -> None:
    for i, name in enumerate(node.input):
        node.input[i] = names.get(name, name)
    for attribute in node.attribute:
        for graph in (*([attribute.g] if attribute.HasField("g") else []), *attribute.graphs):
            for inner in graph.node:
                _rename_inputs(inner, names)
