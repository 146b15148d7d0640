"""A crowd: /health is answered within 100 ms, whatever else the server is asked, and every chat gets its answer.

A process of its own measures (health_probe.py). One late answer can be the machine's, whose cores are lent elsewhere for a
moment: it is the server's if each of MEASUREMENTS has one. On a machine that had other work meanwhile (others_cpu) late
answers are said as a warning: the half of them must have come in time all the same."""
import contextlib
import json
import os
import resource
import socket
import subprocess
import sys
import threading
import time
import warnings
from pathlib import Path

import pytest
from serving import BY_THEN, real_model
from test_limits import HOST, INSTRUMENTED

PROBE = Path(__file__).with_name("health_probe.py")
WITHIN_MS = 100
MEASUREMENTS = 3
HEAD = b"POST %s HTTP/1.1\r\n" + HOST + b"Content-Type: application/json\r\nContent-Length: %d\r\n"
LONG_BODIES = {
    "text": {"prompt": ("the quick brown fox jumps over 13 lazy dogs; " * 40000)[:1500000], "max_tokens": 1},
    "texts and ids": {"prompt": [1] + ["a"] * 370000, "max_tokens": 1},
    "empty lists": {"prompt": "a", "max_tokens": 1, "x": [[]] * 500000},
}


def others_cpu(serving):
    """CPU seconds of this machine that went neither to this test nor to its server."""
    fields = Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:]
    busy = sum(int(fields[i]) for i in (0, 1, 2, 5, 6, 7)) / os.sysconf("SC_CLK_TCK")
    usages = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return busy - serving.cpu_seconds() - sum(usage.ru_utime + usage.ru_stime for usage in usages)


class Crowd:
    def __init__(self, serving):
        self.serving = serving
        self.stop = threading.Event()
        self.chats, self.long = [], []  # statuses, and what was wrong

    def connect(self, data):
        client = socket.create_connection(("127.0.0.1", self.serving.port), timeout=BY_THEN)
        client.sendall(data)
        return client

    def ask(self, path, body, answers, ending=b""):
        """Again and again; what is answered must end so."""
        request = HEAD % (path, len(body)) + b"Connection: close\r\n\r\n" + body
        while not self.stop.is_set():
            with self.connect(request) as client:
                answer = b""
                while more := client.recv(1 << 20):
                    answer += more
            status = answer.split()[1]
            answers.append(status if status != b"200" or answer.endswith(ending) else answer[-300:])

    def chat(self, number):
        body = {"messages": [{"role": "user", "content": f"{number} once upon a time"}], "max_tokens": 60,
                "ignore_eos": True, "stream": True}
        self.ask(b"/v1/chat/completions", json.dumps(body).encode(), self.chats, b"data: [DONE]\n\n\r\n0\r\n\r\n")

    def measure(self, seconds, slow):
        """Milliseconds of each answer of /health, in ascending order, while slow clients send a byte now and then."""
        with subprocess.Popen([sys.executable, PROBE, str(self.serving.port)], stdin=subprocess.PIPE,
                              stdout=subprocess.PIPE, text=True) as probe:
            end = time.monotonic() + seconds
            while time.monotonic() < end:
                for client in slow:
                    client.sendall(b"x")
                time.sleep(0.1)
            said, _ = probe.communicate("")
        assert probe.returncode == 0
        return sorted(float(line) for line in said.split())


@contextlib.contextmanager
def crowd_of(serving, long_body):
    """300 idle connections, 50 slow heads, 20 slow bodies, 16 chats that stream and 4 who send long bodies."""
    crowd = Crowd(serving)
    idle = [crowd.connect(b"") for _ in range(300)]
    slow = [crowd.connect(b"GET /health HTTP/1.1\r\nX: ") for _ in range(50)]
    slow += [crowd.connect(HEAD % (b"/v1/completions", 2000000) + b"\r\n{") for _ in range(20)]
    threads = [threading.Thread(target=crowd.chat, args=(i,)) for i in range(16)]
    threads += [threading.Thread(target=crowd.ask, args=(b"/v1/completions", long_body, crowd.long)) for _ in range(4)]
    for thread in threads:
        thread.start()
    try:
        yield crowd, slow
    finally:
        crowd.stop.set()
        for thread in threads:
            thread.join()
        for client in idle + slow:
            client.close()


@pytest.mark.parametrize("model", ["tiny", "smollm2-135m"])
@pytest.mark.parametrize("kind", LONG_BODIES)
def test_health_within_100_ms(serve, tiny, model, kind):
    if INSTRUMENTED and (model, kind) != ("tiny", "text"):
        pytest.skip("too slow under a sanitizer")
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))  # of this process: the server raises its own
    serving = serve(tiny("long") if model == "tiny" else real_model(model), "--ctx", "2048", "--max-wait-s", "0",
                    "--parallel", "16", kv_mib=200)
    with crowd_of(serving, json.dumps(LONG_BODIES[kind]).encode()) as (crowd, slow):
        for _ in range(MEASUREMENTS):
            before = others_cpu(serving)
            times = crowd.measure(3, slow)
            others = others_cpu(serving) - before
            print(f"others computed for {others:.1f} s; {len(times)} answers, milliseconds: half {times[len(times) // 2]}, "
                  f"99 % {times[len(times) * 99 // 100]}, all {times[-1]}; {len(crowd.chats)} chats, {len(crowd.long)} long bodies")
            if INSTRUMENTED or times[-1] < WITHIN_MS:
                break
    assert len(crowd.chats) >= 16 and set(crowd.chats) == {b"200"}
    assert len(crowd.long) >= 4 and set(crowd.long) == {b"200" if kind == "empty lists" else b"400"}
    if INSTRUMENTED:
        return
    assert times[len(times) // 2] < WITHIN_MS, times[-20:]
    if times[-1] >= WITHIN_MS and others > 0.3:
        warnings.warn(f"{times[-1]} ms, on a machine that had other work ({others:.1f} s of it): run this test alone")
    else:
        assert times[-1] < WITHIN_MS, times[-20:]
