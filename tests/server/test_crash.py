"""A server that crashes: its report, and that nothing of what it was asked is in it."""
import ctypes
import json
import re
import signal
import subprocess
import time
from pathlib import Path

import pytest

from serving import BY_THEN, ONE_WORKER, RUNNEL, SANITIZED, Serving, wait_until

pytestmark = pytest.mark.skipif(SANITIZED, reason="sanitizers report crashes themselves")

SECRET = "violet elephants keep secrets"
KEY = "sk-of-the-zebra-4711"


def crash(one, thread, number, worker=None):
    """Sends a signal to one thread of the worker that is answering; the lines that it wrote about that. Another worker takes its
    place."""
    worker = worker or one.worker
    tids = {(task / "comm").read_text().strip(): int(task.name) for task in Path(f"/proc/{worker}/task").iterdir()}
    n_before = len(one.lines)
    assert ctypes.CDLL(None).syscall(234, worker, tids[thread], number) == 0  # tgkill
    wait_until(lambda: any(f"(pid {worker}) was killed by signal {int(number)}" in line for line in one.lines[n_before:]))
    return [line for line in one.lines[n_before:] if " crash: " in line or '"event":"crash"' in line]


@pytest.fixture
def answering(tiny):
    """answering(flags...) is a server whose worker is in the middle of a long answer."""
    streams, servers = [], []

    def start(*flags):
        one = Serving(tiny("long"), *ONE_WORKER, "--ctx", "65536", *flags, kv_mib=128)
        servers.append(one)
        streams.append(one.stream(SECRET, 60000, key=KEY if "--api-key" in flags else None))
        streams[-1].read_head()
        return one

    yield start
    for stream in streams:
        stream.leave()
    for one in servers:
        one.stop()


@pytest.mark.parametrize("name", ["SIGSEGV", "SIGBUS", "SIGILL", "SIGFPE", "SIGABRT"])
@pytest.mark.parametrize("thread", ["runnel", "runnel-engine"])
def test_report(answering, name, thread):
    one = answering("--api-key", KEY)
    worker = one.worker
    report = crash(one, thread, signal.Signals[name], worker)
    lines = [re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z crash: (.*)", line)[1] for line in report]
    assert re.fullmatch(rf"{name} sent by process \d+, thread {thread} \(\d+\) of process {worker}", lines[0])
    assert re.fullmatch(r"runnel \d+\.\d+\.\d+, build [0-9a-f]{40}, (gcc|clang) .*", lines[1])
    assert lines[-1] == "end of the report"
    frames = lines[2:-1]
    assert len(frames) > 3
    assert all(re.fullmatch(r"#\d+ [\w.+-]+\+0x[0-9a-f]+", frame) for frame in frames)
    everything = "\n".join(one.lines)
    assert not any(word in everything for word in (*SECRET.split(), KEY))


def test_the_time_is_now(answering):
    before = time.gmtime()
    report = crash(answering(), "runnel", signal.SIGSEGV)
    said = time.strptime(report[0][:19], "%Y-%m-%dT%H:%M:%S")
    assert before[:6] <= said[:6] <= time.gmtime()[:6]


def test_frames_name_functions(answering):
    """addr2line, as docs/operation.md says."""
    report = crash(answering(), "runnel-engine", signal.SIGSEGV)
    addresses = [match[1] for line in report if (match := re.search(r"#\d+ runnel\+(0x[0-9a-f]+)", line))]
    names = subprocess.run(["addr2line", "-f", "-e", RUNNEL, *addresses], capture_output=True, text=True, check=True).stdout
    assert "engine_main" in names


def test_json(answering):
    report = [json.loads(line) for line in crash(answering("--log-json"), "runnel-engine", signal.SIGSEGV)]
    assert {line["event"] for line in report} == {"crash"}
    assert report[0]["message"].startswith("SIGSEGV sent by process ")
    assert report[-1]["message"] == "end of the report"


def test_a_file_for_reports(answering, tmp_path):
    file = tmp_path / "crashes"
    file.write_text("of the last time\n")
    report = crash(answering("--crash-file", str(file)), "runnel-engine", signal.SIGSEGV)
    assert report == []
    lines = file.read_text().splitlines()
    assert lines[0] == "of the last time"
    assert "SIGSEGV" in lines[1] and lines[-1].endswith("end of the report")


def test_a_file_that_cannot_be_opened(tiny, tmp_path):
    done = subprocess.run([RUNNEL, "serve", tiny(), "--crash-file", tmp_path / "no" / "where"], capture_output=True, text=True,
                          timeout=BY_THEN)
    assert done.returncode == 1
    assert done.stderr == f"runnel: --crash-file {tmp_path}/no/where: cannot be opened: No such file or directory\n"
