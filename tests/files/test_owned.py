"""What is written goes into files of this user, wherever links in a shared folder point."""

from __future__ import annotations

import errno
import fcntl
import os
import stat
from pathlib import Path

import pytest
from second_user import NOBODY, as_another_user, needs_root, shared_folder

from nni_spos.errors import CostError, FileWarning, SearchError
from nni_spos.evolution import Candidate, Journal, State
from nni_spos.files.atomic import append_durably, previous, replace_atomically, write_json
from nni_spos.files.locks import NoLocksError, exclusive
from nni_spos.files.owned import NotOwnError, check_private_folder, open_own
from nni_spos.path import PathSpace
from nni_spos.search.score_cache import ScoreCache
from nni_spos.training.checkpoints import LOGS, Start, prepare_start

SPACE = PathSpace({"a": ["k3", "k5"]})
CANDIDATE = Candidate({"a": "k3"}, 0, 0, {}, State.DONE, {"top1": 1.0})
REFUSAL = CostError("another process has it.")


def lock(file: Path) -> None:
    with exclusive(file, timeout=0, refusal=REFUSAL):
        pass


def cache(file: Path) -> None:
    ScoreCache(file, SPACE).put({"a": "k3"}, {"top1": 1.0})


def append(file: Path) -> None:
    append_durably(file, b"more\n")


WRITERS = pytest.mark.parametrize("write", [lock, cache, append])


@pytest.fixture
def precious(tmp_path):
    """A file of the user's that has nothing to do with it."""
    file = tmp_path / "home" / "thesis.tex"
    file.parent.mkdir()
    file.write_text("years of work\n")
    file.chmod(0o600)
    yield file
    assert file.read_text() == "years of work\n"
    assert stat.S_IMODE(file.stat().st_mode) == 0o600


@pytest.fixture
def output(tmp_path):
    """An output folder that is a link to another disk, as is usual."""
    folder = tmp_path / "large_disk" / "output"
    folder.mkdir(parents=True)
    link = tmp_path / "output"
    link.symlink_to(folder)
    return link


@WRITERS
def test_a_link_is_not_followed(output, precious, write):
    file = output / "file"
    file.symlink_to(precious)
    with pytest.raises(NotOwnError, match=r"output/file: is a link.*Remove it") as caught:
        write(file)
    assert "\n" not in str(caught.value)


@WRITERS
def test_a_link_to_nowhere_makes_nothing(output, tmp_path, write):
    (output / "file").symlink_to(tmp_path / "new")
    with pytest.raises(NotOwnError, match="is a link"):
        write(output / "file")
    assert not (tmp_path / "new").exists()


@WRITERS
@pytest.mark.parametrize("make", [os.mkfifo, os.mkdir])
def test_what_is_no_regular_file_is_refused_at_once(output, write, make):
    make(output / "file")
    with pytest.raises(NotOwnError, match="is not a regular file"):
        write(output / "file")


@WRITERS
def test_a_file_in_a_folder_that_is_a_link_is_written(output, write):
    (output / "file").touch()
    write(output / "file")
    write(output / "file")


@WRITERS
@needs_root
def test_a_file_of_another_user_is_refused(output, write):
    (output / "file").touch()
    os.chown(output / "file", NOBODY, NOBODY)
    with pytest.raises(NotOwnError, match=rf"belongs to another user \(number {NOBODY};"):
        write(output / "file")
    assert (output / "file").stat().st_size == 0


@WRITERS
def test_a_file_system_that_gives_all_files_to_one_user_is_no_obstacle(output, write, monkeypatch):
    (output / "file").touch()
    monkeypatch.setattr(os, "geteuid", lambda: 4711)
    write(output / "file")


def test_a_journal_that_is_a_link_is_neither_cut_nor_continued(output, tmp_path):
    real = tmp_path / "kept.jsonl"
    Journal(real, {}).append(CANDIDATE)
    content = real.read_bytes() + b'{"half'
    real.write_bytes(content)
    (output / "search.jsonl").symlink_to(real)
    with (
        pytest.warns(FileWarning, match="cut short"),
        pytest.raises(NotOwnError, match="is a link"),
    ):
        Journal(output / "search.jsonl", {})
    real.write_bytes(content := content[:-6])
    with pytest.raises(NotOwnError, match="is a link"):
        Journal(output / "search.jsonl", {}).append(CANDIDATE)
    assert real.read_bytes() == content
    (output / "search.jsonl").unlink()
    os.replace(real, output / "search.jsonl")
    Journal(output / "search.jsonl", {}).append(CANDIDATE)
    with pytest.raises(SearchError, match="other settings"):
        Journal(output / "search.jsonl", {"seed": 1})


def test_scores_in_a_link_do_not_count(output, tmp_path):
    other = ScoreCache(tmp_path / "other.jsonl", SPACE)
    other.put({"a": "k3"}, {"top1": 99.9})
    file = output / "scores.jsonl"
    file.symlink_to(other.file)
    assert ScoreCache(file, SPACE).get({"a": "k3"}) is None
    with pytest.warns(FileWarning, match="scores are not kept .is a link"):
        ScoreCache(file, SPACE).put_if_possible({"a": "k5"}, {"top1": 1.0})
    file.unlink()
    os.replace(other.file, file)
    assert ScoreCache(file, SPACE).get({"a": "k3"}) == {"top1": 99.9}


def test_what_replaces_a_file_replaces_a_link(output, precious):
    file = output / "best.json"
    file.symlink_to(precious)
    write_json(file, {"a": 1})
    assert not file.is_symlink()
    assert file.read_text().startswith("{")


def test_a_copy_of_what_was_there_before_follows_no_link(output, precious, monkeypatch):
    def link(*_):
        previous(file).symlink_to(precious)  # somebody is quicker
        raise OSError(errno.EPERM, "this file system has no links")

    file = output / "supernet.pt"
    file.write_bytes(b"old")
    monkeypatch.setattr(os, "link", link)
    with pytest.raises(NotOwnError, match=r"supernet\.pt\.previous: is a link"):
        replace_atomically(file, lambda stream: stream.write(b"new"))
    assert file.read_bytes() == b"old"
    assert sorted(os.listdir(output)) == ["supernet.pt", "supernet.pt.previous"]


def test_a_copy_is_kept_where_there_are_no_links(output, monkeypatch):
    def link(*_):
        raise OSError(errno.EPERM, "this file system has no links")

    file = output / "supernet.pt"
    monkeypatch.setattr(os, "link", link)
    for content in (b"oldest", b"old", b"new"):
        replace_atomically(file, lambda stream, x=content: stream.write(x))
    assert (file.read_bytes(), previous(file).read_bytes()) == (b"new", b"old")


def test_a_link_that_comes_in_between_is_not_followed(output, precious, monkeypatch):
    file = output / "costs.lock"
    file.touch()
    real = os.open

    def slow_open(name, *arguments):
        file.unlink()
        file.symlink_to(precious)
        return real(name, *arguments)

    monkeypatch.setattr(os, "open", slow_open)
    with pytest.raises(NotOwnError, match="is a link"):
        open_own(file, os.O_WRONLY | os.O_CREAT)


def test_a_lock_is_not_emptied(output):
    (output / "a.lock").write_text("kept")
    (output / "a.lock").chmod(0o600)
    lock(output / "a.lock")
    assert (output / "a.lock").read_text() == "kept"
    assert stat.S_IMODE((output / "a.lock").stat().st_mode) == 0o600


@pytest.mark.parametrize("code", [errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.EINVAL])
def test_a_file_system_without_locks_is_one_line(output, monkeypatch, code):
    def flock(handle, operation):
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(fcntl, "flock", flock)
    before = len(os.listdir("/proc/self/fd")) if os.path.isdir("/proc/self/fd") else 0
    for timeout in (-1, 0, 60):
        with (
            pytest.raises(NoLocksError, match=r"a\.lock: cannot be locked .*no locks\. Use an out"),
            exclusive(output / "a.lock", timeout, REFUSAL),
        ):
            pass
    assert not before or len(os.listdir("/proc/self/fd")) == before


def test_a_lock_that_another_process_has_is_refused_and_one_that_was_deleted_is_not_it(output):
    file = output / "a.lock"
    with exclusive(file, timeout=0, refusal=REFUSAL):
        with pytest.raises(CostError, match="another process has it"):
            lock(file)
        file.unlink()
        lock(file)
        with exclusive(file, timeout=0, refusal=REFUSAL), pytest.raises(CostError):
            lock(file)
    lock(file)


def test_a_training_does_not_log_into_a_link(output, precious):
    logs = output / "supernet" / LOGS
    logs.mkdir(parents=True)
    product = output / "supernet.pt"
    (logs / "events.1").touch()
    assert prepare_start(Start.NEW, logs.parent, product) is None
    (logs / "hparams.yaml").symlink_to(precious)
    with pytest.raises(NotOwnError, match=r"hparams\.yaml: is a link"):
        prepare_start(Start.NEW, logs.parent, product)
    assert prepare_start(Start.OVERWRITE, logs.parent, product) is None
    assert not logs.exists()


def test_a_private_folder_is_one_that_nobody_else_can_enter(tmp_path):
    folder = tmp_path / "private"
    folder.mkdir(mode=0o700)
    check_private_folder(folder)
    for mode in (0o710, 0o701, 0o777):
        folder.chmod(mode)
        with pytest.raises(NotOwnError, match=f"others may enter it .mode {mode:o}.* mode 700"):
            check_private_folder(folder)
    folder.chmod(0o700)
    (tmp_path / "link").symlink_to(folder)
    for name in ("link", "file"):
        (tmp_path / "file").touch()
        with pytest.raises(NotOwnError, match="is not a folder"):
            check_private_folder(tmp_path / name)


@pytest.fixture
def shared():
    with shared_folder() as folder:
        yield folder


@needs_root
def test_scores_of_one_user_are_no_answers_for_another(shared):
    def write(name):
        cache = ScoreCache(shared / name, SPACE)
        cache.put({"a": "k3"}, {"top1": 99.9})
        return cache.get({"a": "k3"})

    assert as_another_user(lambda: write("theirs.jsonl")) == {"top1": 99.9}
    theirs = ScoreCache(shared / "theirs.jsonl", SPACE)
    assert theirs.get({"a": "k3"}) is None
    with pytest.warns(FileWarning, match="belongs to another user"):
        theirs.put_if_possible({"a": "k5"}, {"top1": 1.0})
    mine = ScoreCache(shared / "mine.jsonl", SPACE)
    mine.put({"a": "k3"}, {"top1": 1.0})
    mine.file.chmod(0o666)
    with pytest.raises(NotOwnError):
        as_another_user(lambda: write("mine.jsonl"))
    assert mine.get({"a": "k3"}) == {"top1": 1.0}
