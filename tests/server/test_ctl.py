"""Orders to a server that runs: `runnel ctl`, and the admin's routes under it."""
import os
import signal
import subprocess
from pathlib import Path

import pytest
from serving import BY_THEN, N_WORKERS, ONE_WORKER, RUNNEL, run_serve, title_of, wait_until
from test_workers import Load, keeper_of


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
    assert ended.returncode == 1 and "Keys and limits are read; the model is not loaded again" in ended.stderr, ended.stderr
    assert serving.workers() == workers and serving.complete("a", 3)
    path.write_bytes(Path(tiny()).read_bytes())
    assert f"{N_WORKERS} worker{'s' * (N_WORKERS > 1)} of Tiny random model ready" in admin.done("reload")
    wait_until(lambda: not set(workers) & set(serving.workers()))
    assert serving.complete("a", 3)


def test_a_reload_of_the_same_options(serve, tiny, key_file, tmp_path):
    """With a file of --config: only where an option is another one, other workers come."""
    config = tmp_path / "config"
    config.write_text("max-tokens = 7  \ntemp = 0.5\n")
    serving = serve(tiny(), *ONE_WORKER, "--admin-key-file", str(key_file), "--config", str(config))
    admin, worker = Admin(serving, key_file), serving.worker
    assert "the model is the same" in admin.done("reload")
    config.write_text("# another text\ntemp = 0.5\nmax-tokens = 7\n")
    assert "the model is the same" in admin.done("reload")
    assert serving.worker == worker
    config.write_text("max-tokens = 7\n")
    assert "1 worker of" in admin.done("reload")
    wait_until(lambda: worker not in serving.workers())


def test_each_order_has_its_own_outcome(serve, tiny, key_file):
    """Three at once: what came of another one, or of a later one, is not said to be its own."""
    serving = serve(tiny(), *ONE_WORKER, "--admin-key-file", str(key_file))
    flags = Admin(serving, key_file).flags
    serving.signal(signal.SIGSTOP)  # so that all wait

    def begin(*order):
        n = len(serving.lines)
        begun = subprocess.Popen([RUNNEL, "ctl", *map(str, order), *map(str, flags)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        wait_until(lambda: any(f"/admin/{order[0]}" in line for line in serving.lines[n:]))
        return begun

    orders = [begin("workers", 2), begin("workers", 3), begin("reload")]
    serving.signal(signal.SIGCONT)
    told = [(*order.communicate(timeout=BY_THEN), order.returncode) for order in orders]
    assert [status for _, _, status in told] == [1, 0, 0], told
    assert "A later order came" in told[0][1] and "3 workers of" in told[1][0] and "the model is the same" in told[2][0], told
    serving.key = "master"
    for order, failed in ((1, True), (2, False), (3, False)):
        state = serving.get(f"/admin/status?order={order}")[2]
        assert (state["order"], state["answered"], state["failed"]) == (order, order, failed), state
    state = serving.get("/admin/status?order=4")[2]
    assert (state["answered"], state["failed"], state["message"]) == (0, False, ""), state
    for wrong in ("", "0", "-1", "x", "9" * 19):
        assert serving.get(f"/admin/status?order={wrong}")[0] == 400, wrong


def test_orders_while_no_model_can_be_loaded(serve, tiny, key_file, tmp_path):
    """The keeper is dead, and its file broken: its worker serves on, keys are read, and each order is answered."""
    path, keys = tmp_path / "model.gguf", tmp_path / "keys"
    path.write_bytes(Path(tiny()).read_bytes())
    keys.write_text("first\n")
    serving = serve(str(path), *ONE_WORKER, "--admin-key-file", str(key_file), "--api-key-file", str(keys))
    admin, worker = Admin(serving, key_file), serving.worker
    keeper = keeper_of(serving)
    path.rename(tmp_path / "away")
    os.kill(keeper, signal.SIGKILL)
    wait_until(lambda: any("The next keeper is started in" in line for line in serving.lines))
    keys.write_text("second\n")
    serving.signal(signal.SIGHUP)
    serving.key = "first"
    wait_until(lambda: serving.post("/tokenize", {"content": "a"})[0] == 401)
    while "is being loaded already" in (ended := admin("reload")).stdout:
        pass  # it was just tried
    assert ended.returncode == 1 and "is tried again" in ended.stderr, ended.stderr
    ended = admin("workers", 2)
    assert ended.returncode == 1 and "no model is open" in ended.stderr, ended.stderr
    serving.key = "second"
    assert serving.worker == worker and serving.complete("a", 3)
    (tmp_path / "away").rename(path)
    assert "1 worker of" in admin.done("reload")
    wait_until(lambda: worker not in serving.workers())
    assert serving.complete("a", 3)


def test_another_model_instead_of_one_that_does_not_load(serve, tiny, key_file, tmp_path):
    """A keeper that hangs as it loads holds up neither keys nor a reload with other options."""
    config, keys, pipe = tmp_path / "config", tmp_path / "keys", tmp_path / "template"
    os.mkfifo(pipe)  # nobody writes: whoever opens it waits
    config.write_text("")
    keys.write_text("first\n")
    serving = serve(tiny(), *ONE_WORKER, "--admin-key-file", str(key_file), "--api-key-file", str(keys), "--config", str(config))
    admin, worker = Admin(serving, key_file), serving.worker

    def keepers():
        return {pid for pid, title in serving.family().items() if title == "runnel: keeper"}

    old = keepers()
    config.write_text(f"chat-template-file = {pipe}\n")
    serving.signal(signal.SIGHUP)
    (hung,) = wait_until(lambda: keepers() - old)
    keys.write_text("second\n")
    assert "is being loaded already" in admin.done("reload")
    serving.key = "second"
    assert serving.complete("a", 3) and keepers() == {*old, hung} and serving.worker == worker
    ended = admin("workers", 2)
    assert ended.returncode == 1 and "another change is under way" in ended.stderr, ended.stderr
    config.write_text("max-tokens = 7\n")
    assert "1 worker of" in admin.done("reload")
    assert title_of(hung) is None
    assert any("another one is, by a later order" in line for line in serving.lines), serving.lines
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


def test_the_key_is_shown_to_no_proxy(serve, tiny, key_file):
    serving = serve(tiny(), *ONE_WORKER, "--admin-key-file", str(key_file))
    proxies = {name: "http://127.0.0.1:1" for name in ("http_proxy", "https_proxy", "all_proxy")}
    ended = ctl("status", *Admin(serving, key_file).flags, env={**os.environ, **proxies})
    assert ended.returncode == 0 and "1 ready" in ended.stdout, ended.stderr


def test_a_reload_that_takes_the_key_away(serve, tiny, key_file):
    serving = serve(tiny(), *ONE_WORKER, "--admin-key-file", str(key_file))
    key_file.write_text("another\n")
    url = ["--url", f"http://127.0.0.1:{serving.port}"]
    ended = ctl("reload", *url, "--admin-key", "master")
    assert ended.returncode == 0 and "Keys and limits are read" in ended.stdout, ended
    assert ctl("status", *url, "--admin-key", "master").returncode == 1
    assert ctl("status", *url, "--admin-key-file", key_file).returncode == 0


def test_routes(serve, tiny, key_file):
    serving = serve(tiny(), *ONE_WORKER, "--admin-key-file", str(key_file), "--api-key", "client")
    for key, status in ((None, 401), ("client", 401), ("master", 200)):
        serving.key = key
        found, headers, _ = serving.get("/admin/status")
        assert (found, headers.get("WWW-Authenticate")) == (status, 'Bearer realm="admin"' if status == 401 else None)
    status, headers, _ = serving.get("/v1/models")  # the admin's key is not a client's
    assert (status, headers["WWW-Authenticate"]) == (401, "Bearer")
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
