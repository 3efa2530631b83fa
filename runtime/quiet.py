"""Silences what other people's libraries print, from Python or from C++, where their callers have no say in it."""

from __future__ import annotations

import contextlib
import logging
import os
import sys
import warnings
from collections.abc import Iterator


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Drops progress, notes and warnings of the block, on both standard streams of the whole process. Exceptions stay."""
    disabled = logging.root.manager.disable
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    saved = os.dup(1), os.dup(2)
    logging.disable(logging.WARNING)
    try:
        with open(os.devnull, "w") as nothing, warnings.catch_warnings():
            warnings.simplefilter("ignore")
            os.dup2(nothing.fileno(), 1)
            os.dup2(nothing.fileno(), 2)
            with contextlib.redirect_stdout(nothing), contextlib.redirect_stderr(nothing):
                yield
    finally:
        for descriptor, number in zip(saved, (1, 2)):
            os.dup2(descriptor, number)
            os.close(descriptor)
        logging.disable(disabled)
