"""Imports without a look for garbage."""

from __future__ import annotations

import gc

import pytest

from nni_spos.process import imports


@pytest.fixture
def frozen(monkeypatch):
    """Count calls of gc.freeze, which would last for all tests."""
    calls = []
    monkeypatch.setattr(imports.gc, "freeze", lambda: calls.append(gc.isenabled()))
    return calls


def test_there_is_no_look_for_garbage_in_between_nor_through_what_was_imported(monkeypatch, frozen):
    monkeypatch.setattr(imports, "HEAVIEST", "a_module_that_is_not_there")
    with imports.many_imports():
        assert not gc.isenabled()
    assert gc.isenabled()
    assert frozen == [False]


def test_what_cannot_be_imported_leaves_the_collector_on(monkeypatch, frozen):
    monkeypatch.setattr(imports, "HEAVIEST", "a_module_that_is_not_there")
    with pytest.raises(ImportError), imports.many_imports():
        raise ImportError
    assert gc.isenabled()


def test_nothing_is_done_a_second_time(frozen):
    import torch  # noqa: F401

    assert imports.is_loaded()
    with imports.many_imports():
        assert gc.isenabled()
    assert frozen == []


def test_who_switched_it_off_keeps_it_off(monkeypatch, frozen):
    monkeypatch.setattr(imports, "HEAVIEST", "a_module_that_is_not_there")
    gc.disable()
    try:
        with imports.many_imports():
            pass
        assert not gc.isenabled()
    finally:
        gc.enable()
    assert frozen == []
