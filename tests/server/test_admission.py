"""Who is let in under load: limits, predicted waits, times that run out, shares of keys.

Those that have a queue have ONE_WORKER: each worker has one of its own. What workers share is in test_two_workers.py."""
import json
import threading
import time

import pytest
from serving import BY_THEN, ONE_WORKER, SLOW

LONG = {"max_tokens": 60000, "ignore_eos": True}


@pytest.fixture
def crowded(serve, tiny):
    """crowded(flags...): a server of one place, and a stream that has it."""
    def start(*flags):
        serving = serve(tiny("long"), *ONE_WORKER, "--ctx", "65536", "--parallel", "1", *flags, kv_mib=128)
        stream = serving.stream("once", 60000)
        assert stream.read_head() == 200
        return serving, stream
    return start


def ask_with_key(serving, key, body, path="/v1/completions"):
    connection = serving.connection()
    try:
        connection.request("POST", path, json.dumps(body),
                           {"Content-Type": "application/json", "Authorization": f"Bearer {key}"})
        response = connection.getresponse()
        return response.status, response.headers, json.loads(response.read())
    finally:
        connection.close()


# --- --limit-concurrency ---


def test_the_limit_counts_requests_not_connections(crowded):
    serving, stream = crowded("--limit-concurrency", "3")
    idle = [serving.connection() for _ in range(20)]
    for connection in idle:
        connection.connect()
    queued = [serving.stream("a", 10, stream=streaming) for streaming in (True, False)]
    serving.wait_for(lambda now: now[("vllm:num_requests_waiting",)] == 2)
    for path, body in (("/v1/completions", {"prompt": "a"}), ("/v1/completions", {"prompt": "a", "stream": True}),
                       ("/completion", {"prompt": "a"}), ("/completion", {"prompt": "a", "stream": True}),
                       ("/v1/chat/completions", {"messages": [{"role": "user", "content": "a"}]}),
                       ("/generate", {"prompt": "a"}), ("/generate-batch", [{"prompt": "a"}])):
        status, headers, answer = serving.post(path, body)
        assert status == 429 and int(headers["Retry-After"]) >= 1, path
        assert answer["error"]["type"] == "rate_limit_error" and answer["error"]["code"] == 429
    for path in ("/health", "/metrics", "/v1/models"):
        assert serving.get(path)[0] == 200
    stream.leave()
    assert [one.read_head() for one in queued] == [200, 200]
    status, _, answer = serving.post("/generate-batch", [{"prompt": "a", "max_tokens": 1}] * 4)
    assert status == 429, "each prompt of a batch is one"
    assert serving.post("/generate-batch", [{"prompt": "a", "max_tokens": 1}] * 3)[0] in (200, 429)
    serving.wait_until_idle()
    assert serving.post("/generate-batch", [{"prompt": "a", "max_tokens": 1}] * 3)[0] == 200
    for connection in idle:
        connection.close()


# --- --max-wait-s ---


def test_a_long_wait_is_refused_by_prediction(serve, tiny):
    """Who is computed wants much: by what steps cost and answers are like, the next one's turn is too far away."""
    limit = str(0.3 * SLOW)  # a tenth of what the stream takes on a fast machine
    serving = serve(tiny("long"), *ONE_WORKER, "--ctx", "131072", "--parallel", "1", "--max-wait-s", limit, kv_mib=256)
    for _ in range(100):  # what answers here are like: as long as they may be
        serving.complete("a", 200 // SLOW)
    stream = serving.stream("once", 130000)
    assert stream.read_head() == 200
    next(stream.events())
    native = {"prompt": "a", "n_predict": 1000}
    for path, body in (("/v1/completions", {"prompt": [5] * 50, "max_tokens": 1000}), ("/completion", native)):
        for streaming in (True, False):  # a stream has not begun: it is refused as all are
            status, headers, answer = serving.post(path, {**body, "stream": streaming})
            n_told = serving.metric("vllm:generation_tokens_total") - 100 * 200
            assert status == 429, f"{answer} after {n_told} tokens of the stream"  # not 503, as after a wait
            assert headers.get_content_type() == "application/json"
            error = answer["error"]
            assert error["type"] == "rate_limit_error" and "turn" in error["message"] and " s" in error["message"]
            assert int(headers["Retry-After"]) >= 1
    status, _, answer = serving.post("/generate-batch", [{"prompt": "b"}] * 2)
    assert status == 429 and "turn" in answer["error"]["message"]
    assert serving.metric("vllm:num_requests_running") == 1, "the test needs a longer answer"
    stream.leave()
    serving.wait_until_idle()
    serving.complete("b", 1)


def test_a_wait_that_was_not_foreseen_expires(serve, tiny):
    """The one before it goes on for longer than answers here usually are."""
    limit = 1.5 * SLOW  # more than the few tokens of such an answer take
    serving = serve(tiny("long"), *ONE_WORKER, "--ctx", "65536", "--parallel", "1", "--max-wait-s", str(limit), kv_mib=128)
    for _ in range(60):
        serving.complete("a", 1)
    stream = serving.stream("once", 60000)
    assert stream.read_head() == 200
    began = time.monotonic()
    answers = {}

    def ask(streaming):
        answers[streaming] = serving.post("/v1/completions", {"prompt": "b", "max_tokens": 1, "stream": streaming})

    threads = [threading.Thread(target=ask, args=(streaming,)) for streaming in (True, False)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert limit - 0.2 < time.monotonic() - began < BY_THEN
    status, headers, body = answers[False]
    assert status == 503 and headers["Retry-After"] and body["error"]["type"] == "unavailable_error"
    status, _, body = answers[True]  # it was taken, so its stream had begun
    assert status == 200 and b'"code":503' in body and b"[DONE]" not in body
    next(stream.events())  # nobody else noticed
    stream.leave()


# --- --request-timeout-s ---


@pytest.mark.parametrize("where", ["running", "queued"])
def test_a_request_that_takes_too_long_is_ended(serve, tiny, where):
    limit = 0.8 * SLOW  # in it there is a token
    serving = serve(tiny("long"), *ONE_WORKER, "--ctx", "65536", "--parallel", "1", "--request-timeout-s", str(limit),
                    "--max-wait-s", "0", kv_mib=128)
    stream = serving.stream("once", 60000)
    assert stream.read_head() == 200
    if where == "queued":
        began = time.monotonic()
        status, _, body = serving.post("/v1/completions", {"prompt": "a", **LONG})
        assert status == 504 and limit - 0.2 < time.monotonic() - began < BY_THEN
        assert body["error"]["code"] == 504 and f"{limit:g} s" in body["error"]["message"]
    events = list(stream.events())
    assert events[-1]["error"]["code"] == 504, "and no [DONE]"
    assert any("choices" in event for event in events)
    if where == "running":
        status, _, body = serving.post("/generate", {"prompt": "a", "max_tokens": 60000})
        assert status in (200, 504)
        status, _, body = serving.post("/v1/completions", {"prompt": "a", **LONG, "n": 1})
        assert status == 504
    serving.wait_until_idle()
    serving.complete("a", 5)


def test_no_time_limits(serve, tiny):
    serving = serve(tiny("long"), *ONE_WORKER, "--parallel", "1", "--request-timeout-s", "0", "--max-wait-s", "0", "--ctx",
                    "65536", kv_mib=128)
    stream = serving.stream("once", 60000)
    assert stream.read_head() == 200
    queued = serving.stream("a", 5)
    time.sleep(0.7)
    stream.leave()
    assert queued.text()


# --- shares of keys ---


def test_a_key_that_floods_leaves_room_for_another(serve, tiny):
    serving = serve(tiny("long"), *ONE_WORKER, "--ctx", "65536", "--parallel", "1", "--limit-concurrency", "8", "--api-key",
                    "one,two", "--max-wait-s", "0", kv_mib=128)
    serving.key = "one"
    flood = []
    for _ in range(6):  # of the 8 places, so many are one key's at most; the first one is computed
        flood.append(serving.stream("once", 60000, key="one"))
        assert flood[-1].read_head() == 200
        serving.wait_for(lambda now: now[("vllm:num_requests_running",)] == 1)
    for _ in range(4):
        status, _, body = ask_with_key(serving, "one", {"prompt": "once", "max_tokens": 1})
        assert status == 429 and "share" in body["error"]["message"]
    other = serving.stream("two", 1, key="two")
    assert other.read_head() == 200, "it was taken"
    time.sleep(0.5)  # so much longer one key computes before it must let others go first
    flood[0].leave()  # the next place is the other's
    assert list(other.events())[-1] == "[DONE]"
    n_waiting = serving.metric("vllm:num_requests_waiting")
    assert n_waiting >= 3, f"it was served before most of the flood: of that, {n_waiting} still wait"
    for stream in flood[1:]:
        stream.leave()
    serving.wait_until_idle()
