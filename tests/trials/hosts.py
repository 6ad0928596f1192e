"""Two hosts made of namespaces: each with a network, a name and mounts of its own, and one link
between them, which can be cut and mended."""

import ctypes
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

KINDS = {"net": 0x40000000, "uts": 0x04000000, "mnt": 0x00020000}
"""The namespaces of a host, by their names in /proc, and what setns(2) calls them."""

PATIENCE = 5
"""Seconds after which the file server gives up a host that it does not hear of, and its locks."""

SERVER = f"""\
volume posix
  type storage/posix
  option directory {{folder}}
end-volume
volume locks
  type features/locks
  subvolumes posix
end-volume
volume server
  type protocol/server
  option transport-type tcp
  option transport.socket.bind-address {{address}}
  option transport.socket.listen-port 24007
  option transport.tcp-user-timeout {PATIENCE}
  option transport.socket.keepalive-time 2
  option transport.socket.keepalive-interval 1
  option transport.socket.keepalive-count {PATIENCE - 2}
  option auth.addr.locks.allow *
  subvolumes locks
end-volume
"""

CLIENT = """\
volume shared
  type protocol/client
  option transport-type tcp
  option remote-host {address}
  option remote-port 24007
  option remote-subvolume locks
  option ping-timeout 60
end-volume
"""


def missing(*programs: str) -> str:
    """Why there can be no two hosts here with these programs on them; empty: there can be."""
    if os.geteuid() != 0:
        return "only root may make network namespaces"
    for program in ("ip", "unshare", "nsenter", "mount", *programs):
        if shutil.which(program) is None:
            return f"the program '{program}' is not installed"
    made = subprocess.run(["unshare", "--net", "--uts", "--mount", "true"], capture_output=True)
    return made.stderr.decode().strip() if made.returncode else ""


class Host:
    """A host, for as long as any of its processes lives."""

    def __init__(self, name: str, address: str) -> None:
        self.name = name
        self.address = address
        command = ["unshare", "--net", "--uts", "--mount", "sleep", "infinity"]
        self._holder = subprocess.Popen(command)
        wait_until(lambda: _namespace(self.pid) not in (None, _namespace(os.getpid())))
        self._number = _namespace(self.pid)
        self.do("hostname", name)
        self.do("ip", "link", "set", "lo", "up")

    @property
    def pid(self) -> int:
        return self._holder.pid

    def command(self, *command: str | Path) -> list[str]:
        """A command, as one that runs on this host."""
        return ["nsenter", "-t", str(self.pid), "-n", "-u", "-m", *map(str, command)]

    def do(self, *command: str | Path) -> None:
        subprocess.run(self.command(*command), check=True, capture_output=True)

    def sees(self, path: Path) -> bool:
        """Whether it can look into a folder, which it cannot until a cut link is mended."""
        return not subprocess.run(self.command("ls", path), capture_output=True).returncode

    def enter(self) -> None:
        """Move this process, of one thread, to the host."""
        here = os.getcwd()
        libc = ctypes.CDLL(None, use_errno=True)
        for kind, number in KINDS.items():
            descriptor = os.open(f"/proc/{self.pid}/ns/{kind}", os.O_RDONLY)
            if libc.setns(descriptor, number):
                raise OSError(ctypes.get_errno(), f"setns to {kind} of {self.name}")
            os.close(descriptor)
        os.chdir(here)

    def die(self) -> None:
        """Kill all its processes at once, of which its namespaces die."""
        while found := [pid for pid in _pids() if _namespace(pid) == self._number]:
            for pid in found:
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            time.sleep(0.05)
        self._holder.wait()

    def link(self, state: str) -> None:
        """Cut the link to the other host (``"down"``), or mend it (``"up"``)."""
        self.do("ip", "link", "set", "eth0", state)


def _pids() -> list[int]:
    return [int(name) for name in os.listdir("/proc") if name.isdecimal()]


def _namespace(pid: int) -> int | None:
    """The number of a process's network namespace; ``None`` for one that is dead."""
    with suppress(OSError):
        return os.stat(f"/proc/{pid}/ns/net").st_ino
    return None


@contextmanager
def two_hosts() -> Iterator[tuple[Host, Host]]:
    """Two hosts and the link between them; nothing is left of either in the end."""
    hosts: list[Host] = []
    try:
        for name, address in (("near", "10.77.0.1"), ("far", "10.77.0.2")):
            hosts.append(Host(name, address))
        near, far = hosts
        ends = [
            ["name", "eth0", "netns", str(near.pid)],
            ["name", "eth0", "netns", str(far.pid)],
        ]
        subprocess.run(
            ["ip", "link", "add", *ends[0], "type", "veth", "peer", *ends[1]], check=True
        )
        for host in hosts:
            host.do("ip", "addr", "add", f"{host.address}/24", "dev", "eth0")
            # A namespace that dies takes both ends of its link along: this host keeps its address.
            host.do("ip", "addr", "add", f"{host.address}/32", "dev", "lo")
            host.link("up")
        yield near, far
    finally:
        for host in hosts:
            host.die()


def share(folder: Path, at: Path, near: Host, far: Host, logs: Path) -> None:
    """Serve a folder on the near host, and mount it at a place on both, as a network file system
    with locks (GlusterFS)."""
    for path in (folder, at, logs):
        path.mkdir(parents=True, exist_ok=True)
    files = {"server": (SERVER, folder), "client": (CLIENT, folder)}
    for name, (text, what) in files.items():
        (logs / f"{name}.vol").write_text(text.format(folder=what, address=near.address))
    server = ["glusterfsd", "-f", logs / "server.vol", "-l", logs / "server.log"]
    near.do(*server, "-p", logs / "server.pid")
    for host in (near, far):
        client = ["glusterfs", "-f", logs / "client.vol", "-l", logs / f"{host.name}.log"]
        host.do(*client, at)
        mounts = Path(f"/proc/{host.pid}/mounts")
        wait_until(lambda mounts=mounts: f" {at} " in mounts.read_text())  # type: ignore[misc]


def wait_until(condition: Callable[[], bool], seconds: float = 120) -> None:
    """Raise ``TimeoutError`` where that is in vain."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError("waited in vain")
        time.sleep(0.05)
