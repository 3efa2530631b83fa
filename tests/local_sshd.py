"""A real sshd of the test's own, on a free port of 127.0.0.1: its keys and settings, and the user who runs the tests."""

import getpass
import os
import shutil
import socket
import subprocess
import time
from pathlib import Path
from types import SimpleNamespace

import pytest

SSHD = shutil.which("sshd", path=f"{os.environ['PATH']}:/usr/sbin:/sbin")

SERVER = """
Port {port}
ListenAddress 127.0.0.1
HostKey {folder}/host_key
AuthorizedKeysFile {folder}/user_key.pub
PidFile {folder}/sshd.pid
StrictModes no
UsePAM no
PasswordAuthentication no
SetEnv HOME={folder}/home
"""
CLIENT = """
Host board
  HostName 127.0.0.1
  Port {port}
  User {user}
  IdentityFile {folder}/user_key
  IdentitiesOnly yes
  UserKnownHostsFile {folder}/known_hosts
  StrictHostKeyChecking accept-new
"""


@pytest.fixture
def sshd(tmp_path):
    """`board`, as `ssh` on `.path` knows it: `.run(command)` and `.start(command)` with that path, `.home` there, `.stop()`."""
    for tool, found in (("sshd", SSHD), ("ssh", shutil.which("ssh")), ("ssh-keygen", shutil.which("ssh-keygen"))):
        if not found:
            pytest.skip(f"{tool} is not installed; on Debian: apt install openssh-server openssh-client")
    folder = tmp_path / "sshd"
    (folder / "home").mkdir(parents=True)
    (folder / "path").mkdir()
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        values = {"port": probe.getsockname()[1], "folder": folder, "user": getpass.getuser()}
    for key in ("host_key", "user_key"):
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", folder / key], check=True)
    (folder / "sshd_config").write_text(SERVER.format(**values))
    (folder / "ssh_config").write_text(CLIENT.format(**values))
    client = folder / "path/ssh"
    client.write_text(f'#!/bin/sh\nexec {shutil.which("ssh")} -F "{folder}/ssh_config" "$@"\n')
    client.chmod(0o755)
    if os.geteuid() == 0:  # where sshd keeps its unprivileged half
        Path("/run/sshd").mkdir(exist_ok=True)
    log = folder / "log"
    with open(log, "wb") as file:
        server = subprocess.Popen([SSHD, "-D", "-e", "-f", folder / "sshd_config"], stderr=file)
    until = time.monotonic() + 20
    while "Server listening" not in log.read_text():
        assert server.poll() is None and time.monotonic() < until, log.read_text()
        time.sleep(0.05)
    path = f"{folder}/path{os.pathsep}{os.environ['PATH']}"
    options = {"env": os.environ | {"PATH": path}, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}

    def stop() -> None:
        server.terminate()
        server.wait()

    yield SimpleNamespace(
        path=path,
        home=folder / "home",
        run=lambda command: subprocess.run(command, timeout=300, **options),
        start=lambda command: subprocess.Popen(command, **options),
        stop=stop,
    )
    stop()
