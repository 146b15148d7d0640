"""Prompts that begin alike and come together are computed once, and usage and timings say so."""
import random

import pytest
from serving import ONE_WORKER

N_PROMPT, N_SHARED = 300, 288  # tokens; whole pages of 32
FLAGS = "--ctx", "1024", "--parallel", "8", "--batch-window-ms", "200"  # so that all are there at the first step


def letters(n, seed):
    draw = random.Random(seed)
    return [draw.randrange(60, 120) for _ in range(n)]


def computed(serving):
    return serving.metric("vllm:prompt_tokens_total")


def test_choices_of_one_request(serve, tiny):
    serving = serve(tiny("long"), *FLAGS)
    fields = {"prompt": letters(N_PROMPT, 3), "max_tokens": 8, "temperature": 0.9, "ignore_eos": True}
    status, _, body = serving.post("/v1/completions", {**fields, "n": 4, "seed": 20})
    assert status == 200, body
    assert computed(serving) == N_PROMPT + 3 * (N_PROMPT - N_SHARED)
    assert body["usage"]["prompt_tokens"] == N_PROMPT
    assert body["usage"]["prompt_tokens_details"]["cached_tokens"] == 0
    assert body["timings"]["cache_n"] == 0 and body["timings"]["prompt_n"] == N_PROMPT  # of the first: a prompt counts once
    alone = [serving.post("/v1/completions", {**fields, "seed": 20 + i})[2]["choices"][0]["text"] for i in range(4)]
    assert [choice["text"] for choice in body["choices"]] == alone


@pytest.mark.parametrize("keys", [[None], ["one", "two"]], ids=["one key", "two keys"])
def test_clients_with_one_system_prompt(serve, tiny, keys):
    """Once in each worker: which of several a client reaches is chance."""
    serving = serve(tiny("long"), *ONE_WORKER, *FLAGS, *(["--api-key", ",".join(keys)] if keys[0] else []))
    serving.key = keys[0]
    shared = letters(N_SHARED, 4)
    streams = [serving.stream(shared + letters(20, 100 + i), 8, key=keys[i % len(keys)], temperature=0,
                              stream_options={"include_usage": True}) for i in range(8)]
    cached = []
    for stream in streams:
        assert stream.read_head() == 200
        events = list(stream.events())
        assert events[-1] == "[DONE]"
        cached.append(events[-2]["usage"]["prompt_tokens_details"]["cached_tokens"])
    assert sorted(cached) == len(keys) * [0] + (8 - len(keys)) * [N_SHARED]
    assert computed(serving) == len(keys) * N_SHARED + 8 * 20
