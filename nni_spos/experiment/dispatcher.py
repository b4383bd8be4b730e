"""NNI's side of a tuner's process: it must not end because of what a trial reported."""

from __future__ import annotations

import sys
from typing import Any

MODULE = "nni.runtime.msg_dispatcher"


def accept_any_result() -> None:
    """Let NNI's dispatcher hand on as text what it cannot read as JSON.

    It ends at such a result without a word, and the experiment stands still; a resumed one, which
    reads all results again, ends there too. A tuner knows what to do with a result that is none.
    Without effect in a process that is not NNI's dispatcher.
    """
    module: Any = sys.modules.get(MODULE)
    if module is None or hasattr(module.load, "accepts_any"):
        return
    load = module.load

    def load_or_text(string: str, **options: Any) -> Any:
        try:
            return load(string, **options)
        except Exception:  # NNI makes objects of what the JSON says: anything can go wrong
            return string

    load_or_text.accepts_any = True  # type: ignore[attr-defined]
    module.load = load_or_text
