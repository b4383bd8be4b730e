"""A damaged file with tensors is noticed, and what was written before it is used."""

from __future__ import annotations

import os
import shutil
import warnings

import pytest
import torch

from nni_spos.errors import CheckpointError, FileWarning
from nni_spos.files import atomic
from nni_spos.files.atomic import previous
from nni_spos.files.tensors import load_tensors, replace_tensors, save_tensors

OLD, NEW = ({"weight": torch.arange(100.0) + i, "step": i} for i in (1, 2))


@pytest.fixture
def file(tmp_path):
    return tmp_path / "supernet.pt"


def step(content):
    assert torch.equal(content["weight"], torch.arange(100.0) + content["step"])
    return content["step"]


def quietly(file):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        return load_tensors(file)


def test_any_changed_byte_and_any_missing_end_is_noticed(file):
    save_tensors(file, NEW)
    content = file.read_bytes()
    begin = content.index(NEW["weight"].numpy().tobytes())
    seal = content.index(b"nni_spos 1 sha256 ")
    for place in [*range(begin, begin + 400, 37), *range(seal - 2, len(content), 7)]:
        file.write_bytes(content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :])
        with pytest.raises(CheckpointError, match="cannot be loaded safely"):
            load_tensors(file)
    for length in [*range(0, len(content), 97), *range(seal - 30, len(content))]:
        file.write_bytes(content[:length])
        with pytest.raises(CheckpointError, match="cannot be loaded safely"):
            load_tensors(file)
    file.write_bytes(content)
    assert step(quietly(file)) == 2


def test_pytorch_alone_does_not_notice(file):
    """Why there is a hash at all."""
    torch.save(NEW, file)
    content = file.read_bytes()
    begin = content.index(NEW["weight"].numpy().tobytes())
    file.write_bytes(content[: begin + 6] + b"\x41" + content[begin + 7 :])
    assert not torch.equal(torch.load(file, weights_only=True)["weight"], NEW["weight"])


def test_files_go_both_ways(file):
    torch.save(OLD, file)  # as files were written before there were hashes
    assert step(quietly(file)) == 1
    save_tensors(file, NEW)
    assert step(torch.load(file, weights_only=True)) == 2


def test_the_previous_file_is_used_with_a_warning(file):
    replace_tensors(file, OLD)
    assert not previous(file).exists()
    replace_tensors(file, NEW)
    assert step(quietly(file)) == 2
    assert step(quietly(previous(file))) == 1
    whole = file.read_bytes()
    for damaged in (b"", whole[:-1], whole[: len(whole) // 2]):
        file.write_bytes(damaged)
        with pytest.warns(FileWarning, match=r"supernet.pt: cannot .* supernet.pt.previous, whi"):
            assert step(load_tensors(file)) == 1
    previous(file).write_bytes(b"PK")
    with pytest.raises(CheckpointError, match=r"supernet.pt: .* Nor can supernet.pt.previous"):
        load_tensors(file)
    file.unlink()
    with pytest.raises(CheckpointError, match="no such checkpoint"):
        load_tensors(file)


def test_the_previous_file_is_kept_without_links(file, monkeypatch):
    def link(*names):
        raise OSError("not supported")

    monkeypatch.setattr(os, "link", link)
    replace_tensors(file, OLD)
    replace_tensors(file, NEW)
    assert [step(quietly(x)) for x in (file, previous(file))] == [2, 1]


def test_a_writer_that_is_killed_leaves_the_newest_file(file, monkeypatch):
    replace_tensors(file, OLD)
    replace_tensors(file, NEW)
    if (child := os.fork()) == 0:
        try:
            monkeypatch.setattr(atomic.os, "replace", lambda *_: os._exit(9))
            replace_tensors(file, {"weight": torch.arange(100.0) + 3, "step": 3})
        finally:
            os._exit(0)  # never a second process that tests
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 9
    assert step(quietly(file)) == 2
    replace_tensors(file, OLD)
    assert [step(quietly(x)) for x in (file, previous(file))] == [1, 2]
    shutil.rmtree(file.parent)
