"""Connections as bad clients make them."""
import json
import os
import signal
import select
import socket
import threading
import time

import pytest

from conftest import HOST
from serving import BY_THEN

CHUNKED = b"Transfer-Encoding: chunked\r\n"


def post(target, body, headers=b""):
    return b"POST %s HTTP/1.1\r\n" % target + HOST + headers + b"Content-Length: %d\r\n\r\n" % len(body) + body


# --- ordinary use ---


def test_keep_alive_and_close(server):
    client = server.client()
    for i in range(3):
        body = b"body %d" % i
        status, headers, answer = client.send(post(b"/echo", body)).response()
        assert (status, answer) == (200, body) and "connection" not in headers
    status, headers, _ = client.get(b"/health", b"Connection: close\r\n").response()
    assert status == 200 and headers["connection"] == "close" and client.is_closed()
    assert server.stats()["accepted"] == 2


def test_route_closes(server):
    client = server.client()
    assert client.get(b"/close").response()[1]["connection"] == "close" and client.is_closed()


def test_http_1_0(server):
    client = server.client().send(b"GET /health HTTP/1.0\r\n\r\n")
    assert client.response()[1]["connection"] == "close" and client.is_closed()
    client = server.client()
    for _ in range(2):
        client.send(b"GET /health HTTP/1.0\r\nConnection: keep-alive\r\n\r\n")
        assert client.response()[1]["connection"] == "keep-alive"
    client = server.client().send(b"GET /stream?n=2 HTTP/1.0\r\n\r\n")
    answer = client.read_all()
    assert b"chunked" not in answer and answer.endswith(b"\r\n\r\ndata: x\n\ndata: x\n\n")


def test_head_has_no_body(server):
    client = server.client().send(b"HEAD /big?bytes=10 HTTP/1.1\r\n" + HOST + b"\r\n")
    assert b"Content-Length: 10\r\n" in client.read_until(b"\r\n\r\n")
    assert client.get(b"/health").response()[0] == 200


def test_chunked_body_byte_by_byte(server):
    request = b"POST /echo HTTP/1.1\r\n" + HOST + CHUNKED + b"\r\n3\r\nabc\r\n0a;x=1\r\n0123456789\r\n0\r\nA: b\r\n\r\n"
    client = server.client()
    for i in range(len(request)):
        client.send(request[i:i + 1])
        if not i % 16:
            time.sleep(0.001)
    assert client.response()[2] == b"abc0123456789"


def test_stream(server):
    client = server.client().get(b"/stream?n=5&bytes=3&ms=1")
    status, headers, body = client.response()
    assert status == 200 and headers["content-type"] == "text/event-stream" and body == b"data: xxx\n\n" * 5
    assert client.get(b"/health").response()[0] == 200


def test_comments_keep_a_silent_stream_alive(start):
    client = start("comment_ms=250").client().get(b"/stream?n=1&ms=1200")
    before, after = client.response()[2].split(b"data: x\n\n")
    for comments in before, after:
        assert 2 <= comments.count(b"\n\n") <= 4 and comments == b": still here\n\n" * comments.count(b"\n\n")


def test_answer_from_another_thread(server):
    clients = [server.client().get(b"/thread?ms=%d" % (i % 5)) for i in range(50)]
    assert all(client.response()[2] == b"thread\n" for client in clients)


def test_continue(server):
    client = server.client()
    client.send(b"POST /echo HTTP/1.1\r\n" + HOST + b"Expect: 100-continue\r\nContent-Length: 4\r\n\r\n")
    assert client.response()[0] == 100
    assert client.send(b"body").response()[2] == b"body"


def test_large_body_and_answer(server):
    body = bytes(range(256)) * 8192  # 2 MiB, the limit
    client = server.client()
    assert client.send(post(b"/echo", body)).response()[2] == body
    assert client.get(b"/big?bytes=20000000").response()[2] == b"b" * 20000000


# --- pipelining ---


def test_500_pipelined_requests_in_order(server):
    client = server.client()
    requests = b"".join(post(b"/echo", b"%d" % i) for i in range(500))
    threading.Thread(target=client.send, args=(requests,)).start()
    assert [int(client.response()[2]) for i in range(500)] == list(range(500))


def test_500_pipelined_requests_that_take_time(server):
    client = server.client()
    requests = b"".join((b"GET /later?ms=1 HTTP/1.1\r\n" if i % 2 else b"GET /big?bytes=%d HTTP/1.1\r\n" % i) +
                        HOST + b"\r\n" for i in range(500))
    threading.Thread(target=client.send, args=(requests,)).start()
    for i in range(500):
        assert client.response()[2] == (b"later\n" if i % 2 else b"b" * i)
        if i == 250:
            assert server.stats()["exchanges"] <= 2  # one at a time, and the asking one


def test_reading_pauses_while_answers_are_not_read(server):
    client = server.client(receive_buffer=4096)
    one = b"GET /big?bytes=100000 HTTP/1.1\r\n" + HOST + b"\r\n"
    client.send(one * 500)
    time.sleep(0.3)
    handled = server.stats()["requests"]
    assert handled < 200, "50 MB of answers were made for a client that reads none"
    for _ in range(500):
        assert len(client.response()[2]) == 100000


def greedy(client, block, stop):
    """Sends without end, and reads."""
    def read():
        while client.socket.recv(1 << 20) and not stop.is_set():
            pass
        client.reset()

    def send():
        try:
            while not stop.is_set():
                client.socket.sendall(block)
        except OSError:
            assert stop.is_set()

    threads = [threading.Thread(target=work) for work in (read, send)]
    for thread in threads:
        thread.start()
    return threads


def test_greedy_clients_do_not_starve_others(server):
    stop = threading.Event()
    requests = (b"GET /health HTTP/1.1\r\n" + HOST + b"\r\n") * 2000
    chunks = b"POST /echo HTTP/1.1\r\n" + HOST + CHUNKED + b"\r\n" + b"1\r\nx\r\n" * 10000 + b"0\r\n\r\n"
    threads = greedy(server.client(), requests, stop) + greedy(server.client(), chunks, stop)
    slowest = 0
    try:
        for _ in range(20):
            began = server.cpu_seconds()
            assert server.ask(b"/health")[0] == 200
            slowest = max(slowest, server.cpu_seconds() - began)
    finally:
        stop.set()
    for thread in threads:
        thread.join()
    assert slowest < 0.25  # so much it does for the greedy ones before another's turn comes


# --- refusals ---


@pytest.mark.parametrize("request_bytes, status", [
    (b"GET / HTTP/1.1\nHost: a\n\n", 400),
    (b"GET / HTTP/1.1\r\n\r\n", 400),
    (b"GET /\0 HTTP/1.1\r\n" + HOST + b"\r\n", 400),
    (b"POST /echo HTTP/1.1\r\n" + HOST + CHUNKED + b"Content-Length: 3\r\n\r\n0\r\n\r\n", 400),
    (b"POST /echo HTTP/1.1\r\n" + HOST + CHUNKED + b"\r\nzz\r\n", 400),
    (b"POST /echo HTTP/1.1\r\n" + HOST + b"Transfer-Encoding: gzip\r\n\r\n", 501),
    (b"POST /echo HTTP/1.1\r\n" + HOST + b"Content-Length: 2097153\r\n\r\n", 413),
    (b"POST /echo HTTP/1.1\r\n" + HOST + b"Content-Length: 1099511627776\r\n\r\n" + b"x" * 3000000, 413),
    (b"POST /echo HTTP/1.1\r\n" + HOST + CHUNKED + b"\r\n" + b"100000\r\n" + b"x" * 1048576 + b"\r\n100001\r\n", 413),
    (b"POST /echo HTTP/1.1\r\n" + HOST + b"Expect: 100-continue\r\nContent-Length: 2097153\r\n\r\n", 413),
    (b"GET /" + b"a" * 8192 + b" HTTP/1.1\r\n" + HOST + b"\r\n", 414),
    (b"GET / HTTP/1.1\r\n" + HOST + b"A: b\r\n" * 100 + b"\r\n", 431),
    (b"GET / HTTP/1.1\r\n" + HOST + b"A: " + b"b" * 32768 + b"\r\n\r\n", 431),
    (b"GET / HTTP/3.0\r\n\r\n", 505),
], ids=lambda value: str(value)[:60])
def test_refused_and_closed(server, request_bytes, status):
    client = server.client().send(request_bytes)
    found, headers, body = client.response()
    assert found == status and headers["connection"] == "close" and client.is_closed()
    error = json.loads(body)["error"]
    assert error["code"] == status and error["message"] and error["type"] and error["param"] is None
    assert server.stats()["refusals"] == 1


@pytest.mark.parametrize("request_bytes, status", [
    (b"POST /private HTTP/1.1\r\n" + HOST + b"Content-Length: 1000000\r\n\r\n", 401),
    (b"POST /nope HTTP/1.1\r\n" + HOST + b"Expect: 100-continue\r\nContent-Length: 10\r\n\r\n", 404),
    (b"PUT /echo HTTP/1.1\r\n" + HOST + CHUNKED + b"\r\n", 405),
    (b"POST /json HTTP/1.1\r\n" + HOST + b"Content-Type: text/plain\r\nContent-Length: 10\r\n\r\n", 415),
], ids=lambda value: str(value)[:60])
def test_refused_before_the_body(server, request_bytes, status):
    client = server.client().send(request_bytes)
    assert client.response()[0] == status and client.is_closed()


@pytest.mark.parametrize("target", [b"/../etc/passwd", b"//health", b"/%68ealth", b"/health/", b"/health/..", b"/.",
                                    b"/health%00", b"/HEALTH"])
def test_path_tricks(server, target):
    client = server.client().get(target)
    assert client.response()[0] == 404
    assert client.get(b"/health").response()[0] == 200  # without a body the connection goes on


def test_no_length(server):
    client = server.client().send(b"POST /json HTTP/1.1\r\n" + HOST + b"\r\n")
    assert client.response()[0] == 411


# --- slow clients ---


def test_slow_head(start):
    server = start("head_ms=300")
    client = server.client().send(b"GET / HTTP/1.1\r\nX: ")
    began = time.monotonic()
    for _ in range(100):  # a byte at a time does not help
        client.buffer += client.whatever_came(wait=0.02)
        if client.buffer:
            break
        client.send(b"x")
    assert client.response()[0] == 408 and client.is_closed()
    assert 0.25 < time.monotonic() - began < 9  # by itself it is 10


def test_slow_body(start):
    client = start("body_ms=300").client()
    client.send(b"POST /echo HTTP/1.1\r\n" + HOST + b"Content-Length: 100\r\n\r\n")
    began = time.monotonic()
    for _ in range(5):
        client.send(b"x")
        time.sleep(0.02)
    assert client.response()[0] == 408 and client.is_closed()
    assert 0.25 < time.monotonic() - began < 25  # by itself it is 30


def test_body_that_is_fast_enough_gets_more_time(start):
    client = start("body_ms=800").client()
    client.send(b"POST /echo HTTP/1.1\r\n" + HOST + b"Content-Length: 65536\r\n\r\n")
    for _ in range(8):
        client.send(b"x" * 8192)
        time.sleep(0.2)
    assert client.response()[0] == 200


def test_idle_connections_are_closed_silently(start):
    server = start("keep_alive_ms=200")
    fresh, used = server.client(), server.client().get(b"/health")
    assert used.response()[0] == 200
    assert fresh.is_closed() and used.is_closed()


def test_nobody_else_notices(server):
    """300 idle connections, 50 with slow heads, 20 with slow bodies."""
    idle = [server.client() for _ in range(300)]
    heads = [server.client().send(b"GET / HTTP/1.1\r\nX: ") for _ in range(50)]
    bodies = [server.client().send(b"POST /echo HTTP/1.1\r\n" + HOST + b"Content-Length: 1000\r\n\r\n")
              for _ in range(20)]
    slowest = 0
    for _ in range(20):
        for client in heads + bodies:
            client.send(b"x")
        began = server.cpu_seconds()
        assert server.ask(b"/health")[0] == 200
        slowest = max(slowest, server.cpu_seconds() - began)
    assert slowest < 0.1
    assert server.stats()["connections"] == len(idle) + len(heads) + len(bodies) + 1


# --- clients that leave ---

PHASES = {
    "connected": b"",
    "head": b"GET /health HT",
    "body": b"POST /echo HTTP/1.1\r\n" + HOST + b"Content-Length: 10\r\n\r\nabc",
    "chunks": b"POST /echo HTTP/1.1\r\n" + HOST + CHUNKED + b"\r\n5\r\nab",
    "answer": b"GET /later?ms=60000 HTTP/1.1\r\n" + HOST + b"\r\n",
    "answer, more sent": b"GET /later?ms=60000 HTTP/1.1\r\n" + HOST + b"\r\n" + b"GET /health" * 2000,
    "thread": b"GET /thread?ms=1500 HTTP/1.1\r\n" + HOST + b"\r\n",
    "stream": b"GET /stream?n=1000000&ms=50 HTTP/1.1\r\n" + HOST + b"\r\n",
    "silent stream": b"GET /stream?n=1&ms=60000 HTTP/1.1\r\n" + HOST + b"\r\n",
    "unread answer": b"GET /big?bytes=20000000 HTTP/1.1\r\n" + HOST + b"\r\n",
}


@pytest.mark.parametrize("how", ["close", "reset"])
@pytest.mark.parametrize("phase", PHASES)
def test_client_leaves(server, phase, how):
    n_descriptors = server.n_descriptors()
    client = server.client().send(PHASES[phase])
    handed_over = phase in ("answer", "answer, more sent", "thread", "stream", "silent stream")
    server.wait_for(connections=2, exchanges=2 if handed_over else 1)
    getattr(client, how)()
    stats = server.wait_for(connections=1, exchanges=1)
    assert stats["gone"] == stats["gone_calls"] == (1 if handed_over else 0)
    end = time.monotonic() + BY_THEN
    while server.n_descriptors() != n_descriptors:  # that of the last question may still be open
        assert time.monotonic() < end
        time.sleep(0.01)
    used = server.cpu_seconds()
    time.sleep(0.2)
    assert server.cpu_seconds() - used < 0.1


def test_gone_is_noticed_at_once(server):
    client = server.client().get(b"/later?ms=60000")
    server.wait_for(exchanges=2)
    client.close()
    for _ in range(3):  # its end has come before these questions: with the first, or just after
        n_exchanges = server.stats()["exchanges"]
    assert n_exchanges == 1


def test_half_close(server):
    """Whoever shuts down its half gets what is there at once; what takes time is given up."""
    client = server.client().send(post(b"/echo", b"one") + post(b"/echo", b"two"))
    client.socket.shutdown(socket.SHUT_WR)
    assert client.response()[2] == b"one" and client.response()[2] == b"two" and client.is_closed()
    client = server.client().get(b"/later?ms=60000")
    client.socket.shutdown(socket.SHUT_WR)
    assert client.is_closed()
    assert server.wait_for(connections=1, exchanges=1)["gone"] == 1


# --- clients that do not read ---


def read_stream(client):
    """All of a stream whose client did not read it in time: whole events, the last of which is an error, and a FIN."""
    head, _, chunks = client.read_all().partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200 ") and chunks.endswith(b"\r\n0\r\n\r\n")
    body = b""
    while chunks:
        size, _, chunks = chunks.partition(b"\r\n")
        body, chunks = body + chunks[:int(size, 16)], chunks[int(size, 16) + 2:]
    *events, last, rest = body.split(b"\n\n")
    assert not rest and events and set(events) == {events[0]}
    assert json.loads(last.removeprefix(b"data: "))["error"]["code"] == 408


def test_endless_stream_to_a_client_that_never_reads(server):
    client = server.client(receive_buffer=4096).get(b"/stream?n=100000000&bytes=60000&ms=0")
    server.wait_for(exchanges=1, gone=1)
    read_stream(client)


def test_a_stream_whose_client_reads_bytes(server):
    """A byte now and then is too slow; what has been cut is still read whole."""
    client = server.client(receive_buffer=4096).get(b"/stream?n=100000000&bytes=60000&ms=0")
    first = b""
    while not server.stats()["gone"]:
        first += client.socket.recv(1)
        time.sleep(0.05)
    assert b"HTTP/1.1 200 OK"[:len(first)] == first[:15]
    client.socket.settimeout(10)
    rest = client.read_all()
    assert rest.endswith(b"\r\n0\r\n\r\n") and b'"code":408' in rest[-300:]


def test_a_stream_that_stalls(start):
    """What waits is less than the limit, and does not get less: its end waits behind it."""
    server = start("write_stall_ms=1000", "output_bytes=100000000")
    client = server.client(receive_buffer=4096).get(b"/stream?n=200&bytes=60000&ms=0")
    client.read_until(b"\r\n\r\n")
    server.wait_for(exchanges=1, gone=1)
    rest = client.read_all()
    assert rest.endswith(b"\r\n0\r\n\r\n") and b'"code":408' in rest[-300:]


def test_a_stream_that_is_never_read_is_closed(start):
    """Its last bytes have so long, and no longer."""
    server = start("write_stall_ms=300", "output_bytes=8000000")
    client = server.client(receive_buffer=4096).get(b"/stream?n=100000000&bytes=60000&ms=0")
    server.wait_for(connections=1, exchanges=1, gone=1)
    client.close()


def test_the_last_answer_is_read_late(server):
    """All of it is with the system when the connection ends: a reset would take it back."""
    client = server.client(receive_buffer=4096).get(b"/big?bytes=500000", b"Connection: close\r\n")
    server.wait_for(connections=2)
    server.wait_for(connections=1)  # the server's part is done
    head, _, body = client.read_all().partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200 ") and len(body) == 500000


def test_answer_that_is_never_read(start):
    server = start("write_stall_ms=300")
    client = server.client(receive_buffer=4096).get(b"/big?bytes=20000000")
    server.wait_for(connections=2)
    server.wait_for(connections=1, timeout=25)  # by itself it is 30
    with pytest.raises(ConnectionResetError):
        client.read_all()


def test_slow_reader_gets_everything(start):
    client = start("write_stall_ms=1000").client(receive_buffer=4096).get(b"/big?bytes=8000000")
    n = 0
    client.read_until(b"\r\n\r\n")
    while n < 8000000:
        client.exactly(min(500000, 8000000 - n))
        n += 500000
        time.sleep(0.1)


def trickle(client, n, pause):
    """Reads what is there, a little at a time, n bytes in all at most. The number it got."""
    got = 0
    while got < n:
        got += len(client.socket.recv(2048))
        time.sleep(pause)
    return got


def test_a_whole_answer_that_is_read_far_too_slowly(start):
    """Some of it again and again is not enough: it would be kept for minutes, or for days."""
    server = start("write_stall_ms=4000", "answer_bytes_per_s=100000000")
    client = server.client(receive_buffer=4096).get(b"/big?bytes=64000000")
    end = time.monotonic() + BY_THEN
    with pytest.raises(ConnectionResetError):
        while time.monotonic() < end:
            trickle(client, 65536, 0.002)
    server.wait_for(connections=1)


def test_a_whole_answer_that_is_read_steadily(start):
    """The system asks for more only once much of its buffer is free, and that takes longer than the client may read
    nothing: what counts is what the client takes."""
    server = start("write_stall_ms=5000", "answer_bytes_per_s=1")
    client = server.client(receive_buffer=4096).get(b"/big?bytes=20000000")
    end = time.monotonic() + 10
    while time.monotonic() < end:
        trickle(client, 8192, 0.02)
    assert server.stats()["connections"] == 2


# --- shortage ---


def test_few_descriptors(start):
    """Idle connections make room; busy ones do not, and then the loop does not spin."""
    server = start(n_descriptors=32)
    idle = [server.client() for _ in range(22)]
    time.sleep(0.15)
    for _ in range(20):
        assert server.ask(b"/health")[0] == 200
    for client in idle:
        client.close()
    busy = [server.client().get(b"/later?ms=60000") for _ in range(60)]
    time.sleep(0.3)
    used = server.cpu_seconds()
    time.sleep(1)
    assert server.cpu_seconds() - used < 0.2
    answers = [client.whatever_came() for client in busy]
    refused = [answer for answer in answers if answer]
    assert 0 < len(refused) < 38 and all(answer.startswith(b"HTTP/1.1 503 ") for answer in refused)
    for client in busy:
        client.close()
    time.sleep(0.3)
    server.wait_for(connections=1, exchanges=1)


def test_too_many_connections(start):
    server = start("n_connections=3")
    busy = [server.client().get(b"/later?ms=3000") for _ in range(2)]
    idle = server.client()
    time.sleep(0.2)
    assert server.ask(b"/health")[0] == 200  # in place of the idle one
    assert idle.is_closed()
    busy.append(server.client().get(b"/later?ms=3000"))
    time.sleep(0.1)
    assert server.client().whatever_came(wait=BY_THEN).startswith(b"HTTP/1.1 503 ")
    assert all(client.response()[0] == 200 for client in busy)


def idle_clients(server, n):
    """They have had an answer each, and are idle for long enough to make room."""
    clients = [server.client() for _ in range(n)]
    for client in clients:
        assert client.get(b"/health").response()[0] == 200
    time.sleep(0.3)
    return clients


def n_closed(clients):
    time.sleep(0.2)
    return len(select.select([client.socket for client in clients], [], [], 0)[0])


def test_a_full_server_closes_one_for_each_that_comes(start):
    """After the one who came the listener looks again: nobody waits, and nobody has to make room."""
    server = start("n_connections=3")
    idle = idle_clients(server, 3)
    assert n_closed(idle) == 0
    assert server.client().get(b"/health").response()[0] == 200
    assert n_closed(idle) == 1


def test_the_last_descriptor_is_used_before_anybody_is_closed(start):
    """The system says that there is none, too, when nobody waits for one."""
    server, idle = start(n_descriptors=32), []
    for _ in range(32):
        idle += idle_clients(server, 1)
        if n_closed(idle):
            break
    assert n_closed(idle) == 1 and server.n_descriptors() == 32


# --- the end ---


def test_drain(start):
    server = start()
    idle, half, body = server.client(), server.client().send(b"GET / H"), server.client()
    body.send(b"POST /echo HTTP/1.1\r\n" + HOST + b"Content-Length: 10\r\n\r\nabc")
    later, stream = server.client().get(b"/later?ms=2000"), server.client().get(b"/stream?n=5&ms=400")
    server.wait_for(connections=6, exchanges=3)
    began = time.monotonic()
    server.terminate()
    assert idle.is_closed()
    for client in half, body:
        status, headers, _ = client.response()
        assert status == 503 and int(headers["retry-after"]) > 0
    assert later.response()[1]["connection"] == "close" and later.is_closed()
    assert stream.response()[2].count(b"data") == 5
    assert server.wait().endswith("exchanges 0")
    assert 1 < time.monotonic() - began < 25  # the limit is 30


def test_a_request_that_has_come_is_answered_when_the_drain_begins(start):
    """Sent before the signal, not yet read: an answer, not a closed connection."""
    for _ in range(5):
        server = start()
        clients = [server.client() for _ in range(10)]
        server.wait_for(connections=11)
        os.kill(server.process.pid, signal.SIGSTOP)
        for client in clients:
            client.get(b"/health")
        server.terminate()
        os.kill(server.process.pid, signal.SIGCONT)
        for client in clients:
            status, headers, _ = client.response()
            assert status == 503 or (status == 200 and client.is_closed())
        server.wait()


def test_drain_has_a_limit(start):
    server = start("drain_ms=300")
    client = server.client().get(b"/later?ms=60000")
    server.wait_for(exchanges=2)
    began = time.monotonic()
    server.terminate()
    assert client.is_closed()
    assert server.wait() == "connections 1 exchanges 1"
    assert 0.2 < time.monotonic() - began < 25  # by itself it is 30


def test_drained_server_answers_probes(start):
    server = start("accepts_while_drained=1")
    client = server.client().get(b"/later?ms=2000")
    server.wait_for(exchanges=2)
    server.terminate()
    time.sleep(0.05)
    assert server.ask(b"/health")[0] == 503
    assert client.response()[0] == 200
    server.wait()


def test_drain_of_nothing_is_immediate(start):
    server = start()
    server.client()
    began = time.monotonic()
    server.terminate()
    server.wait()
    assert time.monotonic() - began < 25  # the limit is 30


def retire(server):
    """Returns once it does."""
    watcher = server.client()
    watcher.get(b"/health").response()
    server.process.send_signal(signal.SIGUSR1)
    while watcher.get(b"/health").response()[1].get("connection") != "close":
        time.sleep(0.01)


def test_retiring_serves_each_connection_once_more(start):
    """Whoever was told that it may send another request gets its answer, and is told to go elsewhere."""
    server = start("accepts_while_drained=1", "retire_idle_ms=60000")
    idle, streaming, half_read = server.client(), server.client(), server.client()
    assert idle.get(b"/health").response()[0] == 200
    streaming.get(b"/stream?n=5&ms=100")
    server.wait_for(exchanges=2)
    half_read.send(b"POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\n\r\n")
    retire(server)
    half_read.send(b"half")
    status, headers, body = half_read.response()
    assert (status, headers["connection"], body) == (200, "close", b"half") and half_read.is_closed()
    assert "connection" not in streaming.response()[1]
    for client in (streaming, idle):
        status, headers, _ = client.get(b"/health").response()
        assert (status, headers["connection"]) == (200, "close") and client.is_closed()
    assert server.wait().endswith("exchanges 0")


def test_draining_may_follow_retiring(start):
    """Then nobody else answers: whoever comes is told so by this one again."""
    server = start("accepts_while_drained=1")
    running = server.client().get(b"/later?ms=3000")
    server.wait_for(exchanges=2)
    retire(server)
    server.terminate()
    assert server.client().get(b"/health").response()[0] == 503
    assert running.response()[0] == 200
    server.wait()


def test_retiring_does_not_wait_for_idle_connections(start):
    server = start("retire_idle_ms=200")
    client = server.client()
    server.wait_for(connections=2)
    began = time.monotonic()
    retire(server)
    assert client.is_closed()
    server.wait()
    assert 0.15 < time.monotonic() - began < 25  # without the limit 60


def test_retiring_has_a_limit_and_ends_at_once_when_told_to(start):
    server = start("drain_ms=1000")
    server.client().get(b"/later?ms=60000")
    server.wait_for(exchanges=2)
    retire(server)
    assert server.wait().endswith("exchanges 1")
    server = start("retire_idle_ms=60000")
    client = server.client()
    server.wait_for(connections=2)
    retire(server)
    server.terminate()
    assert client.is_closed()
    server.wait()
