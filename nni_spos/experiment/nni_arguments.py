"""What NNI tells a tuner when it starts it. Standard library alone: see `nni_spos.experiment`."""

from __future__ import annotations

import base64
import json
import sys
from typing import Any


def configuration() -> dict[str, Any]:
    """Return the experiment's configuration; empty if this process is not a tuner of NNI."""
    arguments = sys.argv
    if "--exp_params" not in arguments[:-1]:
        return {}
    return json.loads(base64.b64decode(arguments[arguments.index("--exp_params") + 1]))


def tuner_folder() -> str | None:
    """Return the `codeDirectory` of the tuner's configuration, which NNI made absolute."""
    return configuration().get("tuner", {}).get("codeDirectory") or None
