"""A server with made-up routes (tests/tools/echo_server.c), and clients that speak HTTP badly on purpose."""
import json
import os
import resource
import signal
import socket
import struct
import subprocess
import time
from pathlib import Path

import pytest

from serving import BY_THEN, Serving, cpu_seconds, make_tiny_model, real_model

HOST = b"Host: localhost\r\n"


class Client:
    """A raw connection."""

    def __init__(self, port, receive_buffer=None):
        self.socket = socket.socket()
        if receive_buffer:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        self.socket.settimeout(BY_THEN)
        self.socket.connect(("127.0.0.1", port))
        self.buffer = b""

    def send(self, data):
        self.socket.sendall(data)
        return self

    def get(self, target, headers=b""):
        return self.send(b"GET %s HTTP/1.1\r\n" % target + HOST + headers + b"\r\n")

    def read_until(self, end):
        while end not in self.buffer:
            more = self.socket.recv(65536)
            assert more, f"closed before {end!r}, after {self.buffer[-300:]!r}"
            self.buffer += more
        data, self.buffer = self.buffer.split(end, 1)
        return data + end

    def read_all(self):
        """What comes until the other side closes."""
        while True:
            more = self.socket.recv(65536)
            if not more:
                data, self.buffer = self.buffer, b""
                return data
            self.buffer += more

    def response(self):
        """(status, headers, body) of an answer with a length or in chunks."""
        lines = self.read_until(b"\r\n\r\n").decode().split("\r\n")
        headers = {name.lower(): value.strip() for name, value in (line.split(":", 1) for line in lines[1:-2])}
        status = int(lines[0].split()[1])
        if headers.get("transfer-encoding") == "chunked":
            body = b""
            while size := int(self.read_until(b"\r\n"), 16):
                body += self.exactly(size)
                assert self.exactly(2) == b"\r\n"
            assert self.exactly(2) == b"\r\n"
        elif status == 100:
            body = b""
        else:
            body = self.exactly(int(headers["content-length"]))
        return status, headers, body

    def exactly(self, n):
        while len(self.buffer) < n:
            more = self.socket.recv(65536)
            assert more, f"closed after {len(self.buffer)} of {n} bytes"
            self.buffer += more
        data, self.buffer = self.buffer[:n], self.buffer[n:]
        return data

    def whatever_came(self, wait=0.001):
        self.socket.settimeout(wait)
        try:
            return self.socket.recv(65536)
        except TimeoutError:
            return b""
        finally:
            self.socket.settimeout(BY_THEN)

    def is_closed(self):
        """True once the other side has closed, and sent nothing before."""
        try:
            return self.socket.recv(1) == b""
        except ConnectionResetError:
            return True

    def close(self):
        self.socket.close()

    def reset(self):
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.socket.close()


class Server:
    def __init__(self, *limits, n_descriptors=None):
        program = os.environ.get("ECHO_SERVER", Path(__file__).resolve().parents[2] / "build/tests/echo_server")

        def limit():
            if n_descriptors:
                resource.setrlimit(resource.RLIMIT_NOFILE, (n_descriptors, n_descriptors))

        self.process = subprocess.Popen([program, *limits], stdout=subprocess.PIPE, text=True, preexec_fn=limit)
        self.port = int(self.process.stdout.readline())
        self.clients = []

    def client(self, **options):
        client = Client(self.port, **options)
        self.clients.append(client)
        return client

    def ask(self, target, headers=b""):
        client = Client(self.port)
        answer = client.get(target, headers).response()
        client.close()
        return answer

    def stats(self):
        return json.loads(self.ask(b"/stats")[2])

    def wait_for(self, timeout=BY_THEN, **expected):
        """Until the statistics are so; the asking connection and its request count as one."""
        end = time.monotonic() + timeout
        while True:
            stats = self.stats()
            if all(stats[name] == value for name, value in expected.items()):
                return stats
            assert time.monotonic() < end, f"expected {expected}, found {stats}"
            time.sleep(0.01)

    def cpu_seconds(self):
        return cpu_seconds(self.process.pid)

    def n_descriptors(self):
        return len(os.listdir(f"/proc/{self.process.pid}/fd"))

    def terminate(self):
        self.process.send_signal(signal.SIGTERM)

    def wait(self, timeout=BY_THEN):
        """The last line it prints."""
        line = self.process.stdout.read()
        assert self.process.wait(timeout) == 0
        return line.strip()

    def stop(self):
        for client in self.clients:
            client.close()
        if self.process.poll() is None:
            self.terminate()
            self.wait()
        assert self.process.returncode == 0


@pytest.fixture
def start():
    """Starts servers with limits, and ends them; a sanitizer's complaint at the end fails the test."""
    servers = []

    def start_server(*limits, **options):
        servers.append(Server(*limits, **options))
        return servers[-1]

    yield start_server
    for server in servers:
        server.stop()


@pytest.fixture
def server(start):
    return start()


@pytest.fixture(scope="session")
def tiny(tmp_path_factory):
    """tiny("qwen2") is the path of a tiny model of this kind."""
    folder = tmp_path_factory.mktemp("models")
    return lambda kind="qwen2": make_tiny_model(folder, kind)


@pytest.fixture
def smollm2():
    return real_model("smollm2-135m")


@pytest.fixture
def serve():
    """serve(model, flags...) starts `runnel serve`, ready unless wait=False; what is left at the end drains."""
    servings = []

    def start_serving(model, *flags, **options):
        servings.append(Serving(model, *flags, **options))
        return servings[-1]

    yield start_serving
    for serving in servings:
        serving.stop()
