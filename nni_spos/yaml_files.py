"""Reading YAML that a stranger may have written."""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import Any

import yaml

from nni_spos.errors import RecipeError
from nni_spos.files import read_text
from nni_spos.values import expands_beyond

MAX_BYTES = 1 << 20
"""Largest file that is read; recipes have thousands."""

MAX_NODES = 100_000
"""Keys and values that a file may stand for when its aliases are written out."""

MAX_DIGITS = 1000
"""Of a whole number; Python refuses to write some thousands."""


def is_yaml_name(name_or_file: str | os.PathLike[str]) -> bool:
    """Whether a text is that of a YAML file, where another kind of name may stand as well."""
    return os.path.splitext(name_or_file)[1] in (".yml", ".yaml")


def read_yaml(file: str | os.PathLike[str]) -> dict[str, Any]:
    """Read a YAML file that holds one mapping, without executing anything.

    Raises
    ------
    RecipeError
        The file is missing, too large, not YAML or no mapping, has a key twice, or its aliases
        stand for too much.
    """
    text = read_text(file, RecipeError, MAX_BYTES)
    try:
        content = parse_yaml(text)
    except Exception as problem:  # PyYAML fails in many ways, e.g. KeyError for '!!bool x'
        raise RecipeError(f"{file}: is not valid YAML ({problem}).") from None
    if not isinstance(content, dict):
        raise RecipeError(f"{file}: must be a YAML mapping of keys to values.")
    return content


class _Loader(yaml.SafeLoader):
    """PyYAML's safe loader, which also refuses a key that is there twice, and what explodes."""

    def get_single_node(self) -> yaml.Node | None:
        node = super().get_single_node()
        if expands_beyond(node, MAX_NODES, _children):
            raise ValueError(f"its aliases stand for more than {MAX_NODES} values")
        return node

    def compose_mapping_node(self, anchor: Any) -> yaml.MappingNode:
        node = super().compose_mapping_node(anchor)
        seen: set[tuple[str, str]] = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode):
                if (key.tag, key.value) in seen:
                    line = key.start_mark.line + 1
                    raise ValueError(f"the key {key.value!r:.80} is there twice, line {line}")
                seen.add((key.tag, key.value))
        return node

    def construct_yaml_int(self, node: yaml.ScalarNode) -> int:
        if len(str(node.value)) > MAX_DIGITS:
            raise ValueError(f"a number has more than {MAX_DIGITS} digits")
        return super().construct_yaml_int(node)


_Loader.add_constructor("tag:yaml.org,2002:int", _Loader.construct_yaml_int)


def parse_yaml(text: str) -> Any:
    """Return what a text says. Raises whatever PyYAML does, and ValueError."""
    loader = _Loader(text)
    try:
        return loader.get_single_data()
    finally:
        loader.dispose()


def _children(node: yaml.Node | None) -> Iterable[yaml.Node]:
    if isinstance(node, yaml.MappingNode):
        return [part for pair in node.value for part in pair]
    return node.value if isinstance(node, yaml.SequenceNode) else ()
