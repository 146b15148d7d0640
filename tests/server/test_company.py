"""The same request gives the same text: alone, beside others, after a cache hit, and after having been preempted."""
import random
import threading

import pytest
from serving import N_WORKERS, ONE_WORKER, SANITIZED

SAMPLINGS = [{"temperature": 0}, {"temperature": 0.9, "seed": 42}]
OTHERS = 11
PAGE_TOKENS = 32


@pytest.fixture(params=["tiny", "smollm2-135m"])
def case(request, tiny):
    """(model, prompt tokens, answer tokens)"""
    if request.param == "tiny":
        return tiny("long"), 150, 300
    if SANITIZED:
        pytest.skip("sanitizers see the tiny model only: this takes many minutes")
    return request.getfixturevalue("smollm2"), 100, 48


def pages(serving):
    return sum(value for key, value in serving.metrics().items() if key[0] == "runnel_kv_pages")


def prompt_of(n_tokens, seed):
    """Ids of ordinary letters in both vocabularies."""
    draw = random.Random(seed)
    return [draw.randrange(60, 120) for _ in range(n_tokens)]


def in_company(serving, prompt, n_prompt, n_answer, sampling, n_others=OTHERS, others_seed=100, n_more=0):
    """What the request gives while others with other prompts and lengths come and go; n_more: tokens of their answers on top."""
    results = {}

    def ask(index):
        if index == n_others // 2:
            results["ours"] = serving.complete(prompt, n_answer, **sampling)
        else:
            n = n_prompt // 2 + 17 * index
            results[index] = serving.complete(prompt_of(n, others_seed + index), n_answer + 5 * index + n_more, temperature=1)

    threads = [threading.Thread(target=ask, args=(index,)) for index in range(n_others + 1)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(results) == n_others + 1, "all have been answered"
    return results["ours"]


@pytest.mark.parametrize("sampling", SAMPLINGS, ids=["greedy", "seeded"])
def test_alone_in_company_and_from_the_cache(serve, case, sampling):
    model, n_prompt, n_answer = case
    prompt = prompt_of(n_prompt, 1)
    flags = "--ctx", "2048", "--parallel", "12"
    alone = serve(model, *flags, kv_mib=256).complete(prompt, n_answer, **sampling)
    assert len(set(alone)) > 1
    serving = serve(model, *flags, kv_mib=256)
    assert in_company(serving, prompt, n_prompt, n_answer, sampling) == alone
    before = serving.metric("vllm:prefix_cache_hits_total")
    for _ in range(N_WORKERS):  # one of them has had it before: that of the company, or this one
        assert serving.complete(prompt, n_answer, **sampling) == alone
    assert serving.metric("vllm:prefix_cache_hits_total") - before >= 64, "it came from the cache"
    assert in_company(serving, prompt, n_prompt, n_answer, sampling) == alone


@pytest.mark.parametrize("sampling", SAMPLINGS, ids=["greedy", "seeded"])
def test_after_preemption(serve, case, sampling):
    model, n_prompt, n_answer = case
    prompt = prompt_of(n_prompt, 1)
    context = 640 if n_prompt == 150 else 384  # room for the longest of the others
    roomy = serve(model, "--ctx", str(context), kv_mib=256)
    alone = roomy.complete(prompt, n_answer, **sampling)
    page_bytes = roomy.metric("runnel_kv_cache_bytes") / pages(roomy)
    n_needed = context // PAGE_TOKENS + 4  # one context, and a little, for all of them: in one engine
    tight = serve(model, *ONE_WORKER, "--ctx", str(context), "--parallel", "12", "--max-wait-s", "0",  # a slow machine's queue is long
                  kv_mib=int(page_bytes * n_needed / (1 << 20)) + 1)
    n_more = 20 if n_answer < 64 else 0  # answers need more than the headroom with which they are admitted
    for turn in range(6):  # chance decides when they meet; with prompts that no turn before has left in the cache
        assert in_company(tight, prompt, n_prompt, n_answer, sampling, others_seed=100 * (turn + 1), n_more=n_more) == alone
        if tight.metric("vllm:num_preemptions_total") > 0:
            break
    else:
        pytest.fail(f"{pages(tight)} pages were enough for all: nothing was tested")
    tight.wait_until_idle()
