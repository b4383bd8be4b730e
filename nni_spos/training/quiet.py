"""Lightning and NNI without what they say about the machine."""

from __future__ import annotations

import contextlib
import logging
import warnings
from collections.abc import Iterator


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Hide what Lightning and NNI say about the machine and about what was chosen on purpose.

    Also NNI's lines about an exception, which it raises as well.
    """
    silent = {
        "pytorch_lightning": logging.ERROR,
        "lightning_fabric": logging.ERROR,
        "nni.nas": logging.CRITICAL,
    }
    loggers = {logging.getLogger(name): level for name, level in silent.items()}
    before = {logger: logger.level for logger in loggers}
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module="pytorch_lightning")
        for logger, level in loggers.items():
            logger.setLevel(level)
        try:
            yield
        finally:
            for logger, level in before.items():
                logger.setLevel(level)
