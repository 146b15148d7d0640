"""What the workers of a server are together: limits, shares of keys, slots, counters and health are the same whichever is asked.

Who lives and who dies is in test_workers.py. Each question comes on a connection of its own, which either of them may accept."""
import socket
import time

import pytest
from serving import BY_THEN, wait_until
from test_health import stopped_engine
from test_workers import LONG, begin_streams, streams_of_both, worker_of

TWO = ("--workers", "2")
KV_MIB = 1024
PLACES = 64  # half of them each: no stream waits for another
ASKED = 20  # times, so that nearly always both have been asked


@pytest.fixture
def start(serve, tiny):
    """start(flags...): a server, both of whose workers are there."""
    def start_two(*flags, key=None):
        serving = serve(tiny("long"), *TWO, *LONG, "--parallel", str(PLACES), *flags, kv_mib=KV_MIB)
        serving.key = key
        serving.wait_for(lambda now: now[("runnel_kv_cache_bytes",)] > (KV_MIB - 1) << 20)  # of both
        return serving
    return start_two


def leave_all(serving, streams):
    """And nothing of them is left, in any worker."""
    for stream in streams:
        stream.leave()
    serving.wait_until_idle()
    serving.wait_for(lambda now: now[("runnel_pool_in_use_bytes",)] == 0)


def test_the_limit_is_of_all_together(start):
    serving = start("--limit-concurrency", "4")
    streams = [stream for stream, _ in begin_streams(serving, 4, 60000)]
    for _ in range(ASKED):
        status, headers, body = serving.post("/v1/completions", {"prompt": "a", "max_tokens": 1})
        assert status == 429 and headers["Retry-After"], body
        assert "4 requests are running or waiting, expected at most 4" in body["error"]["message"]
    assert serving.metric("runnel_requests_admitted") == 4 == serving.metric("runnel_requests_admitted_limit")
    assert serving.metric("runnel_refusals_total", "reason=full") == ASKED
    leave_all(serving, streams)
    for _ in range(ASKED):
        assert serving.post("/generate-batch", [{"prompt": "a", "max_tokens": 1}] * 4)[0] == 200
        assert serving.post("/generate-batch", [{"prompt": "a", "max_tokens": 1}] * 5)[0] == 429


def test_the_share_of_a_key_is_of_all_together(start):
    serving = start("--limit-concurrency", "8", "--api-key", "one,two", key="one")
    streams = [serving.stream("once", 60000, key="one") for _ in range(6)]
    assert [stream.read_head() for stream in streams] == [200] * 6
    for _ in range(ASKED):
        status, _, body = serving.post("/v1/completions", {"prompt": "a", "max_tokens": 1})
        assert status == 429 and "share" in body["error"]["message"], body
    serving.key = "two"
    for _ in range(ASKED):
        serving.complete("a", 1)
    leave_all(serving, streams)


def n_processing(serving):
    slots = serving.get("/slots")[2]
    assert [slot["id"] for slot in slots] == list(range(PLACES))
    return sum(slot["is_processing"] for slot in slots)


def test_slots_are_of_all_together(start):
    """Their numbers go on from one worker to the next, and an answer's id_slot is one of them."""
    serving = start()
    assert n_processing(serving) == 0 and serving.get("/props")[2]["total_slots"] == PLACES
    by_worker = streams_of_both(serving, 60000)
    streams = [stream for pairs in by_worker.values() for stream, _ in pairs]
    for _ in range(ASKED):
        wait_until(lambda: n_processing(serving) == len(streams))
    leave_all(serving, streams)
    places = set()
    end = time.monotonic() + BY_THEN
    while not (min(places, default=PLACES) < PLACES / 2 <= max(places, default=0)):  # of both workers
        assert time.monotonic() < end, places
        status, _, answer = serving.post("/completion", {"prompt": "a", "n_predict": 1})
        assert status == 200
        places.add(answer["id_slot"])
    assert places <= set(range(PLACES))


def test_as_many_choices_as_there_are_places(start):
    """In all, whichever worker is asked: those that it has no place for wait."""
    serving = start()
    assert len(serving.post("/v1/completions", {"prompt": "a", "max_tokens": 2, "n": PLACES})[2]["choices"]) == PLACES
    for _ in range(ASKED):
        status, _, body = serving.post("/v1/completions", {"prompt": "a", "max_tokens": 2, "n": PLACES + 1})
        assert status == 400 and body["error"]["message"] == f"n: expected a whole number from 1 to {PLACES}"
        schemas = serving.get("/openapi.json")[2]["components"]["schemas"]
        assert {schema["properties"]["n"]["maximum"] for schema in schemas.values() if "n" in schema.get("properties", {})} \
            >= {PLACES}


def test_who_has_an_answer_finds_it_counted(start):
    """What the engine computed, and its place is free: whichever worker gave it, and whichever is asked. That the system has taken
    the answer is counted a moment later."""
    serving = start()
    for i in range(1, 5 * ASKED):
        n_prompt = serving.post("/v1/completions", {"prompt": [65] * i, "max_tokens": 3, "ignore_eos": True})[2]["usage"]["prompt_tokens"]
        now = serving.metrics()
        assert n_prompt == i and now[("vllm:prefix_cache_queries_total",)] == i * (i + 1) / 2
        assert now[("vllm:generation_tokens_total",)] == 3 * i
        assert now[("runnel_requests_admitted",)] == 0
    now = serving.wait_until_idle()
    assert now[("deepseek_requests_total",)] == i == now[("vllm:e2e_request_latency_seconds_count",)]


def test_requests_are_spread(start):
    """A worker that has more of them lets the other one accept first; that one has 20 ms to do so, so that now and then it is late."""
    serving = start()
    held = dict.fromkeys(serving.workers(), 0)
    streams = begin_streams(serving, PLACES // 2, 60000)
    for stream, _ in streams:
        held[worker_of(serving, stream)] += 1
    assert sum(held.values()) == len(streams) and max(held.values()) <= min(held.values()) + 4, held
    leave_all(serving, [stream for stream, _ in streams])


class Silent:
    """Is connected, and says nothing."""
    def __init__(self, serving):
        self.socket = socket.create_connection(("127.0.0.1", serving.port), timeout=BY_THEN)


def test_connections_are_spread_before_they_ask(start):
    """As clients do that connect all at once, and then send."""
    serving = start()
    n = PLACES // 2
    silent = [Silent(serving) for _ in range(n)]
    serving.wait_for(lambda now: now[("runnel_connections",)] > n)
    held = dict.fromkeys(serving.workers(), 0)
    for client in silent:
        held[worker_of(serving, client)] += 1
    assert max(held.values()) <= min(held.values()) + 4, held
    for client in silent:
        client.socket.close()


def test_gauges_are_sums(start):
    serving = start()
    by_worker = streams_of_both(serving, 60000)
    streams = [stream for pairs in by_worker.values() for stream, _ in pairs]
    for _ in range(ASKED):
        now = serving.wait_for(lambda now: now[("vllm:num_requests_running",)] == len(streams)
                               and now[("runnel_exchanges",)] == len(streams) + 1)  # the other worker's, as of a moment ago
        assert now[("runnel_requests_admitted",)] == len(streams) and now[("runnel_workers",)] == 2
        assert now[("runnel_connections",)] > len(streams)
    leave_all(serving, streams)
    assert serving.metrics()[("vllm:request_success_total", "finished_reason=abort")] == len(streams)


def test_one_of_two_wedged_engines_is_told(start):
    """By both of them, while the other one answers; a balancer goes on asking."""
    serving = start("--log-json", "--wedged-s", "2")
    by_worker = streams_of_both(serving, 60000)
    worker, ((stream, events), *_) = next(iter(by_worker.items()))
    with stopped_engine(serving, worker):
        for _ in range(ASKED):
            wait_until(lambda: serving.get("/health")[2]["status"] == "degraded")
        status, _, body = serving.get("/health")
        assert status == 200 and body["reason"] == "workers" and body["refusing"] is False
        assert body["message"] == "1 of 2 workers do no steps, and requests wait there"
        assert serving.metric("runnel_engine_wedged") == 1
    next(events)
    wait_until(lambda: serving.get("/health")[2] == {"status": "ok"})
    leave_all(serving, [stream for pairs in by_worker.values() for stream, _ in pairs])
    assert worker in serving.workers()
