"""HAProxy with deploy/haproxy/haproxy.cfg, its addresses replaced by free ones; and servers that do as a test says."""
import csv
import http.client
import io
import json
import shutil
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "server"))
from serving import BY_THEN, ROOT, free_port  # noqa: E402

CONFIGURATION = ROOT / "deploy" / "haproxy" / "haproxy.cfg"
ADDRESSES = {"clients": "127.0.0.1:8080", "a": "127.0.0.1:8081", "b": "127.0.0.1:8082", "watch": "127.0.0.1:8405"}


def find_haproxy():
    found = shutil.which("haproxy") or shutil.which("haproxy", path="/usr/sbin:/usr/local/sbin")
    if not found:
        pytest.skip("haproxy is not installed", allow_module_level=True)
    return found


class Proxy:
    def __init__(self, folder):
        """In front of the servers a and b, which need not be there yet."""
        self.ports = {name: free_port() for name in ADDRESSES}
        text = CONFIGURATION.read_text()
        for name, address in ADDRESSES.items():
            assert text.count(address) >= 1, address
            text = text.replace(address, f"127.0.0.1:{self.ports[name]}")
        path = Path(folder) / "haproxy.cfg"
        path.write_text(text)
        self.process = subprocess.Popen([find_haproxy(), "-db", "-f", path], stderr=subprocess.PIPE, text=True)
        self.lines = []
        self.reader = threading.Thread(target=self._read, daemon=True)
        self.reader.start()

    def _read(self):
        for line in self.process.stderr:
            self.lines.append(line.rstrip("\n"))

    def log(self):
        """The lines of requests, as dictionaries of their fields."""
        return [dict(word.split("=", 1) for word in line.split() if "=" in word)
                for line in self.lines if " request method=" in line]

    def states(self):
        """{"a": "UP", "b": "DOWN"}"""
        with urllib.request.urlopen(f"http://127.0.0.1:{self.ports['watch']}/;csv", timeout=BY_THEN) as answer:
            rows = csv.DictReader(io.StringIO(answer.read().decode().removeprefix("# ")))
            return {row["svname"]: row["status"].split()[0] for row in rows
                    if row["pxname"] == "servers" and row["svname"] in ("a", "b")}

    def wait_for(self, condition):
        """Until condition() is true."""
        end = time.monotonic() + BY_THEN
        while True:
            try:
                if condition():
                    return
            except OSError:  # it does not listen yet
                assert self.process.poll() is None, self.lines
            assert time.monotonic() < end, self.lines[-10:]
            time.sleep(0.02)

    def wait_for_states(self, **expected):
        """Of those that are named; by HAProxy's own checks. A server that was never checked counts as up, so also asks for a
        check that has been made."""
        self.wait_for(lambda: expected.items() <= self.states().items())

    def connection(self):
        return http.client.HTTPConnection("127.0.0.1", self.ports["clients"], timeout=BY_THEN)

    def ask(self, method, path, body=None, headers=None, connection=None):
        """(status, headers, body), the body read as JSON where it is; on a connection of its own, or the one that is given."""
        mine = connection or self.connection()
        try:
            payload = body if body is None or isinstance(body, bytes) else json.dumps(body).encode()
            mine.request(method, path, payload, {"Content-Type": "application/json", **(headers or {})})
            answer = mine.getresponse()
            data = answer.read()
            return answer.status, answer.headers, (json.loads(data) if answer.headers.get_content_type() == "application/json"
                                                   else data)
        finally:
            if not connection:
                mine.close()

    def post(self, path, body, **more):
        return self.ask("POST", path, body, **more)

    def stop(self):
        self.process.terminate()
        self.process.wait(BY_THEN)
        self.reader.join(10)


RESET = None


class Pretender:
    """Says 200 to /health, or 503 while it is not `healthy`, and to everything else what `answer` has: bytes, sent before it closes; RESET; or
    what a function makes. What it was asked is kept."""

    def __init__(self, port, answer):
        self.answer = answer
        self.healthy = True
        self.asked = []
        self.listener = socket.create_server(("127.0.0.1", port))
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self):
        while True:
            try:
                connection, _ = self.listener.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection):
        with connection, connection.makefile("rb") as file:
            head = b""
            while (line := file.readline()) not in (b"\r\n", b""):
                head += line
            if head.startswith(b"GET /health "):
                connection.sendall(whole_answer(200 if self.healthy else 503))
            elif head:
                length = [line for line in head.lower().splitlines() if line.startswith(b"content-length:")]
                body = file.read(int(length[0].split(b":")[1])) if length else b""
                self.asked.append((head, body))
                if self.answer is RESET:
                    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
                else:
                    connection.sendall(self.answer() if callable(self.answer) else self.answer)

    def stop(self):
        try:
            self.listener.shutdown(socket.SHUT_RDWR)  # or the thread that waits in accept would have one more
        except OSError:
            pass  # it was stopped before
        self.listener.close()


def whole_answer(status, body=b"{}", headers=b""):
    return (b"HTTP/1.1 %d X\r\nContent-Type: application/json\r\nContent-Length: %d\r\n%sConnection: close\r\n\r\n%s"
            % (status, len(body), headers, body))
