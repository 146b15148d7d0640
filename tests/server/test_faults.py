"""What befalls a server from outside: its processes die or hang, the machine runs out of something, somebody sets the clock. The table
in docs/development.md, "What is promised", says which promise each test holds."""
import http.client
import os
import re
import resource
import signal
import socket
import struct
import threading
import time
from datetime import datetime, timezone
from pathlib import Path

import pytest
import serving as serving_module
from memory_group import make_memory_group
from serving import BY_THEN, ONE_WORKER, RUNNEL, SANITIZED, SLOW, cpu_seconds, title_of, wait_until
from test_health import stopped_engine
from test_log import start_with_stderr
from test_workers import LONG, assert_cut, begin_streams, keeper_of, streams_of_both

without_sanitizers = pytest.mark.skipif(SANITIZED, reason="not with what a sanitizer loads and reserves")


@pytest.fixture
def limited(monkeypatch, tmp_path):
    """limited("ulimit -n 32"): servers that are started from now on, with all their processes, live under that."""
    def limit(command):
        script = tmp_path / "limited"
        script.write_text(f'#!/bin/sh\n{command}\nexec "{RUNNEL.resolve()}" "$@"\n')
        script.chmod(0o755)
        monkeypatch.setattr(serving_module, "RUNNEL", script)
    return limit


@pytest.fixture
def memory_group():
    """Requested before `serve`, whose servers are to be gone when it is removed."""
    group = make_memory_group()
    yield group
    group.remove()


def nobody_lives(family):
    return not any(title_of(pid) for pid in family)


def two_workers(serve, tiny, *flags, n_tokens=60000):
    """A server and streams that both of its workers have begun."""
    serving = serve(tiny("long"), "--workers", "2", "--parallel", "64", *flags, *LONG, kv_mib=512)
    wait_until(lambda: len(serving.workers()) == 2)
    return serving, [pair for pairs in streams_of_both(serving, n_tokens).values() for pair in pairs]


# --- the end ---


def test_a_second_signal_ends_all_at_once(serve, tiny):
    serving, streams = two_workers(serve, tiny, "--timeout-drain", "600")
    family = serving.family()
    serving.signal()
    wait_until(lambda: any("Runnel ends" in line for line in serving.lines))
    for _, events in streams:
        assert next(events) != "[DONE]"
    time.sleep(0.05)  # a signal that comes at once is the first one still
    assert serving.process.poll() is None, "the first signal waits for the streams"
    serving.signal()
    assert serving.wait() == 0
    assert_cut(streams)
    wait_until(lambda: nobody_lives(family))


def begin_group(serve, tiny, n_workers, n_tokens):
    """A server whose processes are a group of their own, and a stream of each worker."""
    serving = serve(tiny("long"), "--workers", str(n_workers), "--parallel", "64", "--timeout-drain", "600", *LONG, kv_mib=512 * n_workers,
                    own_group=True)
    wait_until(lambda: len(serving.workers()) == n_workers)
    if n_workers == 1:
        return serving, begin_streams(serving, 1, n_tokens)
    return serving, [pair for pairs in streams_of_both(serving, n_tokens).values() for pair in pairs]


@pytest.mark.parametrize("n_workers", [1, 2])
def test_sigterm_to_all_of_them_is_one(serve, tiny, n_workers):
    """As `timeout` sends it, to the process and then to its group: what runs is finished, and whoever comes is refused."""
    serving, streams = begin_group(serve, tiny, n_workers, 4000)
    family = serving.family()
    serving.signal()
    os.killpg(serving.process.pid, signal.SIGTERM)
    wait_until(lambda: refused(serving))
    for _, events in streams:
        assert list(events)[-1] == "[DONE]"
    assert serving.wait() == 0
    assert nobody_lives(family)
    assert not any("second signal" in line or re.search("Worker .* killed", line) for line in serving.lines), serving.lines


def refused(serving):
    """Is a new connection told that the server ends?"""
    try:
        return serving.get("/health")[::2] == (503, {"status": "draining"})
    except (ConnectionResetError, http.client.RemoteDisconnected):
        return False  # it had not sent its request when the draining began


def test_a_second_sigterm_to_all_of_them_ends_at_once(serve, tiny):
    serving, streams = begin_group(serve, tiny, 2, 60000)
    family = serving.family()
    os.killpg(serving.process.pid, signal.SIGTERM)
    wait_until(lambda: any("Runnel ends" in line for line in serving.lines))
    time.sleep(0.05)
    for _, events in streams:
        assert next(events) != "[DONE]"
    os.killpg(serving.process.pid, signal.SIGTERM)
    assert serving.wait() == 0
    assert_cut(streams)
    wait_until(lambda: nobody_lives(family))


def test_sigterm_to_a_worker_and_to_the_server(serve, tiny):
    serving, streams = begin_group(serve, tiny, 1, 4000)
    os.kill(serving.worker, signal.SIGTERM)
    serving.signal()
    wait_until(lambda: refused(serving))
    assert list(streams[0][1])[-1] == "[DONE]"
    assert serving.wait() == 0


def test_signals_that_are_blocked_at_the_start(tiny, tmp_path):
    """By whoever starts the server, whose mask it inherits."""
    with open(tmp_path / "log", "w") as file:
        serving = start_with_stderr(tiny(), file, *ONE_WORKER, preexec_fn=lambda: signal.pthread_sigmask(
            signal.SIG_BLOCK, {signal.SIGTERM, signal.SIGCHLD, signal.SIGUSR1}))
        try:
            dead = serving.worker
            os.kill(dead, signal.SIGKILL)
            assert serving.complete("a", 3) and serving.worker != dead
            serving.signal()
            assert serving.wait() == 0
        finally:
            serving.process.kill()


def test_the_time_to_drain_is_that_of_all(serve, tiny):
    serving, streams = two_workers(serve, tiny, "--timeout-drain", "1")
    serving.signal()
    for _, events in streams:
        rest = list(events)
        assert rest[-1] != "[DONE]" and rest[-1]["error"]["code"], rest[-1]
    assert serving.wait() == 0


# --- processes that die ---


def delays(serving):
    """What the log says of workers that wait for their start, in seconds."""
    return [float(match[1]) for line in serving.lines
            if (match := re.search(r"The next worker is started in ([\d.]+) s, as the last \d+ could not", line))]


@without_sanitizers
def test_a_worker_that_dies_again_and_again_is_backed_off(serve, tiny):
    serving = serve(tiny(), *ONE_WORKER, kv_mib=64)
    keeper = keeper_of(serving)
    n_kib = int(re.search(r"VmSize:\s+(\d+)", Path(f"/proc/{keeper}/status").read_text())[1])
    began = cpu_seconds(serving.process.pid) + cpu_seconds(keeper)
    resource.prlimit(keeper, resource.RLIMIT_AS, (n_kib + 1024 << 10, resource.RLIM_INFINITY))  # no room for another worker
    os.kill(serving.worker, signal.SIGKILL)
    wait_until(lambda: len(delays(serving)) >= 4)
    assert delays(serving)[:4] == [0.1, 0.2, 0.4, 0.8]
    assert sum("Worker 0 could not start: " in line for line in serving.lines) >= 4, serving.lines
    status, _, body = serving.get("/health")  # by the greeter
    assert (status, body["status"]) == (503, "loading model")
    assert serving.post("/v1/completions", {"prompt": "a", "max_tokens": 1})[0] == 503
    assert cpu_seconds(serving.process.pid) + cpu_seconds(keeper) - began < 0.5
    resource.prlimit(keeper, resource.RLIMIT_AS, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    wait_until(lambda: serving.get("/health")[0] == 200)
    assert serving.complete("a", 3)
    n_before = len(delays(serving))
    os.kill(serving.worker, signal.SIGKILL)  # it was ready: its successor does not wait
    assert serving.complete("a", 3) and len(delays(serving)) == n_before


def test_workers_that_never_come_to_be_ready_end_the_server(serve, tiny):
    serving = serve(tiny(), *ONE_WORKER, kv_mib=1024, wait=False)  # that much takes a while to touch
    killed, family = set(), set()
    deadline = time.monotonic() + BY_THEN
    while serving.process.poll() is None:
        assert time.monotonic() < deadline
        found = serving.family()
        family |= set(found)
        for pid in [pid for pid, title in found.items() if title.startswith("runnel: worker")]:
            try:
                os.kill(pid, signal.SIGKILL)
                killed.add(pid)
            except ProcessLookupError:
                pass
    assert serving.wait() == 1
    assert len(killed) == 4
    assert re.fullmatch(r"runnel: worker \d+ was killed by signal 9 .*before it was ready", serving.lines[-1]), serving.lines
    assert nobody_lives(family)


def counts(serving):
    """Of the metrics those that may only grow."""
    return {name: value for name, value in serving.metrics().items() if re.search("_(total|count|bucket|sum)$", name[0])}


def test_counters_never_go_back(serve, tiny):
    """What a worker has told, and it tells soon, is not lost with it."""
    serving = serve(tiny(), "--workers", "2", kv_mib=32)
    wait_until(lambda: len(serving.workers()) == 2)
    before = counts(serving)
    for i in range(1, 7):
        for _ in range(3):
            serving.complete("a", 3)
        serving.wait_for(lambda now: now[("deepseek_requests_total",)] == 3 * i
                         and now[("vllm:generation_tokens_total",)] == 9 * i)
        os.kill(sorted(serving.workers())[i % 2], signal.SIGKILL)
        now = wait_until(lambda: counts(serving) if len(serving.workers()) == 2 else None)
        back = {name: (value, now.get(name)) for name, value in before.items() if now.get(name, -1) < value}
        assert not back
        assert now[("deepseek_requests_total",)] == 3 * i and now[("vllm:generation_tokens_total",)] == 9 * i
        assert now[("runnel_worker_exits_total", "how=crashed")] == i
        before = now
    now = serving.metrics()
    assert now[("runnel_workers",)] == 2 and now[("vllm:num_requests_running",)] == 0


@pytest.mark.parametrize("who", ["supervisor", "all"])
def test_killed_and_started_again_at_once(serve, tiny, tmp_path, who):
    """At the same port, with clients that had streams; nothing is left on any disk."""
    serving, streams = two_workers(lambda *words, **options: serve(*words, env={"TMPDIR": str(tmp_path)}, **options), tiny)
    family = [serving.process.pid, *(pid for pid in serving.family() if pid != serving.process.pid)]
    for pid in family if who == "all" else family[:1]:
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            pass  # it died of the one before
    serving.process.wait()
    serving.process.returncode = 0  # as was meant
    if SANITIZED:  # its processes take longer to end, and have the port until then
        wait_until(lambda: nobody_lives(family))
    second = serve(tiny(), *ONE_WORKER, port=serving.port)
    assert second.complete("a", 3)
    assert_cut(streams)
    wait_until(lambda: nobody_lives(family))
    assert os.listdir(tmp_path) == [] and not any("runnel" in name for name in os.listdir("/dev/shm"))


# --- processes that hang ---


def test_an_engine_that_hangs_is_told_and_its_worker_replaced(serve, tiny):
    """One thread stands still, and the loop goes on: /health says so, then the watchdog ends the worker."""
    serving = serve(tiny("long"), *ONE_WORKER, "--wedged-s", "1", "--watchdog-s", str(6 * SLOW), *LONG, kv_mib=512)
    hung = serving.worker
    streams = begin_streams(serving, 1, 60000)
    with stopped_engine(serving, hung) as stopped:
        wait_until(lambda: serving.get("/health")[2]["status"] == "wedged" or hung not in serving.workers())
        wait_until(lambda: any("The engine has done no step" in line for line in serving.lines))
        # A thread that is traced stays until the one who traces it has asked for its end.
        wait_until(lambda: os.waitpid(stopped.id, 0x40000000 | os.WNOHANG)[0] == stopped.id)  # __WALL
    assert_cut(streams)
    assert serving.complete("a", 3)
    assert serving.worker != hung
    assert any(f"(pid {hung}) is ended: it stands still" in line for line in serving.lines), serving.lines
    serving.wait_for(lambda now: now[("runnel_worker_exits_total", "how=hung")] == 1)  # its successor may come before its end
    assert serving.get("/health")[::2] == (200, {"status": "ok"})


# --- what a machine runs out of ---


def n_descriptors(pid):
    return len(os.listdir(f"/proc/{pid}/fd"))


def loop_seconds(pid):
    """CPU time of a process's first thread: in a worker, of the one that serves connections."""
    fields = Path(f"/proc/{pid}/task/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def test_few_descriptors_for_all_processes(limited, serve, tiny):
    """ulimit -n 32: more clients than descriptors make nobody spin, nor keep a dead worker from being replaced."""
    model = tiny("long")
    limited("ulimit -n 32")
    serving = serve(model, "--workers", "2", "--timeout-head", "600", *LONG, kv_mib=512)
    wait_until(lambda: len(serving.workers()) == 2)
    clients = []
    for _ in range(120):
        clients.append(socket.create_connection(("127.0.0.1", serving.port), timeout=BY_THEN))
        clients[-1].sendall(b"GET /hea")
    wait_until(lambda: all(n_descriptors(pid) >= 30 for pid in serving.workers()))
    began = {pid: loop_seconds(pid) for pid in serving.family()}
    time.sleep(1)
    assert all(loop_seconds(pid) - began[pid] < 0.3 * SLOW for pid in began), serving.family()
    dead = sorted(serving.workers())[0]
    os.kill(dead, signal.SIGKILL)
    wait_until(lambda: dead not in serving.workers() and len(serving.workers()) == 2)
    for client in clients:
        client.close()
    wait_until(lambda: serving.get("/health")[0] == 200)  # there may be clients that are not accepted yet
    assert serving.complete("a", 3)
    assert not any("could not" in line for line in serving.lines), serving.lines


def peak_kib(pid):
    return int(re.search(r"VmPeak:\s+(\d+)", Path(f"/proc/{pid}/status").read_text())[1])


def put_under_load(serving):
    """What short and long requests are answered, some at the same time."""
    statuses = []

    def ask(i):
        body = {"prompt": "once upon a time " * (1 + i * 20), "max_tokens": 50, "ignore_eos": True, "logprobs": i % 2 or None}
        statuses.append(serving.post("/v1/completions", body)[0])

    threads = [threading.Thread(target=ask, args=(i,)) for i in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    statuses.append(serving.post("/tokenize", {"content": "a b " * 40000})[0])
    return statuses


def serves(serving):
    """False: it has refused to start, with a line. True: it serves, and ends as it should."""
    assert serving.ready.wait(BY_THEN), serving.lines
    if not serving.url:
        status = serving.wait()
        assert len(serving.lines) == 1, serving.lines
        if "error while loading shared libraries" in serving.lines[0]:
            serving.process.returncode = 1  # there was not even room for the program
        else:
            assert status == 1 and serving.lines[0].startswith("runnel: "), serving.lines
        return False
    wait_until(lambda: serving.get("/health")[0] == 200)
    workers = serving.workers()
    assert set(put_under_load(serving)) <= {200, 503}
    assert serving.complete("a", 3)
    assert serving.workers() == workers, "none has crashed"  # there may be no room for /metrics
    serving.signal()
    assert serving.wait() == 0
    return True


@without_sanitizers
def test_a_memory_limit_fails_at_the_start_or_never(limited, serve, tiny):
    """Limits of address space for each process, nearer and nearer to the need from both sides."""
    model, flags = tiny("long"), (*ONE_WORKER, "--ctx", "8192")
    free = serve(model, *flags, kv_mib=64)
    assert set(put_under_load(free)) == {200}
    too_low, enough = 0, int(1.1 * peak_kib(free.worker))
    for limit in (enough // 20, enough, *[None] * 6):
        limit = limit or (too_low + enough) // 2
        limited(f"ulimit -v {limit}")
        if serves(serve(model, *flags, kv_mib=64, wait=False)):
            enough = limit
        else:
            too_low = limit
    assert 0 < too_low < enough < 1.05 * too_low, (too_low, enough)


@without_sanitizers
def test_a_containers_memory_limit_fails_at_the_start_or_never(memory_group, limited, serve, tiny):
    """A cgroup with a tenth more than what is needed: a worker that is killed is replaced in it, and the system has to end nobody."""
    model, flags = tiny("long"), (*ONE_WORKER, "--ctx", "8192", "--breaker-memory-percent", "100")
    limited(f"echo $$ >{memory_group.procs}")
    free = serve(model, *flags, kv_mib=64)
    assert set(put_under_load(free)) == {200}
    need = memory_group.used_bytes()
    assert need > 64 << 20
    free.stop()
    memory_group.limit(int(1.1 * need))
    serving = serve(model, *flags, kv_mib=64)
    keeper = keeper_of(serving)
    assert set(put_under_load(serving)) <= {200, 503}
    for _ in range(3):
        dead = serving.worker
        os.kill(dead, signal.SIGKILL)
        assert serving.complete("a", 3)
        assert serving.worker != dead
    assert set(put_under_load(serving)) <= {200, 503}
    assert serving.complete("a", 3) and keeper_of(serving) == keeper
    serving.stop()
    memory_group.limit(60 << 20)  # less than the cache alone; with more it depends on whose the files' pages in memory are
    assert not serves(serve(model, *flags, kv_mib=64, wait=False))
    assert memory_group.n_killed() == 0


@without_sanitizers
def test_full_disks(tiny):
    """Neither the log nor the report of a crash can be written, by any of the processes."""
    with open("/dev/full", "w") as full:
        serving = start_with_stderr(tiny(), full, "--workers", "2", "--crash-file", "/dev/full")
        wait_until(lambda: len(serving.workers()) == 2)
        for _ in range(3):
            dead = sorted(serving.workers())[0]
            os.kill(dead, signal.SIGSEGV)
            wait_until(lambda: dead not in serving.workers() and len(serving.workers()) == 2)
            assert serving.complete("a", 3)
        now = serving.metrics()
        assert now[("runnel_worker_exits_total", "how=crashed")] == 3
        assert now[("runnel_log_lines_lost_total",)] > 6
        serving.stop()
        assert serving.process.returncode == 0


def test_a_log_that_may_not_grow(tiny, tmp_path):
    """The limit of a file's size is no end by SIGXFSZ."""
    def limit():
        signal.signal(signal.SIGXFSZ, signal.SIG_DFL)  # Python ignores it, and so would what it starts
        resource.setrlimit(resource.RLIMIT_FSIZE, (2000, 2000))

    path = tmp_path / "log"
    with open(path, "a") as file:
        serving = start_with_stderr(tiny(), file, "--workers", "2", preexec_fn=limit)
        for _ in range(20):
            assert serving.complete("a", 3)
        serving.wait_for(lambda now: now[("runnel_log_lines_lost_total",)] > 0)
        serving.stop()
        assert serving.process.returncode == 0
    assert 1000 < path.stat().st_size <= 2000


# --- the clock ---


class Clock:
    """The time of day of the servers that are started with its environment."""

    def __init__(self, folder):
        self.path = folder / "clock"
        self.move(0)
        self.env = {"LD_PRELOAD": str(RUNNEL.parent / "tests" / "libmoved_clock.so"), "MOVED_CLOCK": str(self.path)}

    def move(self, seconds):
        with open(self.path, "r+b" if self.path.exists() else "wb") as file:
            file.write(struct.pack("=q", seconds))


@without_sanitizers
def test_the_clock_is_set_back_and_forward_by_a_day(serve, tiny, tmp_path):
    """Nothing ends by it: no stream, no connection that waits, no worker."""
    clock = Clock(tmp_path)
    serving = serve(tiny("long"), *ONE_WORKER, "--log-json", "--wedged-s", "30", "--watchdog-s", "30", *LONG, kv_mib=512,
                    env=clock.env)
    family = serving.family()
    for seconds in (86400, -86400, 0):
        ((stream, events),) = begin_streams(serving, 1, 60000)
        waits = serving.connection()
        waits.request("GET", "/health")
        assert waits.getresponse().read()
        with socket.create_connection(("127.0.0.1", serving.port), timeout=BY_THEN) as slow:
            slow.sendall(b"GET /health HTTP/1.1\r\nHost: local")
            clock.move(seconds)
            time.sleep(1.5)  # everybody who looks once a second has looked
            for _ in range(100):
                assert next(events) != "[DONE]"
            slow.sendall(b"host\r\n\r\n")
            assert slow.recv(65536).startswith(b"HTTP/1.1 200 ")
        try:
            waits.request("GET", "/health")  # as it was kept
            assert waits.sock and waits.getresponse().status == 200
        except http.client.RemoteDisconnected:
            raise AssertionError("the connection was not kept") from None
        waits.close()
        n_before = len(serving.events("request"))
        assert serving.complete("a", 3)
        line = serving.wait_for_lines(lambda lines: len(lines) > n_before)[n_before]
        off = datetime.fromisoformat(line["time"].replace("Z", "+00:00")) - datetime.now(timezone.utc)
        assert abs(off.total_seconds() - seconds) < BY_THEN, "the clock was not set"
        assert 0 <= line["total_ms"] < BY_THEN * 1e3
        stream.leave()
    assert serving.family() == family
    assert {line["event"] for line in serving.events()} == {"ready", "request"}, serving.lines
    now = serving.metrics()
    assert now[("runnel_timeouts_total",)] == 0 and now[("runnel_breaker_state",)] == 0
    serving.signal()
    assert serving.wait() == 0


# --- memory that is shared ---


def memory_kib(serving, name):
    """Pss or Rss of all processes of a server together."""
    return sum(int(re.search(rf"^{name}:\s+(\d+)", Path(f"/proc/{pid}/smaps_rollup").read_text(), re.M)[1])
               for pid in serving.family())


@without_sanitizers
def test_weights_are_in_memory_once(serve, smollm2):
    pss, rss = {}, {}
    for n in (1, 2):
        serving = serve(smollm2, "--workers", str(n), "--ctx", "512", kv_mib=64)
        wait_until(lambda: len(serving.workers()) == n)
        streams = begin_streams(serving, 4 * n, 60)
        for _, events in streams:
            assert list(events)[-1] == "[DONE]"
        pss[n], rss[n] = memory_kib(serving, "Pss"), memory_kib(serving, "Rss")
        serving.stop()
    assert rss[2] > 1.3 * rss[1], (pss, rss)  # each has them in its address space
    assert pss[2] < 1.3 * pss[1], (pss, rss)
