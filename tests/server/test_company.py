"""The same request gives the same text: alone, beside others, after a cache hit, and after having been preempted."""
import os
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
    if "RUNNEL_DEVICE" in os.environ:
        pytest.skip("likewise a GPU that is this machine's CPU")
    return request.getfixturevalue("smollm2"), 100, 48


def pages(metrics):
    return sum(value for key, value in metrics.items() if key[0] == "runnel_kv_pages")


def prompt_of(n_tokens, seed):
    """Ids of ordinary letters in both vocabularies."""
    draw = random.Random(seed)
    return [draw.randrange(60, 120) for _ in range(n_tokens)]


def in_company(serving, prompt, case, n_answer, sampling):
    """What the request gives while others with other prompts and lengths come and go."""
    _, n_prompt, n_of_others = case
    results = {}

    def ask(index):
        if index == OTHERS // 2:
            results["ours"] = serving.complete(prompt, n_answer, **sampling)
        else:
            n = n_prompt // 2 + 17 * index
            results[index] = serving.complete(prompt_of(n, 100 + index), n_of_others + 5 * index, temperature=1)

    threads = [threading.Thread(target=ask, args=(index,)) for index in range(OTHERS + 1)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(results) == OTHERS + 1, "all have been answered"
    return results["ours"]


@pytest.mark.parametrize("sampling", SAMPLINGS, ids=["greedy", "seeded"])
def test_alone_in_company_and_from_the_cache(serve, case, sampling):
    model, n_prompt, n_answer = case
    prompt = prompt_of(n_prompt, 1)
    flags = "--ctx", "2048", "--parallel", "12"
    alone = serve(model, *flags, kv_mib=256).complete(prompt, n_answer, **sampling)
    assert len(set(alone)) > 1
    serving = serve(model, *flags, kv_mib=256)
    assert in_company(serving, prompt, case, n_answer, sampling) == alone
    before = serving.metric("vllm:prefix_cache_hits_total")
    for _ in range(N_WORKERS):  # one of them has had it before: that of the company, or this one
        assert serving.complete(prompt, n_answer, **sampling) == alone
    assert serving.metric("vllm:prefix_cache_hits_total") - before >= 64, "it came from the cache"
    assert in_company(serving, prompt, case, n_answer, sampling) == alone


@pytest.mark.parametrize("sampling", SAMPLINGS, ids=["greedy", "seeded"])
def test_after_preemption(serve, case, sampling):
    """An older request is admitted with ours, and then needs the pages: ours loses its own, waits, and gives the same in the end."""
    model, n_prompt, _ = case
    prompt = prompt_of(n_prompt, 1)
    n_answer = 200  # with the older one's: more than the headroom with which both are admitted
    roomy = serve(model, "--ctx", "2048", kv_mib=256)
    alone = roomy.complete(prompt, n_answer, **sampling)
    metrics = roomy.metrics()  # read once: the second worker may come between
    page_bytes = metrics[("runnel_kv_cache_bytes",)] / pages(metrics)
    kv_mib = int(20 * page_bytes / (1 << 20)) + 1
    context = int(kv_mib * (1 << 20) / page_bytes) * PAGE_TOKENS  # one takes all the pages
    tight = serve(model, *ONE_WORKER, "--ctx", str(context), "--parallel", "12", "--max-wait-s", "0",  # a slow machine's queue is long
                  "--draft", "off", kv_mib=kv_mib)  # in step: the older one has answered 200 tokens more by then
    n_older = context - n_prompt - 260
    for turn in range(6):  # the first is enough if ours came at once; with a prompt that no turn before has left in the cache
        older = tight.stream(prompt_of(n_older, 100 + turn), context - n_older)
        assert older.read_head() == 200 and next(older.events())
        assert tight.complete(prompt, n_answer, **sampling) == alone
        older.leave()
        tight.wait_until_idle()
        if tight.metric("vllm:num_preemptions_total") > 0:
            break
    else:
        pytest.fail(f"{pages(tight.metrics())} pages were enough for both: nothing was tested")
    assert in_company(tight, prompt, case, n_answer, sampling) == alone
    tight.wait_until_idle()
