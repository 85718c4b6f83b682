"""A real S3 server for tests: OpenStack Swift with its S3 interface, in an environment of its own, on the loopback.

Swift is installed once, from the package index, into a folder of the user's cache; starting it takes about a second.
"""

import ctypes
import signal
import socket
import subprocess
import time
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import final

from environments import installed_environment

SWIFT = "swift==2.38.3"
KINDS = ("account", "container", "object")
"""Swift's servers behind its proxy; each keeps its own ring."""
ACCESS, SECRET = "test:tester", "testing-secret-7f3a"
MIDDLEWARE = ("catch_errors", "healthcheck", "cache", "listing_formats", "bulk", "s3api", "tempauth", "copy", "slo")
MIDDLEWARE += ("dlo", "versioned_writes", "symlink")
ENTRY_POINTS = {"cache": "memcache"}
OPTIONS = {
    "tempauth": f"user_{ACCESS.replace(':', '_')} = {SECRET} .admin",
    "s3api": "location = us-east-1\nmin_segment_size = 5242880",
    "versioned_writes": "allow_object_versioning = true",
}


@final
@dataclass(frozen=True, kw_only=True)
class Server:
    """A running server."""

    port: int

    @property
    def endpoint(self) -> str:
        """Its URL."""
        return f"http://127.0.0.1:{self.port}"

    def variables(self, endpoint: str = "") -> Mapping[str, str]:
        """Return the usual AWS variables for this server, or for a proxy in front of it."""
        return {
            "AWS_ACCESS_KEY_ID": ACCESS,
            "AWS_SECRET_ACCESS_KEY": SECRET,
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_ENDPOINT_URL": endpoint or self.endpoint,
        }


@contextmanager
def swift_server(folder: Path) -> Iterator[Server]:
    """Run a server that keeps its data in a folder; it ends with the block, or with this process."""
    commands = installed_environment("swift", [SWIFT])
    ports = free_ports(1 + len(KINDS))
    configure(folder, commands, ports)
    with ExitStack() as stack:
        for kind in (*KINDS, "proxy"):
            stack.enter_context(running([commands / "python", commands / f"swift-{kind}-server"], folder, kind))
        wait_for(ports[0], folder)
        yield Server(port=ports[0])


def configure(folder: Path, commands: Path, ports: list[int]) -> None:
    """Write the configuration of every server, and the rings that say where objects are stored."""
    (folder / "devices/disk").mkdir(parents=True)
    (folder / "swift.conf").write_text("[swift-hash]\nswift_hash_path_suffix = tests\n")
    write_server(folder, "proxy", ports[0], [*MIDDLEWARE, "proxy-server"], "account_autocreate = true")
    for kind, port in zip(KINDS, ports[1:], strict=True):
        write_server(folder, kind, port, [f"{kind}-server"], "")
        builder = folder / f"{kind}.builder"
        for step in (["create", "2", "1", "1"], ["add", f"r1z1-127.0.0.1:{port}/disk", "1"], ["rebalance"]):
            ring = [commands / "python", commands / "swift-ring-builder", builder, *step]
            subprocess.run(ring, stdout=subprocess.DEVNULL, check=True)


def write_server(folder: Path, kind: str, port: int, pipeline: list[str], options: str) -> None:
    """Write one server's configuration."""
    lines = [
        "[DEFAULT]",
        "bind_ip = 127.0.0.1",
        f"bind_port = {port}",
        "workers = 0",  # one process, which ends at SIGTERM
        f"swift_dir = {folder}",
        f"devices = {folder / 'devices'}",
        "mount_check = false",
        "log_address = /dev/null",
        "disable_fallocate = true",
        "[pipeline:main]",
        f"pipeline = {' '.join(pipeline)}",
        f"[app:{kind}-server]",
        f"use = egg:swift#{kind.removesuffix('-server')}",
        options,
    ]
    for name in pipeline[:-1]:
        lines += [f"[filter:{name}]", f"use = egg:swift#{ENTRY_POINTS.get(name, name)}", OPTIONS.get(name, "")]
    (folder / f"{kind}-server.conf").write_text("\n".join(lines) + "\n")


@contextmanager
def running(command: list[str | Path], folder: Path, kind: str) -> Iterator[None]:
    """Run one server until the block ends."""
    with open(folder / f"{kind}.log", "w") as log:
        process = subprocess.Popen(
            [*command, folder / f"{kind}-server.conf"], stdout=log, stderr=log, preexec_fn=end_with_parent
        )
        try:
            yield
        finally:
            process.terminate()
            process.wait(timeout=10)


def end_with_parent() -> None:
    """Ask the kernel to end this process when its parent ends, for whatever reason."""
    ctypes.CDLL(None).prctl(1, signal.SIGTERM)  # PR_SET_PDEATHSIG


def wait_for(port: int, folder: Path) -> None:
    """Return when the server answers."""
    for _ in range(300):
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/healthcheck", timeout=5) as answer:
                if answer.read() == b"OK":
                    return
        except OSError:
            time.sleep(0.1)
    logs = "\n".join(log.read_text()[-2000:] for log in folder.glob("*.log"))
    raise RuntimeError(f"Swift does not answer on port {port} after 30 seconds:\n{logs}")


def free_ports(count: int) -> list[int]:
    """Return free ports of the loopback."""
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for opened in sockets:
            opened.bind(("127.0.0.1", 0))
        return [opened.getsockname()[1] for opened in sockets]
