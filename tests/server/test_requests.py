"""Bad requests at `runnel serve` itself, a test a row of what it answers; test_connection.py has more, with routes made
for it.

Whatever is sent, an answer past 400 is an error of the one shape, and has nothing of the client's bytes in it."""
import json
import os
import resource
import socket
import time

import pytest
from serving import BY_THEN, ONE_WORKER, SANITIZED, SLOW, Serving, make_tiny_model

HOST = b"Host: localhost\r\n"
JSON = b"Content-Type: application/json\r\n"
CHUNKED = b"Transfer-Encoding: chunked\r\n"
SECRET = b"zqXjw"
ROUTES = {  # a good body for each that reads one
    "/v1/chat/completions": {"messages": [{"role": "user", "content": "a"}], "max_tokens": 1},
    "/v1/completions": {"prompt": "a", "max_tokens": 1},
    "/completion": {"prompt": "a", "n_predict": 1},
    "/generate": {"prompt": "a", "max_tokens": 1},
    "/generate-batch": {"requests": [{"prompt": "a", "max_tokens": 1}]},
    "/v1/chat/completions/input_tokens": {"messages": [{"role": "user", "content": "a"}]},
    "/v1/chat/completions/render": {"messages": [{"role": "user", "content": "a"}]},
    "/v1/completions/render": {"prompt": "a"},
    "/tokenize": {"content": "a"},
    "/detokenize": {"tokens": [1]},
    "/apply-template": {"messages": [{"role": "user", "content": "a"}]},
}
TYPES = {401: "authentication_error", 403: "permission_error", 404: "not_found_error", 503: "unavailable_error"}


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    serving = Serving(make_tiny_model(tmp_path_factory.mktemp("models"), "qwen2"))
    yield serving
    serving.stop()


class Client:
    def __init__(self, serving):
        self.socket = socket.create_connection(("127.0.0.1", serving.port), timeout=BY_THEN)
        self.file = self.socket.makefile("rb")

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.file.close()
        self.socket.close()

    def send(self, data):
        self.socket.sendall(data)
        return self

    def answer(self, has_body=True):
        """(status, headers, body); an error must have the shape of one, and tell nothing of what was sent."""
        head = self.file.readline()
        status = int(head.split()[1])
        headers = {}
        while line := self.file.readline().strip():
            name, value = line.split(b":", 1)
            assert name.lower() not in headers, "a header twice"
            headers[name.lower()] = value.strip()
            head += line
        body = self.file.read(int(headers[b"content-length"])) if has_body else b""
        if status >= 400:
            assert SECRET not in head and SECRET not in body
            assert headers[b"content-type"] == b"application/json"
            assert (b"retry-after" in headers) == (status in (429, 503))
            assert (b"allow" in headers) == (status == 405)
        if status >= 400 and has_body:
            error = json.loads(body)["error"]
            assert {"message", "type", "param", "code"} == set(error), error
            assert error["code"] == status and error["type"] == TYPES.get(status, "invalid_request_error"), error
        return status, headers, body

    def is_closed(self):
        try:
            return self.file.read(1) == b""
        except ConnectionResetError:
            return True


def post(path, body, headers=JSON):
    return b"POST %s HTTP/1.1\r\n" % path.encode() + HOST + headers + b"Content-Length: %d\r\n\r\n" % len(body) + body


def check(server, request, status, closes=None):
    with Client(server).send(request) as client:
        found, headers, body = client.answer()
        assert found == status, (found, body)
        if closes is not None:
            assert (headers.get(b"connection") == b"close") == closes
        if headers.get(b"connection") == b"close":
            assert client.is_closed()
        elif closes is False:  # what comes next is understood
            client.send(b"GET /health HTTP/1.1\r\n" + HOST + b"\r\n")
            assert client.answer()[0] == 200


# --- JSON ---

BAD_JSON = {
    "nothing": b"", "blanks": b" \r\n\t", "cut short": b'{"zqXjw":1', "cut string": b'{"zqXjw', "twice": b"{}{}",
    "trailing": b"{} zqXjw", "trailing zero byte": b"{}\0", "byte order mark": b"\xef\xbb\xbf{}",
    "UTF-16": "{}".encode("utf-16"),
    "comma": b'{"a":1,}', "comma in a list": b'{"a":[1,]}', "mismatch": b'{"a":[1}}', "comment": b"{/* zqXjw */}",
    "name": b"{zqXjw:1}", "single quotes": b"{'zqXjw':1}", "NaN": b'{"a":NaN}', "infinity": b'{"a":-Infinity}',
    "1e400": b'{"a":1e400}', "01": b'{"a":01}', "+1": b'{"a":+1}', "1.": b'{"a":1.}', ".5": b'{"a":.5}',
    "hexadecimal": b'{"a":0x1}',
    "line end in a string": b'{"a":"\n"}', "escape": b'{"a":"\\x41"}', "short escape": b'{"a":"\\u12"}',
    "high surrogate": b'{"a":"\\ud800"}', "low surrogate": b'{"a":"\\udc00"}',
    "two high ones": b'{"a":"\\ud800\\ud800"}',
    "the wrong way round": b'{"a":"\\udc00\\ud800"}', "surrogate in a name": b'{"\\ud800":1}',
    "high surrogate, letter": b'{"a":"\\ud800zqXjw"}', "deep surrogate": b'{"a":[{"b":"\\udfff"}]}',
    "zero byte in a name": b'{"\\u0000":1}', "overlong": b'{"a":"\xc0\xaf"}',
    "overlong of 3": b'{"a":"\xe0\x80\xaf"}',
    "overlong of 4": b'{"a":"\xf0\x80\x80\xaf"}', "encoded surrogate": b'{"a":"\xed\xa0\x80"}',
    "past the last": b'{"a":"\xf4\x90\x80\x80"}',
    "cut character": b'{"a":"\xe2\x82"}', "Latin-1": b'{"a":"zqXjw\xe9"}', "UTF-8 in a name": b'{"\xff":1}',
    "twice the same name": b'{"zqXjw":1,"zqXjw":1}', "twice, escaped": b'{"a":1,"\\u0061":1}',
    "twice, deep": b'{"a":[{"b":{"c":1,"c":1}}]}',
    "65 lists": b'{"a":' + b"[" * 64 + b"]" * 64 + b"}", "65 objects": b'{"a":' * 65 + b"1" + b"}" * 65,
    "65 of both": b'[{"a":' * 33 + b"1" + b"}]" * 33, "a million lists": b"[" * 1000000,
    "many objects": b'{"a":' * 400000,
    "null": b"null", "number": b"3", "text": b'"zqXjw"',
}


@pytest.mark.parametrize("path", ROUTES)
def test_malformed_json(server, path):
    with Client(server) as client:
        for name, body in BAD_JSON.items():
            status, headers, answer = client.send(post(path, body)).answer()
            assert status == 400 and b"connection" not in headers, (name, status, answer)
        assert client.send(post(path, json.dumps(ROUTES[path]).encode())).answer()[0] == 200


@pytest.mark.parametrize("path", [path for path in ROUTES if path != "/generate-batch"])
def test_what_looks_odd_but_is_json(server, path):
    """Unknown fields with all that JSON allows, up to 64 levels in all."""
    with Client(server) as client:
        for value in (b"[" * 63 + b"]" * 63, b'{"a":' * 63 + b"1" + b"}" * 63, b'"\\ud83d\\ude00\\/\\b"', b"-0.0",
                      b"1e-400", b"99999999999999999999999", b'{"a":{"a":{"a":1}},"b":[{"a":1}]}', b'"\xf4\x8f\xbf\xbf"', b"null"):
            body = b" \r\n\t" + json.dumps(ROUTES[path]).encode()[:-1] + b',"zqXjw":' + value + b"}\n"
            assert client.send(post(path, body)).answer()[0] == 200, value[:80]


# --- heads ---

OK = b'{"content":"a"}'


def tokenize(framing, body=OK):
    return b"POST /tokenize HTTP/1.1\r\n" + HOST + JSON + framing + b"\r\n" + body


BAD_HEADS = [
    b"Content-Length: +15\r\n", b"Content-Length: -1\r\n", b"Content-Length: 0xf\r\n", b"Content-Length: 1 5\r\n",
    b"Content-Length: 15, 15\r\n", b"Content-Length: 15\r\nContent-Length: 15\r\n",
    b"Content-Length: 15\r\nContent-Length: 16\r\n",
    b"Content-Length: 18446744073709551631\r\n", b"Content-Length: 99999999999999999999\r\n", b"Content-Length:\r\n",
    b"Content-Length: 15\r\n" + CHUNKED, CHUNKED + b"Content-Length: 15\r\n", CHUNKED + CHUNKED,
    b"Content-Length: 15\r\nX: a\r\n zqXjw\r\n", b"Content-Length: 15\r\nX: a\r\n\tzqXjw\r\n",
    b"Content-Length: 15\r\n: zqXjw\r\n",
    b"Content-Length: 15\r\nzqXjw\r\n", b"Content-Length : 15\r\n", b"Content-Length: 15\r\nX: a\nzqXjw: b\r\n",
    b"Content-Length: 15\r\nX: a\rzqXjw: b\r\n", b"Content-Length: 15\r\nX: \0zqXjw\r\n",
    b"Content-Length: 15\r\nX\0: a\r\n",
    b"Content-Length: 15\r\n" + HOST, b"Content-Length: 15\n",
]


@pytest.mark.parametrize("framing", BAD_HEADS)
def test_bad_length_or_header(server, framing):
    check(server, tokenize(framing), 400, closes=True)


@pytest.mark.parametrize("body", [b"zqXjw\r\n", b"-1\r\n", b" f\r\n", b"0xf\r\n", b"f\n" + OK, b"f\r\n" + OK + b"zq\r\n",
                                  b"f;a\nb\r\n" + OK, b"f\r\n" + OK + b"\r\n0\r\nzqXjw\r\n\r\n",
                                  b"fffffffffffffffff\r\n"])
def test_bad_chunks(server, body):
    check(server, tokenize(CHUNKED, body), 400, closes=True)


def test_no_length(server):
    """And what follows, perhaps the body, is not taken for a request."""
    for more in (b"", OK, b"GET /health HTTP/1.1\r\n" + HOST + b"\r\n"):
        check(server, tokenize(b"", more), 411, closes=True)


@pytest.mark.parametrize("coding", [b"gzip", b"gzip, chunked", b"chunked, gzip", b"chunked, chunked", b"identity", b"zqXjw", b""])
def test_unknown_transfer_coding(server, coding):
    check(server, tokenize(b"Transfer-Encoding: " + coding + b"\r\n", b"f\r\n" + OK + b"\r\n0\r\n\r\n"), 501, closes=True)


@pytest.mark.parametrize("headers", [
    b"", b"Content-Type: text/plain\r\n", b"Content-Type: application/zqXjw\r\n",
    b"Content-Type: application/jsonx\r\n",
    b"Content-Type: application/json; charset=utf-16\r\n", JSON + JSON, JSON + b"Content-Encoding: gzip\r\n",
    JSON + b"Content-Encoding: identity, zqXjw\r\n", JSON + b"Content-Encoding: identity\r\nContent-Encoding: br\r\n",
])
def test_unknown_media_type_or_content_coding(server, headers):
    check(server, post("/tokenize", OK, headers), 415)
    check(server, post("/tokenize", OK, JSON.lower() + b"Content-Encoding: Identity\r\n"), 200)


@pytest.mark.parametrize("host, status", [
    (b"", 403), (b":80", 403), (b"zqXjw.example", 403), (b"localhost.zqXjw.example", 403), (b"0.0.0.0", 403),
    (b"10.0.0.1:80", 403),
    (b"localhost:x", 400), (b"localhost:65536", 400), (b"localhost:1:2", 400), (b"zqXjw@localhost", 400),
    (b"[::1", 400),
    (b"localhost, zqXjw", 400), (b"LOCALHOST:65535", 200), (b"localhost:", 200), (b"[::1]:1", 200),
    (b"127.0.0.1", 200),
])
def test_host(server, host, status):
    check(server, b"GET /health HTTP/1.1\r\nHost: " + host + b"\r\n\r\n", status, closes=status == 400)


@pytest.mark.parametrize("request_line, status", [
    (b"GET /health HTTP/1.2", 505), (b"GET /health HTTP/2.0", 505), (b"GET /health http/1.1", 400),
    (b"GET /health", 400),
    (b"GET  /health HTTP/1.1", 400), (b"GET /zqXjw\0 HTTP/1.1", 400), (b"GET /\xc3\xa9 HTTP/1.1", 400),
    (b"GET * HTTP/1.1", 400),
    (b"PRI * HTTP/2.0", 400), (b"\x16\x03\x01\x02\x00\x01", 400), (b"GET http://zqXjw.example/health HTTP/1.1", 400),
    (b"PUT /tokenize HTTP/1.1", 405), (b"zqXjw /health HTTP/1.1", 405), (b"TRACE /zqXjw HTTP/1.1", 404),
    (b"GET //health HTTP/1.1", 404), (b"GET /zqXjw/../health HTTP/1.1", 404), (b"GET /%68ealth HTTP/1.1", 404),
    (b"GET http://localhost/health HTTP/1.1", 200),
])
def test_request_line(server, request_line, status):
    check(server, request_line + b"\r\n" + HOST + b"\r\n", status, closes=status in (400, 505))


def test_a_refused_head_request_has_no_body(server):
    for request in (b"HEAD /zqXjw HTTP/1.1\r\n" + HOST, b"HEAD /health HTTP/1.1\r\n: a\r\n"):
        with Client(server).send(request + b"Connection: close\r\n\r\n") as client:
            status, headers, _ = client.answer(has_body=False)
            assert status >= 400 and int(headers[b"content-length"]) > 0 and client.is_closed()


# --- sizes ---


def test_endless_chunks(server):
    """Refused while they come, not at their end."""
    with Client(server).send(tokenize(CHUNKED, b"")) as client:
        try:
            for _ in range(100):
                client.send(b"10000\r\n" + b" " * 65536 + b"\r\n")
        except OSError:
            pass  # it reads no further
        status, headers, _ = client.answer()
        assert status == 413 and headers[b"connection"] == b"close" and client.is_closed()


@pytest.mark.parametrize("chunked", [False, True], ids=["length", "chunked"])
def test_all_bodies_together(serve, tiny, chunked):
    """Half-read bodies take no more memory of a worker than they may; when they are gone, there is room again."""
    serving = serve(tiny(), *ONE_WORKER, "--max-body-bytes", "3000", "--max-bodies-bytes", "4000")
    framing = CHUNKED if chunked else b"Content-Length: 3000\r\n"
    first, second = (Client(serving).send(tokenize(framing, b"bb8\r\n" * chunked + b" " * 2000)) for _ in range(2))
    serving.get("/health")  # both have been read
    assert second.send(b" ").answer()[0] == 503 and second.is_closed()  # 4001
    assert first.send(b" " * 985 + OK + b"\r\n0\r\n\r\n" * chunked).answer()[0] == 200
    with Client(serving) as client:
        for _ in range(5):  # what has been read is given back
            assert client.send(post("/tokenize", OK.ljust(3000))).answer()[0] == 200
        for _ in range(5):
            with Client(serving).send(tokenize(b"Content-Length: 3000\r\n", b" " * 2500)):
                serving.get("/health")
            assert client.send(post("/tokenize", OK.ljust(3000))).answer()[0] == 200


def test_bodies_of_what_is_answered_leave_room(serve, tiny):
    """A body is gone once it is parsed: long answers do not keep others' bodies out."""
    serving = serve(tiny("long"), *ONE_WORKER, "--max-body-bytes", "100000", "--max-bodies-bytes", "120000", kv_mib=256)
    for size in (90000, 50000):  # one read beside the loop, and one by it
        stream = serving.stream("a", 20000, ignore_eos=True, filler="x" * size)
        next(stream.events())
        assert serving.post("/tokenize", {"content": "a", "filler": "y" * 99000})[0] == 200
        stream.leave()


# --- many ---


def test_500_pipelined_requests(server):
    """Of routes that answer at once, later, with an error, and as a stream."""
    requests = [b"GET /v1/models HTTP/1.1\r\n" + HOST + b"\r\n", post("/tokenize", OK), b"GET /zqXjw HTTP/1.1\r\n" + HOST + b"\r\n",
                post("/v1/completions", b'{"prompt":"a","max_tokens":2,"ignore_eos":true}'), post("/tokenize", b"{")]
    with Client(server).send(b"".join(requests) * 100) as client:
        assert [client.answer()[0] for _ in range(500)] == [200, 200, 404, 200, 400] * 100


def test_1000_idle_connections(serve, tiny):
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < 1200:
        pytest.skip("few descriptors")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, 1200), hard))
    serving = serve(tiny())
    idle = [socket.create_connection(("127.0.0.1", serving.port), timeout=BY_THEN) for _ in range(1000)]
    times = []
    for _ in range(20):
        began = serving.cpu_seconds()
        assert serving.get("/health")[0] == 200
        times.append(serving.cpu_seconds() - began)
    assert SANITIZED or sorted(times)[-3] < 0.1, times
    assert serving.complete("a", 5)
    for client in idle:
        client.close()
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


# --- clients that leave, and shortage ---


def n_descriptors(serving):
    return sum(n_descriptors_of(worker) for worker in serving.workers())


def n_descriptors_of(worker):
    return len(os.listdir(f"/proc/{worker}/fd"))


def wait_for_descriptors(serving, n):
    end = time.monotonic() + BY_THEN
    while n_descriptors(serving) > n:
        assert time.monotonic() < end, f"{n_descriptors(serving)} descriptors, {n} expected"
        time.sleep(0.01)


@pytest.mark.parametrize("reset", [False, True], ids=["FIN", "RST"])
def test_descriptors_are_back(server, reset):
    """Whatever a client was doing when it left."""
    server.get("/health")
    wait_for_descriptors(server, n := n_descriptors(server))
    long = {"prompt": "a", "max_tokens": 900, "ignore_eos": True}
    phases = [b"", b"GET /hea", tokenize(b"Content-Length: 15\r\n", OK[:5]), tokenize(CHUNKED, b"f\r\n" + OK[:5]),
              post("/v1/completions", json.dumps(long).encode()), post("/v1/completions", json.dumps({**long, "stream": True}).encode()),
              b"nonsense\r\n\r\n", post("/tokenize", OK), post("/zqXjw", b"a" * 100000)]
    clients = [Client(server).send(phase) for phase in phases * 5]
    server.get("/health")
    for client in clients:
        if reset:
            client.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        client.__exit__()
    wait_for_descriptors(server, n)
    server.wait_until_idle()


def test_32_descriptors(serve, tiny):
    """ulimit -n 32: no spinning while there are more clients than descriptors, and then all is as before."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    serving = serve(tiny("long"), "--ctx", "65536", kv_mib=128)
    workers = serving.workers()
    for worker in workers:
        resource.prlimit(worker, resource.RLIMIT_NOFILE, (32, 32))
    body = json.dumps({"prompt": "a", "max_tokens": 60000, "ignore_eos": True}).encode()
    clients = [Client(serving).send(b"GET /hea" if i % 2 else post("/v1/completions", body)) for i in range(80)]
    deadline = time.monotonic() + BY_THEN
    while min(n_descriptors_of(worker) for worker in workers) < 30:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    loops_began = sum(map(loop_seconds, workers))
    time.sleep(1)
    assert sum(map(loop_seconds, workers)) - loops_began < 0.3 * SLOW
    for client in clients:
        client.__exit__()
    end = time.monotonic() + BY_THEN
    while serving.get("/health")[0] != 200:  # there may be clients that it has not accepted yet
        assert time.monotonic() < end
    serving.wait_until_idle()
    assert serving.complete("a", 5)
    assert resource.getrlimit(resource.RLIMIT_NOFILE) == (soft, hard)


def loop_seconds(worker):
    """CPU time of the thread that serves connections: the first one."""
    fields = open(f"/proc/{worker}/task/{worker}/stat").read().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
