"""The processes of a server: who lives, and what clients notice when one of them dies: nothing, if it is not theirs.

Each test says how many workers there are."""
import itertools
import os
import re
import signal
import socket
import threading
import time
from pathlib import Path

import pytest
from serving import BY_THEN, ONE_WORKER, SLOW, cpu_seconds, title_of, wait_until

LONG = ("--ctx", "65536", "--max-wait-s", "0")


def keeper_of(serving):
    """The process that has the model, once there is only one."""
    def find():
        found = [pid for pid, title in serving.family().items() if title == "runnel: keeper"]
        return found[0] if len(found) == 1 else None
    return wait_until(find)


def inode_of(port):
    """Of the server's end of the connection from this port; None until it is accepted."""
    for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
        fields = line.split()
        if fields[2].endswith(f":{port:04X}") and int(fields[9]):
            return int(fields[9])
    return None


def who_accepted(serving, client):
    """The worker that has this socket's connection, None until one has."""
    inode = inode_of(client.getsockname()[1])
    for pid in serving.workers():
        for name in os.listdir(f"/proc/{pid}/fd"):
            try:
                if os.readlink(f"/proc/{pid}/fd/{name}") == f"socket:[{inode}]":
                    return pid
            except FileNotFoundError:
                continue
    return None


def worker_of(serving, stream):
    """The worker that has accepted a stream."""
    return wait_until(lambda: who_accepted(serving, stream.socket))


def begin_streams(serving, n, n_tokens):
    """Streams that have begun: (stream, its events)."""
    found = []
    for i in range(n):
        stream = serving.stream(f"once {i}", n_tokens)
        assert stream.read_head() == 200
        events = stream.events()
        next(events)
        found.append((stream, events))
    return found


def streams_of_both(serving, n_tokens):
    """{pid: its streams}, at least one of each of two workers: whoever is quicker accepts."""
    by_worker = {pid: [] for pid in serving.workers()}
    for _ in range(200):
        if all(by_worker.values()):
            return by_worker
        (pair,) = begin_streams(serving, 1, n_tokens)
        by_worker[worker_of(serving, pair[0])].append(pair)
    raise AssertionError("one worker gets everything")


def assert_cut(streams):
    """A stream that was cut must not look complete."""
    for _, events in streams:
        try:
            assert "[DONE]" not in list(events)
        except ConnectionResetError:
            pass


def test_titles(serve, tiny):
    serving = serve(tiny(), "--workers", "2", kv_mib=32)
    wait_until(lambda: sorted(serving.family().values()) == ["runnel: keeper", "runnel: supervisor", "runnel: worker 0",
                                                             "runnel: worker 1"])
    assert title_of(serving.process.pid) == "runnel: supervisor"
    assert serving.complete("a", 3)
    family = serving.family()
    serving.signal()
    assert serving.wait() == 0
    assert not any(title_of(pid) for pid in family)


def test_a_killed_worker_is_replaced(serve, tiny):
    """From the model that its keeper has open: that has nothing to do but to make another process."""
    serving = serve(tiny(), *ONE_WORKER)
    keeper = keeper_of(serving)
    began = cpu_seconds(keeper)
    for _ in range(5):
        dead = serving.worker
        os.kill(dead, signal.SIGKILL)
        assert serving.complete("a", 3)  # it waits in the queue of the socket, which the worker had no part in
        assert serving.worker != dead
    assert keeper_of(serving) == keeper and cpu_seconds(keeper) - began < 0.5 * SLOW
    wait_until(lambda: sum(" is ready after " in line for line in serving.lines) == 5)
    took = [float(re.search(r"is ready after (\d+) ms", line)[1]) for line in serving.lines if " is ready after " in line]
    assert max(took) < 5000 * SLOW, took
    assert sum("was killed by signal 9" in line for line in serving.lines) == 5, serving.lines
    assert sum("Runnel serves" in line for line in serving.lines) == 1


def test_others_do_not_notice(serve, tiny):
    serving = serve(tiny("long"), "--workers", "2", "--parallel", "64", *LONG, kv_mib=1024)
    wait_until(lambda: len(serving.workers()) == 2)
    victims, others = streams_of_both(serving, 60000).values()
    os.kill(worker_of(serving, victims[0][0]), signal.SIGKILL)
    assert_cut(victims)
    for stream, events in others:
        assert len(list(itertools.islice(events, 200))) == 200
        stream.leave()
    assert serving.complete("a", 3)
    wait_until(lambda: len(serving.workers()) == 2)


def test_a_stopped_keeper_is_replaced_and_its_workers_serve_on(serve, tiny):
    serving = serve(tiny("long"), *ONE_WORKER, "--timeout-drain", str(BY_THEN), *LONG, kv_mib=512)
    dead, worker = keeper_of(serving), serving.worker
    ((stream, events),) = begin_streams(serving, 1, 3000)
    os.kill(dead, signal.SIGKILL)
    wait_until(lambda: title_of(dead) is None)
    assert serving.complete("a", 3)  # by the worker that it left, or the next one
    assert list(events)[-1] == "[DONE]"
    wait_until(lambda: worker not in serving.workers())
    assert keeper_of(serving) != dead and serving.complete("a", 3)
    wait_until(lambda: len(serving.workers()) == 1)
    assert any("The keeper" in line and "signal 9" in line for line in serving.lines), serving.lines
    now = serving.wait_for(lambda now: now[("runnel_worker_exits_total", "how=stopped")] == 1)
    assert now[("runnel_worker_exits_total", "how=crashed")] == 0  # it went when it was told to


def test_a_keeper_dies_before_the_server_is_called_ready(serve, tiny, tmp_path):
    """The greeter is held up by a client, and another keeper cannot open the model."""
    path = tmp_path / "model.gguf"
    path.write_bytes(Path(tiny()).read_bytes())
    damaged = tmp_path / "damaged.gguf"
    damaged.write_bytes(path.read_bytes()[:1000])
    serving = serve(str(path), *ONE_WORKER, wait=False, kv_mib=1024)  # that much takes a while to touch
    clients = []

    def is_ready():
        try:
            clients.append(socket.create_connection(("127.0.0.1", serving.port), timeout=BY_THEN))
            clients[-1].sendall(b"GET /hea")
            return serving.get("/health")[0] == 200
        except ConnectionError:
            return False
    wait_until(is_ready)
    keeper = keeper_of(serving)
    damaged.rename(path)
    os.kill(keeper, signal.SIGKILL)
    wait_until(lambda: any("The next keeper is started in" in line for line in serving.lines))
    for client in clients:
        client.close()
    wait_until(lambda: serving.url)
    assert serving.complete("a", 3)
    assert serving.process.poll() is None


def test_how_a_worker_ends_is_known_without_its_keeper(serve, tiny):
    serving = serve(tiny("long"), *ONE_WORKER, "--timeout-drain", str(BY_THEN), *LONG, kv_mib=512)
    keeper, worker = keeper_of(serving), serving.worker
    streams = begin_streams(serving, 1, 60000)
    os.kill(keeper, signal.SIGKILL)
    wait_until(lambda: any("The keeper" in line and "signal 9" in line for line in serving.lines))
    os.kill(worker, signal.SIGKILL)  # while it serves on, or drains
    assert_cut(streams)
    now = serving.wait_for(lambda now: now[("runnel_worker_exits_total", "how=crashed")] == 1)
    assert now[("runnel_worker_exits_total", "how=stopped")] == 0
    wait_until(lambda: any(f"(pid {worker}) was killed by signal 9" in line for line in serving.lines))


def test_a_keeper_that_does_nothing_is_replaced(serve, tiny):
    """Its worker stands still, too: it is to be killed, and only the keeper could."""
    serving = serve(tiny(), *ONE_WORKER, "--watchdog-s", "3")
    keeper, worker = keeper_of(serving), serving.worker
    os.kill(keeper, signal.SIGSTOP)
    os.kill(worker, signal.SIGSTOP)
    wait_until(lambda: serving.get("/health")[0] == 200)  # until another model is loaded the greeter answers
    wait_until(lambda: title_of(worker) is None)
    assert title_of(keeper) is None and serving.complete("a", 3)
    assert any(f"The keeper (pid {keeper}) is ended: it does not do what it should" in line for line in serving.lines), serving.lines
    serving.wait_for(lambda now: now[("runnel_worker_exits_total", "how=hung")] == 1)


def test_a_worker_that_dies_beside_a_keeper_that_does_nothing(serve, tiny):
    """Only the keeper could tell, and start another one. No watchdog is needed to find that."""
    serving = serve(tiny(), *ONE_WORKER, "--watchdog-s", "0")
    keeper, worker = keeper_of(serving), serving.worker
    os.kill(keeper, signal.SIGSTOP)
    os.kill(worker, signal.SIGKILL)
    wait_until(lambda: serving.get("/health")[0] == 200)
    assert title_of(keeper) is None and serving.complete("a", 3)


def test_a_greeter_that_does_nothing_does_not_hold_the_server_up(serve, tiny):
    serving = serve(tiny(), *ONE_WORKER, wait=False, kv_mib=1024)  # that much takes a while to touch
    greeter = wait_until(lambda: next((pid for pid, title in serving.family().items() if title == "runnel: greeter"), None))
    os.kill(greeter, signal.SIGSTOP)
    wait_until(lambda: serving.url)
    assert title_of(greeter) is None and serving.complete("a", 3)


def test_a_keeper_that_does_nothing_does_not_keep_the_server(serve, tiny):
    """SIGTERM comes to the workers all the same, and what they have is finished."""
    serving = serve(tiny("long"), *ONE_WORKER, "--timeout-drain", str(BY_THEN), *LONG, kv_mib=512)
    keeper = keeper_of(serving)
    ((stream, events),) = begin_streams(serving, 1, 3000)
    os.kill(keeper, signal.SIGSTOP)
    serving.signal()
    assert list(events)[-1] == "[DONE]"
    assert serving.wait() == 0


def test_a_keeper_that_has_nothing_to_do_is_left_alone(serve, tiny):
    serving = serve(tiny(), *ONE_WORKER)
    keeper, worker = keeper_of(serving), serving.worker
    os.kill(keeper, signal.SIGSTOP)
    time.sleep(7)
    assert serving.complete("a", 3) and serving.worker == worker and keeper_of(serving) == keeper
    os.kill(keeper, signal.SIGCONT)


@pytest.mark.parametrize("loading", [False, True])
def test_nobody_outlives_the_supervisor(serve, tiny, loading):
    serving = serve(tiny("long"), "--workers", "2", *LONG, kv_mib=512, wait=not loading)
    wait_until(lambda: len(serving.family()) >= (2 if loading else 4))
    streams = [] if loading else begin_streams(serving, 2, 60000)
    family = serving.family()
    serving.process.kill()
    serving.process.wait()
    serving.process.returncode = 0  # as was meant
    wait_until(lambda: not any(title_of(pid) for pid in family))
    assert_cut(streams)


def test_nobody_outlives_all_of_them_killed_in_any_order(serve, tiny):
    serving = serve(tiny(), "--workers", "2", kv_mib=32)
    family = serving.family()
    for pid in sorted(family, reverse=True):
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            pass  # it died of the one before
    serving.process.wait()
    serving.process.returncode = 0
    wait_until(lambda: not any(title_of(pid) for pid in family))


def test_streams_of_all_workers_finish_at_the_end(serve, tiny):
    serving = serve(tiny("long"), "--workers", "2", "--parallel", "64", "--timeout-drain", str(BY_THEN), *LONG, kv_mib=1024)
    wait_until(lambda: len(serving.workers()) == 2)
    streams = [pair for pairs in streams_of_both(serving, 400).values() for pair in pairs]
    serving.signal()
    for _, events in streams:
        assert list(events)[-1] == "[DONE]"
    assert serving.wait() == 0


def test_ctrl_c_is_for_the_supervisor(serve, tiny):
    """A terminal sends SIGINT to all of them: once is once."""
    serving = serve(tiny("long"), *ONE_WORKER, "--timeout-drain", str(BY_THEN), *LONG, kv_mib=512)
    ((stream, events),) = begin_streams(serving, 1, 400)
    for pid in serving.family():
        os.kill(pid, signal.SIGINT)
    assert list(events)[-1] == "[DONE]"
    assert serving.wait() == 0


def test_a_worker_that_is_told_to_end_is_replaced(serve, tiny):
    """Somebody ends one by hand: it finishes what it has, and nobody is refused."""
    serving = serve(tiny("long"), *ONE_WORKER, "--timeout-drain", str(BY_THEN), *LONG, kv_mib=512)
    ((stream, events),) = begin_streams(serving, 1, 400)
    old = serving.worker
    os.kill(old, signal.SIGTERM)
    rest = list(events)
    assert rest[-1] == "[DONE]"
    assert serving.complete("a", 3)
    wait_until(lambda: old not in serving.workers() and len(serving.workers()) == 1)


def test_a_worker_that_stands_still_is_replaced(serve, tiny):
    serving = serve(tiny(), *ONE_WORKER, "--watchdog-s", "3")
    stopped = serving.worker
    os.kill(stopped, signal.SIGSTOP)
    assert serving.complete("a", 3)
    assert serving.worker != stopped
    assert any("stands still" in line for line in serving.lines), serving.lines


class Load:
    """Clients that ask one question after the other until they are told to stop."""

    def __init__(self, serving, n_clients):
        self.serving, self.stopped, self.failures, self.n_answers = serving, threading.Event(), [], 0
        self.threads = [threading.Thread(target=self._ask) for _ in range(n_clients)]
        for thread in self.threads:
            thread.start()

    def _ask(self):
        while not self.stopped.is_set():
            try:
                status, _, body = self.serving.post("/v1/completions", {"prompt": "a", "max_tokens": 20,
                                                                        "ignore_eos": True})
                if status != 200:
                    self.failures.append((status, body))
                self.n_answers += 1
            except Exception as error:  # noqa: BLE001: whatever it is, a client noticed
                self.failures.append(repr(error))

    def stop(self):
        self.stopped.set()
        for thread in self.threads:
            thread.join()
        assert not self.failures, (self.failures[:5], self.serving.lines[-10:])
        assert self.n_answers


def test_another_model_under_load(serve, tiny, tmp_path):
    """SIGHUP: the model's file is another one now. Nobody is refused or cut."""
    path = tmp_path / "model.gguf"
    path.write_bytes(Path(tiny("qwen2")).read_bytes())
    serving = serve(str(path), "--workers", "2", "--parallel", "16", "--limit-concurrency", "1000", "--max-wait-s", "0",
                    kv_mib=64)
    wait_until(lambda: len(serving.workers()) == 2)
    old = set(serving.family()) - {serving.process.pid}
    before = serving.complete("once upon", 20, temperature=0)
    other = tmp_path / "other.gguf"
    other.write_bytes(Path(tiny("llama")).read_bytes())
    load = Load(serving, 8)
    other.rename(path)
    serving.signal(signal.SIGHUP)
    wait_until(lambda: not old & set(serving.family()))
    load.stop()
    assert serving.complete("once upon", 20, temperature=0) != before
    assert serving.metric("runnel_model_swaps_total") == 1
    assert len(serving.workers()) == 2
    assert serving.process.poll() is None


def test_a_model_that_cannot_be_loaded_changes_nothing(serve, tiny, tmp_path):
    path = tmp_path / "model.gguf"
    path.write_bytes(Path(tiny()).read_bytes())
    serving = serve(str(path), *ONE_WORKER)
    worker = serving.worker
    damaged = tmp_path / "damaged.gguf"
    damaged.write_bytes(path.read_bytes()[:1000])
    damaged.rename(path)
    serving.signal(signal.SIGHUP)
    wait_until(lambda: any("Keys and limits are read; the model is not loaded again" in line for line in serving.lines))
    assert any("The model cannot be opened" in line for line in serving.lines), serving.lines
    assert serving.worker == worker and serving.complete("a", 3)


def test_keys_are_read_again(serve, tiny, tmp_path):
    keys = tmp_path / "keys"
    keys.write_text("first\n")
    serving = serve(tiny(), *ONE_WORKER, "--api-key-file", str(keys))
    worker = serving.worker
    serving.key = "first"
    assert serving.complete("a", 3)
    keys.write_text("")  # no key in it: everybody could ask
    serving.signal(signal.SIGHUP)
    wait_until(lambda: any("Nothing is changed" in line for line in serving.lines))
    assert serving.complete("a", 3)
    keys.write_text("second\n")
    serving.signal(signal.SIGHUP)
    wait_until(lambda: any("Keys and limits are read again" in line for line in serving.lines))
    wait_until(lambda: serving.post("/tokenize", {"content": "a"})[0] == 401)
    serving.key = "second"
    assert serving.complete("a", 3)
    assert serving.worker == worker
    os.kill(worker, signal.SIGKILL)  # its successor knows it as well
    assert serving.complete("a", 3) and serving.worker != worker


def test_the_time_to_drain_is_read_again(serve, tiny, tmp_path):
    """Raised in the file of --config: the worker that goes with this very reload has that time when the server ends."""
    config = tmp_path / "config"
    config.write_text("timeout-drain = 0\n")
    serving = serve(tiny("long"), *ONE_WORKER, "--config", str(config), *LONG, kv_mib=512)
    old = serving.worker
    ((stream, events),) = begin_streams(serving, 1, 60000)
    config.write_text(f"timeout-drain = {BY_THEN}\n")
    serving.signal(signal.SIGHUP)
    wait_until(lambda: any("1 worker of" in line for line in serving.lines))
    serving.signal()
    go_on(events, 5)  # by the time of before it would be killed after 3
    stream.leave()
    wait_until(lambda: title_of(old) is None)
    assert serving.wait() == 0
    assert not any("drains for too long" in line for line in serving.lines), serving.lines


def go_on(events, seconds):
    """A stream is not cut for so long. False: it has ended by then, as it should."""
    until = time.monotonic() + seconds
    for event in events:
        assert event == "[DONE]" or "error" not in event, event
        if time.monotonic() > until:
            return True
    assert event == "[DONE]"
    return False


@pytest.mark.parametrize("why", ["its share", "another model", "more workers"])
def test_a_worker_that_is_replaced_has_the_time_of_its_requests(serve, tiny, tmp_path, why):
    """--timeout-drain is for the end of the server; whoever is answered by a worker that goes does not notice."""
    path = tmp_path / "model.gguf"
    path.write_bytes(Path(tiny("long")).read_bytes())
    serving = serve(str(path), *ONE_WORKER, "--timeout-drain", "1", "--limit-max-requests", "1" if why == "its share" else "0",
                    "--admin-key", "admin", *LONG, kv_mib=512)
    old = serving.worker
    ((stream, events),) = begin_streams(serving, 1, 60000)
    if why == "another model":
        path.touch()
        serving.signal(signal.SIGHUP)
    elif why == "more workers":
        serving.key = "admin"
        assert serving.post("/admin/workers", {"workers": 2})[0] < 300
    wait_until(lambda: any("Worker 1 is ready" in line for line in serving.lines))
    assert not go_on(events, 6) or title_of(old)  # it would be told to end after 1, and be killed after 4
    serving.signal()  # then that limit holds for it, too
    last = (list(events) or ["[DONE]"])[-1]
    assert last == "[DONE]" or last["error"]["code"], last
    assert serving.wait() == 0
    assert not any("drains for too long" in line for line in serving.lines), serving.lines


def test_the_share_of_requests_is_read_again(serve, tiny, tmp_path):
    config = tmp_path / "config"
    config.write_text("limit-max-requests = 0\n")
    serving = serve(tiny(), *ONE_WORKER, "--config", str(config))
    old = serving.worker
    config.write_text("limit-max-requests = 5\n")
    serving.signal(signal.SIGHUP)
    wait_until(lambda: old not in serving.workers() and len(serving.workers()) == 1)
    worker = serving.worker
    for _ in range(5):
        assert serving.complete("a", 3)
    wait_until(lambda: worker not in serving.workers())
    assert serving.complete("a", 3)


def test_no_room_for_a_second_model(serve, tiny, tmp_path):
    path = tmp_path / "model.gguf"
    path.write_bytes(Path(tiny()).read_bytes())
    serving = serve(str(path), *ONE_WORKER, "--memory-limit-mib", "24", "--breaker-memory-percent", "100", kv_mib=16)
    worker = serving.worker
    path.touch()
    serving.signal(signal.SIGHUP)
    wait_until(lambda: any("do not fit" in line for line in serving.lines))
    assert serving.worker == worker and serving.complete("a", 3)


def test_no_room_for_a_larger_model(serve, tiny, tmp_path):
    """One like that which is there would fit; what the file has become does not."""
    path, larger = tmp_path / "model.gguf", tmp_path / "larger.gguf"
    path.write_bytes(Path(tiny()).read_bytes())
    serving = serve(str(path), *ONE_WORKER, "--memory-limit-mib", "80", "--breaker-memory-percent", "100", kv_mib=16)
    worker = serving.worker
    larger.write_bytes(path.read_bytes())
    os.truncate(larger, 64 << 20)
    larger.replace(path)
    serving.signal(signal.SIGHUP)
    wait_until(lambda: any("do not fit" in line for line in serving.lines))
    assert serving.worker == worker and serving.complete("a", 3)


class Systemd:
    def __init__(self, folder):
        self.path = str(folder / "notify")
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.settimeout(BY_THEN)
        self.socket.bind(self.path)

    def hear(self, wanted):
        """Until something that begins so is said."""
        while not (said := self.socket.recv(4096).decode()).startswith(wanted):
            pass
        return said


def test_systemd_is_told(serve, tiny, tmp_path):
    systemd = Systemd(tmp_path)
    serving = serve(tiny(), *ONE_WORKER, env={"NOTIFY_SOCKET": systemd.path, "WATCHDOG_USEC": "1000000"})
    assert re.search("STATUS=.*1 worker", systemd.hear("READY=1"))
    systemd.hear("WATCHDOG=1")
    systemd.hear("WATCHDOG=1")
    serving.signal(signal.SIGHUP)
    assert int(systemd.hear("RELOADING=1").split("MONOTONIC_USEC=")[1]) > 0
    systemd.hear("READY=1")
    serving.signal()
    systemd.hear("STOPPING=1")
    assert serving.wait() == 0
