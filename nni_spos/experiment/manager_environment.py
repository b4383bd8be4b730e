"""What NNI's manager is started with."""

from __future__ import annotations

import os
import sys
from pathlib import Path as FilePath

from nni_spos.experiment.connections import knows_users

PATIENCE, CONFIGURATION, LOOPBACK, SAME_SITE, SAME_USER = (
    FilePath(__file__).with_name(f"{name}.js")
    for name in ("patience", "configuration", "loopback", "same_site", "same_user")
)
"""What node runs before NNI's manager."""

OPEN_TO_USERS = (
    "every user of this machine can reach NNI's web page, which has no password, and so run "
    "commands as you: this system does not say to whom a connection belongs"
)
"""What is to be said where `SAME_USER` cannot be used."""


def nnictl_environment(public: bool = False) -> dict[str, str]:
    """Return the environment for ``nnictl``: quiet, without a proxy, with time for the tuner to
    start and, unless `public`, with the web page for this user on this machine alone."""
    environment = {**os.environ, "PYTHONWARNINGS": "ignore"}
    # Trials find the commands of this environment, also if it is not activated.
    commands = os.path.dirname(sys.executable)
    environment["PATH"] = os.pathsep.join(filter(None, [commands, os.environ.get("PATH")]))
    # NNI's own HTTP clients would ask a proxy for the manager on this machine.
    for name in ("NO_PROXY", "no_proxy"):
        hosts = [environment.get(name, ""), "localhost", "127.0.0.1"]
        environment[name] = ",".join(filter(None, hosts))
    required = [PATIENCE, CONFIGURATION]
    if not public:
        # The last is asked first.
        required += [LOOPBACK, SAME_SITE, *([SAME_USER] if knows_users() else [])]
    options = [environment.get("NODE_OPTIONS", ""), *(f'--require "{x!s}"' for x in required)]
    environment["NODE_OPTIONS"] = " ".join(options).strip()
    return environment
