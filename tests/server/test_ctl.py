"""Orders to a server that runs: `runnel ctl`, and the admin's routes under it."""
import os
import signal
import subprocess
from pathlib import Path

import pytest
from serving import BY_THEN, N_WORKERS, ONE_WORKER, RUNNEL, run_serve, wait_until
from test_workers import Load


def ctl(*arguments, timeout=BY_THEN, env=None):
    return subprocess.run([RUNNEL, "ctl", *map(str, arguments)], capture_output=True, text=True, timeout=timeout, env=env)


@pytest.fixture
def key_file(tmp_path):
    path = tmp_path / "admin"
    path.write_text("# the admin's\nmaster\n")
    return path


class Admin:
    """`runnel ctl` for one server."""

    def __init__(self, serving, key_file):
        self.flags = ["--url", f"http://127.0.0.1:{serving.port}/", "--admin-key-file", key_file]

    def __call__(self, *order):
        return ctl(*order, *self.flags)

    def done(self, *order):
        ended = self(*order)
        assert ended.returncode == 0, ended.stderr
        return ended.stdout


def test_more_and_fewer_workers_under_load(serve, tiny, key_file):
    serving = serve(tiny(), *ONE_WORKER, "--admin-key-file", str(key_file), "--parallel", "16", "--max-wait-s", "0", kv_mib=64)
    admin = Admin(serving, key_file)
    first = serving.worker
    load = Load(serving, 8)
    assert admin.done("workers", 3) == "3 workers of Tiny random model ready\n"
    wait_until(lambda: first not in serving.workers())
    assert len(serving.workers()) == 3
    assert admin.done("workers", 1) == "1 worker of Tiny random model ready\n"
    wait_until(lambda: len(serving.workers()) == 1)
    load.stop()
    assert "1 worker wanted, 1 ready, 0 starting, 0 draining" in admin.done("status")


def test_a_context_fits_each_worker(serve, tiny, key_file):
    """Nobody said how large the cache is to be: a quarter of 512 MiB would not hold one context of 132."""
    serving = serve(tiny("long"), *ONE_WORKER, "--ctx", "131072", "--admin-key-file", str(key_file), kv_mib=None)
    admin = Admin(serving, key_file)
    assert int(serving.metric("runnel_kv_cache_bytes")) >> 20 == 511
    admin.done("workers", 4)
    wait_until(lambda: len(serving.workers()) == 4)
    serving.wait_for(lambda now: now[("runnel_kv_cache_bytes",)] == 4 * 132 << 20)
    admin.done("workers", 1)
    wait_until(lambda: len(serving.workers()) == 1)
    serving.wait_for(lambda now: int(now[("runnel_kv_cache_bytes",)]) >> 20 == 511)
    serving = serve(tiny("long"), "--workers", "4", "--ctx", "131072", kv_mib=None)
    wait_until(lambda: len(serving.workers()) == 4)
    assert serving.complete("a", 3)


def test_a_cache_that_is_too_small_for_so_many(serve, tiny, key_file):
    """What somebody said of it holds, and the refusal says what would do."""
    flags = ("--ctx", "40000", "--admin-key-file", str(key_file))
    why = "--kv-cache-mib: 64 MiB for 2 workers, expected 82: each needs 41 for --ctx 40000; or at most 1 worker"
    serving = serve(tiny("long"), *ONE_WORKER, *flags, kv_mib=64)
    worker = serving.worker
    ended = Admin(serving, key_file)("workers", 2)
    assert ended.returncode == 1 and "1 worker of Tiny random model serve on as before" in ended.stderr and why in ended.stderr, ended.stderr
    assert serving.worker == worker and serving.complete("a", 3)
    done = run_serve("-m", tiny("long"), "--port", "0", "--workers", "2", *flags, "--kv-cache-mib", "64")
    assert done.returncode == 1 and why in done.stderr, done.stderr
    serving = serve(tiny("long"), "--workers", "2", *flags, kv_mib=82)
    wait_until(lambda: len(serving.workers()) == 2)


def test_reload(serve, tiny, key_file, tmp_path):
    path = tmp_path / "model.gguf"
    path.write_bytes(Path(tiny()).read_bytes())
    serving = serve(str(path), "--admin-key-file", str(key_file))
    admin = Admin(serving, key_file)
    workers = serving.workers()
    assert "the model is the same" in admin.done("reload")
    assert serving.workers() == workers
    path.write_bytes(path.read_bytes()[:1000])
    ended = admin("reload")
    assert ended.returncode == 1 and "given up" in ended.stderr, ended.stderr
    assert serving.workers() == workers and serving.complete("a", 3)
    path.write_bytes(Path(tiny()).read_bytes())
    assert f"{N_WORKERS} worker{'s' * (N_WORKERS > 1)} of Tiny random model ready" in admin.done("reload")
    wait_until(lambda: not set(workers) & set(serving.workers()))
    assert serving.complete("a", 3)


def test_orders_that_are_refused(serve, tiny, key_file, tmp_path):
    serving = serve(tiny(), "--admin-key-file", str(key_file), "--api-key", "client")
    admin = Admin(serving, key_file)
    assert "expected" in admin("workers", 1000).stderr
    other = tmp_path / "other"
    other.write_text("client\n")
    ended = Admin(serving, other)("status")
    assert ended.returncode == 1 and "401" in ended.stderr
    for wrong in (["workers"], ["workers", "0"], ["workers", "many"], ["status", "3"], ["dance"]):
        assert admin(*wrong).returncode == 2
    assert ctl("status").returncode == 2  # without a key
    assert ctl("status", "--url", "http://127.0.0.1:1", "--admin-key-file", key_file).returncode == 1


def test_keys_by_option_and_environment(serve, tiny):
    serving = serve(tiny(), *ONE_WORKER, env={"RUNNEL_ADMIN_KEY": "one,two"})
    url = ["--url", f"http://127.0.0.1:{serving.port}"]
    assert "1 ready" in ctl("status", *url, "--admin-key", "two").stdout
    assert "1 ready" in ctl("status", *url, env={**os.environ, "RUNNEL_ADMIN_KEY": "one"}).stdout
    for wrong in ("one,two", "three", "a\nb", ""):
        assert ctl("status", *url, "--admin-key", wrong).returncode == 1, wrong
    assert not any("one" in title for title in serving.family().values())


def test_routes(serve, tiny, key_file):
    serving = serve(tiny(), *ONE_WORKER, "--admin-key-file", str(key_file), "--api-key", "client")
    for key, status in ((None, 401), ("client", 401), ("master", 200)):
        serving.key = key
        assert serving.get("/admin/status")[0] == status
    assert serving.get("/v1/models")[0] == 401  # the admin's key is not a client's
    for body in ({}, {"workers": 0}, {"workers": 16}, {"workers": 1.5}, {"workers": "2"}, {"workers": 2, "a": 1}, [], 3):
        assert serving.post("/admin/workers", body)[0] == 400, body
    assert serving.get("/admin/workers")[0] == 405
    _, _, state = serving.get("/admin/status")
    assert state["workers"] == {"wanted": 1, "ready": 1, "starting": 0, "draining": 0} and state["failed"] is False
    status, _, state = serving.post("/admin/workers", {"workers": 2})
    assert status == 200 and state["order"] == 1
    wait_until(lambda: serving.get("/admin/status")[2]["answered"] == 1)
    assert len(serving.workers()) >= 2


def test_keys_are_read_again(serve, tiny, key_file):
    """SIGHUP: the admin's key that is gone is none any more, the new one is one, in the worker that there is and in the next."""
    serving = serve(tiny(), *ONE_WORKER, "--admin-key-file", str(key_file))
    worker = serving.worker

    def status_of(key):
        serving.key = key
        return serving.get("/admin/status")[0]

    assert (status_of("master"), status_of("another")) == (200, 401)
    key_file.write_text("another\n")
    serving.signal(signal.SIGHUP)
    wait_until(lambda: any("Keys and limits are read again" in line for line in serving.lines))
    assert (status_of("master"), status_of("another")) == (401, 200)
    assert serving.worker == worker
    os.kill(worker, signal.SIGKILL)
    assert (status_of("master"), status_of("another")) == (401, 200)
    assert serving.worker != worker
    key_file.write_text("")  # no key in it: an error, and the one that there is stays
    ended = ctl("reload", "--url", f"http://127.0.0.1:{serving.port}", "--admin-key", "another")
    assert ended.returncode == 1 and "Nothing is changed" in ended.stderr, ended.stderr
    assert status_of("another") == 200


def test_without_an_admin_there_are_no_orders(serve, tiny, key_file):
    serving = serve(tiny())
    assert serving.get("/admin/status")[0] == 404
    ended = Admin(serving, key_file)("status")
    assert ended.returncode == 1 and "--admin-key-file" in ended.stderr


def test_a_worker_has_its_share_of_requests(serve, tiny, key_file):
    """--limit-max-requests: its successor is there before it goes, and nobody notices."""
    serving = serve(tiny(), "--limit-max-requests", "50", "--parallel", "16", "--max-wait-s", "0", kv_mib=64)
    seen = set()
    load = Load(serving, 4)
    wait_until(lambda: seen.update(serving.workers()) or len(seen) >= 3)
    load.stop()
    assert not any("signal" in line for line in serving.lines), serving.lines
