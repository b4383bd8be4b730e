"""Components are found by name, and what cannot be found is refused in one line."""

from __future__ import annotations

import sys
from dataclasses import MISSING

import pytest
from plugins import install_plugin

from nni_spos import components
from nni_spos.components import Registry, declared_keys
from nni_spos.errors import RecipeError, unknown
from nni_spos.process import user_modules

GROUP = "nni_spos.shapes"

MODULE = '''
from abc import ABC, abstractmethod
from dataclasses import dataclass
from nni_spos.recipe.settings import POSITIVE_INT, real, setting

class Shape(ABC):
    """What has an area."""

    @abstractmethod
    def area(self): ...

@dataclass(frozen=True)
class Square(Shape):
    """A square.

    Parameters
    ----------
    side, colour
        Length of a side, in pixels. Not in cm.
    turned : float
        Angle, in degrees.

    Notes
    -----
    Nothing.
    """

    side: int = setting(POSITIVE_INT)
    turned: float = setting(real(0, 90), 0.0)
    note: str = ""

    def area(self):
        return self.side**2

class Open(Shape):
    pass

class Bare(Shape):
    side: int = setting(POSITIVE_INT)

    def area(self):
        return 0

def make():
    return Square(1)
'''


@pytest.fixture(autouse=True)
def modules(monkeypatch):
    """No module or entry point that a test finds stays."""
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    monkeypatch.setattr(user_modules, "_folders", {})
    before = set(sys.modules)
    components._installed.cache_clear()
    yield
    components._installed.cache_clear()
    for name in set(sys.modules) - before:
        del sys.modules[name]


@pytest.fixture
def installed(tmp_path, monkeypatch):
    """A folder of installed packages, in Python's path."""
    folder = tmp_path / "installed"
    folder.mkdir()
    (folder / "our_shapes.py").write_text(MODULE)
    monkeypatch.syspath_prepend(folder)
    return folder


@pytest.fixture
def shapes(installed):
    ours = {"square": "our_shapes:Square", "other": "our_absent:Other"}
    return Registry("shape", ours, GROUP, base="our_shapes:Shape")


def test_ours_are_imported_when_they_are_found(shapes):
    assert shapes.names() == ["square", "other"]
    assert "square" in shapes
    assert "our_shapes" not in sys.modules
    assert shapes.find("square")(2).area() == 4
    assert shapes.module_of("square") is None


def test_plugins_are_found_by_their_entry_points(shapes, installed):
    text = (
        "from our_shapes import Shape\nclass Circle(Shape):\n    def area(self):\n        return 3"
    )
    names = {"round": "plugin_shapes:Circle", "absent": "plugin_shapes:Absent"}
    install_plugin(installed, "own-shapes", {GROUP: names}, plugin_shapes=text)
    assert shapes.names() == ["square", "other", "absent", "round"]
    assert shapes.module_of("round") == "plugin_shapes"
    assert "plugin_shapes" not in sys.modules
    assert shapes.find("round")().area() == 3
    with pytest.raises(RecipeError) as caught:
        shapes.find("absent")
    assert str(caught.value) == (
        "shape absent: cannot load 'plugin_shapes:Absent' of own-shapes 1.0 (AttributeError: "
        "module 'plugin_shapes' has no attribute 'Absent'). Mend or uninstall it."
    )


def test_a_plugin_that_fails_or_is_of_another_kind_is_refused(shapes, installed):
    names = {"broken": "broken_shapes:Any", "wrong": "collections:Counter", "right": "wide:Wide"}
    wide = "import our_shapes\nclass Wide(our_shapes.Square):\n    pass"
    install_plugin(installed, "own", {GROUP: names}, broken_shapes="import absent_thing", wide=wide)
    with pytest.raises(RecipeError) as caught:
        shapes.find("broken")
    assert str(caught.value) == (
        "shape broken: cannot load 'broken_shapes:Any' of own 1.0 (ModuleNotFoundError: No module "
        "named 'absent_thing'). Mend or uninstall it."
    )
    with pytest.raises(RecipeError) as caught:
        shapes.find("wrong")
    assert str(caught.value) == (
        "shape wrong: is a Counter, not a Shape. Derive the class from our_shapes.Shape."
    )
    assert shapes.find("right").__name__ == "Wide"


def test_two_components_of_one_name_are_refused(shapes, installed):
    install_plugin(installed, "first", {GROUP: {"square": "a:A", "oval": "a:A", "line": "a:A"}})
    install_plugin(installed, "second", {GROUP: {"oval": "b:B"}}, a="from our_shapes import Open")
    with pytest.raises(RecipeError) as caught:
        shapes.find("square")
    assert str(caught.value) == (
        "shape square: this is a name of nni_spos itself and of first 1.0. Uninstall one, or give "
        "it another name."
    )
    with pytest.raises(RecipeError, match=r"of (first|second) 1\.0 and of (first|second) 1\.0\."):
        shapes.check_name("oval")
    shapes.check_name("line")


def test_a_package_that_is_twice_in_the_path_is_one(shapes, installed, tmp_path, monkeypatch):
    for folder in (installed, tmp_path / "again"):
        install_plugin(folder, "own", {GROUP: {"oval": "our_shapes:Square"}})
    monkeypatch.syspath_prepend(tmp_path / "again")
    assert shapes.find("oval").__name__ == "Square"


def test_a_users_component_lies_beside_the_recipe(shapes, tmp_path):
    text = "from our_shapes import Open, Shape, Square\nclass Own(Square):\n    pass"
    (tmp_path / "my_shapes.py").write_text(text)
    assert shapes.find("my_shapes:Own", tmp_path).__name__ == "Own"
    assert shapes.module_of("my_shapes:Own") == "my_shapes"
    with pytest.raises(RecipeError) as caught:
        shapes.find("my_shapes:Owm", tmp_path)
    assert str(caught.value) == (
        "shape my_shapes:Owm: module 'my_shapes' has no 'Owm'; did you mean 'Own'?"
    )
    with pytest.raises(RecipeError, match=r"there is no 'my_shape' .*; did you mean 'my_shapes'"):
        shapes.find("my_shape:Own", tmp_path)
    with pytest.raises(RecipeError, match="among installed packages and in PYTHONPATH"):
        shapes.find("my_shape:Own")
    (tmp_path / "my_broken.py").write_text("value = 1\n1 / 0")
    with pytest.raises(RecipeError) as caught:
        shapes.find("my_broken:Own", tmp_path)
    assert str(caught.value) == (
        "shape my_broken:Own: cannot import 'my_broken' (ZeroDivisionError: division by zero "
        "(my_broken.py, line 2))."
    )


@pytest.mark.parametrize(
    ("name", "problem"),
    [
        ("os:system", "is a builtin_function_or_method, not a class."),
        ("our_shapes:make", "is a function, not a class."),
        ("our_shapes:Open", "the class Open does not define area."),
        ("our_shapes:Bare", "the class Bare declares 'side', but is no dataclass. Write"),
        ("our_shapes:Square", ""),
    ],
)
def test_what_is_of_another_kind_is_refused(shapes, name, problem):
    if problem:
        with pytest.raises(RecipeError) as caught:
            shapes.find(name)
        assert str(caught.value).startswith(f"shape {name}: {problem}")
    else:
        assert shapes.find(name)


def test_an_unknown_name_is_answered_with_the_known_ones(shapes, installed):
    install_plugin(installed, "own", {GROUP: {"oval": "our_shapes:Square"}})
    with pytest.raises(RecipeError) as caught:
        shapes.find("ovel")
    assert str(caught.value) == (
        "unknown shape 'ovel'; did you mean 'oval'? Shapes: square, other, oval, or module:Class."
    )
    assert unknown("key", "b", []) == "unknown key 'b'. There are no keys."


def test_keys_are_listed_with_rule_default_and_description(shapes):
    keys = shapes.keys("square")
    assert list(keys) == ["side", "turned"]
    side, turned = keys.values()
    assert (side.rule, side.default, side.is_required) == (
        "a whole number > 0, below 2^63",
        MISSING,
        True,
    )
    assert side.description == "Length of a side, in pixels."
    assert (turned.default, turned.description) == (0.0, "Angle, in degrees.")
    assert not turned.is_required
    assert declared_keys(int) == {}
