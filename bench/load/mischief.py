"""The clients of soak.py: good ones, and those who send nonsense, are slow, leave or ask for much. Each act is one request, and tells how it
ended: DONE (as it should), LOST (the worker was killed that had it), LEFT (as the client meant), or what was wrong, as a text."""
import json
import random
import socket
import struct

from asking import Answer, ask, head, post

DONE, LOST, LEFT = "done", "lost", "left"
BODY_LIMIT = 2 << 20   # --max-body-bytes
SLOW_PIECES = 20
PAUSE_S = 0.05         # between two pieces of a slow client
UNREAD_S = 45          # longer than --timeout-write


def sent(payload, path="/v1/completions", headers=()):
    """A body that need not be JSON."""
    return head("POST", path, payload, headers) + payload


# What is sent, and what the answer must be.
BAD = [
    (sent(b"{"), 400),
    (sent(b"[" * 100000), 400),
    (sent(b'{"prompt":"\xff"}'), 400),
    (post("/v1/completions", {"prompt": "a", "max_tokens": "many"}), 400),
    (post("/v1/completions", {"prompt": [-1]}), 400),
    (post("/v1/chat/completions", {"messages": []}), 400),
    (post("/v1/chat/completions", {"messages": [{"role": "user", "content": "a"}], "temperature": 9}), 400),
    (sent(b"{}", headers=["Content-Length: 3"]), 400),               # two lengths
    (head("GET", "/health", headers=["Host: other.example"]), 400),  # two hosts
    (b"\x16\x03\x01\x02\x00\x01\r\n\r\n", 400),              # TLS
    (head("GET", "/health", headers=["Origin: https://other.example"]), 403),
    (post("/v1/nothing", {"prompt": "a"}), 404),
    (head("GET", "/../etc/passwd"), 404),
    (head("GET", "/v1/completions"), 405),
    (head("POST", "/v1/completions"), 411),
    (head("POST", "/v1/completions", headers=["Content-Type: application/json", f"Content-Length: {1 << 40}"]), 413),
    (head("GET", "/" + "a" * 9000), 414),
    (head("POST", "/v1/completions", headers=["Content-Length: 2", "Content-Type: text/plain"]) + b"{}", 415),
    (head("GET", "/health", headers=["A: b"] * 120), 431),
    (head("POST", "/v1/completions", headers=["Transfer-Encoding: gzip"]), 501),
    (b"GET / HTTP/3.0\r\n\r\n", 505),
]


def judge(server, answer, status=200):
    """How a request ended whose answer must have this status, and be whole."""
    if answer.status == status and answer.is_complete and not answer.error:
        return DONE
    return LOST if answer.lost_with(server) else answer.describe()


class Client:
    """One thread's client: what all acts need."""

    def __init__(self, server, stopping, seed, options):
        self.server, self.stopping, self.options = server, stopping, options
        self.draw = random.Random(seed)

    def act(self):
        """Any of its kind."""
        try:
            return self.draw.choice(self.acts)(self)
        except (OSError, ValueError, IndexError) as error:  # in what an act does by hand
            return LOST if self.answer.lost_with(self.server) else repr(error)

    def words(self, n):
        return self.draw.choices(self.options.vocabulary, k=n)  # token ids

    def connect(self, receive_buffer=None):
        """A connection that self.answer knows."""
        self.answer, connection = Answer(), socket.socket()
        if receive_buffer:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        connection.settimeout(600)
        connection.connect(("127.0.0.1", self.server.port))
        self.answer.port = connection.getsockname()[1]
        return connection

    def wait(self, n_seconds):
        self.stopping.wait(n_seconds)


class Good(Client):
    """What clients usually ask; all must be answered."""

    def stream(self):
        body = {"messages": [{"role": "user", "content": f"Tell me {self.draw.random()}"}], "max_tokens": self.draw.randint(1, 64), "stream": True}
        return judge(self.server, ask(self.server, post("/v1/chat/completions", body)))

    def whole(self):
        body = {"prompt": self.words(self.draw.randint(1, 100)), "max_tokens": self.draw.randint(1, 32), "n": self.draw.randint(1, 2)}
        return judge(self.server, ask(self.server, post("/v1/completions", body)))

    def several(self):
        body = {"prompt": ["once", "twice", "often"], "max_tokens": 8, "logprobs": 3, "ignore_eos": True}
        return judge(self.server, ask(self.server, post("/v1/completions", body)))

    def without_model(self):
        request = self.draw.choice([head("GET", "/health"), head("GET", "/v1/models"), head("GET", "/metrics"),
                                    post("/tokenize", {"content": "a b c"})])
        return judge(self.server, ask(self.server, request))

    acts = [stream, whole, several, without_model]


class Bad(Client):
    """What no server should answer with 200."""

    def nonsense(self):
        request, status = self.draw.choice(BAD)
        ended = judge(self.server, ask(self.server, request), status)
        self.wait(PAUSE_S)
        return ended if ended in (DONE, LOST) else f"{request[:60]!r}: expected {status}: {ended}"

    acts = [nonsense]


class Slow(Client):
    """Who sends or reads a little at a time, or not at all."""

    def send_slowly(self):
        begin, payload = post("/v1/completions", {"prompt": "once", "max_tokens": 4, "ignore_eos": True}).split(b"\r\n\r\n", 1)
        n = len(payload) // SLOW_PIECES + 1
        with self.connect() as connection:
            connection.sendall(begin + b"\r\n\r\n")
            for i in range(0, len(payload), n):
                connection.sendall(payload[i:i + n])
                self.wait(PAUSE_S)
            with connection.makefile("rb") as file:
                self.answer.read(file)
        return judge(self.server, self.answer)

    def read_slowly(self):
        body = {"prompt": "once", "max_tokens": 64, "ignore_eos": True, "stream": True, "logprobs": 5}
        came = b""
        with self.connect(receive_buffer=4096) as connection:
            connection.sendall(post("/v1/completions", body))
            while more := connection.recv(2048):
                came = (came + more)[-4096:]
                self.wait(PAUSE_S)
        if b"data: [DONE]" in came:
            return DONE
        return LOST if self.answer.lost_with(self.server) else f"a stream that was read slowly: {came[-200:]!r}"

    def read_nothing(self):
        """Its stream is more than the server keeps for it."""
        body = {"prompt": "once", "max_tokens": 1000, "ignore_eos": True, "stream": True, "logprobs": 20}
        with self.connect(receive_buffer=4096) as connection:
            connection.sendall(post("/v1/completions", body))
            self.wait(self.draw.uniform(1, UNREAD_S))
        return LEFT

    def stop_in_the_head(self):
        """The server says 408 and closes, unless the soak is over before."""
        with self.connect() as connection:
            connection.sendall(b"POST /v1/completions HTTP/1.1\r\nHost: local")
            connection.settimeout(0.2)
            while not self.stopping.is_set():
                try:
                    came = connection.recv(4096)
                    return DONE if b" 408 " in came else LOST if self.answer.lost_with(self.server) else f"half a head: {came!r}"
                except TimeoutError:
                    continue
        return LEFT

    acts = [*[send_slowly] * 3, *[read_slowly] * 3, read_nothing, stop_in_the_head]


class Leaving(Client):
    """Who goes in any phase of a request, politely or not."""

    def leave(self):
        long = {"prompt": self.words(self.options.long_tokens // 4), "max_tokens": 200, "ignore_eos": True, "stream": self.draw.random() < 0.5}
        request = post("/v1/completions", long)
        begin = request.index(b"\r\n\r\n") + 4
        n_sent = self.draw.choice([0, begin // 2, begin, (begin + len(request)) // 2, len(request), len(request), len(request)])
        with self.connect() as connection:
            try:
                connection.sendall(request[:n_sent])
                self.wait(self.draw.choice([0, 0.01, 0.1, 1, 3]))
                connection.setblocking(False)
                connection.recv(self.draw.choice([1, 4096]))
            except OSError:
                pass  # nothing came yet, or its worker was killed
            if self.draw.random() < 0.5:
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))  # a reset
        return LEFT

    acts = [leave]


class Huge(Client):
    """Prompts up to --long-tokens, and bodies at the limit and past it."""

    def long_prompt(self):
        n = self.draw.randint(self.options.long_tokens // 8, self.options.long_tokens)
        body = {"prompt": self.words(n), "max_tokens": 8, "ignore_eos": True, "stream": self.draw.random() < 0.5}
        return judge(self.server, ask(self.server, post("/v1/completions", body)))

    def body_at_the_limit(self):
        """Allowed as a body, and far more text than a context has room for."""
        payload = json.dumps({"prompt": "", "max_tokens": 1}).encode()
        payload = payload.replace(b'""', b'"%b"' % (b"once " * ((BODY_LIMIT - len(payload)) // 5)))
        return judge(self.server, ask(self.server, sent(payload)), 400)

    def body_past_the_limit(self):
        return judge(self.server, ask(self.server, sent(b" " * (BODY_LIMIT + 1))), 413)

    acts = [long_prompt, long_prompt, body_at_the_limit, body_past_the_limit]


KINDS = {"good": Good, "bad": Bad, "slow": Slow, "leaving": Leaving, "huge": Huge}
