"""NNI's manager waits for a tuner that lives, and not for one that has ended."""

import json
import subprocess
from pathlib import Path

import nni_node
import pytest

from nni_spos.experiment.start import PATIENCE

NODE = Path(nni_node.__file__).with_name("node")

HUNDREDFOLD = """
const later = global.setTimeout, now = Date.now, begin = now();
global.setTimeout = (f, ms, ...rest) => later(f, ms / 100, ...rest);
Date.now = () => begin + 100 * (now() - begin);
"""
"""A clock that goes a hundred times as fast, for everything but the other process."""

MANAGER = """
const { spawn } = require('node:child_process');
setInterval(() => {}, 1e9); // as NNI's server, it goes on
const begin = Date.now(), found = {};
const child = spawn('sh', ['-c', COMMAND, 'sh', OPTION], {stdio: 'ignore'});
const end = (name) => {
    found[name] = (Date.now() - begin) / 1000;
    if (Object.keys(found).length === 2) {
        child.kill();
        console.log(JSON.stringify(found));
        process.exit();
    }
};
setTimeout(() => end('Tuner did not connect'), 10000);
setTimeout(() => end('another'), 10000);
"""


def wait(folder, command, option="--exp_params"):
    """Return after how many seconds of the clock two timers of ten seconds of a manager ended."""
    (folder / "fast.js").write_text(HUNDREDFOLD)
    script = MANAGER.replace("COMMAND", json.dumps(command)).replace("OPTION", json.dumps(option))
    (folder / "manager.js").write_text(script)
    required = ["--require", folder / "fast.js", "--require", PATIENCE]
    done = subprocess.run(
        [NODE, *required, "manager.js"], cwd=folder, capture_output=True, text=True, check=True
    )
    found = json.loads(done.stdout)
    assert found["another"] >= 10, "no other timer is touched"
    return found["Tuner did not connect"]


def test_a_tuner_that_lives_has_two_minutes(tmp_path):
    assert wait(tmp_path, "exec sleep 60") >= 120


def test_one_that_has_ended_is_not_waited_for(tmp_path):
    assert 20 < wait(tmp_path, "sleep 0.3; exit 1") < 120


def test_what_is_no_tuner_changes_nothing(tmp_path):
    assert 10 <= wait(tmp_path, "exec sleep 60", option="--other") < 120


def test_promises_still_know_the_timer(tmp_path):
    script = "require('util').promisify(setTimeout)(1, 'kept').then(console.log)"
    done = subprocess.run(
        [NODE, "--require", PATIENCE, "-e", script], capture_output=True, text=True, check=True
    )
    assert done.stdout == "kept\n"


@pytest.mark.parametrize("file", ["core/tuner_command_channel.js", "common/utils.js"])
def test_nni_is_as_it_was_when_this_was_written(file):
    """If this fails, NNI's ten seconds are back, or something else of the manager is delayed."""
    text = (NODE.parent / file).read_text()
    expected = {
        "core/tuner_command_channel.js": ["'Tuner did not connect", "}, 10000);"],
        "common/utils.js": ["'--exp_params'", "child_process_2.spawn)(command[0]"],
    }
    assert all(part in text for part in expected[file])
