"""Each limit of a request, at the limit and one past it, as flags of `runnel serve`."""
import json
import os
import resource
import socket
import threading
import time

import pytest
from serving import BY_THEN, ONE_WORKER, RUNNEL

HOST = b"Host: localhost\r\n"
INSTRUMENTED = any(word in RUNNEL.read_bytes() for word in (b"__asan_init", b"__tsan_init"))


def talk(serving, data, timeout=BY_THEN):
    """(status, whole answer) to what is sent as it is."""
    with socket.create_connection(("127.0.0.1", serving.port), timeout=timeout) as client:
        client.sendall(data)
        answer = b""
        while True:
            more = client.recv(65536)
            answer += more
            if not more or is_whole(answer):
                return int(answer.split()[1]), answer


def is_whole(answer):
    head, _, body = answer.partition(b"\r\n\r\n")
    for line in head.split(b"\r\n"):
        if line.lower().startswith(b"content-length:"):
            return len(body) >= int(line.split(b":")[1])
    return False


def get(target=b"/health", headers=b""):
    return b"GET " + target + b" HTTP/1.1\r\n" + HOST + headers + b"\r\n"


def post(n_bytes, chunked=False):
    body = json.dumps({"prompt": "a", "max_tokens": 1, "x": ""}).encode()
    body = body.replace(b'"x": ""', b'"x": "' + b"y" * (n_bytes - len(body)) + b'"')
    assert len(body) == n_bytes
    head = b"POST /v1/completions HTTP/1.1\r\n" + HOST + b"Content-Type: application/json\r\n"
    if chunked:
        return head + b"Transfer-Encoding: chunked\r\n\r\n%x\r\n" % n_bytes + body + b"\r\n0\r\n\r\n"
    return head + b"Content-Length: %d\r\n\r\n" % n_bytes + body


@pytest.fixture(params=["defaults", "flags"])
def limits(request, serve, tiny):
    """A server, and what its limits are."""
    if request.param == "defaults":
        return serve(tiny("long"), "--ctx", "65536", kv_mib=128), {"body": 2097152, "bytes": 32768, "headers": 100,
                                                                   "uri": 8192}
    flags = {"body": 5000, "bytes": 1000, "headers": 20, "uri": 100}
    names = {"body": "max-body-bytes", "bytes": "max-header-bytes", "headers": "max-headers", "uri": "max-uri-bytes"}
    return serve(tiny("long"), *[word for name, value in flags.items()
                                 for word in (f"--{names[name]}", str(value))]), flags


@pytest.mark.parametrize("chunked", [False, True], ids=["length", "chunked"])
def test_body(limits, chunked):
    serving, limit = limits
    assert talk(serving, post(limit["body"], chunked))[0] == 200
    status, answer = talk(serving, post(limit["body"] + 1, chunked)[:1000])  # before it is read
    assert status == 413 and b"Connection: close" in answer
    assert talk(serving, post(limit["body"]).replace(b"Length: %d" % limit["body"], b"Length: %d" % (1 << 40)))[0] == 413


def test_header_bytes(limits):
    serving, limit = limits
    room = limit["bytes"] - len(HOST) - 2 - len(b"A: \r\n")
    assert talk(serving, get(headers=b"A: " + b"b" * room + b"\r\n"))[0] == 200
    assert talk(serving, get(headers=b"A: " + b"b" * (room + 1) + b"\r\n"))[0] == 431


def test_number_of_headers(limits):
    serving, limit = limits
    assert talk(serving, get(headers=b"A: b\r\n" * (limit["headers"] - 1)))[0] == 200
    assert talk(serving, get(headers=b"A: b\r\n" * limit["headers"]))[0] == 431


def test_uri(limits):
    serving, limit = limits
    target = b"/health?" + b"a" * (limit["uri"] - 8)
    assert talk(serving, get(target))[0] == 200
    assert talk(serving, get(target + b"a"))[0] == 414


def closes_after(client):
    """Seconds until the other side closes, and what it said."""
    began, answer = time.monotonic(), b""
    client.settimeout(BY_THEN)
    while True:
        try:
            more = client.recv(65536)
        except ConnectionResetError:
            more = b""
        if not more:
            return time.monotonic() - began, answer
        answer += more


@pytest.mark.parametrize("flag, sent, status", [
    ("timeout-head", b"", None), ("timeout-head", b"G", 408), ("timeout-head", b"GET /health HTTP/1.1\r\nHost: l", 408),
    ("timeout-body", post(100)[:-1], 408), ("timeout-keep-alive", get(), 200), ("timeout-keep-alive", b"", None),
])
def test_times(serve, tiny, flag, sent, status):
    serving = serve(tiny(), f"--{flag}", "1")
    with socket.create_connection(("127.0.0.1", serving.port)) as client:
        client.sendall(sent)
        if flag == "timeout-head" and not sent:  # that one begins with the first byte
            client.settimeout(1.5)
            with pytest.raises(TimeoutError):
                client.recv(1)
            return
        took, answer = closes_after(client)
    assert 0.8 < took < 9  # by themselves they are 10 and more
    assert answer.startswith(b"HTTP/1.1 %d " % status) if status else not answer


def stuck_stream(serving):
    """A long stream whose client reads nothing, begun."""
    client = socket.socket()
    client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    client.connect(("127.0.0.1", serving.port))
    body = json.dumps({"prompt": "once", "max_tokens": 60000, "ignore_eos": True, "stream": True,
                       "logprobs": 20}).encode()  # which makes much of each token: the system's buffers are soon full
    client.sendall(b"POST /v1/completions HTTP/1.1\r\n" + HOST + b"Content-Type: application/json\r\n"
                   b"Content-Length: %d\r\n\r\n" % len(body) + body)
    serving.wait_for(lambda now: now[("vllm:generation_tokens_total",)] >= 1)  # even if it has ended since
    return client


def tokens_until_left(serving):
    """How many tokens a stream whose client reads nothing had when the server gave it up."""
    client = stuck_stream(serving)
    serving.complete("other", 5)  # nobody else notices
    # Often asking would take the time that the stream needs. Its end is counted a moment after it no longer runs.
    given_up = ("vllm:request_success_total", "finished_reason=slow_reader")
    now = serving.wait_for(lambda now: now[("vllm:num_requests_running",)] == 0 and now[given_up] == 1, 5 * BY_THEN,
                           pause=0.1)
    client.close()
    return now[("vllm:generation_tokens_total",)]


def test_a_client_that_never_reads(serve, tiny):
    """Its answer piles up to the limit, no further."""
    tokens = {}
    for limit in ("4096",) if INSTRUMENTED else ("4096", "10000000"):  # the system's buffers hold 4 MB or less
        tokens[limit] = tokens_until_left(serve(tiny("long"), "--ctx", "65536", "--max-output-bytes", limit, kv_mib=128))
    assert INSTRUMENTED or tokens["4096"] < tokens["10000000"]


def test_a_slow_reader_is_told(serve, tiny):
    """Whole events, then an error, then a clean end; and the log does not say that the client left."""
    serving = serve(tiny("long"), "--log-json", "--ctx", "65536", "--max-output-bytes", "65536", kv_mib=128)
    client = stuck_stream(serving)
    serving.wait_for(lambda now: now[("vllm:request_success_total", "finished_reason=slow_reader")] == 1, 300, pause=0.1)
    client.settimeout(20)
    answer = b""
    while more := client.recv(65536):
        answer += more
    client.close()
    events = [line for line in answer.split(b"\r\n") if line.startswith(b"data: ")]
    assert len(events) > 10 and all(json.loads(event[6:]) for event in events)
    error = json.loads(events[-1][6:])["error"]
    assert error["code"] == 408 and "too slowly" in error["message"] and answer.endswith(b"\r\n0\r\n\r\n")
    lines = serving.wait_for_lines(lambda lines: "/v1/completions" in [line["path"] for line in lines])
    [line] = [line for line in lines if line["path"] == "/v1/completions"]
    assert (line["status"], line["finish"]) == (200, "slow_reader") and "left" not in line
    now = serving.metrics()
    assert now[("vllm:request_success_total", "finished_reason=abort")] == 0


def test_a_client_that_stops_reading_is_left(serve, tiny):
    tokens_until_left(serve(tiny("long"), "--ctx", "65536", "--timeout-write", "0.5", "--max-output-bytes", "1000000000",
                            kv_mib=128))


def test_connections(serve, tiny):
    """Of each worker."""
    serving = serve(tiny("long"), *ONE_WORKER, "--max-connections", "3", "--ctx", "65536", kv_mib=128)
    streams = [serving.stream("once", 60000) for _ in range(3)]
    assert all(stream.read_head() == 200 for stream in streams)
    status, answer = talk(serving, get())
    assert status == 503 and b"Retry-After" in answer
    streams[0].leave()
    end = time.monotonic() + BY_THEN
    while talk(serving, get())[0] != 200:
        assert time.monotonic() < end
    for stream in streams[1:]:
        stream.leave()


# --- the end of a server, and requests that are on their way ---


def test_drain_time(serve, tiny):
    serving = serve(tiny("long"), "--ctx", "131072", "--timeout-drain", "0.5", kv_mib=256)
    stream = serving.stream("once", 130000)
    assert stream.read_head() == 200
    serving.signal()
    began = time.monotonic()
    assert serving.wait() == 0
    assert 0.3 < time.monotonic() - began < 9  # by itself it is 10


# --- what there is a lot of ---


def test_the_soft_limit_of_descriptors_is_raised(serve, tiny):
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < 200:
        pytest.skip("few descriptors")
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, len(os.listdir("/proc/self/fd")) + 40), hard))
    try:
        serving = serve(tiny())
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    clients = [socket.create_connection(("127.0.0.1", serving.port), timeout=BY_THEN) for _ in range(100)]
    for client in clients:
        client.sendall(get())
    assert all(client.recv(65536).startswith(b"HTTP/1.1 200") for client in clients)
    for client in clients:
        client.close()


@pytest.mark.parametrize("text", ["a" * 100000, "\n" * 1000000, " " * 1000000, "ab" * 500000, "\u4e00" * 300000],
                         ids=["letters", "newlines", "blanks", "pairs", "characters of three bytes"])
def test_monotonous_texts_take_linear_time(serve, tiny, text):
    """What does not fit the context is told before anything is computed, and soon."""
    serving = serve(tiny())
    began = serving.cpu_seconds()
    status, _, body = serving.post("/v1/completions", {"prompt": text, "max_tokens": 1})
    assert status == 400 and body["error"]["type"] == "exceed_context_size_error"
    assert serving.cpu_seconds() - began < 10


@pytest.mark.parametrize("ping", ["0.2", "0"])
def test_comments_while_a_request_waits(serve, tiny, ping):
    """A stream begins when its request is taken, and does not stay silent while others are computed."""
    serving = serve(tiny("long"), *ONE_WORKER, "--ctx", "65536", "--parallel", "1", "--max-wait-s", "0", "--sse-ping-s", ping,
                    kv_mib=128)  # another one would compute it at once
    running = serving.stream("once", 60000)
    serving.wait_for(lambda now: now[("vllm:num_requests_running",)] == 1)
    body = json.dumps({"prompt": "two", "stream": True}).encode()
    with socket.create_connection(("127.0.0.1", serving.port), timeout=1.5 if ping == "0" else 30) as client:
        client.sendall(b"POST /v1/completions HTTP/1.1\r\n" + HOST + b"Content-Type: application/json\r\n"
                       b"Content-Length: %d\r\n\r\n" % len(body) + body)
        got = b""
        try:
            while got.count(b": still here\n\n") < 2:
                more = client.recv(4096)
                assert more
                got += more
        except TimeoutError:
            assert ping == "0"
    assert got.startswith(b"HTTP/1.1 200 ") and got.count(b": still here") == (0 if ping == "0" else 2)
    assert b"data:" not in got, "it still waits"
    running.leave()
