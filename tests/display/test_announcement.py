"""Who waits is told what for, and a log is not."""

from __future__ import annotations

import io
import sys

import pytest

from nni_spos.display import loading as module
from nni_spos.display.announcement import announce
from nni_spos.display.loading import loading
from nni_spos.process import imports


class Terminal(io.StringIO):
    """Stands for a terminal."""

    def isatty(self):
        return True


@pytest.mark.parametrize(("stream", "said"), [(Terminal, "counting ...\n"), (io.StringIO, "")])
def test_only_who_watches_is_told(monkeypatch, capsys, stream, said):
    monkeypatch.setattr(sys, "stderr", stream())
    announce("counting")
    assert sys.stderr.getvalue() == said
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(("loaded", "said"), [(False, "loading PyTorch ...\n"), (True, "")])
def test_loading_is_announced_once(monkeypatch, loaded, said):
    monkeypatch.setattr(module, "is_loaded", lambda: loaded)
    monkeypatch.setattr(imports, "is_loaded", lambda: True)  # no change of the collector
    monkeypatch.setattr(sys, "stderr", Terminal())
    with loading():
        assert sys.stderr.getvalue() == said  # before what takes long
