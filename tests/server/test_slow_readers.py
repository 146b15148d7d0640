"""Clients that ask and do not read: what they were answered is not called delivered, in the log and in what is counted."""
import json
import re
import socket
import time

import pytest
from conftest import HOST
from serving import BY_THEN, SANITIZED

FINISH = "vllm:request_success_total"
SLOW = (FINISH, "finished_reason=slow_reader")
READERS = ("runnel_slow_readers_total",)
LINGER_S = 0.9  # a server that ends gives its clients a second to read the rest
# Whole answers of 25 MB: more than the system's buffers hold.
BIG = {"prompt": ["once"] * 64, "max_tokens": 400, "ignore_eos": True, "logprobs": 20}


def connect(serving):
    """A client whose system takes little before it reads."""
    client = socket.socket()
    client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    client.settimeout(BY_THEN)
    client.connect(("127.0.0.1", serving.port))
    return client


def post(path, body):
    payload = json.dumps(body).encode()
    return (b"POST %s HTTP/1.1\r\n" % path.encode() + HOST + b"Content-Type: application/json\r\n"
            b"Content-Length: %d\r\n\r\n" % len(payload) + payload)


def get(path):
    return b"GET %s HTTP/1.1\r\n" % path.encode() + HOST + b"\r\n"


def read_all(client):
    """What comes until the server closes, and whether that was a reset."""
    got = bytearray()
    try:
        while more := client.recv(1 << 20):
            got += more
    except ConnectionResetError:
        return bytes(got), True
    return bytes(got), False


def lines_of(serving, path, n=1):
    lines = serving.wait_for_lines(lambda lines: sum(line["path"] == path for line in lines) >= n)
    return [line for line in lines if line["path"] == path]


def slow(serving):
    return serving.wait_for(lambda now: now[READERS] > 0, pause=0.05)


@pytest.fixture
def serving(serve, tiny):
    return serve(tiny("long"), "--log-json", "--ctx", "65536", "--timeout-write", "1", kv_mib=128)


@pytest.mark.parametrize("path, body, n", [
    ("/v1/completions", BIG, 64),
    ("/completion", {"prompt": ["once"] * 64, "n_predict": 400, "ignore_eos": True, "n_probs": 20}, 64)])
def test_a_whole_answer_that_is_not_read(serving, path, body, n):
    """It was made, and its head says 200; but nobody has got it."""
    client = connect(serving)
    client.sendall(post(path, body))
    now = slow(serving)
    assert now[SLOW] == n and now[(FINISH, "finished_reason=length")] == 0 and now[READERS] == 1
    assert now[("runnel_clients_left_total",)] == 0 and now[("runnel_exchanges",)] == 1
    [line] = lines_of(serving, path)
    assert (line["status"], line["finish"]) == (200, "slow_reader") and "left" not in line
    assert line["total_ms"] > 1000 and line["completion_tokens"] > 1000  # it waited for --timeout-write
    client.close()


def test_a_whole_answer_whose_client_leaves_before_it_is_read(serving):
    client = connect(serving)
    client.sendall(post("/v1/completions", BIG))
    client.recv(1)
    client.close()
    now = serving.wait_for(lambda now: now[("runnel_clients_left_total",)] == 1)
    assert now[READERS] == 0 and now[SLOW] == 0
    assert now[("runnel_http_responses_total", "route=/v1/completions", "status=499")] == 1
    [line] = lines_of(serving, "/v1/completions")
    assert (line["status"], line["left"]) == (499, True)


def test_a_whole_answer_that_is_read_slowly(serve, tiny):
    """Slower than it was made, and never without a byte for as long as --timeout-write: it is delivered."""
    serving = serve(tiny("long"), "--log-json", "--ctx", "65536", "--timeout-write", str(2 * BY_THEN), kv_mib=128)
    client = connect(serving)
    client.sendall(post("/v1/completions", BIG))
    client.recv(1)
    time.sleep(0.3)
    assert ("runnel_http_responses_total", "route=/v1/completions", "status=200") not in serving.metrics(), "on its way"
    head, _, body = read_until_length(client)
    assert b" 200 OK" in head and len(json.loads(body)["choices"]) == 64
    now = serving.wait_for(lambda now: now[(FINISH, "finished_reason=length")] == 64)
    assert now[SLOW] == now[READERS] == 0
    [line] = lines_of(serving, "/v1/completions")
    assert (line["status"], line["finish"]) == (200, "length")
    client.close()


def read_until_length(client):
    got = b"H"
    while True:
        head, end, body = got.partition(b"\r\n\r\n")
        length = re.search(rb"Content-Length: (\d+)", head)
        if end and len(body) >= int(length[1]):
            return head, end, body
        more = client.recv(1 << 18)
        assert more
        got += more


@pytest.mark.parametrize("path", ["/metrics", "/", "/web/licenses.txt", "/openapi.json", "/props"])
def test_files_and_figures_that_are_not_read(serving, path):
    """Of many requests in a row, those whose answers nobody took."""
    client = connect(serving)
    client.setblocking(False)
    end = time.monotonic() + BY_THEN
    with pytest.raises(ConnectionResetError):  # so that what is missing is not taken for the end
        while time.monotonic() < end:
            try:
                client.send(get(path) * 500)
            except BlockingIOError:
                time.sleep(0.02)
    slow(serving)
    assert serving.metrics()[SLOW] == 0, "none of them asked for text"
    lines = serving.wait_for_lines(lambda lines: any(line.get("finish") == "slow_reader" for line in lines))
    unread = [line for line in lines if line.get("finish") == "slow_reader"]
    assert {line["path"] for line in unread} == {path} and len(unread) == serving.metric(*READERS) <= 17
    assert all(line["status"] == 200 and "left" not in line for line in unread)
    assert serving.get(path)[0] == 200  # nobody else notices
    client.close()


def read_late(serve, model):
    """What a client reads that wakes up when the time to drain is over, whether that was a reset, how long it took at most, and
    the server."""
    serving = serve(model, "--log-json", "--ctx", "65536", "--timeout-drain", "0.3", "--max-output-bytes", "100000000", kv_mib=128)
    client = connect(serving)
    client.sendall(post("/v1/completions", {"prompt": "once", "max_tokens": 60000, "ignore_eos": True, "stream": True,
                                            "logprobs": 20}))
    waits = 0
    while waits < 5:  # until the system's buffers are full: then what is sent no longer grows, only what waits
        before = unsent(serving)
        time.sleep(0.1)
        waits = waits + 1 if 0 < before == unsent(serving) else 0
    drained = time.monotonic() + 0.3  # or later
    serving.signal()
    while serving.process.poll() is None and not any("time to drain is over" in line for line in serving.lines):
        time.sleep(0.005)
    client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
    got, was_reset = read_all(client)
    client.close()
    return got, was_reset, time.monotonic() - drained, serving


def test_a_stream_that_is_read_late_when_the_server_ends(serve, tiny):
    """Its client is quick now: it gets whole events, an error event, and a clean end."""
    if SANITIZED:
        pytest.skip("too slow under a sanitizer")
    for _ in range(5):
        got, was_reset, seconds, serving = read_late(serve, tiny("long"))
        if not was_reset or seconds < LINGER_S:
            break  # else the machine was too busy for the client to be quick
    assert not was_reset and got.endswith(b"\r\n0\r\n\r\n")
    events = [line for line in got.split(b"\r\n") if line.startswith(b"data: ")]
    assert len(events) > 10 and all(json.loads(event[6:]) for event in events)
    assert "error" in json.loads(events[-1][6:])
    assert serving.wait() == 0


def test_a_stream_that_is_not_read_is_ended_by_the_time_of_its_request(serve, tiny):
    """Computing for a client that does not read has the same end as for others; it finds it where the text ends."""
    if SANITIZED:
        pytest.skip("too slow under a sanitizer")
    serving = serve(tiny("long"), "--log-json", "--ctx", "65536", "--request-timeout-s", "4", "--timeout-write", str(2 * BY_THEN),
                    "--max-output-bytes", "1000000000", "--parallel", "16", kv_mib=128)
    client = connect(serving)
    client.sendall(post("/v1/completions", {"prompt": "once", "max_tokens": 60000, "ignore_eos": True, "stream": True,
                                            "logprobs": 20, "n": 16}))  # 12 MB in that time: the system holds 3
    serving.wait_for(lambda now: now[("runnel_timeouts_total",)] == 1, pause=0.05)
    client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
    got, was_reset = read_all(client)
    assert not was_reset and got.endswith(b"\r\n0\r\n\r\n")
    events = [json.loads(line[6:]) for line in got.split(b"\r\n") if line.startswith(b"data: ")]
    assert len(events) > 10 and events[-1]["error"]["code"] == 504 and "4 s" in events[-1]["error"]["message"]
    [line] = lines_of(serving, "/v1/completions")
    assert line["finish"] == "error" and line["total_ms"] > 3900 and line["completion_tokens"] < 16 * 60000, line
    client.close()


def unsent(serving):
    """Bytes that the system holds for the server's clients."""
    lines = open("/proc/net/tcp").read().splitlines()[1:]
    mine = [line.split() for line in lines if line.split()[1].endswith(f":{serving.port:04X}")]
    return sum(int(fields[4].split(":")[0], 16) for fields in mine)
