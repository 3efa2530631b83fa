"""Silences what other people's libraries print, from Python or from C++, where their callers have no say in it."""

from __future__ import annotations

import contextlib
import logging
import os
import sys
import warnings
from collections.abc import Iterator
from typing import TextIO


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Drops progress, notes and warnings of the block, on both standard streams of the whole process. Exceptions stay."""
    disabled = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with open(os.devnull, "w") as nothing, warnings.catch_warnings(), _replaced(1, nothing), _replaced(2, nothing):
            warnings.simplefilter("ignore")
            with contextlib.redirect_stdout(nothing), contextlib.redirect_stderr(nothing):
                yield
    finally:
        logging.disable(disabled)


@contextlib.contextmanager
def _replaced(descriptor: int, file: TextIO) -> Iterator[None]:
    """Makes a standard stream go to `file`; one that the process was started without stays closed."""
    stream = {1: sys.stdout, 2: sys.stderr}[descriptor]
    with contextlib.suppress(AttributeError, OSError, ValueError):  # none, or closed
        stream.flush()
    try:
        saved = os.dup(descriptor)
    except OSError:
        yield
        return
    try:
        os.dup2(file.fileno(), descriptor)
        yield
    finally:
        os.dup2(saved, descriptor)
        os.close(saved)
