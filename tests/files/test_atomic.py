import json
import os
import stat
import subprocess
import sys

import pytest

from nni_spos.errors import CostError, PathError
from nni_spos.files.atomic import read_json, write_atomically, write_json


def test_makes_folders_and_replaces(tmp_path):
    file = tmp_path / "runs" / "one" / "result.bin"
    assert write_atomically(file, lambda stream: stream.write(b"old")) == file
    write_atomically(str(file), lambda stream: stream.write(b"new"))
    assert file.read_bytes() == b"new"
    assert os.listdir(file.parent) == ["result.bin"]


def test_a_failed_write_leaves_the_old_file_and_no_other(tmp_path):
    file = tmp_path / "result.bin"
    file.write_bytes(b"old")

    def fail(stream):
        stream.write(b"half")
        raise RuntimeError("disk full")

    with pytest.raises(RuntimeError, match="disk full"):
        write_atomically(file, fail)
    assert file.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["result.bin"]


def test_a_killed_writer_leaves_the_old_file(tmp_path):
    file = tmp_path / "result.bin"
    file.write_bytes(b"old")
    program = (
        "import os, sys\n"
        "from nni_spos.files.atomic import write_atomically\n"
        "write_atomically(sys.argv[1], lambda s: (s.write(b'half'), s.flush(), os._exit(9)))\n"
    )
    done = subprocess.run([sys.executable, "-c", program, str(file)], check=False)
    assert done.returncode == 9
    assert file.read_bytes() == b"old"


def test_a_folder_in_the_way_is_an_error(tmp_path):
    (tmp_path / "result.bin").mkdir()
    with pytest.raises(OSError, match=r"result\.bin"):
        write_atomically(tmp_path / "result.bin", lambda stream: stream.write(b"new"))
    assert os.listdir(tmp_path) == ["result.bin"]


@pytest.mark.skipif(os.name != "posix", reason="permissions of POSIX")
def test_files_get_the_permissions_of_any_new_file(tmp_path):
    before = os.umask(0o027)
    try:
        file = write_json(tmp_path / "result.json", {})
        assert os.umask(0o027) == 0o027
    finally:
        os.umask(before)
    assert stat.S_IMODE(file.stat().st_mode) == 0o640


def test_json_round_trip(tmp_path):
    content = {"text": "é", "numbers": [1, 2.5, None, True], "nested": {"a": []}}
    file = write_json(tmp_path / "content.json", content)
    assert json.loads(file.read_bytes()) == content
    assert read_json(file, PathError) == content


def test_json_that_no_other_reader_takes_is_not_written(tmp_path):
    with pytest.raises(ValueError, match="JSON"):
        write_json(tmp_path / "content.json", {"loss": float("nan")})
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "content.json: no such file."),
        (b"{", "content.json: is not valid JSON .Expecting"),
        (b"", "content.json: is not valid JSON"),
        (b"\xff\xfe", "content.json: cannot be read .*utf-8"),
        (b"[" * 100_000, "content.json: is not valid JSON"),
        (b"9" * 5000, "content.json: is not valid JSON"),
    ],
)
@pytest.mark.parametrize("error", [PathError, CostError])
def test_reading_names_the_file(tmp_path, content, message, error):
    file = tmp_path / "content.json"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(error, match=message) as caught:
        read_json(file, error)
    assert type(caught.value) is error
    assert "\n" not in str(caught.value)


def test_reading_a_folder(tmp_path):
    with pytest.raises(PathError, match="cannot be read"):
        read_json(tmp_path, PathError)
