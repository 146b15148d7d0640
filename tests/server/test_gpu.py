"""`runnel serve` on a GPU, or on PoCL's device: what it says of it, what it refuses, and a device that answers no more. ctest runs it where
there is one (tests/with_gpu); what is to be seen without is in test_no_gpu.py."""
import json
import os
import subprocess

import pytest

from serving import RUNNEL, Serving, run_serve, wait_until

os.environ.pop("RUNNEL_DEVICE", None)  # each server here says what it computes on
LOST = RUNNEL.parent / "tests" / "runnel_lost"


def devices():
    done = subprocess.run([RUNNEL, "devices", "--json"], capture_output=True, text=True, check=True)
    return [device for device in json.loads(done.stdout) if device["id"].startswith("gpu") and not device["problem"]]


@pytest.fixture(scope="module")
def gpu():
    found = devices()
    if not found:
        pytest.skip("no device that a driver shows can be used")
    return found[0]


def completion(serving, seed=0):
    return serving.complete("Say it", 12, temperature=1, seed=seed)


def test_it_says_on_what_it_computes(gpu, serve, tiny):
    serving = serve(tiny(), "--device", "gpu", "--workers", "1")
    said = [line for line in serving.lines if " computes " in line]
    assert len(said) == 1 and gpu["name"] in said[0] and "computes 2 of 2 layers" in said[0], serving.lines
    percent = serving.metric("deepseek_gpu_memory_percent")
    assert 0 < percent <= 100


def test_it_hears_signals(gpu, serve, tiny):
    """Whatever a driver's compiler does with them: one that is told to end drains, and ends as soon as its answers have."""
    serving = serve(tiny("long"), "--device", "gpu", "--workers", "1", "--ctx", "60000", "--timeout-drain", "600", kv_mib=128)
    stream = serving.stream("a", 50000)
    assert stream.read_head() == 200 and next(stream.events())
    serving.signal()
    wait_until(lambda: serving.get("/health")[2]["status"] == "draining")
    stream.leave()
    assert serving.wait() == 0


def test_answers_are_those_of_the_cpu(gpu, serve, tiny):
    """All layers there, one of them, and none."""
    answers = []
    for flags in (("--device", "cpu"), ("--device", "gpu"), ("--device", "gpu", "--gpu-layers", "1")):
        serving = serve(tiny(), *flags, "--workers", "1")
        answers.append([completion(serving, seed) for seed in range(4)])
        serving.stop()
    assert answers[0] == answers[1] == answers[2] and len(set(answers[0])) > 1


def test_greedy_answers_are_those_of_the_cpu(gpu, serve, tiny):
    """The device finds the likeliest token, unless something else is wanted: a few of both kinds, twice."""
    answers = []
    for flags in (("--device", "cpu"), ("--device", "gpu")):
        serving = serve(tiny(), *flags, "--workers", "1")
        wishes = ({}, {"logprobs": 2}, {"frequency_penalty": 0.5}, {"min_tokens": 9}, {"logit_bias": {"101": 2}}) * 2
        answers.append([serving.complete("Say it", 24, temperature=0, **wish) for wish in wishes])
        serving.stop()
    assert answers[0] == answers[1] and len(set(answers[0])) > 1


def test_approximate_answers(gpu, serve, tiny):
    """Of types that are multiplied in whole numbers nothing changes, on a device that rounds as the CPU does."""
    serving = serve(tiny(), "--device", "cpu")
    expected = completion(serving)
    serving.stop()
    serving = serve(tiny(), "--device", "gpu", "--gpu-approximate", "--workers", "1")
    assert [line for line in serving.lines if "computes 2 of 2 layers (approximately)" in line], serving.lines
    assert completion(serving) == expected


def test_what_is_refused(gpu, tiny):
    two = run_serve("-m", tiny(), "--device", "gpu", "--workers", "2")
    assert two.returncode == 2 and "--workers: expected 1 with --device gpu, found 2" in two.stderr
    unknown = run_serve("-m", tiny(), "--device", "gpu77", "--workers", "1", "--port", "0")
    assert unknown.returncode == 1 and "device gpu77: expected cpu, gpu, auto or one of gpu0" in unknown.stderr
    alone = run_serve("-m", tiny(), "--gpu-layers", "2")
    assert alone.returncode == 2 and "--device" in alone.stderr


def test_too_little_memory_is_told_at_the_start(gpu, tiny):
    mib = 2 * gpu["memory_bytes"] >> 20
    done = run_serve("-m", tiny(), "--device", "gpu", "--workers", "1", "--port", "0", "--kv-cache-mib", str(min(mib, 1 << 20)))
    assert done.returncode == 1 and ("room for 0 of 2 layers" in done.stderr or "expected at most" in done.stderr), done.stderr


def test_more_workers_are_refused_later_too(gpu, serve, tiny):
    serving = serve(tiny(), "--device", "gpu", "--workers", "1", "--admin-key", "secret")
    serving.key = "secret"
    status, _, body = serving.post("/admin/workers", {"workers": 2})
    assert status == 400 and "1" in body["error"]["message"], body


def test_a_lost_device_ends_the_worker_and_another_takes_its_place(gpu, tiny, tmp_path, monkeypatch):
    """Its requests are answered, with an error; the next ones are computed."""
    switch, model = tmp_path / "waits", tiny()
    switch.write_text("60")  # for the device, those of the start included
    monkeypatch.setattr("serving.RUNNEL", LOST)
    serving = Serving(model, "--device", "gpu", "--workers", "1", env={"RUNNEL_TEST_LOST": str(switch)})
    try:
        before = serving.workers()
        status, _, failed = serving.post("/v1/completions", {"prompt": "Say it", "max_tokens": 200, "ignore_eos": True})
        assert status == 500 and "fallen out of its slot" in json.dumps(failed), failed
        wait_until(lambda: any("is ready after" in line for line in serving.lines))
        assert any("answers no more" in line for line in serving.lines), serving.lines
        assert completion(serving)
        assert not set(serving.workers()) & set(before)
    finally:
        serving.stop()
