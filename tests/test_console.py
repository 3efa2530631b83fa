"""What the commands share. Most of it concerns descriptors and exit codes, so it runs in processes of its own."""

import os
import signal
import subprocess
import sys
import time

import pytest

from t5g2.runtime import console
from t5g2.runtime.console import Parser, command, naming, quiet_dependencies, run_command, stderr_console
from t5g2.runtime.errors import T5g2Error, UsageError

HEAD = """
import errno, logging, os, subprocess, sys, threading, warnings
from t5g2.runtime.console import *
from t5g2.runtime.errors import *
"""


def run(body: str, *args: str, prologue: str = "", **options) -> subprocess.CompletedProcess:
    """A command whose main is `body`, as a process."""
    main = "".join(f"    {line}\n" for line in body.strip().splitlines())
    script = f"{HEAD}{prologue}\n@command('t5g2-x')\ndef main(argv):\n{main}\nsys.exit(main())\n"
    env = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
    options = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True, "timeout": 60, "env": env} | options
    return subprocess.run([sys.executable, "-c", script, *args], **options)


def failing(error: BaseException):
    def fn():
        raise error

    return fn


# --- errors and exit codes ---


@pytest.mark.parametrize(
    ("error", "code", "line"),
    [
        (T5g2Error("a.pte: truncated; copy it again"), 1, "error: a.pte: truncated; copy it again"),
        (UsageError("--max-source: 0; give 1 or more"), 2, "error: --max-source: 0; give 1 or more"),
        (T5g2Error("two\nlines and \x1b[31mcolour\x1b[0m"), 1, r"error: two lines and \x1b[31mcolour\x1b[0m"),
        (T5g2Error("naïve 你好 \udcff"), 1, r"error: naïve 你好 \udcff"),
        (KeyboardInterrupt(), 130, "interrupted"),
        (OSError(28, "No space left on device", "out/text.pte"), 1,
         "error: out/text.pte: no space left on device; free some space or write elsewhere"),
        (OSError(28, "No space left on device"), 1,
         "error: no space left on device; free some space or write elsewhere"),
        (PermissionError(13, "Permission denied", "out"), 1, "error: out: permission denied; check the permissions"),
        (FileNotFoundError(2, "No such file or directory", "a", None, "b"), 1,
         "error: a: b: no such file or directory; check the path"),
        (OSError(5, "Input/output error", b"raw\xff"), 1, r"error: raw\udcff: input/output error"),
        (MemoryError(), 1,
         "error: not enough memory; close other programs, or ask for less (a smaller model, a shorter source)"),
        (RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried"), 1,
         "error: not enough memory; close other programs, or ask for less (a smaller model, a shorter source)"),
        (ValueError("bad\nvalue"), 1,
         "error: unexpected ValueError: bad value; run again with --verbose for the traceback"),
        (AssertionError(), 1, "error: unexpected AssertionError; run again with --verbose for the traceback"),
        (BrokenPipeError(32, "Broken pipe"), 1, "error: broken pipe"),
    ],
)  # fmt: skip
def test_error_is_one_line_and_an_exit_code(error, code, line, capsys):
    assert run_command(failing(error), "t5g2-x") == code
    out, err = capsys.readouterr()
    assert (out, err) == ("", f"t5g2-x: {line}\n")


def test_long_unexpected_message_is_cut(capsys):
    run_command(failing(RuntimeError("x" * 100_000)), "t5g2-x")
    assert len(capsys.readouterr().err) < 600


@pytest.mark.parametrize("error", [T5g2Error("bad"), ValueError("bad"), OSError(2, "gone", "a")])
def test_verbose_shows_the_traceback_and_the_line(error, capsys):
    assert run_command(failing(error), "t5g2-x", verbose=True) == 1
    err = capsys.readouterr().err
    assert "Traceback (most recent call last)" in err and "in failing" not in err and ", in fn\n" in err
    assert err.splitlines()[-1].startswith("t5g2-x: error: ")


@pytest.mark.parametrize(("result", "code"), [(None, 0), (0, 0), (3, 3)])
def test_result_is_the_exit_code(result, code):
    assert run_command(lambda: result, "t5g2-x") == code


@pytest.mark.parametrize(("raised", "code", "err"), [(None, 0, ""), (2, 2, ""), ("why", 1, "t5g2-x: error: why\n")])
def test_system_exit(raised, code, err, capsys):
    assert run_command(failing(SystemExit(raised)), "t5g2-x") == code
    assert capsys.readouterr().err == err


def test_command_passes_the_arguments(monkeypatch, capsys):
    seen = []

    @command("t5g2-x")
    def main(argv):
        """Docs."""
        seen.append(argv)
        if argv:
            raise ValueError

    assert main([]) == 0 and main(["--", "--verbose"]) == 1
    assert "Traceback" not in capsys.readouterr().err
    monkeypatch.setattr(sys, "argv", ["x", "--verbose"])
    assert main() == 1 and "Traceback" in capsys.readouterr().err
    assert seen == [[], ["--", "--verbose"], ["--verbose"]] and main.__doc__ == "Docs."


def test_naming_adds_the_file():
    with pytest.raises(OSError) as caught, naming("out/text.pte"):
        raise OSError(28, "No space left on device")
    assert caught.value.filename == "out/text.pte"
    with pytest.raises(OSError) as caught, naming("out/text.pte"):
        raise OSError(13, "Permission denied", "other")
    assert caught.value.filename == "other"


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs /dev/full")
def test_full_disk():
    done = run("with naming('out/a.bin'), open('/dev/full', 'wb') as f:\n    f.write(bytes(100000))")
    line = "no space left on device; free some space or write elsewhere\n"
    assert (done.returncode, done.stderr) == (1, f"t5g2-x: error: out/a.bin: {line}")
    with open("/dev/full", "w") as full:
        done = run("print('result')", stdout=full)
    assert (done.returncode, done.stderr) == (1, f"t5g2-x: error: the output: {line}")


@pytest.mark.parametrize("lines", [1, 100_000])
def test_reader_went_away(lines):
    read, write = os.pipe()
    os.close(read)
    done = run(f"for i in range({lines}):\n    print('line', i)", stdout=write)
    os.close(write)
    assert (done.returncode, done.stderr) == (141, "")


def test_reader_went_away_from_both():
    read, write = os.pipe()
    os.close(read)
    done = run("print('x'); raise ValueError", stdout=write, stderr=write)
    os.close(write)
    assert done.returncode == 1


def test_help_into_a_closed_pipe():
    read, write = os.pipe()
    os.close(read)
    done = run("Parser('t5g2-x').parse_args(argv)", "--help", stdout=write)
    os.close(write)
    assert (done.returncode, done.stderr) == (141, "")


def test_output_before_a_failure_is_kept():
    done = run("print('half'); raise T5g2Error('bad')")
    assert (done.returncode, done.stdout, done.stderr) == (1, "half\n", "t5g2-x: error: bad\n")


def test_interrupt():
    body = "import time\nprint('ready', flush=True)\ntime.sleep(60)"
    main = "".join(f"    {line}\n" for line in body.splitlines())
    script = f"{HEAD}\n@command('t5g2-x')\ndef main(argv):\n{main}\nsys.exit(main())\n"
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    process = subprocess.Popen([sys.executable, "-c", script], **pipes)
    assert process.stdout.readline() == "ready\n"
    time.sleep(0.1)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=30)
    assert (process.returncode, err) == (130, "t5g2-x: interrupted\n")


# --- quiet dependencies ---

NOISE = """
os.write(2, b"[program.cpp:153] InternalConsistency verification requested\\n")
warnings.warn("deprecated")
warnings.simplefilter("always")
warnings.warn("deprecated")
logging.getLogger("torch.some.where").warning("log noise")
print("by Python", file=sys.stderr)
child = logging.getLogger("executorch"); child.setLevel(logging.DEBUG); child.warning("log noise")
subprocess.run([sys.executable, "-c", "import os; os.write(2, b'from a child\\\\n')"])
thread = threading.Thread(target=os.write, args=(2, b"from a thread\\n")); thread.start(); thread.join()
"""


def test_noise_is_hidden_and_ours_is_not():
    ours = "console.print('inside')\nstderr_console().print('[b]rich[/b] :smile:')\nprint('result')"
    done = run(f"{NOISE}\n{ours}\n{NOISE}", prologue="console = stderr_console()\nconsole.print('before')")
    assert (done.returncode, done.stdout, done.stderr) == (0, "result\n", "before\ninside\n[b]rich[/b] :smile:\n")


def test_progress_is_ours_and_keeps_the_noise_out():
    # On a terminal rich would send sys.stderr through the bar, and with it what libraries write there.
    body = """
with stderr_progress("{task.description}") as progress:
    task = progress.add_task("writing text.pte", total=1)
    sys.stderr.write("[noise]\\n")
    progress.advance(task)
"""
    seen = on_a_terminal(body)
    assert "writing text.pte" in seen and "noise" not in seen


def on_a_terminal(body: str) -> str:
    import pty

    ours, its = pty.openpty()
    run(body, stderr=its)
    os.close(its)
    seen = b""
    try:
        while piece := os.read(ours, 65536):
            seen += piece
    except OSError:  # Linux's way to say that the terminal is closed
        pass
    os.close(ours)
    return seen.decode()


def test_verbose_hides_nothing():
    err = run(NOISE, "--verbose").stderr
    for text in ("program.cpp", "UserWarning: deprecated", "log noise", "from a child", "from a thread", "by Python"):
        assert text in err


def test_everything_is_as_before_afterwards():
    body = f"def noise():\n{''.join(f'    {line}' + chr(10) for line in NOISE.strip().splitlines())}"
    twice = "with quiet_dependencies():\n    noise()\nprint('between', file=sys.stderr)\nnoise()"
    done = run("pass", prologue=f"{body}\n{twice}")
    before, _, after = done.stderr.partition("between\n")
    assert before == ""
    for text in ("program.cpp", "UserWarning: deprecated", "log noise", "from a child", "from a thread", "by Python"):
        assert text in after


def test_errors_come_through():
    assert run(f"{NOISE}\nraise T5g2Error('bad')").stderr == "t5g2-x: error: bad\n"
    assert run("Parser('t5g2-x').parse_args(['--no'])").stderr.startswith("t5g2-x: error: unrecognized")


def test_unexpected_error_tells_what_the_library_said_last():
    done = run("os.write(2, b'first\\nthe cause\\n\\n'); raise RuntimeError('code 0x20')")
    line = "unexpected RuntimeError: code 0x20 (last said: the cause); run again with --verbose for the traceback"
    assert (done.returncode, done.stderr) == (1, f"t5g2-x: error: {line}\n")


def test_notes_are_the_last_lines():
    with pytest.raises(ValueError) as caught, quiet_dependencies():
        for i in range(3000):
            os.write(2, b"line %d\n" % i)
        raise ValueError
    assert caught.value.__notes__ == [f"line {i}" for i in range(2980, 3000)]


def test_nested_and_threaded(capfd):
    import threading

    def enter():
        with quiet_dependencies():
            os.write(2, b"noise\n")
            time.sleep(0.01)

    with quiet_dependencies():
        with quiet_dependencies():
            os.write(2, b"noise\n")
        os.write(2, b"noise\n")
        print("noise", file=sys.stderr)
        stderr_console().print("inside")
    threads = [threading.Thread(target=enter) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    os.write(2, b"after\n")
    assert capfd.readouterr().err == "inside\nafter\n"
    assert console._depth == 0


def test_a_handler_made_inside_still_works_afterwards():
    done = run(
        "pass",
        prologue="with quiet_dependencies():\n    handler = logging.StreamHandler()\n"
        "logging.getLogger('a').addHandler(handler)\nlogging.getLogger('a').error('late')",
    )
    assert done.stderr == "late\n"


def test_crash_of_native_code_leaves_a_stack():
    done = run("os.abort()")
    assert done.returncode == -signal.SIGABRT
    assert "Fatal Python error: Aborted" in done.stderr and "in main" in done.stderr


@pytest.mark.parametrize("closed", [(2,), (1,), (0, 1, 2)])
def test_closed_descriptors(tmp_path, closed):
    path = tmp_path / "bundle"
    noise = "os.write(2, b'noise'); print('x'); stderr_console().print('y')"
    body = f"f = open({str(path)!r}, 'wb')\n{noise}\nf.write(b'ours'); f.close()"
    done = run(body, preexec_fn=lambda: [os.close(n) for n in closed])
    assert done.returncode == 0 and path.read_bytes() == b"ours"
    assert run(body + "\nraise UsageError('bad')", preexec_fn=lambda: [os.close(n) for n in closed]).returncode == 2
    assert run("raise T5g2Error('bad')", preexec_fn=lambda: os.close(2)).stdout == ""


def test_no_place_for_temporary_files():
    prologue = "import tempfile\ntempfile.TemporaryFile = lambda *a, **k: open('/nonexistent/x', 'w')"
    done = run("os.write(2, b'noise'); raise ValueError('bad')", prologue=prologue)
    assert done.stderr == "t5g2-x: error: unexpected ValueError: bad; run again with --verbose for the traceback\n"


def test_console_follows_stderr(capsys):
    out = stderr_console()
    with quiet_dependencies():
        out.print("[1/2] text.pte")
    assert capsys.readouterr().err == "[1/2] text.pte\n"


# --- arguments ---


def parser():
    out = Parser("t5g2-x", description="Does x.")
    out.add_argument("--limit", type=int, default=8192, help="source tokens")
    out.add_argument("--name", help="a name")
    out.add_argument("--fast", action="store_true", help="be fast")
    return out


@pytest.mark.parametrize("argv", [["--limit", "many"], ["--lim", "1"], ["extra"], ["--limit"]])
def test_usage_error_is_one_line(argv, capsys):
    assert run_command(lambda: parser().parse_args(argv) and 0, "t5g2-x") == 2
    err = capsys.readouterr().err
    assert err.startswith("t5g2-x: error: ") and err.endswith("(see t5g2-x --help)\n") and err.count("\n") == 1
    assert argv[0] in err


def test_help_shows_the_defaults_that_say_something(capsys):
    assert run_command(lambda: parser().parse_args(["--help"]), "t5g2-x") == 0
    out = " ".join(capsys.readouterr().out.split())
    assert "source tokens (default: 8192)" in out and "--verbose" in out
    assert "default: None" not in out and "default: False" not in out


def test_parsed():
    args = parser().parse_args(["--limit", "3", "--verbose"])
    assert (args.limit, args.verbose, args.fast) == (3, True, False)
