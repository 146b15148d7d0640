"""64 clients at once, each in a place of its own: the same texts as alone, behind one system prompt and where pages run out."""
import random

import pytest
from serving import ONE_WORKER

N = 64
SHARED = 300  # tokens of the system prompt: more than what is attended in one piece
N_ANSWER = 100


def letters(n, seed):
    draw = random.Random(seed)
    return [draw.randrange(60, 120) for _ in range(n)]


def prompt_of(index):
    """Every second one has the system prompt."""
    return (letters(SHARED, 1) if index % 2 else []) + letters(1 + index % 20, 100 + index)


def sampling_of(index):
    return {"temperature": 0.9 if index % 3 else 0, "seed": index}


@pytest.fixture(scope="module")
def model(tiny):
    return tiny("long")


@pytest.fixture
def alone(serve, model):
    serving = serve(model, "--ctx", "512", "--parallel", "1", kv_mib=64)
    return [serving.complete(prompt_of(i), N_ANSWER, **sampling_of(i)) for i in range(N)]


def texts_together(serving):
    streams = [serving.stream(prompt_of(i), N_ANSWER, **sampling_of(i)) for i in range(N)]
    return [stream.text() for stream in streams]


def test_64_streams_as_alone(serve, model, alone):
    assert len(set(alone)) > N / 2
    serving = serve(model, "--ctx", "512", "--parallel", str(N), "--batch-window-ms", "1000", kv_mib=64)
    assert texts_together(serving) == alone
    assert texts_together(serving) == alone, "from the cache"


def test_64_streams_where_pages_run_out(serve, model, alone):
    roomy = serve(model, "--ctx", "512", "--parallel", "1", kv_mib=64)
    pages = sum(value for key, value in roomy.metrics().items() if key[0] == "runnel_kv_pages")
    page_bytes = roomy.metric("runnel_kv_cache_bytes") / pages
    tight = serve(model, *ONE_WORKER, "--ctx", "512", "--parallel", str(N), kv_mib=int(page_bytes * N / (1 << 20)) + 1)
    for _ in range(3):
        assert texts_together(tight) == alone
        if tight.metric("vllm:num_preemptions_total") > 0:
            break
    else:
        pytest.fail("pages were enough for all: nothing was tested")
    tight.wait_until_idle()


def test_64_places(serve, model):
    serving = serve(model, *ONE_WORKER, "--ctx", "2048", "--parallel", str(N), kv_mib=128)  # of several each has a part of them
    streams = [serving.stream(letters(4, i), 2000) for i in range(N)]
    serving.wait_for(lambda now: now[("vllm:num_requests_running",)] == N)
    status, _, slots = serving.get("/slots")
    assert status == 200 and [slot["id"] for slot in slots] == list(range(N))
    assert sum(slot["is_processing"] for slot in slots) >= N / 2
    for stream in streams:
        stream.leave()
    serving.wait_until_idle()
