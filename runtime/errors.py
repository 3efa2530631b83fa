"""Errors that a user can act on.

Every message is one line that names the input, what was wrong with it and what to do. Commands print it on stderr
without a traceback and exit with `exit_code`; Python callers catch `T5g2Error`.
"""


class T5g2Error(Exception):
    """Something outside the program is wrong: a file, a checkpoint, a bundle, an input."""

    exit_code = 1


class UsageError(T5g2Error):
    """The caller asked for something that no input could satisfy: an unknown size, a flag out of range."""

    exit_code = 2
