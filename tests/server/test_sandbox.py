"""The sandbox of a server that runs: what somebody in it cannot do, and that the server needs none of it."""
import contextlib
import errno
import os
import re
import resource
import signal
from pathlib import Path

import pytest

import serving
from serving import BY_THEN, ONE_WORKER, RUNNEL, SANITIZED, Serving, title_of, wait_until
from test_workers import keeper_of

REFUSED = ["open", "openat2", "create", "memfd", "unlink", "stat", "socket", "connect", "fastopen", "listen", "fork", "thread",
           "executable_memory", "make_executable", "signal", "limits"]
DEADLY = ["execute", "ptrace"]

without_sanitizers = pytest.mark.skipif(SANITIZED, reason="a build with sanitizers has no sandbox")


@pytest.fixture
def break_out(monkeypatch, tiny):
    """A server whose /health?try=WHAT tries to get out (breakout.c): the worker that is asked, and there is one."""
    servings = []
    model = tiny()  # made by a tool beside the real program
    monkeypatch.setattr(serving, "RUNNEL", RUNNEL.parent / "tests" / "runnel_breakout")

    def start(*flags, **options):
        servings.append(Serving(model, *ONE_WORKER, *flags, **options))
        return servings[-1]

    yield start
    for one in servings:
        if one.process.poll() is None:
            one.stop()


def threads(pid):
    """{the name of a thread of a process: what the system says of it}"""
    found = {}
    for task in Path(f"/proc/{pid}/task").iterdir():
        lines = (line.split(":", 1) for line in (task / "status").read_text().splitlines())
        status = {name: value.strip() for name, value in lines}
        found[status["Name"]] = status
    return found


def assert_closed(pid):
    """All threads of a process are in the sandbox."""
    for name, status in threads(pid).items():
        assert (name, status["Seccomp"], status["NoNewPrivs"]) == (name, "2", "1")
        for capabilities in ("CapInh", "CapPrm", "CapEff", "CapAmb", *(["CapBnd"] if os.getuid() == 0 else [])):
            assert (name, capabilities, int(status[capabilities], 16)) == (name, capabilities, 0)


@contextlib.contextmanager
def left_to_the_greeter(one):
    """Meanwhile no worker can be started: the process that answers."""
    keeper = keeper_of(one)
    n_kib = int(re.search(r"VmSize:\s+(\d+)", Path(f"/proc/{keeper}/status").read_text())[1])
    resource.prlimit(keeper, resource.RLIMIT_AS, (n_kib + 1024 << 10, resource.RLIM_INFINITY))
    os.kill(one.worker, signal.SIGKILL)
    yield wait_until(lambda: next((pid for pid, title in one.family().items() if title == "runnel: greeter"), None))
    resource.prlimit(keeper, resource.RLIMIT_AS, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))


@without_sanitizers
@pytest.mark.parametrize("what", REFUSED)
def test_nothing_gets_out(break_out, what):
    one = break_out()
    assert one.get("/props")[2]["sandbox"] == "on"
    status, _, body = one.get(f"/health?try={what}")
    assert (status, int(body)) == (403, errno.EPERM)
    assert one.complete("a", 3)
    assert one.metric("runnel_sandbox_closed") == 1


@without_sanitizers
@pytest.mark.parametrize("what", DEADLY)
def test_what_no_library_tries_is_the_end(break_out, what):
    one = break_out()
    with pytest.raises(Exception):
        one.get(f"/health?try={what}")
    wait_until(lambda: any(f"was killed by signal {int(signal.SIGSYS)} " in line for line in one.lines))
    assert one.complete("a", 3)  # by another worker


def test_without_it_all_gets_out(break_out):
    """So that the tests above can fail."""
    one = break_out("--sandbox", "off")
    worker = one.worker
    assert one.get("/props")[2]["sandbox"] == "off: --sandbox off"
    assert one.metric("runnel_sandbox_closed") == 0
    for what in REFUSED + ["ptrace"]:
        assert (what, one.get(f"/health?try={what}")[0]) == (what, 200)
    with pytest.raises(Exception):
        one.get("/health?try=execute")  # it is /bin/true now
    wait_until(lambda: worker not in one.workers())


def test_a_system_without_filters(break_out):
    """A container may forbid them: the server says so, once, and serves."""
    one = break_out(env={"BREAKOUT_WITHOUT": "seccomp"})
    why = one.get("/props")[2]["sandbox"]
    assert why.startswith("off: ") and ("sanitizers" if SANITIZED else "filter of system calls") in why
    assert sum(f"The sandbox is {why}" in line for line in one.lines) == 1
    assert one.metric("runnel_sandbox_closed") == 0
    assert one.get("/health?try=open")[0] == 200
    assert one.complete("a", 3)


@without_sanitizers
def test_every_thread_is_in_it(serve, tiny):
    one = serve(tiny(), *ONE_WORKER, "--threads", "2")
    assert {"runnel-engine", "runnel-team 1", "runnel-preparer"} < set(threads(one.worker))
    assert_closed(one.worker)


@without_sanitizers
def test_the_greeter_is_in_it(break_out):
    """It reads what clients send, as a worker does, and needs no more than that."""
    one = break_out()
    with left_to_the_greeter(one) as greeter:
        status, _, body = one.get("/health")
        assert (status, body["status"]) == (503, "loading model")
        assert_closed(greeter)
        assert one.metric("runnel_sandbox_closed") == 1
        for what in REFUSED:
            status, _, body = one.get(f"/health?try={what}")
            assert (what, status, int(body)) == (what, 403, errno.EPERM)
        assert title_of(greeter) == "runnel: greeter"  # it was the same one all the time
    wait_until(lambda: one.get("/health")[0] == 200)
    assert one.complete("a", 3)
    wait_until(lambda: title_of(greeter) is None)
    assert not any("signal" in line and "signal 9" not in line for line in one.lines), one.lines


def test_a_build_with_sanitizers_says_that_it_has_none(serve, tiny):
    if not SANITIZED:
        pytest.skip("this is none")
    one = serve(tiny())
    assert one.get("/props")[2]["sandbox"] == "off: a build with sanitizers, which open files of their own"


def test_a_model_of_somebody_else(serve, tiny, tmp_path):
    """Root may read what is another user's, as before: the capability for that goes once the model is open."""
    if os.getuid():
        pytest.skip("not root")
    model = tmp_path / "of-another.gguf"
    model.write_bytes(Path(tiny()).read_bytes())
    os.chown(model, 65534, 65534)
    model.chmod(0o600)
    assert serve(str(model)).complete("a", 3)


def test_metrics_go_on(serve, tiny):
    """What they read was opened before."""
    one = serve(tiny("long"), "--ctx", "65536", kv_mib=128)
    first = one.wait_for(lambda now: now[("process_cpu_seconds_total",)] > 0)
    streams = [one.stream("a", 60000) for _ in range(4)]
    for stream in streams:
        stream.read_head()
    now = one.metrics()
    assert now[("process_open_fds",)] > first[("process_open_fds",)]
    assert now[("process_resident_memory_bytes",)] > 1 << 20
    assert 0 < now[("deepseek_memory_percent",)] <= 100
    assert now[("runnel_memory_limit_bytes",)] > 1 << 20
    for stream in streams:
        stream.leave()


def test_a_long_body_and_the_end(serve, tiny):
    """The thread for long bodies is there already, and ends as all do."""
    one = serve(tiny("long"), "--ctx", "65536", kv_mib=128)
    assert one.post("/tokenize", {"content": "a b " * 40000})[0] == 200
    one.signal()
    assert one.wait(BY_THEN) == 0
