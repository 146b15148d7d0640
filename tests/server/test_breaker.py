"""Degradation opens, is seen in all four places, refuses when that is not enough, and closes by itself.

All with ONE_WORKER: each worker has a breaker of its own, which counts the timeouts in a row of its own requests and watches the
memory of its own process."""
import socket
import time

import pytest
from serving import BY_THEN, ONE_WORKER, SANITIZED, SLOW, wait_until

ASK = {"prompt": "hello", "max_tokens": 60, "temperature": 1.5, "ignore_eos": True, "seed": 5}
# What a time must be enough for is some tens of tokens, which take thousandths of it on a machine without other work.
# Probes come never, for what is to be seen before one; or they come soon, and the test waits for them.
NEVER, SOON = ("--breaker-probe-s", "1000"), ("--breaker-probe-s", "0.2")
FLAGS = (*ONE_WORKER, *NEVER, "--log-json", "--ctx", "100000", "--degraded-max-tokens", "40",
         "--degraded-temperature", "0.25")


def time_out(serving, n):
    """n requests that take longer than --request-timeout-s."""
    for _ in range(n):
        status, _, body = serving.post("/v1/completions", {"prompt": "hello", "max_tokens": 90000, "ignore_eos": True})
        assert status == 504, body


def state(serving):
    return serving.metric("runnel_breaker_state")


def check_open(serving, reason, answer):
    """An answer, /health and the metrics all say so."""
    status, headers, body = answer
    assert status == 200, body
    assert headers["X-Runnel-Degraded"] == reason
    assert body["degraded"] == {"reason": reason, "max_tokens": 40, "temperature": 0.25}
    assert body["usage"]["completion_tokens"] == 40 and body["choices"][0]["finish_reason"] == "length"
    status, _, health = serving.get("/health")
    assert status == 200 and (health["status"], health["reason"], health["refusing"]) == ("degraded", reason, False)
    said = {"memory": "memory is nearly full: ", "timeouts": "requests ran out of time one after the other: "}
    assert health["message"] == said[reason] + ("answers get at most 40 tokens and a temperature of at most 0.25 until the "
                                                "server has recovered")
    assert state(serving) == 1


def check_closed(serving, answer):
    status, headers, body = answer
    assert status == 200 and "X-Runnel-Degraded" not in headers and "degraded" not in body
    assert body["usage"]["completion_tokens"] == ASK["max_tokens"]
    assert serving.get("/health")[::2] == (200, {"status": "ok"})
    assert state(serving) == 0


def messages(serving):
    return [line["message"] for line in serving.events("breaker")]


def ask_until(serving, level):
    """Asks for little until the breaker is there; what the last one was answered."""
    end = time.monotonic() + BY_THEN
    while True:
        answer = serving.post("/v1/completions", {"prompt": "a", "max_tokens": 1})
        if state(serving) == level:
            return answer
        assert time.monotonic() < end, answer
        time.sleep(0.05)


def test_timeouts_open_it(serve, tiny):
    serving = serve(tiny("long"), *FLAGS, "--request-timeout-s", str(2 * SLOW), kv_mib=256)
    check_closed(serving, serving.post("/v1/completions", ASK))
    time_out(serving, 2)
    assert serving.get("/health")[2] == {"status": "ok"}
    time_out(serving, 1)
    answer = serving.post("/v1/completions", ASK)
    check_open(serving, "timeouts", answer)
    cool = serving.post("/v1/completions", {**ASK, "max_tokens": 40, "temperature": 0.25})[2]
    assert cool["choices"][0]["text"] == answer[2]["choices"][0]["text"]  # the temperature was cut, too
    serving.wait_for_lines(lambda lines: lines and lines[-1].get("degraded") == "timeouts")
    now = serving.metrics()
    assert now[("runnel_timeouts_total",)] == 3
    assert now[("runnel_breaker_opened_total", "reason=timeouts")] == 1
    assert now[("runnel_degraded_requests_total",)] == 2
    [message] = messages(serving)
    assert "timeouts" in message and "at most 40 tokens and a temperature of at most 0.25" in message


def test_a_probe_closes_it(serve, tiny):
    serving = serve(tiny("long"), *FLAGS, *SOON, "--request-timeout-s", str(2 * SLOW), kv_mib=256)
    time_out(serving, 3)
    assert state(serving) == 1
    time.sleep(0.3)
    check_closed(serving, serving.post("/v1/completions", ASK))  # the probe, in full
    check_closed(serving, serving.post("/v1/completions", ASK))
    now = serving.metrics()
    assert now[("runnel_timeouts_total",)] == 3
    assert now[("runnel_breaker_opened_total", "reason=timeouts")] == 1
    assert now[("runnel_degraded_requests_total",)] == 0
    assert len(messages(serving)) == 2 and "timeouts" in messages(serving)[0], messages(serving)


def test_every_dialect_says_so(serve, tiny):
    serving = serve(tiny("long"), *FLAGS, "--request-timeout-s", str(SLOW), "--breaker-timeouts", "1", kv_mib=256)
    time_out(serving, 1)
    chat = {"messages": [{"role": "user", "content": "hello"}], "max_tokens": 2}
    expected = {"reason": "timeouts", "max_tokens": 40, "temperature": 0.25}
    for path, body in (("/v1/chat/completions", chat), ("/generate", {"prompt": "a", "max_tokens": 2}),
                       ("/generate-batch", [{"prompt": "a", "max_tokens": 2}]),
                       ("/v1/completions", {"prompt": "a", "max_tokens": 2})):
        status, headers, answer = serving.post(path, body)
        assert status == 200 and headers["X-Runnel-Degraded"] == "timeouts", path
        assert answer["degraded"] == expected, path
    stream = serving.stream("hello", 90, stream_options={"include_usage": True})
    assert stream.read_head() == 200
    events = list(stream.events())
    told = [event for event in events if event != "[DONE]" and "degraded" in event]
    assert told == events[-3:-1] and all(event["degraded"] == expected for event in told)
    assert told[0]["choices"][0]["finish_reason"] == "length" and told[1]["usage"]["completion_tokens"] == 40
    # Fewer tokens than were asked for at least, too.
    answer = serving.post("/v1/completions", {"prompt": "a", "max_tokens": 100, "min_tokens": 90, "ignore_eos": True})[2]
    assert answer["usage"]["completion_tokens"] == 40
    # What asks for less than the limit anyway gets what it asks for.
    assert serving.complete("hello", 3, temperature=0) == serving.complete("hello", 3, temperature=0)


def test_thoughts_leave_room_for_the_answer(serve, tiny):
    serving = serve(tiny("r1"), *ONE_WORKER, "--request-timeout-s", str(0.3 * SLOW), "--breaker-timeouts", "1", "--breaker-probe-s", "100",
                    "--degraded-max-tokens", "40")
    chat = {"messages": [{"role": "user", "content": "hello"}], "max_tokens": 60, "ignore_eos": True, "temperature": 1,
            "seed": 1, "answer_reserve": 0}
    usage = serving.post("/v1/chat/completions", chat)[2]["usage"]
    assert usage["completion_tokens_details"]["reasoning_tokens"] == 60, usage
    assert serving.post("/generate-batch", [{"prompt": "a", "max_tokens": 400, "ignore_eos": True}] * 99)[0] == 504
    status, _, body = serving.post("/v1/chat/completions", chat)
    assert status == 200, body
    assert body["usage"]["completion_tokens_details"]["reasoning_tokens"] <= 20, body
    assert body["usage"]["completion_tokens"] == 40


def test_a_thought_that_the_prompt_has_opened_stays_one(serve, tiny):
    """Also where half of what is left of the answer is no token: prompts are made before requests are degraded."""
    serving = serve(tiny("r1"), *ONE_WORKER, "--request-timeout-s", str(0.3 * SLOW), "--breaker-timeouts", "1", "--breaker-probe-s", "100",
                    "--degraded-max-tokens", "1")
    assert serving.post("/generate-batch", [{"prompt": "a", "max_tokens": 400, "ignore_eos": True}] * 99)[0] == 504
    chat = {"messages": [{"role": "user", "content": "hello"}], "max_tokens": 60, "ignore_eos": True, "seed": 1}
    status, _, body = serving.post("/v1/chat/completions", chat)
    assert status == 200 and body["degraded"]["max_tokens"] == 1, body
    assert body["usage"]["completion_tokens_details"]["reasoning_tokens"] == 1, body
    assert not body["choices"][0]["message"]["content"], body


def serve_for_refusals(serve, tiny, probes, *flags):
    """Timeouts of degraded requests, too."""
    return serve(tiny("long"), *FLAGS, *probes, *flags, "--breaker-timeouts", "2", "--degraded-max-tokens", "80000",
                 "--request-timeout-s", str(0.5 * SLOW), kv_mib=256)


def test_timeouts_that_go_on_refuse(serve, tiny):
    serving = serve_for_refusals(serve, tiny, NEVER)
    time_out(serving, 4)
    assert state(serving) == 2
    status, headers, body = serving.post("/v1/completions", {"prompt": "a", "max_tokens": 1})
    assert status == 503 and body["error"]["type"] == "unavailable_error" and "try again" in body["error"]["message"]
    assert headers["X-Runnel-Degraded"] == "timeouts" and 1000 - BY_THEN < int(headers["Retry-After"]) <= 1000
    assert serving.get("/v1/models")[0] == 200
    status, _, health = serving.get("/health")
    assert (status, health["status"], health["refusing"]) == (200, "degraded", True)
    assert health["message"].endswith(": new requests are refused until the server has recovered")
    assert serving.metric("runnel_refusals_total", "reason=breaker") == 1


def test_the_admin_is_not_refused(serve, tiny):
    """Orders are what may help."""
    serving = serve_for_refusals(serve, tiny, NEVER, "--admin-key", "admin")
    time_out(serving, 4)
    assert state(serving) == 2
    assert serving.post("/admin/workers", {"workers": 1})[0] == 401  # it is the admin's all the same
    serving.key = "admin"
    status, _, order = serving.post("/admin/reload", {})
    assert status == 200, order
    wait_until(lambda: serving.get("/admin/status")[2]["answered"] == order["order"])
    worker = serving.worker
    status, _, order = serving.post("/admin/workers", {"workers": 2})
    assert status == 200, order
    assert serving.metric("runnel_refusals_total", "reason=breaker") == 0
    wait_until(lambda: len(serving.workers()) == 2 and worker not in serving.workers())
    assert serving.post("/v1/completions", {"prompt": "a", "max_tokens": 1})[0] == 200  # by workers that know nothing of it


def test_probes_end_refusals(serve, tiny):
    """One step each."""
    serving = serve_for_refusals(serve, tiny, SOON)
    end = time.monotonic() + BY_THEN
    while state(serving) < 2:  # some of them may be probes, which do not count
        assert time.monotonic() < end, messages(serving)
        time_out(serving, 1)
    status, _, body = ask_until(serving, 1)
    assert status == 200 and "degraded" in body, body
    status, _, body = ask_until(serving, 0)
    assert status == 200 and "degraded" not in body, body
    assert serving.get("/health")[2] == {"status": "ok"}
    assert ["is degraded" in messages(serving)[0], "refuses new" in messages(serving)[1], "is degraded" in messages(serving)[2],
            "no longer" in messages(serving)[3]] == [True] * 4 and len(messages(serving)) == 4


def resident_mib(serving):
    return serving.metric("process_resident_memory_bytes") / (1 << 20)


class Hoard:
    """Requests whose bodies are nearly there: they hold memory for as long as they stay."""

    def __init__(self, serving, mib):
        self.socket = socket.create_connection(("127.0.0.1", serving.port))
        body = b"{" + b" " * (mib << 20)
        self.socket.sendall(b"POST /generate HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
                            b"Content-Length: %d\r\n\r\n" % (len(body) + 10) + body)

    def leave(self):
        self.socket.close()


@pytest.mark.skipif(SANITIZED, reason="a sanitizer keeps for a while what was freed")
def test_memory_opens_it_refuses_and_closes(serve, tiny):
    base = resident_mib(serve(tiny(), *ONE_WORKER))
    limit = int(base) + 200
    serving = serve(tiny(), *FLAGS, "--memory-limit-mib", str(limit), "--max-body-bytes", str(64 << 20),
                    "--max-bodies-bytes", str(1 << 30), "--timeout-body", "600")
    assert abs(serving.metric("deepseek_memory_percent") - 100 * base / limit) < 10
    assert serving.metric("runnel_memory_limit_bytes") == limit << 20
    assert serving.metric("runnel_memory_growth_bytes") < 30 << 20
    small = {**ASK, "max_tokens": 50}
    hoards = []

    def hoard_until(level):
        end = time.monotonic() + 5 * BY_THEN
        while state(serving) < level:
            assert time.monotonic() < end, serving.metrics()
            if len(hoards) < 400 and not serving.metric("deepseek_memory_percent") > (90, 95)[level - 1]:
                hoards.append(Hoard(serving, 1))
            else:
                time.sleep(0.1)

    hoard_until(1)
    check_open(serving, "memory", serving.post("/v1/completions", small))
    hoard_until(2)
    status, headers, body = serving.post("/v1/completions", small)
    assert status == 503 and "memory" in body["error"]["message"] and int(headers["Retry-After"]) >= 1
    assert headers["X-Runnel-Degraded"] == "memory"
    assert serving.get("/health")[2]["refusing"] is True
    for hoard in hoards:
        hoard.leave()
    serving.wait_for(lambda now: now[("runnel_breaker_state",)] == 0)
    assert "degraded" not in serving.post("/v1/completions", small)[2]
    assert serving.get("/health")[2] == {"status": "ok"}
    assert serving.metric("runnel_breaker_opened_total", "reason=memory") == 1


def test_what_is_used_from_the_start_does_not_degrade(serve, tiny):
    base = resident_mib(serve(tiny(), *ONE_WORKER))
    # The larger one is three fifths full from the start: the first requests may take some MiB of the rest.
    for limit in int(base / 0.6), max(1, int(base / 2)):
        serving = serve(tiny(), *FLAGS, "--memory-limit-mib", str(limit), "--breaker-memory-percent", "50")
        time.sleep(1.2)  # the memory was looked at
        assert serving.metric("deepseek_memory_percent") > (55 if limit > base else 90)
        assert serving.get("/health")[2] == {"status": "ok"}, limit
        line, = [line["message"] for line in serving.events("memory") if "used already" in line["message"]]
        if limit > base:
            assert "answers become shorter (the server is degraded) only past" in line and f"is {limit} MiB" in line
        else:
            assert "such a limit changes nothing" in line and f"the limit of this process (--memory-limit-mib) is {limit} MiB" in line
