"""The command line in real processes that need not import it first.

``dstbench run`` takes seconds of CPU time to import torch and what draws its reports, and a
fraction of one to train toys. Here it is run in processes that are forked from one that has
imported all that, and run none of it. They have process ids, groups, signals and exit codes as any
others. Tests of imports, standard streams and how a process starts need ``sys.executable``.
"""

import atexit
import importlib
import json
import os
import select
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path

MODULES = (
    "torch._dynamo", "scipy.stats", "torch_fidelity", "dstbench.cli.app",
    "dstbench.cli.cell_commands", "dstbench.cli.results_commands", "dstbench.running",
    "dstbench.execution.pipeline", "dstbench.execution.worker", "dstbench.report.page",
    "dstbench.report.results",
    "dstbench.testing.suite", "dstbench_chirodiff", "dstbench_features", "dstbench_images",
    "dstbench_ldm", "dstbench_local", "dstbench_sketches",
)  # fmt: skip

ENVIRONMENT = os.environ | {"OMP_NUM_THREADS": "1"}
"""As it was before tests changed it."""


class Process:
    """A command line that is running, as :class:`subprocess.Popen` has one; it leads a group."""

    def __init__(self, arguments: Sequence[str], cwd: Path | None, env: Mapping[str, str]) -> None:
        told = {"arguments": arguments, "cwd": str(cwd or Path.cwd()), "env": dict(env)}
        self._streams = [
            tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace")  # noqa: SIM115
            for _ in range(2)
        ]
        self._said: tuple[str, str] | None = None
        reading, writing = os.pipe()
        files = [*(stream.fileno() for stream in self._streams), writing]
        socket.send_fds(_server(), [json.dumps(told).encode()], files)
        os.close(writing)
        self._status = os.fdopen(reading)
        self.pid = int(self._status.readline())
        self.returncode: int | None = None

    def poll(self) -> int | None:
        """The exit code (negative: the number of the signal that killed it), if it has ended."""
        return self._ended(0)

    def communicate(self, timeout: float | None = None) -> tuple[str, str]:
        """Its output and error output, when it has ended."""
        if self._ended(timeout) is None:
            raise subprocess.TimeoutExpired("dstbench", timeout or 0)
        if self._said is None:
            for stream in self._streams:
                stream.seek(0)
            self._said = self._streams[0].read(), self._streams[1].read()
            for each in (*self._streams, self._status):
                each.close()
        return self._said

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)

    def _ended(self, timeout: float | None) -> int | None:
        if self.returncode is None and select.select([self._status], [], [], timeout)[0]:
            self.returncode = int(self._status.readline())
        return self.returncode


def start(
    *arguments: str, cwd: Path | None = None, env: Mapping[str, str] | None = None
) -> Process:
    """Start ``dstbench`` with these arguments, in the current folder and environment unless others
    are given."""
    return Process(arguments, cwd, os.environ if env is None else env)


def run(
    *arguments: str, cwd: Path | None = None, env: Mapping[str, str] | None = None
) -> "subprocess.CompletedProcess[str]":
    """Run ``dstbench`` to its end."""
    process = start(*arguments, cwd=cwd, env=env)
    out, err = process.communicate()
    assert process.returncode is not None
    return subprocess.CompletedProcess(arguments, process.returncode, out, err)


@cache
def _server() -> socket.socket:
    """A connection to the process that others are forked from."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    command = [sys.executable, "-W", "ignore", __file__, str(theirs.fileno())]
    fds = [theirs.fileno()]
    server = subprocess.Popen(command, env=ENVIRONMENT, pass_fds=fds, start_new_session=True)
    theirs.close()

    def end() -> None:
        ours.close()  # which it hears
        server.wait()

    atexit.register(end)
    return ours


def _serve(connection: socket.socket) -> None:
    """Fork a process for each request, and return in it, as it was asked for."""
    for name in MODULES:
        importlib.import_module(name)
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for the keepers
    while True:
        request, fds, *_ = socket.recv_fds(connection, 1 << 20, 3)
        if not request:
            os._exit(0)
        if not os.fork():
            break
        for each in fds:
            os.close(each)
    connection.close()
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    *streams, status = fds
    if pid := os.fork():
        _keep(pid, status)
    os.close(status)
    os.setsid()
    signal.signal(signal.SIGINT, signal.default_int_handler)
    for number, stream in enumerate((os.open(os.devnull, os.O_RDONLY), *streams)):
        os.dup2(stream, number)
        os.close(stream)
    told = json.loads(request)
    os.chdir(told["cwd"])
    os.environ.clear()
    os.environ.update(told["env"])
    given = told["env"].get("PYTHONPATH", "").split(os.pathsep)
    sys.path[:0] = ["", *(each for each in given if each and each not in sys.path)]
    importlib.invalidate_caches()
    sys.argv = ["dstbench", *told["arguments"]]


def _keep(pid: int, status: int) -> None:
    """Tell the process id, then the exit code."""
    os.closerange(0, status)
    os.write(status, f"{pid}\n".encode())
    _, code = os.waitpid(pid, 0)
    os.write(status, f"{os.waitstatus_to_exitcode(code)}\n".encode())
    os._exit(0)


if __name__ == "__main__":
    sys.path.pop(0)  # the folder of this file
    _serve(socket.socket(fileno=int(sys.argv[1])))
    from dstbench.cli import main

    main()
