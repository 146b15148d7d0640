"""Do the counters of /metrics ever go back? Asked for all the time."""
import threading
import time

from asking import ask, head

KINDS = ("_total", "_count", "_sum", "_bucket")
PAUSE_S = 0.1


def read_counters(text):
    """{name and labels: value} of all that may only grow."""
    found = {}
    for line in text.splitlines():
        series, _, value = line.rpartition(" ")
        if not line.startswith("#") and series.split("{", 1)[0].endswith(KINDS):
            found[series] = float(value)
    return found


def gone_back(before, now):
    """Counters that are smaller than before, or that are not there any more: a line each."""
    return [f"{series}: {value:g}, then {now.get(series, 'not there')}" for series, value in before.items()
            if not now.get(series, -1) >= value]


class CounterWatch:
    """A client of its own that asks for /metrics, and compares each answer with the one before."""

    def __init__(self, server):
        self.server = server
        self.n_samples, self.faults, self.last = 0, [], {}
        self.stopping = threading.Event()
        self.thread = threading.Thread(target=self._run)
        self.thread.start()

    def _run(self):
        while not self.stopping.is_set():
            self._look()
            time.sleep(PAUSE_S)

    def _look(self):
        answer = ask(self.server, head("GET", "/metrics"))
        if answer.status == 200 and answer.is_complete:
            now = read_counters(answer.body.decode())
            self.faults += gone_back(self.last, now)
            self.last = now
            self.n_samples += 1
        elif not answer.lost_with(self.server):
            self.faults.append(f"/metrics: {answer.describe()}")

    def stop(self):
        """After one more look."""
        self.stopping.set()
        self.thread.join()
        self._look()

    def value(self, beginning):
        """The sum of all counters that begin so, as last seen."""
        return sum(value for series, value in self.last.items() if series.startswith(beginning))
