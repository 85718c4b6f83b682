"""A proxy in front of an HTTP server that fails at chosen requests, as networks and servers do."""

import http.client
import re
import socket
import struct
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Literal, final

FaultKind = Literal["500", "503", "slowdown", "reset", "cut", "stall", "slow", "flip", "lost"]
REFUSALS = {"500": (500, "InternalError"), "503": (503, "ServiceUnavailable"), "slowdown": (503, "SlowDown")}
HOP_BY_HOP = {"connection", "keep-alive", "transfer-encoding", "expect"}
NUMBER = re.compile(r"[0-9a-f]{32}")
"""The part of a claim's name that differs from run to run: request lines are recorded without it."""
PIECES = 10
"""Number of pieces in which a slow answer is sent."""


@final
@dataclass(frozen=True, kw_only=True)
class Fault:
    """What goes wrong, and at which requests."""

    kind: FaultKind
    first: int = 1
    """Number of the first request that fails, from 1."""
    last: int | None = None
    """Number of the last; None for all later requests."""
    seconds: float = 3600.0
    """How long a stalled answer waits, or how long a slow one takes."""
    matching: str = ""
    """Only requests are counted whose line, such as `PUT /bucket/key`, contains this."""
    exactly: str = ""
    """Only requests with exactly this line are counted; empty for all."""

    def counts(self, line: str) -> bool:
        """Say whether a request is counted."""
        return self.matching in line and self.exactly in ("", line)


@final
class FaultProxy:
    """The proxy's state: the planned faults, the requests it received, and those that it let fail."""

    def __init__(self, port: int) -> None:
        self.backend = port
        self.port = 0
        self.lock = threading.Lock()
        self.plan: tuple[Fault, ...] = ()
        self.requests: list[str] = []
        self.struck: list[str] = []

    @property
    def endpoint(self) -> str:
        """Its URL."""
        return f"http://127.0.0.1:{self.port}"

    def arm(self, *plan: Fault) -> None:
        """Count requests from now on, and let them fail as planned."""
        with self.lock:
            self.plan, self.requests, self.struck = plan, [], []

    @contextmanager
    def at_peace(self) -> Iterator[None]:
        """Neither count the requests of the block nor let them fail."""
        with self.lock:
            plan, requests = self.plan, self.requests
            self.plan, self.requests = (), []
        yield
        with self.lock:
            self.plan, self.requests = plan, requests

    def meet(self, line: str) -> Fault | None:
        """Record a request, and return the fault that strikes it."""
        line = NUMBER.sub("*", line)
        with self.lock:
            self.requests.append(line)
            for fault in self.plan:
                number = sum(map(fault.counts, self.requests))
                if fault.counts(line) and fault.first <= number <= (fault.last or number):
                    self.struck.append(line)
                    return fault
        return None


@final
class Listener(ThreadingHTTPServer):
    """The proxy's server for its clients."""

    request_queue_size = 128
    daemon_threads, block_on_close = True, False  # a stalled answer must not keep the tests waiting


@contextmanager
def fault_proxy(port: int) -> Iterator[FaultProxy]:
    """Run a proxy before the server on a port of the loopback."""
    proxy = FaultProxy(port)
    server = Listener(("127.0.0.1", 0), handler(proxy))
    proxy.port = server.server_address[1]
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        yield proxy
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def handler(proxy: FaultProxy) -> type[BaseHTTPRequestHandler]:
    """Return the class that answers a connection."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        wbufsize = -1  # the head and the body of an answer are sent together
        disable_nagle_algorithm = True

        def handle_expect_100(self) -> bool:
            proceed = super().handle_expect_100()
            self.wfile.flush()
            return proceed

        def serve(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            fault = proxy.meet(f"{self.command} {self.path}")
            kind = None if fault is None else fault.kind
            if kind == "reset":
                self.drop()
            elif kind in REFUSALS:
                self.refuse(*REFUSALS[kind])
            else:
                answer = self.forward(flipped(body) if kind == "flip" and body else body)
                self.reply(answer, fault, uploaded=bool(body))

        do_GET = do_PUT = do_POST = do_HEAD = do_DELETE = serve  # noqa: N815

        def forward(self, body: bytes) -> tuple[int, list[tuple[str, str]], bytes]:
            backend = http.client.HTTPConnection("127.0.0.1", proxy.backend)
            backend.putrequest(self.command, self.path, skip_host=True, skip_accept_encoding=True)
            for name, value in self.headers.items():
                if name.lower() not in HOP_BY_HOP:
                    backend.putheader(name, value)
            backend.endheaders(body)
            answer = backend.getresponse()
            held = [(name, value) for name, value in answer.getheaders() if name.lower() not in HOP_BY_HOP]
            read = (answer.status, held, answer.read())
            backend.close()
            return read

        def reply(self, answer: tuple[int, list[tuple[str, str]], bytes], fault: Fault | None, uploaded: bool) -> None:
            status, headers, body = answer
            kind = None if fault is None else fault.kind
            if kind == "lost":
                self.drop()
                return
            if kind == "flip" and not uploaded and body:
                body = flipped(body)
            if fault is not None and kind == "stall" and not body:
                time.sleep(fault.seconds)
            self.send_response_only(status)
            for name, value in headers:
                if name.lower() != "content-length":
                    self.send_header(name, value)
            length = next((value for name, value in headers if name.lower() == "content-length"), str(len(body)))
            self.send_header("Content-Length", length)
            self.end_headers()
            self.send_body(body, fault)

        def send_body(self, body: bytes, fault: Fault | None) -> None:
            half = len(body) // 2
            if fault is not None and fault.kind in ("cut", "stall"):
                self.wfile.write(body[:half])
                self.wfile.flush()
                if fault.kind == "cut":
                    self.drop()
                    return
                time.sleep(fault.seconds)
                body = body[half:]
            if fault is not None and fault.kind == "slow":
                step = -(-len(body) // PIECES) or 1
                for start in range(0, len(body), step):
                    self.wfile.write(body[start : start + step])
                    self.wfile.flush()
                    time.sleep(fault.seconds / PIECES)
                return
            self.wfile.write(body)

        def refuse(self, status: int, code: str) -> None:
            body = f"<?xml version='1.0'?><Error><Code>{code}</Code><Message>by the tests</Message></Error>".encode()
            self.send_response_only(status)
            self.send_header("Content-Type", "application/xml")
            self.send_header("Content-Length", str(0 if self.command == "HEAD" else len(body)))
            self.end_headers()
            self.wfile.write(b"" if self.command == "HEAD" else body)

        def drop(self) -> None:
            self.close_connection = True
            # no lingering: the other side sees a reset, not an end
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.connection.close()

        def handle(self) -> None:
            try:
                super().handle()
            except OSError:
                self.close_connection = True  # the other side gave up

        def finish(self) -> None:
            try:
                super().finish()
            except (OSError, ValueError):
                self.close_connection = True

        def log_message(self, *_: Any) -> None:
            pass

    return Handler


def flipped(body: bytes) -> bytes:
    """Return a body with the lowest bit of its middle byte flipped."""
    middle = len(body) // 2
    return body[:middle] + bytes([body[middle] ^ 1]) + body[middle + 1 :]
