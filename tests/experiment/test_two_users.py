"""Two users who share an output folder: neither believes what the other leaves there."""

from __future__ import annotations

import json
import os
import stat
import tempfile
from dataclasses import replace
from multiprocessing.connection import Listener
from pathlib import Path

import pytest
from second_user import NOBODY, as_another_user, needs_root, shared_folder
from trained_recipes import write_untrained
from waiting import wait_until

from nni_spos.errors import EvaluatorError
from nni_spos.files.owned import NotOwnError
from nni_spos.worker import client as worker_client
from nni_spos.worker.client import ask_worker, connect, identify, worker_folder
from nni_spos.worker.meeting_place import make_private, meeting_place
from nni_spos.worker.patience import HEARTBEAT
from nni_spos.worker.place import WorkerFolder
from nni_spos.worker.reception import Endpoint, Reception
from nni_spos.worker.service import Worker

pytestmark = needs_root


@pytest.fixture
def recipe(monkeypatch):
    """One whose output folder all users may write to, as they may write to the temporary files."""
    with shared_folder() as folder:
        recipe = write_untrained(folder)
        recipe.checkpoint.write_bytes(b"weights")
        recipe.output.chmod(0o777)
        temporary = folder / "t"
        temporary.mkdir()
        temporary.chmod(0o1777)
        monkeypatch.setattr(tempfile, "tempdir", str(temporary))
        yield recipe


def started(monkeypatch):
    """Let no worker be started; return the folders of those that would have been."""
    places = []
    monkeypatch.setattr(worker_client, "start_worker", lambda place, _: places.append(place))
    return places


def plant(place: WorkerFolder) -> bool:
    """Be a worker that gives every path the same answer, in both folders that it may look in."""
    for folder in (place.path, place.private):
        folder.mkdir(parents=True, exist_ok=True)
        folder.chmod(0o777)
        listener = Listener(str(folder / "fake"), "AF_UNIX", authkey=b"key")
        os.chmod(folder / "fake", 0o777)
        content = {"address": listener.address, "key": b"key".hex(), "pid": os.getpid()}
        (folder / "address.json").write_text(json.dumps(content))
        (folder / "address.json").chmod(0o666)
    return True


def test_a_worker_that_another_user_planted_is_refused(recipe, monkeypatch):
    place = worker_folder(recipe, identify(recipe))
    assert as_another_user(lambda: plant(place)) is True
    places = started(monkeypatch)
    with pytest.raises(EvaluatorError, match=rf"nni-spos-0: belongs to.*{NOBODY}.*TMPDIR"):
        ask_worker(recipe, {"a": 1})
    assert places == []


def test_a_folder_for_logs_that_another_user_made_is_refused(recipe, monkeypatch):
    place = worker_folder(recipe, identify(recipe))
    assert as_another_user(lambda: plant(replace(place, private=place.path / "private"))) is True
    places = started(monkeypatch)
    with pytest.raises(EvaluatorError, match=rf"workers/{place.path.name}: belongs to another"):
        ask_worker(recipe, {"a": 1})
    assert places == []
    (recipe.output / "workers").rename(recipe.output / "theirs")
    with pytest.raises(EvaluatorError, match="did not start, 2 times"):
        ask_worker(recipe, {"a": 1})
    assert places == [place] * 2


def test_the_second_user_has_a_folder_of_his_own(recipe):
    def make():
        # The identity has the number of the user.
        place = worker_folder(recipe, identify(recipe)).make()
        endpoint = Endpoint(place)
        reception = Reception(endpoint)
        reception.open()
        with connect(place) as connection:
            found = connection is not None
        endpoint.remove()
        return [found, str(place.path), str(place.private)]

    ours = worker_folder(recipe, identify(recipe)).make()
    assert ours.path.parent == recipe.output / "workers"
    found, path, private = as_another_user(make)
    assert found is True
    assert path == private != str(ours.private)
    assert Path(private).stat().st_uid == NOBODY


def test_nothing_secret_can_be_read_and_nobody_else_can_ask(recipe):
    place = worker_folder(recipe, identify(recipe)).make()
    endpoint = Endpoint(place)
    reception = Reception(endpoint)
    reception.open()
    files = [place.address, Path(endpoint.listener.address), place.private, place.private.parent]

    def look():
        return [os.access(file, os.R_OK) or os.access(file, os.W_OK) for file in files]

    assert as_another_user(look) == [False] * 4
    assert as_another_user(lambda: connect(place) is None) is True
    assert stat.S_IMODE(place.path.stat().st_mode) == 0o700
    with connect(place) as connection:
        question = json.dumps({"path": {"a": 1}, "manager": None}).encode()
        connection.send_bytes(question)
        Worker(reception, lambda paths, progress: [{"top1": 1.0}]).step()
        while HEARTBEAT in (answer := json.loads(connection.recv_bytes())):
            pass
        assert answer["results"] == {"top1": 1.0}
    wait_until(lambda: reception.num_connected == 0)
    endpoint.remove()


def test_an_address_or_a_socket_of_another_user_is_no_worker(recipe):
    place = worker_folder(recipe, identify(recipe)).make()
    endpoint = Endpoint(place)
    reception = Reception(endpoint)
    reception.open()
    for file in (place.address, Path(endpoint.listener.address)):
        os.chown(file, NOBODY, NOBODY)
        assert connect(place) is None
        os.chown(file, 0, 0)
        with connect(place) as connection:
            assert connection is not None
    endpoint.remove()


def test_a_meeting_place_that_others_can_enter_is_refused(recipe):
    make_private(meeting_place() / "a")
    meeting_place().chmod(0o755)
    with pytest.raises(NotOwnError, match=r"nni-spos-0: others may enter it .mode 755.*TMPDIR"):
        make_private(meeting_place() / "b")
    meeting_place().chmod(0o700)
    make_private(meeting_place() / "b")
    make_private(meeting_place() / "b")
