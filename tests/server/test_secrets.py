"""What a server tells nobody: keys, prompts, and what others asked; whatever happens to it, and however many workers it has."""
import os
import re
import signal
from pathlib import Path

import pytest
from serving import ONE_WORKER, SANITIZED, title_of, wait_until

CLIENT, ADMIN, WRONG, PROMPT = "client-walrus-11", "admin-zebra-22", "wrong-heron-33", "violet elephants"
SECRETS = (CLIENT, ADMIN, WRONG, *PROMPT.split())


def command_lines(serving):
    return [Path(f"/proc/{pid}/cmdline").read_bytes().decode() for pid in serving.family()]


@pytest.mark.parametrize("flags", [[], ["--log-json"]])
def test_neither_keys_nor_prompts_are_told(serve, tiny, tmp_path, flags):
    """In what is logged, in reports of crashes, and in what ps shows."""
    reports = tmp_path / "crashes"
    serving = serve(tiny(), *flags, "--workers", "2", "--api-key", CLIENT, "--admin-key", ADMIN, "--crash-file", str(reports), kv_mib=32)
    wait_until(lambda: len(serving.workers()) == 2)
    for key in (CLIENT, ADMIN, WRONG):
        serving.key = key
        serving.post("/v1/completions", {"prompt": PROMPT, "max_tokens": 3})
        serving.post("/v1/completions", {"prompt": PROMPT, "max_tokens": PROMPT})
        serving.post("/admin/workers", {"workers": PROMPT})
        serving.post("/admin/dance", {PROMPT: PROMPT})
        serving.get("/admin/status")
    shown = command_lines(serving)
    for worker in serving.workers():
        os.kill(worker, signal.SIGKILL if SANITIZED else signal.SIGSEGV)
        wait_until(lambda: title_of(worker) is None)
    wait_until(lambda: len(serving.workers()) == 2)
    serving.signal(signal.SIGHUP)
    wait_until(lambda: any("read again" in line for line in serving.lines))
    shown += command_lines(serving)
    serving.signal()
    assert serving.wait() == 0
    told = "\n".join(serving.lines)
    assert "/admin/workers" in told and told.count("was killed by signal") == 2  # it is the log of all that
    assert SANITIZED or reports.read_text().count("end of the report") == 2
    everything = told + "\n".join(shown) + reports.read_text()
    assert [secret for secret in SECRETS if secret in everything] == []


@pytest.mark.parametrize("flags", [[], ["--log-json"]])
def test_a_model_cannot_write_to_the_terminal(serve, tiny, flags):
    serving = serve(tiny(), *ONE_WORKER, *flags, "--alias", "a\x1b[2J\x9b\x7f\nb")
    serving.complete("a", 3)
    serving.signal()
    assert serving.wait() == 0
    assert sum("Runnel serves a" in line for line in serving.lines) == 1, serving.lines
    assert all(" " <= byte <= "~" for line in serving.lines for byte in line), serving.lines


def cached(serving, key, prompt):
    """(the worker that answered, how many tokens of the prompt it had)"""
    serving.key = key
    status, _, body = serving.post("/v1/completions", {"prompt": prompt, "max_tokens": 1})
    assert status == 200, body
    return int(re.fullmatch(r"cmpl-[0-9a-f]{14}([0-9a-f]{2})[0-9a-f]{8}", body["id"])[1], 16), \
        body["usage"]["prompt_tokens_details"]["cached_tokens"]


def test_caches_of_keys_are_apart_in_each_worker(serve, tiny, tmp_path):
    """... and from those of a key that had the same place in the file before."""
    keys = tmp_path / "keys"
    keys.write_text("one\ntwo\n")
    serving = serve(tiny(), "--workers", "2", "--api-key-file", str(keys), kv_mib=32)
    wait_until(lambda: len(serving.workers()) == 2)
    question = [5] * 200 + [6]
    warm = {}  # of each worker, by key: has it the prompt?
    for key in ("one", "two"):
        for _ in range(200):
            worker, n = cached(serving, key, question)
            assert (n > 100) == ((worker, key) in warm), (worker, key, warm)
            warm[(worker, key)] = True
            if all((other, key) in warm for other in serving.workers().values()):
                break
    both = set(serving.workers().values())
    assert set(warm) == {(worker, key) for worker in both for key in ("one", "two")}
    keys.write_text("three\ntwo\n")
    serving.signal(signal.SIGHUP)
    wait_until(lambda: any("Keys and limits are read again" in line for line in serving.lines))
    serving.key = "three"
    wait_until(lambda: serving.post("/tokenize", {"content": "a"})[0] == 200)
    seen = set()
    for _ in range(200):
        worker, n = cached(serving, "three", question)
        assert (n > 100) == (worker in seen), (worker, seen)
        seen.add(worker)
        if seen == both:
            break
    assert cached(serving, "two", question)[1] > 100
