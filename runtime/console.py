"""What the commands share: one-line errors, exit codes, a quiet stderr, argument parsing.

Only commands import this module; it is the one place that touches stderr. A command is

    @command("t5g2-export")
    def main(argv: list[str]) -> int | None: ...

and exits with 0, with 1 or 2 and one line `t5g2-export: error: ...` on stderr, with 130 when interrupted, or with 141
and no word when the reader of its output went away. `--verbose` adds the traceback and lets everything through.
"""

import argparse
import contextlib
import errno
import faulthandler
import functools
import logging
import os
import select
import sys
import tempfile
import threading
import traceback
import warnings
from collections.abc import Callable, Iterator

from rich.console import Console
from rich.progress import Progress, ProgressColumn

from t5g2.runtime.errors import T5g2Error, UsageError

INTERRUPTED = 130
READER_GONE = 141

_REMEDIES = {
    **dict.fromkeys((errno.ENOENT, errno.ENOTDIR), "; check the path"),
    **dict.fromkeys((errno.ENOSPC, errno.EDQUOT, errno.EROFS), "; free some space or write elsewhere"),
    **dict.fromkeys((errno.EACCES, errno.EPERM), "; check the permissions"),
}

_lock = threading.Lock()
_depth = 0
_silence = None
_real = None  # the stream behind stderr while it is hidden


def command(prog: str) -> Callable:
    """Decorator for `main(argv)`: runs it under `run_command`, verbose where argv holds --verbose.

    The decorated function takes argv (None means sys.argv[1:], as entry points call it) and returns the exit code.
    """

    def decorate(main: Callable[[list[str]], int | None]) -> Callable[..., int]:
        @functools.wraps(main)
        def run(argv: list[str] | None = None) -> int:
            args = list(sys.argv[1:] if argv is None else argv)
            options = args[: args.index("--")] if "--" in args else args
            return run_command(lambda: main(args), prog, verbose="--verbose" in options)

        return run

    return decorate


def run_command(fn: Callable[[], int | None], prog: str, *, verbose: bool = False) -> int:
    """Call `fn` with dependencies quiet; return the exit code, after one line on stderr for whatever went wrong.

    T5g2Error gives its `exit_code`; SystemExit (argparse) its own; every other exception 1, but for those that the
    module's docstring lists. Never raises.
    """
    _open_standard_streams()
    code = 0
    try:
        try:
            with quiet_dependencies(verbose):
                code = fn() or 0
        except SystemExit as exit:
            code = exit.code or 0
            if isinstance(code, str):
                code = _say(prog, code) or 1
        with naming("the output"):
            sys.stdout.flush()  # a full disk or a closed pipe shows here, not in the interpreter's shutdown
        return code
    except BaseException as error:
        code, message = _explain(error)
        if verbose and code not in (INTERRUPTED, READER_GONE):
            _write(traceback.format_exc())
        if code != READER_GONE:
            _say(prog, message, kind="" if code == INTERRUPTED else "error: ")
        try:
            sys.stdout.flush()  # what was printed before the failure belongs to the output
        except (OSError, ValueError):
            _discard(1)
        return code


@contextlib.contextmanager
def naming(path: str | os.PathLike) -> Iterator[None]:
    """Adds the file's name to an OSError without one: a write that finds the disk full does not say where."""
    try:
        yield
    except OSError as error:
        if error.filename is None and error.errno is not None and not isinstance(error, BrokenPipeError):
            error.filename = os.fspath(path)
        raise


@contextlib.contextmanager
def quiet_dependencies(verbose: bool = False) -> Iterator[None]:
    """Hides what libraries say on stderr, through Python or from C++, and lets `stderr_console` through.

    Both `sys.stderr` (ExecuTorch's Python binding logs there) and descriptor 2 (XNNPACK, subprocesses) go to a file
    without a name; when an exception that is not ours leaves, its last lines go with it as notes. Warnings and log
    records below ERROR are dropped. So inside, `stderr_console` and `run_command` are what the user sees; a crash of
    native code still prints Python's stack. A subprocess that should be heard: `stderr=stderr_console().file.fileno()`.
    Whole process, all threads; nesting is harmless. With `verbose` nothing is hidden.
    """
    global _depth, _silence
    if verbose:
        yield
        return
    with _lock:
        if _depth == 0:
            _silence = _Silence()
        _depth += 1
    try:
        yield
    except Exception as error:
        if not isinstance(error, (T5g2Error, OSError)) and not hasattr(error, "__notes__"):
            for line in _silence.said():
                error.add_note(line)
        raise
    finally:
        with _lock:
            _depth -= 1
            if _depth == 0:
                _silence.close()


def stderr_console() -> Console:
    """A rich console on the real stderr, also inside `quiet_dependencies`. Text is printed as it is, no markup."""
    return Console(file=_Real(), markup=False, highlight=False, emoji=False, soft_wrap=True)


def stderr_progress(*columns: ProgressColumn | str) -> Progress:
    """A rich progress bar on `stderr_console`; rich's own default would print what we hide above the bar."""
    return Progress(*columns, console=stderr_console(), redirect_stdout=False, redirect_stderr=False)


class _Real:
    def __getattr__(self, name: str):
        return getattr(_real or sys.stderr, name)  # the real stderr at the time of each use


class Formatter(argparse.ArgumentDefaultsHelpFormatter):
    """Help that shows the defaults that say something; None, False and the empty string do not."""

    def _get_help_string(self, action: argparse.Action) -> str | None:
        if action.default is None or action.default is False or action.default == "":
            return action.help
        return super()._get_help_string(action)


class Parser(argparse.ArgumentParser):
    """ArgumentParser with --verbose, defaults in the help, no abbreviations, and errors of one line (exit 2)."""

    def __init__(self, *args, **options):
        options.setdefault("formatter_class", Formatter)
        options.setdefault("allow_abbrev", False)
        super().__init__(*args, **options)
        self.add_argument("--verbose", action="store_true", help="show tracebacks and what the libraries say")

    def error(self, message: str):
        _say(self.prog, f"{message} (see {self.prog} --help)")
        raise SystemExit(UsageError.exit_code)


class _Silence(contextlib.ExitStack):
    """Stderr hidden from here to `close`."""

    def __init__(self):
        global _real
        super().__init__()
        self._sink = None
        self.enter_context(warnings.catch_warnings())
        warnings.simplefilter("ignore")
        warnings.showwarning = lambda *_, **__: None  # a library may put its own filter in front of ours
        # By level for all loggers at once: torch sets levels on its own loggers when it is imported.
        self.callback(logging.disable, logging.root.manager.disable)
        logging.disable(max(logging.root.manager.disable, logging.WARNING))
        previous = sys.stderr
        _flush(previous)
        try:
            real = os.fdopen(os.dup(2), "w", 1, getattr(previous, "encoding", None), "backslashreplace")
        except OSError:  # closed: nothing to hide
            return
        self.enter_context(real)
        self._sink = self.enter_context(_sink())
        self.callback(self._restore, previous, real.fileno())
        _real = previous  # a stream elsewhere, such as a test's capture, is the real one for Python
        with contextlib.suppress(OSError, ValueError, AttributeError):
            _real = real if previous.fileno() == 2 else previous
        os.dup2(self._sink.fileno(), 2)
        # On descriptor 2, not on the file: a log handler made inside may hold it, and is heard again afterwards.
        sys.stderr = os.fdopen(2, "w", 1, "utf-8", "backslashreplace", closefd=False)
        if not faulthandler.is_enabled():
            faulthandler.enable(file=real.fileno())
            self.callback(faulthandler.disable)

    @staticmethod
    def _restore(previous, real: int) -> None:
        global _real
        _flush(sys.stderr)
        _flush(_real)
        os.dup2(real, 2)
        sys.stderr, _real = previous, None

    def said(self, lines: int = 20) -> list[str]:
        """The last lines that were hidden."""
        _flush(sys.stderr)
        try:
            end = os.lseek(self._sink.fileno(), 0, os.SEEK_END)
            tail = os.pread(self._sink.fileno(), 8192, max(0, end - 8192))
        except (OSError, AttributeError):
            return []
        return [line for line in tail.decode("utf-8", "replace").splitlines() if line.strip()][-lines:]


def _sink():
    with contextlib.suppress(OSError):  # no place for temporary files
        return tempfile.TemporaryFile("w+b", buffering=0)
    return open(os.devnull, "w+b", buffering=0)


def _explain(error: BaseException) -> tuple[int, str]:
    """Exit code and message of an exception."""
    if isinstance(error, KeyboardInterrupt):
        return INTERRUPTED, "interrupted"
    if isinstance(error, T5g2Error):
        return error.exit_code, str(error)
    if isinstance(error, BrokenPipeError) and _reader_gone():
        return READER_GONE, ""
    if isinstance(error, MemoryError) or "can't allocate memory" in str(error):
        return 1, "not enough memory; close other programs, or ask for less (a smaller model, a shorter source)"
    if isinstance(error, OSError) and error.strerror:
        named = [n for n in (error.filename, error.filename2) if isinstance(n, (str, bytes, os.PathLike))]
        where = "".join(f"{os.fsdecode(n)}: " for n in named)
        return 1, f"{where}{error.strerror.lower()}{_REMEDIES.get(error.errno, '')}"
    hint = "".join(f" (last said: {line})" for line in getattr(error, "__notes__", [])[-1:])
    what = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
    what = what if len(what) <= 400 else what[:400] + " ..."
    return 1, f"unexpected {what}{hint}; run again with --verbose for the traceback"


def _say(prog: str, message: str, kind: str = "error: ") -> None:
    """One line, whatever the message holds: a file's name may have newlines and terminal codes in it."""
    line = " ".join(message.split())
    line = "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in line)
    _write(f"{prog}: {kind}{line}\n")


def _write(text: str) -> None:
    stream = _real or sys.stderr
    if stream is not None:  # print() would send the text to stdout
        try:
            stream.write(text)
            stream.flush()
        except (OSError, ValueError):
            _discard(2)


def _flush(stream) -> None:
    with contextlib.suppress(OSError, ValueError, AttributeError):
        stream.flush()


def _open_standard_streams() -> None:
    """Give closed descriptors 0 to 2 to the null device: the next file opened, our bundle say, would become stderr."""
    while (null := os.open(os.devnull, os.O_RDWR)) < 3:  # takes the lowest one that is free
        os.set_inheritable(null, True)
    os.close(null)
    sys.stdout = sys.stdout or open(os.devnull, "w")
    sys.stderr = sys.stderr or open(os.devnull, "w")


def _reader_gone() -> bool:
    """Whether stdout or stderr is a pipe that nobody reads any more (another pipe may have broken instead)."""
    poll = select.poll()
    for number in (1, 2):
        poll.register(number, 0)
    return any(event & (select.POLLERR | select.POLLHUP) for _, event in poll.poll(0))


def _discard(number: int) -> None:
    """Send what a standard stream still holds nowhere, so that the interpreter does not fail on it when it ends."""
    with contextlib.suppress(OSError):
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, number)
        os.close(null)
