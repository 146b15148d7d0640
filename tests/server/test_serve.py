"""A server's life: flags, loading, ready, draining, the end."""
import http.client
import os
import signal
import socket
import time

import pytest
from serving import BY_THEN, SANITIZED, SLOW, free_port, run_serve, title_of, wait_until


def test_ready_line_health_and_end(serve, tiny):
    serving = serve(tiny())
    assert serving.url == f"http://127.0.0.1:{serving.port}"
    status, headers, body = serving.get("/health")
    assert (status, body) == (200, {"status": "ok"})
    serving.signal()
    assert serving.wait(5) == 0
    assert [line.split(" ", 1)[1] for line in serving.lines_of_its_life()] == [
        f"Runnel serves Tiny random model at {serving.url}", "Runnel ends"], serving.lines


def test_loading_is_told_from_the_first_moment(serve, tiny):
    serving = serve(tiny(), kv_mib=512, wait=False)  # that much takes a while to touch
    seen = []
    while "ok" not in seen:
        try:
            status, headers, body = serving.get("/health")
        except ConnectionRefusedError:
            assert not seen
            continue
        if body["status"] == "loading model" and not seen:
            assert headers["Retry-After"]
            refused, headers, answer = serving.post("/v1/completions", {"prompt": "a"})
            if refused == 503:
                assert headers["Retry-After"] and answer["error"]["type"] == "unavailable_error"
                assert serving.get("/metrics")[0] == 200
                assert serving.get("/v1/health")[2]["status"] in ("loading model", "ok")
                seen.append("refused")
        assert (status, body["status"]) in ((503, "loading model"), (200, "ok"))
        seen.append(body["status"])
    assert seen[0:2] == ["refused", "loading model"]


def test_signal_while_loading(serve, tiny):
    serving = serve(tiny(), kv_mib=512, wait=False)
    while True:
        try:
            serving.get("/health")
            break
        except ConnectionRefusedError:
            pass
    serving.signal()
    assert serving.wait() == 0
    assert [line.split(" ", 1)[1] for line in serving.lines] == ["Runnel ends"]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_stream_finishes_while_draining(serve, tiny, number):
    serving = serve(tiny("long"), "--ctx", "8192", "--timeout-drain", str(BY_THEN))
    stream = serving.stream("once", 4000 // SLOW, temperature=0)
    assert stream.read_head() == 200
    events = stream.events()
    next(events)
    serving.signal(number)
    while True:
        try:
            status, headers, body = serving.get("/health")
            if body != {"status": "ok"}:
                break
        except http.client.RemoteDisconnected:
            pass  # it had not sent its request when the draining began
    assert (status, body) == (503, {"status": "draining"})
    status, headers, body = serving.post("/v1/completions", {"prompt": "a", "max_tokens": 1})
    assert status == 503 and headers["Retry-After"] and body["error"]["type"] == "unavailable_error"
    rest = list(events)
    assert rest[-1] == "[DONE]"
    assert any(choice["finish_reason"] == "length" for event in rest[:-1] for choice in event["choices"])
    assert serving.wait() == 0


def test_a_second_signal_ends_at_once(serve, tiny):
    serving = serve(tiny("long"), "--ctx", "131072", "--timeout-drain", "600", kv_mib=256)
    stream = serving.stream("once", 130000)
    assert stream.read_head() == 200
    next(stream.events())
    serving.signal()
    time.sleep(0.3)
    assert serving.process.poll() is None, "the first signal waits for the stream"
    serving.signal()
    assert serving.wait() == 0
    assert "[DONE]" not in list(stream.events()), "a stream that was cut must not look complete"


def test_the_drain_limit(serve, tiny):
    """More is asked for than can be computed in that time, and nothing of it is given up because nobody reads."""
    serving = serve(tiny("long"), "--ctx", "131072", "--parallel", "1", "--max-wait-s", "0", "--max-output-bytes",
                    "1000000000", kv_mib=256)
    streams = [serving.stream("once", 130000) for _ in range(6)]
    assert all(stream.read_head() == 200 for stream in streams)
    serving.signal()
    began = time.monotonic()
    assert serving.wait() == 0
    assert 9 < time.monotonic() - began < 20


def test_a_busy_port_is_one_line(serve, tiny):
    serving = serve(tiny())
    ended = run_serve("-m", tiny(), "--port", str(serving.port))
    assert ended.returncode == 1
    assert ended.stderr == (f"runnel: 127.0.0.1 port {serving.port}: another program listens there already; "
                            "--port takes another\n")


def test_cpu_affinity(serve, tiny):
    mine = sorted(os.sched_getaffinity(0))
    serving = serve(tiny(), "--cpu-affinity", str(mine[-1]))
    bound = []
    for thread in [name for worker in serving.workers() for name in os.listdir(f"/proc/{worker}/task")]:
        try:
            bound.append(os.sched_getaffinity(int(thread)))
        except ProcessLookupError:  # it ended after it was listed
            continue
    assert len(bound) > 1 and all(cpus == {mine[-1]} for cpus in bound)


@pytest.mark.parametrize("cpus", ["", "a", "1-0", "0,", "0;1", "99999", "1023"])
def test_cpus_that_cannot_be_are_refused(tiny, cpus):
    ended = run_serve("-m", tiny(), "--port", str(free_port()), "--cpu-affinity", cpus)
    assert ended.returncode == 2 and ended.stderr.startswith("runnel: cpu-affinity: "), ended.stderr


def test_the_port_is_free_again_at_once(serve, tiny):
    first = serve(tiny())
    connection = first.connection()
    connection.request("GET", "/health")
    assert connection.getresponse().read()
    family = first.family()
    first.process.kill()
    first.process.wait()
    first.process.returncode = 0  # as was meant
    if SANITIZED:  # its processes take longer to end, and have the port until then
        wait_until(lambda: not any(title_of(pid) for pid in family))
    second = run_serve("-m", "/nowhere", "--port", str(first.port))
    assert "listens there" not in second.stderr and "/nowhere" in second.stderr
    connection.close()


def test_a_model_that_cannot_be_opened(tmp_path):
    path = tmp_path / "bad.gguf"
    path.write_bytes(b"GGUF")
    ended = run_serve("-m", str(path), "--port", str(free_port()))
    assert ended.returncode == 1
    assert ended.stderr.startswith("runnel: ") and str(path) in ended.stderr and ended.stderr.count("\n") == 1


@pytest.mark.parametrize("host", ["0.0.0.0", "::"])
def test_other_addresses_need_insecure(serve, tiny, host):
    ended = run_serve("-m", tiny(), "--host", host, "--port", str(free_port()))
    assert ended.returncode == 2
    assert "--insecure" in ended.stderr and ended.stderr.count("\n") == 1
    if host == "0.0.0.0":
        serving = serve(tiny(), "--host", host, "--insecure")
        assert serving.get("/health")[0] == 200


def test_a_host_that_is_none(tiny):
    ended = run_serve("-m", tiny(), "--host", "no such host")
    assert ended.returncode == 1 and "no such host" in ended.stderr


@pytest.mark.parametrize("flags, named", [
    (["--port", "65536"], "--port"), (["--parallel", "0"], "--parallel"), (["--ctx", "many"], "--ctx"),
    (["--temp", "-1"], "--temp"), (["--reasoning-format", "loud"], "--reasoning-format"),
    (["--no-such-flag"], "--no-such-flag"), (["--max-headers", "129"], "--max-headers"), (["--kv-cache-mib"], "--kv-cache-mib"),
])
def test_wrong_flags(tiny, flags, named):
    ended = run_serve("-m", tiny(), *flags)
    assert ended.returncode == 2 and named in ended.stderr and ended.stderr.count("\n") == 1


def test_a_template_that_is_not_utf8(tiny, tmp_path):
    template = tmp_path / "t.jinja"
    template.write_bytes(b"{{ messages }} caf\xe9")
    ended = run_serve("-m", tiny(), "--port", "0", "--chat-template-file", str(template))
    assert (ended.returncode, ended.stderr) == (1, f"runnel: {template}: expected UTF-8 text, found byte 0xE9 at offset 18\n")


def test_no_model():
    ended = run_serve()
    assert ended.returncode == 2 and "--model" in ended.stderr


def test_help_names_every_flag_once():
    ended = run_serve("--help")
    assert ended.returncode == 0
    for flag in ("host", "port", "ctx", "parallel", "kv-cache-mib", "batch", "temp", "top-p", "top-k", "min-p", "seed",
                 "max-tokens", "answer-reserve", "reasoning-format", "threads", "batch-window-ms", "step-budget-ms",
                 "timeout-keep-alive", "limit-concurrency", "max-body-bytes", "keep-first", "keep-last", "alias",
                 "api-key", "api-key-file", "allowed-host", "cors-origin", "max-wait-s", "request-timeout-s",
                 "max-header-bytes", "max-headers", "max-uri-bytes", "max-bodies-bytes", "max-output-bytes", "max-connections",
                 "timeout-head", "timeout-body", "timeout-write", "timeout-drain",
                 "insecure", "log-json", "memory-limit-mib", "breaker-memory-percent", "breaker-timeouts",
                 "breaker-probe-s", "degraded-max-tokens", "degraded-temperature", "wedged-s", "model", "chat-template", "config"):
        assert sum(line.split("--", 1)[1].split()[0] == flag for line in ended.stdout.splitlines()
                   if line.lstrip().startswith("-") and "--" in line) == 1, flag
    assert " while others are answered (default: 60, times the number of workers)" in " ".join(ended.stdout.split())


def test_environment_and_config(serve, tiny, tmp_path):
    config = tmp_path / "config"
    config.write_text("alias = from the file\nmax-tokens = 3\n")
    serving = serve(tiny(), "--config", str(config), env={"RUNNEL_MAX_TOKENS": "5"})
    assert " Runnel serves from the file at " in serving.lines_of_its_life()[0]
    body = serving.post("/v1/completions", {"prompt": "a", "ignore_eos": True})[2]
    assert body["usage"]["completion_tokens"] == 5
    assert serving.get("/v1/models")[2]["data"][0]["id"] == "from the file"


def test_sampling_defaults(serve, tiny):
    flags = "--temp", "0.8", "--seed", "7", "--top-k", "50", "--top-p", "0.9", "--min-p", "0"
    given = {"temperature": 0.8, "seed": 7, "top_k": 50, "top_p": 0.9, "min_p": 0}
    with_flags, without = serve(tiny(), *flags), serve(tiny())
    assert with_flags.complete("hello", 30) == without.complete("hello", 30, **given)
    assert with_flags.complete("hello", 30, temperature=0) == without.complete("hello", 30, temperature=0)
    assert len({without.complete("hello", 30, temperature=1) for _ in range(3)}) == 3, "each time another seed"


def test_limits(serve, tiny):
    serving = serve(tiny("long"), "--ctx", "4096", "--limit-concurrency", "1", "--parallel", "1",
                    "--max-body-bytes", "2000")
    assert serving.post("/v1/completions", {"prompt": "a" * 2000, "max_tokens": 1})[0] == 413
    status, _, body = serving.post("/v1/completions", {"prompt": [5] * 500 + [6], "max_tokens": 1})
    assert status == 200, body
    for _ in range(200):  # who has been answered may ask again at once
        serving.complete("a", 1)
    stream = serving.stream("once", 4000)
    assert stream.read_head() == 200
    status, headers, body = serving.post("/v1/completions", {"prompt": "a", "max_tokens": 1})
    assert (status, body["error"]["type"]) == (429, "rate_limit_error") and headers["Retry-After"]
    stream.leave()


def test_the_most_requests_at_once(serve, tiny):
    """Each forecast looks at all of them: more would make arrivals slow."""
    ended = run_serve("-m", tiny(), "--limit-concurrency", "1001")
    assert ended.returncode == 2 and "--limit-concurrency" in ended.stderr and "1000" in ended.stderr
    assert serve(tiny(), "--limit-concurrency", "1000").metric("runnel_requests_admitted_limit") == 1000


def test_context(serve, tiny):
    serving = serve(tiny(), "--ctx", "100")
    status, _, body = serving.post("/v1/completions", {"prompt": [5] * 100, "max_tokens": 1})
    assert status == 400 and body["error"]["type"] == "exceed_context_size_error"
    assert (body["error"]["n_prompt_tokens"], body["error"]["n_ctx"]) == (100, 100)
    body = serving.post("/v1/completions", {"prompt": [5] * 90, "ignore_eos": True})[2]
    assert body["usage"]["completion_tokens"] == 10 and body["choices"][0]["finish_reason"] == "length"


def test_keep_alive(serve, tiny):
    serving = serve(tiny(), "--timeout-keep-alive", "1")
    connection = socket.create_connection(("127.0.0.1", serving.port), timeout=50)
    connection.sendall(b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n")
    assert connection.recv(65536).startswith(b"HTTP/1.1 200")
    began = time.monotonic()
    assert connection.recv(1) == b""
    assert 0.8 < time.monotonic() - began < 50  # by itself it is 60


def test_batch_window(serve, tiny):
    serving = serve(tiny(), "--batch-window-ms", "300")
    began = time.monotonic()
    serving.complete("a", 1)
    assert 0.25 < time.monotonic() - began < BY_THEN


def test_reasoning_format_and_template(serve, tiny):
    chat = {"messages": [{"role": "user", "content": "a"}], "max_tokens": 8, "ignore_eos": True, "temperature": 0}
    reserve = ("--answer-reserve", "0")  # all of it is thought
    apart, whole = serve(tiny("r1"), *reserve), serve(tiny("r1"), *reserve, "--reasoning-format", "none")
    thought = apart.post("/v1/chat/completions", chat)[2]["choices"][0]["message"]
    joined = whole.post("/v1/chat/completions", chat)[2]["choices"][0]["message"]
    assert thought["reasoning_content"] and not thought["content"]
    assert not joined.get("reasoning_content") and thought["reasoning_content"] in joined["content"]
    chatml = serve(tiny("r1"), "--chat-template", "chatml")
    assert not chatml.post("/v1/chat/completions", chat)[2]["choices"][0]["message"].get("reasoning_content")


def test_a_sampling_value_that_no_request_could_have(serve, tiny):
    """It is left out, with a line: every request without a temperature of its own would fail."""
    serving = serve(tiny("hot"), "--log-json")
    assert serving.post("/v1/completions", {"prompt": "once", "max_tokens": 2})[0] == 200
    [line] = serving.events("model")
    assert "general.sampling.temp: expected a number from 0 to 2, found inf" in line["message"]


@pytest.mark.parametrize("flags, told", [
    (["--max-tokens", "128"], True), (["--max-tokens", "127"], False), ([], False), (["--max-tokens", "500", "--keep-last", "64"], False)])
def test_more_tokens_than_the_context_holds(serve, tiny, flags, told):
    """The answer ends where the context is full, and the operator who asked for more is told so."""
    serving = serve(tiny(), "--log-json", "--ctx", "128", *flags)
    status, _, body = serving.post("/v1/completions", {"prompt": [7] * 28, "ignore_eos": True, "max_tokens": 1})
    assert status == 200
    lines = serving.events("max-tokens")
    assert len(lines) == told
    if told:
        assert "--max-tokens 128" in lines[0]["message"] and "128 tokens" in lines[0]["message"]
        body = serving.post("/v1/completions", {"prompt": [7] * 28, "ignore_eos": True})[2]
        assert (body["usage"]["total_tokens"], body["choices"][0]["finish_reason"]) == (128, "length")


@pytest.mark.parametrize("flag, value", [("--temp", "2.5"), ("--top-p", "0")])
def test_a_default_that_no_request_could_have(tiny, flag, value):
    """It is refused at the start: it would fail each request that has no value of its own."""
    ended = run_serve("-m", tiny(), "--port", str(free_port()), flag, value)
    assert ended.returncode == 2 and f"{flag}: expected a number" in ended.stderr, ended.stderr
