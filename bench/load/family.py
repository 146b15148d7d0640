"""`runnel serve` as a family of processes: started, looked at from outside, and killed one by one."""
import contextlib
import http.client
import os
import re
import signal
import socket
import subprocess
import threading
import time

GONE = (FileNotFoundError, ProcessLookupError)  # a process that has ended while somebody looked at it
READY_POLL_S = 0.005


def read_proc(pid, name):
    with open(f"/proc/{pid}/{name}", encoding="utf-8", errors="replace") as file:
        return file.read()


def state_and_parent(pid):
    """('S', 4711), of a process that may be a zombie."""
    state, parent = read_proc(pid, "stat").rsplit(")", 1)[1].split()[:2]
    return state, int(parent)


def family_of(pid):
    """{pid: title} of a server and all that descend from it: "runnel: supervisor", "runnel: keeper", "runnel: worker 0"."""
    children = {}
    for other in filter(str.isdigit, os.listdir("/proc")):
        with contextlib.suppress(*GONE):
            state, parent = state_and_parent(other)
            if state not in "ZX":
                children.setdefault(parent, []).append(int(other))
    found, look_at = {}, [pid]
    for one in look_at:
        with contextlib.suppress(*GONE):
            if title := read_proc(one, "cmdline").rstrip("\0"):
                found[one] = title
        look_at += children.get(one, [])
    return found


def anonymous_kib(pid):
    """RssAnon + VmSwap: what a process has of memory that is in no file, wherever it lies. Shared pages count in each process."""
    return sum(map(int, re.findall(r"^(?:RssAnon|VmSwap):\s+(\d+) kB", read_proc(pid, "status"), re.M)))


def n_descriptors(pid):
    return len(os.listdir(f"/proc/{pid}/fd"))


def pss_kib(pid):
    """Of all that is resident; a page of n processes counts as 1/n of a page in each."""
    return int(re.search(r"^Pss:\s+(\d+) kB", read_proc(pid, "smaps_rollup"), re.M)[1])


def weights_kib(pid):
    """(resident, PSS) of the packed weights: the large read-only memory that is in no file."""
    resident = pss = 0
    for mapping in re.split(r"^(?=[0-9a-f]+-[0-9a-f]+ )", read_proc(pid, "smaps"), flags=re.M):
        if re.match(r"\S+ r--p 0+ 00:00 0\s*$", mapping.split("\n", 1)[0]) and size_of(mapping, "Size") >= 2048:
            resident += size_of(mapping, "Rss")
            pss += size_of(mapping, "Pss")
    return resident, pss


def size_of(mapping, name):
    return int(re.search(rf"^{name}:\s+(\d+) kB", mapping, re.M)[1])


class Server:
    """`runnel serve` on a free port, until it is ready."""

    def __init__(self, runnel, model, *flags):
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self.lines = []  # of its log, without those of requests
        self.lost = {}   # by the port of a client: when the worker was killed that had its connection
        began = time.monotonic()
        self.process = subprocess.Popen([runnel, "serve", "-m", str(model), "--port", str(self.port), *map(str, flags)],
                                        stderr=subprocess.PIPE, text=True, errors="replace")
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        while self.health()[0] != 200:
            if self.process.poll() is not None:
                self._reader.join()
                raise SystemExit("\n".join([f"the server ended with status {self.process.returncode}", *self.lines[-5:]]))
            time.sleep(READY_POLL_S)
        self.ready_s = time.monotonic() - began

    def _read(self):
        for line in self.process.stderr:
            if " request method=" not in line:
                self.lines.append(line.rstrip("\n"))

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.stop()

    def stop(self):
        """The exit status, after SIGTERM."""
        if self.process.poll() is None:
            self.process.terminate()
        status = self.process.wait()
        self._reader.join()
        return status

    # What is asked of it, outside of what is measured

    def connect(self):
        return http.client.HTTPConnection("127.0.0.1", self.port, timeout=600)

    def health(self):
        """(status, seconds)"""
        began = time.monotonic()
        with contextlib.suppress(OSError, http.client.HTTPException):
            connection = self.connect()
            connection.request("GET", "/health")
            status = connection.getresponse().status
            connection.close()
            return status, time.monotonic() - began
        return 0, 0

    def metric(self, name):
        """The sum of all lines that begin so."""
        connection = self.connect()
        connection.request("GET", "/metrics")
        lines = connection.getresponse().read().decode().splitlines()
        connection.close()
        return sum(float(line.rsplit(" ", 1)[1]) for line in lines if line.startswith(name))

    def count_lines(self, pattern):
        return sum(re.search(pattern, line) is not None for line in self.lines)

    # Its processes

    def family(self):
        return family_of(self.process.pid)

    def workers(self):
        """{pid: its place}"""
        return {pid: int(title.rsplit(" ", 1)[1]) for pid, title in self.family().items()
                if title.startswith("runnel: worker ")}

    def of_all(self, look):
        """{pid: look(pid)} of those that are still there."""
        found = {}
        for pid in self.family():
            with contextlib.suppress(*GONE):
                found[pid] = look(pid)
        return found

    def resident_bytes(self):
        """Of all processes, each page once."""
        return sum(self.of_all(pss_kib).values()) << 10

    def ports_of(self, pid):
        """The clients' ports of the connections that a process has accepted."""
        inodes = set()
        for name in os.listdir(f"/proc/{pid}/fd"):
            with contextlib.suppress(*GONE):
                if match := re.fullmatch(r"socket:\[(\d+)\]", os.readlink(f"/proc/{pid}/fd/{name}")):
                    inodes.add(match[1])
        rows = [line.split() for line in read_proc("self", "net/tcp").splitlines()[1:]]
        return {int(row[2].rsplit(":", 1)[1], 16) for row in rows
                if row[9] in inodes and int(row[1].rsplit(":", 1)[1], 16) == self.port}

    def kill_worker(self, pid):
        """SIGKILL, and when. It is stopped before, for as long as it takes to read whose connections it has."""
        os.kill(pid, signal.SIGSTOP)
        while state_and_parent(pid)[0] not in "Tt":
            pass
        ports = self.ports_of(pid)
        killed = time.monotonic()
        self.lost.update(dict.fromkeys(ports, killed))
        os.kill(pid, signal.SIGKILL)
        return killed

    def was_lost(self, port, began):
        """Had a worker accepted the connection that was killed since?"""
        return self.lost.get(port, -1) >= began
