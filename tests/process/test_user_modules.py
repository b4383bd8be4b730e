"""A user's module is found beside the recipe that names it, and its changes are noticed."""

from __future__ import annotations

import importlib
import json
import sys
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from nni_spos.process import user_modules
from nni_spos.process.user_modules import (
    folder_of_user,
    import_user_module,
    look_at_folders_again,
)


@pytest.fixture(autouse=True)
def modules(monkeypatch):
    """Nothing that a test imports stays, and nothing is written beside it."""
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    monkeypatch.setattr(user_modules, "_folders", {})
    before = set(sys.modules)
    yield
    for name in set(sys.modules) - before:
        del sys.modules[name]


@pytest.fixture
def write(tmp_path):
    """Write files of a folder, name to text, and return the folder."""

    def write(folder, **files):
        for name, text in files.items():
            file = tmp_path / folder / f"{name.replace('__', '/')}.py"
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(text)
        return tmp_path / folder

    return write


def test_the_folder_is_searched_while_the_module_is_imported(write):
    path, finders = list(sys.path), list(sys.meta_path)
    text = "import own_part, importlib\nother = importlib.import_module('own_other')\n"
    folder = write("a", own_whole=text, own_part="value = 3", own_other="value = 4")
    module = import_user_module("own_whole", folder)
    assert (module.own_part.value, module.other.value) == (3, 4)
    assert (sys.path, sys.meta_path) == (path, finders)
    (folder / "own_broken.py").write_text("import sys\nsys.path.clear()\n1 / 0")
    before = list(sys.path)
    with pytest.raises(ZeroDivisionError):
        import_user_module("own_broken", folder)
    sys.path[:] = before
    with pytest.raises(ModuleNotFoundError):
        import_user_module("own_absent", folder)
    assert (sys.path, sys.meta_path) == (path, finders)


LIBRARY = """
import importlib
try:
    import own_optional
except ImportError:
    own_optional = None
def find(name):
    return importlib.import_module(name)
"""
"""An installed library that looks for modules that may be missing, at once and when called."""


def test_libraries_are_not_given_modules_of_the_folder(write, monkeypatch):
    monkeypatch.syspath_prepend(write("path", own_library=LIBRARY, own_both="value = 'path'"))
    text = """
import own_library, own_optional, own_package.inner
try:
    own_library.find("own_secret")
    found = True
except ImportError:
    found = False
both = own_library.find("own_both").value
"""
    folder = write("a", own_whole=text, own_optional="value = 1", own_secret="1 / 0",
                   own_both="1 / 0", own_package__inner="import own_third as third",
                   own_third="value = 5")  # fmt: skip
    (folder / "own_package" / "__init__.py").write_text("from own_third import value")
    module = import_user_module("own_whole", folder)
    assert module.own_library.own_optional is None, "it was looked for in the folder"
    assert not module.found
    assert module.both == "path"
    # Code of the folder has its neighbours, also from inside of packages.
    assert module.own_optional.value == 1
    assert module.own_package.inner.third.value == module.own_package.value == 5


def test_a_folder_of_results_hides_no_library(write, monkeypatch):
    monkeypatch.syspath_prepend(write("path", own_library="value = 'path'"))
    folder = write("a", own_whole="import own_library, own_results.numbers as found")
    for name, text in (("own_library/notes.txt", ""), ("own_results/numbers.py", "value = 7")):
        file = folder / name
        file.parent.mkdir()
        file.write_text(text)
    module = import_user_module("own_whole", folder)
    assert (module.own_library.value, module.found.value) == ("path", 7)


def test_without_a_folder_only_pythons_path_counts(write, monkeypatch):
    monkeypatch.chdir(write("a", own_whole="value = 1"))
    with pytest.raises(ModuleNotFoundError):
        import_user_module("own_whole", None)
    monkeypatch.syspath_prepend(write("a"))
    assert import_user_module("own_whole", None).value == 1


def test_the_folder_comes_before_pythons_path(write, monkeypatch):
    monkeypatch.syspath_prepend(write("path", own_whole="value = 'path'", own_other="value = 9"))
    folder = write("a", own_whole="value = 'folder'")
    assert import_user_module("own_whole", None).value == "path"
    assert import_user_module("own_whole", folder).value == "folder"
    assert import_user_module("own_other", folder).value == 9


def test_a_module_is_run_once(write):
    folder = write("a", own_whole="objects = []")
    assert import_user_module("own_whole", folder) is import_user_module("own_whole", folder)


def test_folders_with_the_same_names_have_modules_of_their_own(write):
    text = "import own_part\nfrom own_package.inner import number\nvalue = own_part.value"
    first, second = (
        write(folder, own_whole=text, own_part=f"value = '{folder}'",
              own_package__inner=f"number = {number}")
        for folder, number in (("a", 1), ("b", 2))
    )  # fmt: skip
    one = import_user_module("own_whole", first)
    two = import_user_module("own_whole", second)
    assert (one.value, one.number) == ("a", 1)
    assert (two.value, two.number) == ("b", 2)
    assert import_user_module("own_whole", first).value == "a"


def test_modules_from_elsewhere_stay(write, monkeypatch):
    """Such as those of this package, where a recipe lies beside its source."""
    folder = write("a", json="raise RuntimeError", outer__inner="", outer____init__="",
                   own_whole="import json, outer.inner")  # fmt: skip
    with monkeypatch.context() as patch:
        patch.syspath_prepend(folder)
        outer = import_user_module("outer", None)
    module = import_user_module("own_whole", folder)
    assert module.json is json
    inner = sys.modules["outer.inner"]
    import_user_module("own_other", write("b", own_other=""))
    assert sys.modules["outer"] is outer
    assert sys.modules["outer.inner"] is inner


def test_an_error_of_a_users_code_is_told_from_one_of_ours(tmp_path):
    (tmp_path / "failing.py").write_text("def fail(call):\n    return call()\n")
    module = import_user_module("failing", tmp_path)
    for call, expected in ((lambda: module.fail(lambda: 1 / 0), tmp_path), (lambda: 1 / 0, None)):
        with pytest.raises(ZeroDivisionError) as caught:
            call()
        assert folder_of_user(caught.value) == expected


def test_threads_look_at_folders_one_after_the_other(monkeypatch):
    inside, most = [], []

    def invalidate_caches():
        inside.append(1)
        most.append(len(inside))
        time.sleep(0.01)
        inside.pop()

    monkeypatch.setattr(importlib, "invalidate_caches", invalidate_caches)
    with ThreadPoolExecutor(8) as threads:
        for _ in range(8):
            threads.submit(look_at_folders_again)
    assert most == [1] * 8
