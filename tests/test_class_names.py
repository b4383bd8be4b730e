"""A name of a class means one thing in the whole package."""

import ast
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import nni_spos

ROOT = Path(nni_spos.__file__).parent


def names(tree: ast.AST, outer: str = "") -> Iterator[str]:
    """Yield the names of classes and of types that stand for others, those in a class with its."""
    for node in ast.iter_child_nodes(tree):
        inner = outer
        if isinstance(node, ast.ClassDef):
            inner = f"{outer}{node.name.lstrip('_')}."
            yield inner.rstrip(".")
        elif isinstance(node, ast.Assign | ast.AnnAssign) and isinstance(tree, ast.Module):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            yield from (x.id.lstrip("_") for x in targets if is_type_name(x))
        yield from names(node, inner)


def is_type_name(node: ast.expr) -> bool:
    """Whether a name is written as those of classes are; T and the like stand for any type."""
    if not isinstance(node, ast.Name):
        return False
    name = node.id.lstrip("_")
    return len(name) > 1 and name[:1].isupper() and not name.isupper() and "_" not in name


def places_of(sources: dict[str, str]) -> dict[str, list[str]]:
    places = defaultdict(list)
    for place, source in sources.items():
        for name in names(ast.parse(source)):
            places[name].append(place)
    return places


def shared(sources: dict[str, str]) -> dict[str, list[str]]:
    return {name: places for name, places in places_of(sources).items() if len(places) > 1}


def test_no_two_classes_have_one_name():
    sources = {
        str(file.relative_to(ROOT)): file.read_text(encoding="utf-8")
        for file in sorted(ROOT.rglob("*.py"))
    }
    assert {"Candidate", "Recipe", "PathSpace", "Paths.Settings"} <= set(places_of(sources))
    assert shared(sources) == {}


def test_what_counts_as_one_name():
    one = "class _Part:\n    class Settings: ...\n\nT = TypeVar('T')\nLIMIT = 3\n"
    other = (
        "def f():\n    class Part: ...\n\nclass Own:\n    class Settings: ...\n\nT = 1\nLIMIT = 4\n"
    )
    third = "Own = tuple[int, ...]\n"
    found = shared({"a": one, "b": other, "c": third})
    assert found == {"Part": ["a", "b"], "Own": ["b", "c"]}
