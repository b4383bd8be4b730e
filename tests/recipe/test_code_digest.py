"""A change of the code of a user's space is noticed, and a change of anything else is not."""

from __future__ import annotations

import shutil

import pytest

from nni_spos.recipe.code_digest import digest_code, digest_space_code

SPACE = '''
"""A space."""
import json
from own_blocks import block
from own_package.inner import width

class Space:
    def forward(self, x):
        """Return logits."""
        return block(x, width)  # the head
'''
FILES = {
    "own_model.py": SPACE,
    "own_blocks.py": "from . import nothing\nimport own_deep\ndef block(x, width):\n    return x",
    "own_deep.py": "value = 1.0",
    "own_unused.py": "value = 1",
    "own_package/__init__.py": "",
    "own_package/inner.py": "from .sizes import width",
    "own_package/sizes.py": "width = 8",
    "own_package/others.py": "width = 9",
    "notes.txt": "no code",
}


@pytest.fixture
def folder(tmp_path):
    for name, text in FILES.items():
        file = tmp_path / "a" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    return tmp_path / "a"


def change(file, old, new):
    text = file.read_text()
    assert old in text or not old
    file.write_text(text.replace(old, new) if old else new)


@pytest.mark.parametrize(
    ("name", "old", "new", "is_noticed"),
    [
        ("own_model.py", "width)", "width + 1)", True),
        ("own_blocks.py", "return x", "return -x", True),
        ("own_deep.py", "1.0", "1", True),
        ("own_deep.py", "1.0", "None", True),
        ("own_package/__init__.py", "", "import torch", True),
        ("own_package/sizes.py", "8", "16", True),
        ("own_model.py", "# the head", "# the last layer", False),
        ("own_model.py", "Return logits.", "Return one logit for every class.", False),
        ("own_model.py", "block(x, width)", "block(\n            x, width\n        )", False),
        ("own_deep.py", "1.0", "1.00", False),
        ("own_unused.py", "1", "2", False),
        ("own_package/others.py", "9", "10", False),
        ("notes.txt", "no", "", False),
        ("a_new_one.py", "", "value = 1", False),
    ],
)
def test_what_is_noticed(folder, name, old, new, is_noticed):
    before = digest_code("own_model", folder)
    file = folder / name
    file.touch()
    change(file, old, new)
    assert (digest_code("own_model", folder) != before) == is_noticed


@pytest.mark.parametrize(
    "line",
    [
        "import importlib; own = importlib.import_module('own_' + 'unused')",
        "own = __import__('own_' + 'unused')",
        "exec('import own_unused')",
        "import sys; sys.path.append('own_package')",
        "import pkgutil",
    ],
)
def test_code_that_imports_by_name_depends_on_everything_beside_it(folder, line):
    change(folder / "own_deep.py", "value", f"{line}\nvalue")
    before = digest_code("own_model", folder)
    change(folder / "own_model.py", "# the head", "")
    assert digest_code("own_model", folder) == before
    change(folder / "own_unused.py", "1", "2")
    after = digest_code("own_model", folder)
    assert after != before
    change(folder / "own_package/others.py", "9", "10")
    assert digest_code("own_model", folder) != after


def test_a_folder_can_be_moved(folder, tmp_path):
    before = digest_code("own_model", folder)
    shutil.move(folder, tmp_path / "b")
    assert digest_code("own_model", tmp_path / "b") == before


def test_modules_in_pythons_path_count_and_installed_ones_do_not(folder, tmp_path, monkeypatch):
    for place, is_noticed in (("lib", True), ("lib/site-packages", False)):
        name = f"own_{len(place)}"
        file = tmp_path / place / f"{name}.py"
        file.parent.mkdir(exist_ok=True)
        file.write_text("value = 1")
        monkeypatch.syspath_prepend(file.parent)
        (folder / "own_user.py").write_text(f"import {name}")
        before = digest_code("own_user", folder)
        file.write_text("value = 2")
        assert (digest_code("own_user", folder) != before) == is_noticed


def test_an_installed_plug_in_is_known_by_its_code(tmp_path, monkeypatch):
    package = tmp_path / "site-packages" / "own_plugin"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("from own_plugin.layers import width")
    (package / "layers.py").write_text("width = 8")
    monkeypatch.syspath_prepend(package.parent)
    (tmp_path / "recipes").mkdir()
    before = digest_code("own_plugin", tmp_path / "recipes")
    (package / "layers.py").write_text("width = 16")
    assert digest_code("own_plugin", tmp_path / "recipes") != before


@pytest.mark.parametrize("text", ["def broken(", "\0", "x = " + "(" * 500 + ")" * 500])
def test_what_cannot_be_parsed_is_known_by_its_bytes(folder, text):
    (folder / "own_deep.py").write_text(text)
    before = digest_code("own_model", folder)
    (folder / "own_deep.py").write_text(text + "# more")
    assert digest_code("own_model", folder) != before


def test_nothing_is_run_and_what_is_missing_is_no_error(folder):
    change(folder / "own_blocks.py", "def", "raise RuntimeError\ndef")
    (folder / ".#own_model.py").symlink_to("an editor's lock")
    digest_code("own_model", folder)
    for name in ("own_absent", "", ".own_model", "own_model.own_deep"):
        digest_code(name, folder)


def test_spaces_of_this_package_have_no_code_of_their_own(folder):
    assert digest_space_code("shufflenet", folder) is None
    assert digest_space_code("own_model:Space", folder) == digest_code("own_model", folder)
