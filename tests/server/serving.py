"""`runnel serve` in a process of its own, and what clients of it do."""
import contextlib
import http.client
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

from prometheus_client.parser import text_string_to_metric_families

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from models_folder import MODELS, real_model  # noqa: E402, F401: for who imports this module

ROOT = Path(__file__).resolve().parents[2]
RUNNEL = Path(os.environ.get("RUNNEL", ROOT / "build" / "runnel"))
SANITIZED = re.search(b"__[at]san_init", RUNNEL.read_bytes()) is not None
# How much longer everything takes. ON_POCL: with_gpu says so, a token takes ten milliseconds there.
SLOW = 8 if SANITIZED else 10 if "ON_POCL" in os.environ else 1
# What must happen has happened by then on any machine that has other work, too; limits that a test does not set are far
# beyond it, or it says so. How fast something is, is told by the order of events or by the server's own clock: cpu_seconds().
BY_THEN = 60 * SLOW
# Of a server whose test does not say it: all tests are run with one and with two (tests/CMakeLists.txt), as RUNNEL_WORKERS says.
N_WORKERS = int(os.environ.get("RUNNEL_WORKERS", "1"))
# For what is about one engine or one queue by nature: which of several workers is asked is chance. Whoever uses it says why.
ONE_WORKER = ("--workers", "1")


def cpu_seconds(pid):
    """What a process has computed: other work on the machine does not change it."""
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def title_of(pid):
    """What `ps` shows of a process: "runnel: worker 0"; None: there is none, or it has ended and nobody has asked how."""
    try:
        if Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] in "ZX":
            return None
        return Path(f"/proc/{pid}/cmdline").read_bytes().rstrip(b"\0").decode()
    except (FileNotFoundError, ProcessLookupError):
        return None


def children_of(pid):
    """Those that live."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            state, parent = stat.read_text().rsplit(")", 1)[1].split()[:2]
        except (FileNotFoundError, ProcessLookupError):
            continue
        if int(parent) == pid and state not in "ZX":
            found.append(int(stat.parent.name))
    return sorted(found)


def family_of(supervisor):
    """A server's processes, {pid: title}: "runnel: supervisor", "runnel: keeper", "runnel: worker 0"; the first one is the supervisor."""
    found, look_at = {}, [supervisor]
    for pid in look_at:
        if title := title_of(pid):
            found[pid] = title
            look_at += children_of(pid)
    return found


def wait_until(condition, timeout=BY_THEN):
    end = time.monotonic() + timeout
    while not (value := condition()):
        assert time.monotonic() < end
        time.sleep(0.005)
    return value


def make_tiny_model(folder, kind):
    path = Path(folder) / f"{kind}.gguf"
    if not path.exists():
        subprocess.run([RUNNEL.parent / "tests" / "make_tiny_model", path, kind], check=True)
    return str(path)


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def run_serve(*arguments, env=None, timeout=BY_THEN):
    """Runs to the end, for what is refused."""
    return subprocess.run([RUNNEL, "serve", *arguments], capture_output=True, text=True, timeout=timeout,
                          env={**os.environ, **(env or {})})


def kv_cache(mib, flags=()):
    """So much for each worker, as contexts must fit into each one's; where a test says how many there are, for all of them. None: nothing is
    said of it."""
    if mib is None:
        return ()
    return ("--kv-cache-mib", str(mib if "--workers" in flags else mib * N_WORKERS))


class Serving:
    key = None  # for ask() and what it is for
    kept = None  # likewise, the connection of on_one_connection

    def __init__(self, model, *flags, wait=True, kv_mib=16, env=None, port=None, own_group=False):
        self.port = port or free_port()
        self.process = subprocess.Popen(
            [RUNNEL, "serve", "-m", model, "--port", str(self.port), *kv_cache(kv_mib, flags), *flags],
            stderr=subprocess.PIPE, text=True, start_new_session=own_group, env={**os.environ, "RUNNEL_MAX_WAIT_S": str(30 * SLOW), **(env or {})})
        self.lines = []
        self.ready = threading.Event()
        self.reader = threading.Thread(target=self._read, daemon=True)
        self.reader.start()
        if wait:
            assert self.ready.wait(BY_THEN), self.lines
            assert self.url, self.lines

    def _read(self):
        for line in self.process.stderr:
            self.lines.append(line.rstrip("\n"))
            if "Runnel serves" in line:
                self.ready.set()
        self.ready.set()

    @property
    def url(self):
        for line in self.lines:
            if match := re.search(r"Runnel serves .* at (http://[^\s\"]+)", line):
                return match[1]
        return None

    def lines_of_its_life(self):
        """Without that on the second of two workers, which comes if the first one can be asked before, and without what only builds with
        sanitizers and servers with a GPU say."""
        others = (" is ready after ", "The sandbox is off: a build with sanitizers", " gpu0 (")
        return [line for line in self.lines if not any(text in line for text in others)]

    def events(self, event=None):
        """The log of a server with --log-json, as objects; of one kind of event, if it is named."""
        lines = [json.loads(line) for line in self.lines]
        return [line for line in lines if event in (None, line["event"])]

    def wait_for_lines(self, condition, timeout=BY_THEN):
        """The lines of requests in the log, once condition(lines) is true: a line may come after the answer, and after what
        /metrics says."""
        end = time.monotonic() + timeout
        while not condition(found := self.events("request")):
            assert time.monotonic() < end, self.lines
            time.sleep(0.01)
        return found

    def connection(self, timeout=BY_THEN):
        return http.client.HTTPConnection("127.0.0.1", self.port, timeout=timeout)

    def ask(self, method, path, body=None, timeout=BY_THEN):
        """(status, headers, body), the body read as JSON where it is."""
        connection = self.kept or self.connection(timeout)
        try:
            payload = None if body is None else json.dumps(body)
            headers = {} if body is None else {"Content-Type": "application/json"}
            if self.key:
                headers["Authorization"] = f"Bearer {self.key}"
            connection.request(method, path, payload, headers)
            response = connection.getresponse()
            data = response.read()
            if response.headers.get_content_type() == "application/json":
                data = json.loads(data)
            return response.status, response.headers, data
        finally:
            if connection is not self.kept:
                connection.close()

    @contextlib.contextmanager
    def on_one_connection(self):
        """What is asked meanwhile (one request after the other) is answered by one worker, with what its cache has of the last."""
        self.kept = self.connection()
        try:
            yield
        finally:
            self.kept.close()
            self.kept = None

    def get(self, path):
        return self.ask("GET", path)

    def post(self, path, body):
        return self.ask("POST", path, body)

    def complete(self, prompt, n, **fields):
        """The text that /v1/completions gives, n tokens whatever the model thinks of it."""
        status, _, body = self.post("/v1/completions", {"prompt": prompt, "max_tokens": n, "ignore_eos": True,
                                                        **fields})
        assert status == 200, body
        assert body["usage"]["completion_tokens"] == n, body
        return body["choices"][0]["text"]

    def stream(self, prompt, n, key=None, **fields):
        """A stream of /v1/completions, its head not yet read."""
        return Stream(self, key, {"prompt": prompt, "max_tokens": n, "ignore_eos": True, "stream": True, **fields})

    def metrics(self):
        """{(name, labels...): value}; of labels, all but model_name."""
        status, _, text = self.get("/metrics")
        assert status == 200
        values = {}
        for family in text_string_to_metric_families(text.decode()):
            for sample in family.samples:
                labels = tuple(sorted(f"{name}={value}" for name, value in sample.labels.items()
                                      if name != "model_name"))
                values[(sample.name, *labels)] = sample.value
        return values

    def metric(self, name, *labels):
        return self.metrics()[(name, *labels)]

    def wait_for(self, condition, timeout=BY_THEN, pause=0.005):
        """Until condition(metrics) is true; the metrics of then."""
        end = time.monotonic() + timeout
        while True:
            metrics = self.metrics()
            if condition(metrics):
                return metrics
            assert time.monotonic() < end, metrics
            time.sleep(pause)

    def wait_until_idle(self, timeout=BY_THEN):
        """Until nothing is computed or waits, no page is held, and all that was let in has ended and been counted."""
        return self.wait_for(lambda now: now[("vllm:num_requests_running",)] == 0
                             and now[("vllm:num_requests_waiting",)] == 0
                             and now[("runnel_exchanges",)] == 1  # the one that asks
                             and now[("runnel_requests_admitted",)] == 0
                             and now[("runnel_kv_pages", "state=used")] == 0, timeout)

    def family(self):
        """As family_of."""
        return family_of(self.process.pid)

    def workers(self):
        """{pid: its number}"""
        return {pid: int(title.rsplit(" ", 1)[1]) for pid, title in self.family().items()
                if title.startswith("runnel: worker ")}

    @property
    def worker(self):
        """The process of the only worker, which is the server to its clients: for tests with ONE_WORKER."""
        workers = self.workers()
        assert len(workers) == 1, self.family()
        return next(iter(workers))

    def cpu_seconds(self):
        return sum(cpu_seconds(pid) for pid in self.workers())

    def signal(self, number=signal.SIGTERM):
        self.process.send_signal(number)

    def wait(self, timeout=BY_THEN):
        """The exit status."""
        status = self.process.wait(timeout)
        self.reader.join(10)
        return status

    def stop(self):
        if self.process.poll() is None:
            self.signal()
            try:
                self.wait(2)
            except subprocess.TimeoutExpired:
                self.signal()
                self.wait()
        assert self.process.returncode in (0, 1, 2), self.lines
        assert not any("still held" in line or "Sanitizer" in line for line in self.lines), self.lines


class Stream:
    def __init__(self, serving, key, body, path="/v1/completions"):
        self.socket = socket.create_connection(("127.0.0.1", serving.port), timeout=BY_THEN)
        data = json.dumps(body).encode()
        authorization = f"Authorization: Bearer {key}\r\n".encode() if key else b""
        self.socket.sendall(f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n".encode()
                            + authorization + b"Connection: close\r\nContent-Length: %d\r\n\r\n" % len(data) + data)
        self.file = self.socket.makefile("rb")

    def read_head(self):
        status = int(self.file.readline().split()[1])
        while self.file.readline() not in (b"\r\n", b""):
            pass
        return status

    def events(self):
        """The events as they come, until the server closes: JSON objects, and "[DONE]"."""
        for line in self.file:
            if line.startswith(b"data: "):
                data = line[6:].strip()
                yield "[DONE]" if data == b"[DONE]" else json.loads(data)

    def text(self):
        """All of it; it must end as it should."""
        assert self.read_head() == 200
        events = list(self.events())
        assert events[-1] == "[DONE]", events[-3:]
        return "".join(choice.get("text", "") for event in events[:-1] for choice in event["choices"])

    def leave(self, reset=False):
        if reset:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        self.file.close()
        self.socket.close()
