"""Clients that keep the time of all that comes: one request, and a closed loop of streams."""
import contextlib
import json
import random
import socket
import threading
import time

from load import make_prompt

TIMEOUT_S = 600


def head(method, path, payload=b"", headers=()):
    """A request that its server closes after. No body: no length and no type."""
    lines = [f"{method} {path} HTTP/1.1", "Host: localhost", "Connection: close", *headers]
    if payload:
        lines += ["Content-Type: application/json", f"Content-Length: {len(payload)}"]
    return ("\r\n".join(lines) + "\r\n\r\n").encode()


def post(path, body):
    payload = json.dumps(body).encode()
    return head("POST", path, payload) + payload


class Answer:
    """What came for one request. Times are those of time.monotonic()."""

    def __init__(self):
        self.began = time.monotonic()
        self.port = self.status = self.error = None
        self.times = []            # of pieces of text
        self.body = b""
        self.is_complete = False   # it ended as it should: [DONE], or all bytes that were announced
        self.ended = self.began

    def lost_with(self, server):
        """A worker was killed that had accepted it."""
        return self.port is not None and server.was_lost(self.port, self.began)

    def describe(self):
        return f"status {self.status}, {self.error or 'not complete'}, {self.body[-200:].decode(errors='replace')}".strip(", ")

    def read(self, file):
        line = file.readline()
        if not line:
            raise ConnectionError("closed without an answer")
        self.status = int(line.split()[1])
        headers = {}
        while (line := file.readline().strip()):
            name, _, value = line.partition(b":")
            headers[name.lower()] = value.strip()
        if headers.get(b"content-type", b"").startswith(b"text/event-stream"):
            self._read_events(file)
        else:
            self.body = file.read(int(headers.get(b"content-length", 0)))
            self.is_complete = len(self.body) == int(headers.get(b"content-length", -1))

    def _read_events(self, file):
        for line in file:
            if line.startswith(b"data: [DONE]"):
                self.is_complete = True
            elif line.startswith(b"data: ") and b'"choices":[{' in line:
                self.times.append(time.monotonic())
            elif line.startswith(b'data: {"error"'):
                self.error = line.decode(errors="replace").strip()
                return


def ask(server, request, answer=None):
    """The Answer to the bytes of a request."""
    answer = answer or Answer()
    try:
        with socket.create_connection(("127.0.0.1", server.port), TIMEOUT_S) as connection:
            answer.port = connection.getsockname()[1]
            with contextlib.suppress(ConnectionError):  # refused before all of it was sent: the answer says why
                connection.sendall(request)
            with connection.makefile("rb") as file:
                answer.read(file)
    except (OSError, ValueError, IndexError) as error:
        answer.error = repr(error)
    answer.ended = time.monotonic()
    return answer


def text_request(draw, n_words, n_tokens, stream=True):
    """A completion of a prompt that nobody had before."""
    return post("/v1/completions", {"prompt": make_prompt(draw, n_words, True), "max_tokens": n_tokens, "ignore_eos": True,
                                    "temperature": 0, "stream": stream})


class Load:
    """Clients that stream one answer after the other, until they are told to stop. Who loses an answer with a killed worker
    asks again after `back_after` seconds."""

    def __init__(self, server, n_clients, n_words, n_tokens, back_after=0.0):
        self.server, self.shape, self.back_after = server, (n_words, n_tokens), back_after
        self.stopping = threading.Event()
        self.done, self.lost, self.failed = [], [], []
        seed = time.time_ns()
        self.running = {}  # by client: the answer on its way
        self.threads = [threading.Thread(target=self._run, args=(i, random.Random(f"{seed}/{i}"))) for i in range(n_clients)]
        for thread in self.threads:
            thread.start()

    def _run(self, index, draw):
        while not self.stopping.is_set():
            answer = self.running[index] = Answer()
            ask(self.server, text_request(draw, *self.shape), answer)
            if answer.status == 200 and answer.is_complete and not answer.error:
                self.done.append(answer)
            elif answer.lost_with(self.server):
                self.lost.append(answer)
                self.stopping.wait(self.back_after)
            else:
                self.failed.append(answer)
                self.stopping.wait(1)

    def all_stream(self):
        """Each client gets text, of a worker that lives."""
        answers = list(self.running.values())
        return len(answers) == len(self.threads) and all(one.times and not one.lost_with(self.server) for one in answers)

    def stop(self):
        """What runs is finished."""
        self.stopping.set()
        for thread in self.threads:
            thread.join()

    def answers(self):
        return self.done + self.lost + self.failed
