"""Who reaches NNI's manager: its user on this machine, with no other site's page."""

import contextlib
import http.client
import inspect
import json
import os
import select
import signal
import socket
import struct
import subprocess
from pathlib import Path

import nni_node
import psutil
import pytest
from nni.experiment import launcher
from second_user import NOBODY, as_another_user, needs_root
from waiting import PATIENCE

from nni_spos.errors import ExperimentError
from nni_spos.experiment import nnictl
from nni_spos.experiment.connections import check_listener, knows_users
from nni_spos.experiment.manager_environment import (
    CONFIGURATION,
    LOOPBACK,
    SAME_SITE,
    SAME_USER,
)

NODE = Path(nni_node.__file__).with_name("node")

needs_users = pytest.mark.skipif(not knows_users(), reason="this system does not say whose it is")

SERVER = """
const http = require('http');
const answered = [];
const server = http.createServer((request, response) => {
    if (request.url === '/answered') {
        response.end(JSON.stringify(answered));
        return;
    }
    answered.push(`${request.method} ${request.url}`);
    response.statusCode = request.url.includes('fails') ? 400 : 200;
    response.end('page');
});
server.on('upgrade', (request, socket) => {
    answered.push('upgrade');
    socket.end('HTTP/1.1 101 Switching Protocols\\r\\n\\r\\n');
});
server.on('error', (problem) => { console.log(problem.code); process.exit(1); });
server.listen(Number(process.argv[2]), () => console.log('listening'));
"""


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class Server:
    """A server as NNI's, with what our files make of it."""

    def __init__(self, folder, files, port):
        (folder / "server.js").write_text(SERVER)
        required = [word for file in files for word in ("--require", file)]
        self.port = port
        self.process = subprocess.Popen(
            [NODE, *required, folder / "server.js", str(port)], stdout=subprocess.PIPE, text=True
        )
        self.first_line = self.process.stdout.readline().strip()

    def answered(self):
        return json.loads(ask(self.port, "GET", "/answered")[1])


def ask(port, method="GET", path="/", host="127.0.0.1", **headers):
    """Return status and text of an answer; the status is None if the connection was closed."""
    connection = http.client.HTTPConnection(host, port, timeout=PATIENCE)
    try:
        connection.request(
            method, path, headers={k.replace("_", "-"): v for k, v in headers.items()}
        )
        answer = connection.getresponse()
        return answer.status, answer.read().decode()
    except (ConnectionError, http.client.RemoteDisconnected):
        return None, ""
    finally:
        connection.close()


def upgrade(port, host="127.0.0.1", **headers):
    return ask(port, host=host, Connection="Upgrade", Upgrade="websocket", **headers)


def send(port, path, *, source=0, reset=False):
    """Send a request and go away at once; return the port that it came from."""
    with socket.socket() as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        client.bind(("127.0.0.1", source))
        client.connect(("127.0.0.1", port))
        client.sendall(
            f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\n\r\n".encode()
        )
        if reset:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        return client.getsockname()[1]


@pytest.fixture
def serve(tmp_path):
    servers = []

    def serve(*files, port=None):
        server = Server(tmp_path, files, port or free_port())
        servers.append(server)
        return server

    yield serve
    for server in servers:
        server.process.kill()
        server.process.communicate()


HOSTS = ["127.0.0.1", "::1", "localhost", "::ffff:127.0.0.1"]


@needs_users
@pytest.mark.parametrize("host", HOSTS)
def test_the_user_is_let_in(serve, host):
    server = serve(LOOPBACK, SAME_USER)
    assert ask(server.port, host=host) == (200, "page")
    assert upgrade(server.port, host)[0] == 101


@needs_root
@needs_users
@pytest.mark.parametrize("host", HOSTS)
@pytest.mark.slow
def test_another_user_is_not(serve, host):
    server = serve(LOOPBACK, SAME_USER)
    for _ in range(3):
        assert as_another_user(ask, server.port, "POST", "/other", host) == (None, "")
        assert as_another_user(upgrade, server.port, host) == (None, "")
        assert ask(server.port, "POST", "/own", host) == (200, "page")
    assert set(server.answered()) == {"POST /own"}


@needs_root
@needs_users
@pytest.mark.parametrize("reset", [False, True])
def test_another_user_who_is_gone_again_is_not(serve, reset):
    """Linux says of connections that nobody holds any more that they are root's."""
    server = serve(LOOPBACK, SAME_USER)
    os.kill(server.process.pid, signal.SIGSTOP)
    as_another_user(lambda: [send(server.port, "/other", reset=reset) for _ in range(20)])
    os.kill(server.process.pid, signal.SIGCONT)
    assert ask(server.port, "POST", "/own") == (200, "page")
    assert server.answered() == ["POST /own"]


@needs_root
@needs_users
def test_another_user_is_not_taken_for_who_has_the_same_port_afterwards(serve):
    server = serve(LOOPBACK, SAME_USER)
    os.kill(server.process.pid, signal.SIGSTOP)
    source = as_another_user(lambda: send(server.port, "/other", reset=True))
    with socket.socket() as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        client.bind(("127.0.0.1", source))
        client.connect(("127.0.0.1", server.port))
        os.kill(server.process.pid, signal.SIGCONT)
        client.sendall(b"POST /own HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\n\r\n")
        assert client.recv(100).startswith(b"HTTP/1.1 200")
    assert server.answered() == ["POST /own"]


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Host": "localhost"},
        {"Host": "LOCALHOST:9"},  # at the other end of a tunnel
        {"Host": "[::1]:8080", "Origin": "http://[::1]:8080"},
        {"Host": "localhost:8080", "Origin": "http://localhost:8080"},
        {"Host": "127.0.0.1:80", "Origin": "http://127.0.0.1:80"},
    ],
)
def test_pages_of_this_machine_are_answered(serve, headers):
    server = serve(LOOPBACK, SAME_SITE)
    assert ask(server.port, "POST", **headers) == (200, "page")
    assert upgrade(server.port, **headers)[0] == 101


@pytest.mark.parametrize(
    "headers",
    [
        {"Host": "example.org:8080"},
        {"Host": "localhost.example.org"},
        {"Host": "127.0.0.1.example.org:8080"},
        {"Host": "127.0.0.1@example.org"},
        {"Host": ""},
        {"Host": "192.168.0.1:8080"},
        {"Origin": "http://example.org"},
        {"Origin": "null"},
        {"Host": "localhost:8080", "Origin": "http://localhost:9090"},
        {"Host": "localhost:8080", "Origin": "https://localhost:8080"},
        {"Host": "example.org", "Origin": "http://example.org"},
    ],
)
def test_pages_of_others_are_not(serve, headers):
    server = serve(LOOPBACK, SAME_SITE)
    status, text = ask(server.port, "POST", **headers)
    assert status == 403
    assert "Forbidden" in text
    assert upgrade(server.port, **headers)[0] == 403
    assert server.answered() == []


def test_listens_on_the_loopback_interface_alone(serve):
    server = serve(LOOPBACK)
    listening = {
        connection.laddr
        for connection in psutil.Process(server.process.pid).net_connections("tcp")
        if connection.status == psutil.CONN_LISTEN
    }
    ports = {port for _, port in listening}
    assert ports == {server.port}
    assert {host for host, _ in listening} in ({"127.0.0.1", "::1"}, {"127.0.0.1"})


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
def test_a_port_that_somebody_has_is_not_shared(serve, host):
    """NNI's clients look for "localhost", which is either."""
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as taken:
        taken.bind((host, 0))
        taken.listen()
        server = serve(LOOPBACK, port=taken.getsockname()[1])
        assert server.first_line == "EADDRINUSE"
        assert server.process.wait(PATIENCE) == 1


def test_a_server_that_names_its_interface_has_it(tmp_path):
    script = "require('http').createServer().listen(0, '127.0.0.2', function () {"
    script += " console.log(this.address().address); process.exit(); })"
    command = [NODE, "--require", LOOPBACK, "-e", script]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout == "127.0.0.2\n"


def test_tensorboard_listens_on_this_machine_too(tmp_path):
    program = tmp_path / "tensorboard"
    program.write_text("#!/bin/sh\necho $*\n")
    program.chmod(0o755)
    script = "require('child_process').spawn('tensorboard', ['--bind_all --logdir_spec=1:/a b',"
    script += " '--port=6006'], {shell: true, stdio: 'inherit'})"
    done = subprocess.run(
        [NODE, "--require", LOOPBACK, "-e", script],
        env={**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == "--logdir_spec=1:/a b --port=6006\n"


def test_a_manager_has_one_configuration(serve):
    server = serve(CONFIGURATION)
    experiment = "/api/v1/nni/experiment"
    assert ask(server.port, "POST", f"{experiment}?fails")[0] == 400, "that was none"
    assert ask(server.port, "GET", experiment)[0] == 200
    assert ask(server.port, "POST", f"/prefix{experiment}") == (200, "page")
    for path in (experiment, f"/prefix{experiment}/", experiment.upper(), f"{experiment}?a=b#c"):
        status, text = ask(server.port, "POST", path)
        assert (status, "goes on unchanged" in json.loads(text)["error"]) == (409, True)
    assert ask(server.port, "POST", f"{experiment}/import-data")[0] == 200
    assert ask(server.port, "PUT", f"{experiment}?update_type=MAX_TRIAL_NUM")[0] == 200
    assert ask(server.port, "PUT", f"{experiment}?update_type=SEARCH_SPACE")[0] == 409
    assert ask(server.port, "DELETE", experiment)[0] == 200
    assert len(server.answered()) == 6


def answer_as_a_manager(port, begun, done):
    """Answer the requests that come until the other end of a pipe is closed."""
    with socket.create_server(("127.0.0.1", port)) as server:
        os.write(begun, b"1")
        while done not in (ready := select.select([server, done], [], [])[0]):
            assert ready
            client, _ = server.accept()
            with client:
                client.recv(10_000)
                head = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close"
                client.sendall(f"{head}\r\n\r\n{{}}".encode())


@needs_root
@needs_users
@pytest.mark.parametrize("user", [NOBODY, 0])
def test_a_configuration_is_given_to_a_manager_of_this_user_alone(user):
    """Another user may take the port between the look at it and the start of the manager."""
    port, begun, done = free_port(), os.pipe(), os.pipe()
    check_listener(port)  # there is nobody
    child = os.fork()
    if not child:
        os.setuid(user)
        os.close(done[1])
        answer_as_a_manager(port, begun[1], done[0])
        os._exit(0)
    os.read(begun[0], 1)
    expected = pytest.raises(ExperimentError, match=f"another user .* port {port}.* {port + 1}")
    try:
        with expected if user == NOBODY else contextlib.nullcontext():
            nnictl._check_manager(port)
    finally:
        os.close(done[1])
        os.waitpid(child, 0)


def test_nnictl_gives_the_configuration_after_that():
    lines = inspect.getsource(launcher.start_experiment)
    assert lines.index("_check_rest_server(port") < lines.index("rest.post(")
    assert nnictl._check_rest_server is launcher._check_rest_server, "only as a program"


@pytest.mark.parametrize(
    ("file", "parts"),
    [
        (
            "rest_server/restHandler.js",
            ["router.post('/experiment', ", "router.put('/experiment', "],
        ),
        ("rest_server/index.js", ["app.listen(this.port)"]),
        ("extensions/nniTensorboardManager.js", ["'--bind_all --logdir_spec'", "['tensorboard', "]),
        ("core/nnimanager.js", ["case 'SEARCH_SPACE':"]),
    ],
)
def test_nni_is_as_it_was_when_this_was_written(file, parts):
    text = (NODE.parent / file).read_text()
    assert all(part in text for part in parts)
