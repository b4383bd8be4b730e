"""``nnictl``, but the configuration is given to a manager of this user alone.

Another user who takes the port after it was found free, and before the manager listens on it,
would be given the configuration, and asked for the results.
"""

from __future__ import annotations

from typing import Any

from nni.experiment import launcher
from nni.tools.nnictl.nnictl import parse_args

from nni_spos.experiment.connections import check_listener

_check_rest_server = launcher._check_rest_server


def _check_manager(port: int, *arguments: Any, **options: Any) -> None:
    _check_rest_server(port, *arguments, **options)
    check_listener(port)


if __name__ == "__main__":
    launcher._check_rest_server = _check_manager
    parse_args()
