"""Clients that leave give everything back within a step; long answers take bounded memory.

With the tiny model a step takes a fraction of a millisecond, and many pass until the departure is noticed and seen in the
metrics; with a real one it is counted exactly."""
import pytest
from serving import N_WORKERS, ONE_WORKER, RUNNEL, SANITIZED

PAGE_TOKENS = 32
USED = ("runnel_kv_pages", "state=used")


@pytest.fixture
def serving(serve, tiny):
    """Its one worker is asked, so that what it says of its steps and its queue is of now, and not of some steps ago."""
    return serve(tiny("long"), *ONE_WORKER, "--ctx", "65536", "--parallel", "2", "--limit-concurrency", "8", kv_mib=128)


def leave(serving, streams, n_steps=1000, reset=False):
    """The clients leave; no more than n_steps steps are computed until nothing is held. How many were."""
    before = serving.metric("runnel_steps_total")
    for stream in streams:
        stream.leave(reset)
    now = serving.wait_until_idle()
    steps = now[("runnel_steps_total",)] - before
    assert steps <= n_steps
    serving.wait_for(lambda now: now[("runnel_pool_in_use_bytes",)] == 0)
    return steps


@pytest.mark.parametrize("reset", [False, True], ids=["FIN", "RST"])
def test_streaming(serving, reset):
    stream = serving.stream("once", 60000)
    assert stream.read_head() == 200
    next(stream.events())
    serving.wait_for(lambda now: now[USED] > 0)
    leave(serving, [stream], reset=reset)
    assert serving.metrics()[("vllm:request_success_total", "finished_reason=abort")] == 1


@pytest.mark.parametrize("streaming", [True, False])
def test_in_prefill(serving, streaming):
    request = serving.stream([7] * 20000 + [8] * 20000, 10, stream=streaming)
    serving.wait_for(lambda now: now[USED] > 0 and now[("vllm:num_requests_running",)] == 1)
    assert serving.metric("vllm:generation_tokens_total") == 0
    leave(serving, [request], n_steps=20)
    assert serving.metric("vllm:generation_tokens_total") == 0, "it was in prefill"


@pytest.mark.parametrize("streaming", [True, False])
def test_queued(serving, streaming):
    running = [serving.stream("once", 60000) for _ in range(2)]
    serving.wait_for(lambda now: now[("vllm:num_requests_running",)] == 2)
    queued = [serving.stream("two", 1000, stream=streaming) for _ in range(3)]
    serving.wait_for(lambda now: now[("vllm:num_requests_waiting",)] == 3)
    queued[1].leave()
    serving.wait_for(lambda now: now[("vllm:num_requests_waiting",)] == 2, 0.5)
    queued[0].leave()
    queued[2].leave()
    serving.wait_for(lambda now: now[("vllm:num_requests_waiting",)] == 0, 0.5)
    leave(serving, running)


def test_whole_answer(serving):
    request = serving.stream("once", 60000, stream=False)
    serving.wait_for(lambda now: now[("vllm:generation_tokens_total",)] > 10)
    leave(serving, [request])


def test_their_places_are_free_again(serving):
    """As many as are allowed at all leave; the next ones are answered."""
    for _ in range(5):
        streams = [serving.stream("once", 60000) for _ in range(8)]
        serving.wait_for(lambda now: now[("vllm:num_requests_running",)] == 2
                         and now[("vllm:num_requests_waiting",)] == 6)
        leave(serving, streams)
    serving.complete("a", 5)


def leave_in(phase, serving, attempt):
    """How many steps were computed after a client left in this phase."""
    if phase == "prefill":
        request = serving.stream([*range(1000 + 7000 * attempt, 7000 + 7000 * attempt)], 10)
        serving.wait_for(lambda now: now[USED] > 0)
        n_steps = leave(serving, [request])
        assert serving.metric("vllm:generation_tokens_total") == 0
        return n_steps
    stream = serving.stream("once", 8000)
    assert stream.read_head() == 200
    next(stream.events())
    if phase == "stream":
        return leave(serving, [stream])
    queued = serving.stream("two", 10)
    serving.wait_for(lambda now: now[("vllm:num_requests_waiting",)] == 1)
    before = serving.metric("runnel_steps_total")
    queued.leave()
    now = serving.wait_for(lambda now: now[("vllm:num_requests_waiting",)] == 0)
    leave(serving, [stream])
    return now[("runnel_steps_total",)] - before


@pytest.mark.parametrize("phase, n_steps", [("stream", 3), ("prefill", 2), ("queue", 3)])
def test_within_a_step_of_a_real_model(serve, smollm2, phase, n_steps):
    """The one that is computed, one if it has just ended, and one to see it. Where the machine does other work in between, steps
    go on before anybody is told: one time of many counts."""
    serving = serve(smollm2, *ONE_WORKER, "--parallel", "1", kv_mib=256)
    assert any(leave_in(phase, serving, attempt) <= n_steps for attempt in range(6))


def test_a_window_keeps_memory_constant(serve, tiny):
    """4,096 tokens, of which 512 are seen: the pages stay as many as the window needs."""
    serving = serve(tiny("long"), "--ctx", "1024", "--keep-last", "512", "--keep-first", "64")
    stream = serving.stream("once upon a time", 4096, temperature=0.7, seed=1)
    assert stream.read_head() == 200
    most, n_events = 0, 0
    resident = []
    for event in stream.events():
        n_events += 1
        if n_events % 100 == 0:
            now = serving.metrics()
            most = max(most, now[USED])
            resident.append(now[("process_resident_memory_bytes",)])
    assert event == "[DONE]"
    now = serving.wait_until_idle()
    assert now[("vllm:generation_tokens_total",)] >= 4096
    assert 0 < most * PAGE_TOKENS <= 64 + 512 + 2 * PAGE_TOKENS
    # The address sanitizer keeps for a while what was freed; the thread sanitizer's notes grow, of two processes past this bound.
    if b"__asan_init" not in RUNNEL.read_bytes() and not (SANITIZED and N_WORKERS > 1):
        assert max(resident) - resident[0] < 4 << 20
