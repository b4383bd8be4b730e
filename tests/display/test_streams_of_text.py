"""Tables and messages can be printed whatever a terminal's encoding is."""

import io
import os
import subprocess
import sys

import pytest

from nni_spos.display.streams import allow_any_text


def printed(text, encoding):
    raw = io.BytesIO()
    stream = io.TextIOWrapper(raw, encoding=encoding)
    allow_any_text(stream)
    print(text, file=stream, flush=True)
    return raw.getvalue().decode(encoding).rstrip("\n")


@pytest.mark.parametrize(
    ("text", "encoding", "expected"),
    [
        ("71.00 ± 1.00 (3)", "ascii", "71.00 +- 1.00 (3)"),
        ("71.00 ± 1.00 (3)", "utf-8", "71.00 ± 1.00 (3)"),
        ("71.00 ± 1.00 (3)", "latin-1", "71.00 ± 1.00 (3)"),
        ("layer … block", "latin-1", "layer ... block"),
        ("Katzen/Bär±…/猫.png", "ascii", "Katzen/B\\xe4r+-.../\\u732b.png"),
        ("no such file: caf\udce9", "utf-8", "no such file: caf\\udce9"),
    ],
)
def test_what_an_encoding_lacks_is_spelled(text, encoding, expected):
    assert printed(text, encoding) == expected


def test_other_streams_are_left_alone():
    stream = io.StringIO()
    allow_any_text(stream)
    print("±", file=stream)
    assert stream.getvalue() == "±\n"


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "utf-8"])
def test_commands_print_in_any_encoding(tmp_path, encoding):
    """A recipe's name with letters that are not in every encoding, in a message."""
    found = subprocess.run(
        [sys.executable, "-W", "ignore", "-m", "nni_spos.cli", "check", "größe±猫.yml"],
        cwd=tmp_path, capture_output=True, text=True, encoding=encoding, check=False,
        env={**os.environ, "PYTHONIOENCODING": encoding, "PYTHONUTF8": "1"},
    )  # fmt: skip
    assert found.returncode == 2, found.stderr
    (line,) = found.stderr.strip().splitlines()
    assert "ConfigError" in line or "Error: " in line
