"""Reading YAML that a stranger may have written."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from typing import Any

import yaml

from nni_spos.errors import RecipeError
from nni_spos.files.atomic import read_text
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
    """PyYAML's safe loader, with the numbers of YAML 1.2: 064 is 64, and 1e-3 is a number.

    It also refuses a key that is there twice, and what explodes.
    """

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
        text = str(self.construct_scalar(node))
        if not _INT.fullmatch(text):
            raise ValueError(f"{text!r:.80} is not a whole number")
        return int(text, {"0o": 8, "0x": 16}.get(text[:2], 10))

    def construct_yaml_float(self, node: yaml.ScalarNode) -> float:
        text = str(self.construct_scalar(node))
        if not (_FLOAT.fullmatch(text) or _INT.fullmatch(text)):
            raise ValueError(f"{text!r:.80} is not a number")
        return float(re.sub(r"\.(?=[iInN])", "", text))  # .inf and .nan, Python's without a dot


_INT = re.compile(r"[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+")
_FLOAT = re.compile(
    r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)"
)
_NUMBERS = {"tag:yaml.org,2002:int": _INT, "tag:yaml.org,2002:float": _FLOAT}


def _use_numbers_of_1_2(loader: type[_Loader]) -> None:
    """Replace the patterns of YAML 1.1, whose numbers are octal after a 0 and need a point."""
    loader.yaml_implicit_resolvers = {
        first: [(tag, pattern) for tag, pattern in patterns if tag not in _NUMBERS]
        for first, patterns in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }
    for tag, pattern in _NUMBERS.items():
        whole = re.compile(f"^(?:{pattern.pattern})$")
        loader.add_implicit_resolver(tag, whole, list("-+0123456789."))
    loader.add_constructor("tag:yaml.org,2002:int", loader.construct_yaml_int)
    loader.add_constructor("tag:yaml.org,2002:float", loader.construct_yaml_float)


_use_numbers_of_1_2(_Loader)


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
