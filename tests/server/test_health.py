"""GET /health: at once, whatever the engine does; and an engine that does nothing."""
import contextlib
import ctypes
import errno
import os
import time
from pathlib import Path

import pytest
from serving import BY_THEN, ONE_WORKER, SLOW, wait_until
from test_workers import who_accepted

PTRACE_DETACH, PTRACE_SEIZE, PTRACE_INTERRUPT = 17, 0x4206, 0x4207


class StoppedThread:
    """The engine's thread of a server stands still, all others go on."""

    def __init__(self, pid):
        self.libc = ctypes.CDLL(None, use_errno=True)
        self.libc.ptrace.argtypes = [ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p]
        tasks = [task for task in Path(f"/proc/{pid}/task").iterdir()
                 if (task / "comm").read_text().strip() == "runnel-engine"]
        assert len(tasks) == 1
        self.id = int(tasks[0].name)
        if self.libc.ptrace(PTRACE_SEIZE, self.id, None, None):
            pytest.skip(f"a thread may not be stopped here: {os.strerror(ctypes.get_errno())}")
        assert self.libc.ptrace(PTRACE_INTERRUPT, self.id, None, None) == 0
        os.waitpid(self.id, 0x40000000)  # __WALL

    def go_on(self):
        """If it is there still. Until then it stays, even dead, and its process with it."""
        if self.libc.ptrace(PTRACE_DETACH, self.id, None, None):
            assert ctypes.get_errno() == errno.ESRCH


def connection_with(serving, worker):
    """One that this worker has accepted: of several, the others accept those before it."""
    connections = []
    try:
        while True:
            connection = serving.connection(2 * SLOW)
            connection.connect()
            connections.append(connection)
            if wait_until(lambda: who_accepted(serving, connection.sock)) == worker:
                return connections.pop()
    finally:
        for connection in connections:
            connection.close()


@contextlib.contextmanager
def stopped_engine(serving, worker):
    """As an engine that hangs in a step: not with a lock in its hand, where a thread that is stopped just anywhere may be for a
    moment. Whoever answers at all then is asked again by the test. With a step between two tries, which the watchdog counts."""
    for _ in range(20):
        n_steps = serving.metric("runnel_steps_total")
        connection = connection_with(serving, worker)
        stopped = StoppedThread(worker)
        try:
            for path in ("/health", "/metrics"):
                connection.request("GET", path)
                connection.getresponse().read()
        except TimeoutError:
            stopped.go_on()
            serving.wait_for(lambda now: now[("runnel_steps_total",)] > n_steps)
        else:
            try:
                yield stopped
            finally:
                stopped.go_on()
            return
        finally:
            connection.close()
    raise AssertionError("wherever its engine is stopped, the worker does not answer")


def test_a_wedged_engine_is_told(serve, tiny):
    """The only one; of several: test_two_workers.py."""
    serving = serve(tiny("long"), *ONE_WORKER, "--log-json", "--wedged-s", "2", "--ctx", "100000", kv_mib=256)
    time.sleep(3)
    assert serving.get("/health")[2] == {"status": "ok"}  # without requests there is nothing to do
    stream = serving.stream("once", 90000)
    assert stream.read_head() == 200
    events = stream.events()
    next(events)
    time.sleep(2.5)
    assert serving.get("/health")[2] == {"status": "ok"}
    with stopped_engine(serving, serving.worker):
        began = time.monotonic()
        while True:
            status, _, body = serving.get("/health")  # did it wait for the engine, it would wait for ever
            if status == 503:
                break
            assert time.monotonic() - began < BY_THEN
            time.sleep(0.05)
        assert body["status"] == "wedged" and time.monotonic() - began > 1
        assert serving.metric("runnel_engine_wedged") == 1
    next(events)
    serving.wait_for(lambda now: now[("runnel_engine_wedged",)] == 0)
    assert serving.get("/health")[::2] == (200, {"status": "ok"})
    stream.leave()
    assert [line["message"].startswith("The engine") for line in serving.events("engine")] == [True, True]


def times_of_health(serving):
    """How long each of 50 answers took, in ascending order."""
    took = []
    for _ in range(50):
        began = time.monotonic()
        assert serving.get("/health")[0] == 200
        took.append(time.monotonic() - began)
        time.sleep(0.01)
    return sorted(took)


def test_at_once_while_the_engine_computes(serve, tiny):
    serving = serve(tiny("long"), "--ctx", "100000", "--batch", "4096", kv_mib=256)
    idle = times_of_health(serving)  # as quick as this machine is just now
    stream = serving.stream([5, 6, 7, 8] * 20000, 1)  # a long step after the other
    serving.wait_for(lambda now: now[("vllm:num_requests_running",)] == 1)
    took = times_of_health(serving)
    stream.leave()
    assert took[25] < 0.1 + 10 * idle[25], (idle, took)
