"""``nnictl``, but a manager has a minute to start, and must be of this user.

Three seconds, NNI's own patience, are not enough where nothing of the manager is in the machine's
memory yet, or others keep the cores busy. Another user who takes the port after it was found free,
and before the manager listens on it, would be given the configuration, and asked for the results.
"""

from __future__ import annotations

from typing import Any

from nni.experiment import launcher
from nni.tools.nnictl.nnictl import parse_args

from nni_spos.experiment.connections import check_listener

_check_rest_server = launcher._check_rest_server


PATIENCE_S = 60
"""As many looks for the manager, a second apart."""


def _check_manager(port: int, **options: Any) -> None:
    _check_rest_server(port, retry=PATIENCE_S, **options)
    check_listener(port)


if __name__ == "__main__":
    launcher._check_rest_server = _check_manager
    parse_args()
