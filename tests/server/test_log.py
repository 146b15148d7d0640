"""What an operator reads on stderr: one line a request at its end, and what else happens."""
import json
import os
import re
import socket
import subprocess
import threading
import time

import pytest
from serving import BY_THEN, N_WORKERS, ONE_WORKER, RUNNEL, SANITIZED, Serving, free_port, kv_cache, wait_until

TIMES = ("queued_ms", "prefill_ms", "decode_ms", "stalled_ms", "first_text_ms", "total_ms")


def requests(serving, n, timeout=BY_THEN):
    """The lines of n requests, once they are there."""
    found = serving.wait_for_lines(lambda lines: len(lines) >= n, timeout)
    assert len(found) == n, found
    return found


def test_a_line_for_each_request(serve, tiny):
    serving = serve(tiny(), "--log-json")
    body = {"prompt": [7] * 200, "max_tokens": 10, "ignore_eos": True}
    with serving.on_one_connection():
        answers = [serving.post("/v1/completions", body) for _ in range(2)]
    first, second = requests(serving, 2)
    for line, (_, headers, answer) in zip((first, second), answers):
        assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", line["time"])
        assert (line["method"], line["path"], line["status"]) == ("POST", "/v1/completions", 200)
        assert answer["id"] == "cmpl-" + line["id"] and headers["X-Request-Id"] == line["id"]
        assert (line["prompt_tokens"], line["completion_tokens"], line["reasoning_tokens"]) == (200, 10, 0)
        assert line["cached_tokens"] == answer["usage"]["prompt_tokens_details"]["cached_tokens"]
        assert line["finish"] == "length" and "left" not in line
        timings = answer["timings"]
        for name, theirs in (("queued_ms", "queue_ms"), ("prefill_ms", "prompt_ms"), ("decode_ms", "predicted_ms"),
                             ("stalled_ms", "stall_ms")):
            assert abs(line[name] - timings[theirs]) < 0.002, name
        assert line["prefill_ms"] <= line["first_text_ms"] <= line["total_ms"]
        assert line["queued_ms"] + line["prefill_ms"] + line["decode_ms"] <= line["total_ms"]
    assert first["cached_tokens"] == 0 and second["cached_tokens"] > 100
    assert first["id"] != second["id"]


def test_every_way_to_end(serve, tiny):
    serving = serve(tiny("long"), "--log-json", "--ctx", "8192", "--parallel", "1", kv_mib=64)
    n = 0

    def last(*expected):
        nonlocal n
        n += 1
        line = requests(serving, n)[-1]
        assert (line["method"], line["path"], line["status"]) == expected, line
        return line

    serving.get("/v1/models")
    assert not set(TIMES) - {"total_ms"} & set(last("GET", "/v1/models", 200))
    serving.get("/nowhere?prompt=secret")
    last("GET", "/nowhere", 404)
    serving.get("/generate")
    last("GET", "/generate", 405)
    serving.post("/v1/completions", {"prompt": 5.5})
    last("POST", "/v1/completions", 400)
    serving.post("/generate-batch", [{"prompt": "a", "max_tokens": 2}, {"prompt": "b", "max_tokens": 2}])
    assert last("POST", "/generate-batch", 200)["answers"] == 2
    stream = serving.stream("once", 10)
    stream.text()
    assert last("POST", "/v1/completions", 200)["completion_tokens"] == 10
    stream = serving.stream("once", 6000)  # in the middle of its answer
    assert stream.read_head() == 200
    next(stream.events())
    stream.leave(reset=True)
    line = last("POST", "/v1/completions", 499)
    assert line["left"] is True and line["finish"] == "abort" and 0 < line["completion_tokens"] < 6000
    with socket.create_connection(("127.0.0.1", serving.port)) as raw:  # in the body
        raw.sendall(b"POST /generate HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
                    b"Content-Length: 100\r\n\r\n{")
        time.sleep(0.1)
    assert last("POST", "/generate", 499)["left"] is True
    with socket.create_connection(("127.0.0.1", serving.port)) as raw:  # no request at all
        raw.sendall(b"nonsense\r\n\r\n")
        assert b" 400 " in raw.recv(4096)
    last("-", "-", 400)
    with socket.create_connection(("127.0.0.1", serving.port)) as raw:  # a body past the limit
        raw.sendall(b"POST /generate HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
                    b"Content-Length: 10000000000\r\n\r\n")
        assert b" 413 " in raw.recv(4096)
    last("POST", "/generate", 413)
    for path in "/health", "/metrics":  # come every few seconds and say nothing
        assert serving.get(path)[0] == 200
    serving.get("/v1/models")
    last("GET", "/v1/models", 200)


def test_two_in_company_tell_of_their_stalls(serve, tiny):
    serving = serve(tiny("long"), *ONE_WORKER, "--log-json", "--ctx", "8192", kv_mib=64)  # in its steps they are together
    stream = serving.stream("once", 3000)
    events = stream.events()
    assert stream.read_head() == 200
    next(events)
    serving.post("/v1/completions", {"prompt": [9] * 3000, "max_tokens": 1})
    list(events)
    lines = {line["prompt_tokens"]: line for line in requests(serving, 2)}
    short = next(line for n, line in lines.items() if n < 100)
    assert short["stalled_ms"] > 0
    assert lines[3000]["stalled_ms"] == 0


@pytest.mark.parametrize("flags", [[], ["--log-json"]])
def test_nothing_of_what_was_asked_or_answered(serve, tiny, flags):
    serving = serve(tiny(), *flags)
    secret = "xylophone"
    for path, body in (("/v1/chat/completions", {"messages": [{"role": "user", "content": secret}], "max_tokens": 3,
                                                 "user": secret, "stop": [secret]}),
                       ("/generate", {"prompt": secret, "max_tokens": 3}),
                       ("/generate", {"prompt": secret, "max_tokens": -3}),
                       ("/v1/completions", {"prompt": [5, secret]}), ("/v1/completions?key=" + secret, {})):
        serving.post(path, body)
    serving.signal()
    assert serving.wait() == 0
    assert sum("request" in line for line in serving.lines) == 5, serving.lines
    assert secret not in "\n".join(serving.lines)


@pytest.mark.parametrize("flags", [[], ["--log-json"]])
def test_a_path_cannot_write_to_the_terminal(serve, tiny, flags):
    serving = serve(tiny(), *flags)
    with socket.create_connection(("127.0.0.1", serving.port)) as raw:
        raw.sendall(b"GET /%1b[2J\"x=1\xc3\xa9\xff HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert raw.recv(4096)
    serving.get("/" + "a" * 5000)
    serving.signal()
    assert serving.wait() == 0
    lines = [line for line in serving.lines if "request" in line]
    assert len(lines) == 2
    for line in lines:
        assert all(" " <= byte <= "~" or byte == "é" for byte in line) and len(line) < 500
        if flags:
            json.loads(line)


def test_text_lines(serve, tiny):
    serving = serve(tiny())
    serving.complete("hello", 3)
    wait_until(lambda: any(" request " in line for line in serving.lines))  # which may come after the answer
    serving.signal()
    assert serving.wait() == 0
    stamp = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z"
    for pattern, line in zip((rf"{stamp} Runnel serves Tiny random model at http://\S+",
                              rf"{stamp} request method=POST path=/v1/completions status=200 id=[0-9a-f]{{24}} "
                              r"prompt_tokens=\d+ cached_tokens=0 completion_tokens=3 reasoning_tokens=0 finish=length "
                              + "".join(rf"{name}=[\d.]+ " for name in TIMES[:-1]) + r"total_ms=[\d.]+",
                              rf"{stamp} Runnel ends"), serving.lines_of_its_life(), strict=True):
        assert re.fullmatch(pattern, line), (pattern, line)


def start_with_stderr(model, stderr, *flags, preexec_fn=None):
    port = free_port()
    process = subprocess.Popen([RUNNEL, "serve", "-m", model, "--port", str(port), *kv_cache(16), *flags],
                               stderr=stderr, preexec_fn=preexec_fn)
    serving = Serving.__new__(Serving)
    serving.port, serving.process, serving.lines = port, process, []
    serving.reader = threading.Thread()
    serving.reader.start()
    end = time.monotonic() + BY_THEN
    while True:
        try:
            if serving.get("/health")[0] == 200:
                return serving
        except ConnectionRefusedError:
            pass
        assert time.monotonic() < end and process.poll() is None
        time.sleep(0.05)


def check_it_serves(serving, n=20):
    """How many lines were lost."""
    for _ in range(n):
        serving.complete("hello", 3)
    lost = serving.wait_until_idle()[("runnel_log_lines_lost_total",)]  # the line of a request may come after its answer
    serving.stop()
    assert serving.process.returncode == 0
    return lost


# That the server can be asked, and, of a second worker that is ready later than that, that it is; with sanitizers, that there is no sandbox.
OF_THE_START = range(2, 2 * N_WORKERS + 1) if SANITIZED else {1, N_WORKERS}


def test_a_full_disk(tiny):
    with open("/dev/full", "w") as full:
        assert check_it_serves(start_with_stderr(tiny(), full)) - 20 in OF_THE_START


def test_no_stderr_at_all(tiny):
    serving = start_with_stderr(tiny(), None, preexec_fn=lambda: os.close(2))
    assert check_it_serves(serving) - 20 in OF_THE_START


def test_a_reader_that_went_away(tiny):
    reader, writer = os.pipe()
    serving = start_with_stderr(tiny(), writer)
    os.close(writer)
    said = b""
    while b"serves" not in said:  # it can be asked a moment before it says so
        said += os.read(reader, 4096)
    os.close(reader)
    assert check_it_serves(serving) - 20 in range(max(OF_THE_START))  # one of them at least was read


def test_a_reader_that_does_not_read(tiny):
    reader, writer = os.pipe()
    serving = start_with_stderr(tiny(), writer)
    os.close(writer)
    lost = check_it_serves(serving, n=500)
    assert lost > 0
    os.close(reader)
