#!/usr/bin/env python3
"""`runnel serve` under a mixed load for a long time, with kills: does it fall down, does it grow?

    soak.py MODEL [--minutes 20] [--runnel build/runnel] [--workers 2] [--good 3] [--kill-every 30] [--long-tokens 4000]
            [--json FILE] [--svg FILE] [--flags="MORE OPTIONS OF SERVE"]

Clients, each a thread that asks all the time (mischief.py): --good good ones (chats, completions, several at once, what needs no
model), two slow ones (that send or read a little at a time, or nothing), a bad one (JSON, routes, heads and lengths that are none), one that
leaves (in the head, the body, the prompt, the stream; politely or by a reset) and one that asks for much (prompts up to
--long-tokens, bodies at the limit and past it). Every --kill-every seconds a worker gets SIGKILL: the first place, the second ..., but
never the last one of several, whose worker lives through all of it, so that what it may lose adds up.

Once a second: RssAnon + VmSwap and the open descriptors of each process (supervisor, keeper, the worker of each place), and how
long a probing request takes (one token after one word, among all others). All the time: do counters of /metrics go back?

At the end the clients finish what they have, and the server must be idle, with no page held, and end with status 0. The report has a table
of what was asked and how it ended: everything must have ended as it should, unless its worker was killed. Then the trend of each
series: over the last two thirds of the run, in medians of 20 parts of it, the growth of the line by least squares. It must not pass 8 MiB
for a process and 16 MiB for all, 4 descriptors, and for the latency 25 % or 20 ms; twice the standard error of the line is
allowed in any case, as chance alone does that (trend.py). A run of less than 5 minutes tells of no trend. The exit status is 1 if
anything of that is not so. --json writes all samples, --svg draws them. Only the standard library is needed.
"""
import argparse
import contextlib
import json
import os
import random
import shlex
import sys
import threading
import time

sys.path.insert(1, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
import trend  # noqa: E402 (the path comes first)
from asking import ask, head, post  # noqa: E402
from contest import machine  # noqa: E402
from counters import CounterWatch  # noqa: E402
from family import GONE, Server, anonymous_kib, n_descriptors  # noqa: E402
from load import WORDS  # noqa: E402
from mischief import DONE, KINDS, LEFT, LOST, judge  # noqa: E402
from plot import Panel, draw  # noqa: E402

PATIENCE_S = 120        # until the server is idle
POINTS = 240            # of a line that is drawn
ENDINGS = (DONE, LEFT, LOST, "otherwise")
IDLE = ("vllm:num_requests_running", "vllm:num_requests_waiting", "runnel_requests_admitted ", 'runnel_kv_pages{state="used"}')


def vocabulary(server):
    """Token ids that make ordinary text, whatever the model."""
    answer = ask(server, post("/tokenize", {"content": " " + " ".join(WORDS)}))
    assert answer.status == 200, answer.body
    return sorted(set(json.loads(answer.body)["tokens"]))


class Clients:
    """All who ask, and how what they asked ended."""

    def __init__(self, server, options):
        self.server, self.stopping, self.lock = server, threading.Event(), threading.Lock()
        self.endings = {kind: dict.fromkeys(ENDINGS, 0) for kind in KINDS}
        self.wrong = []
        seed = time.time_ns()
        kinds = ["good"] * options.good + ["slow"] * 2 + ["bad", "leaving", "huge"]
        self.threads = [threading.Thread(target=self._run, args=(kind, KINDS[kind](server, self.stopping, f"{seed}/{i}", options)))
                        for i, kind in enumerate(kinds)]
        for thread in self.threads:
            thread.start()

    def _run(self, kind, client):
        while not self.stopping.is_set():
            ending = client.act()
            self.count(kind, ending)
            if ending not in ENDINGS:
                self.stopping.wait(1)

    def count(self, kind, ending):
        with self.lock:
            self.endings.setdefault(kind, dict.fromkeys(ENDINGS, 0))[ending if ending in ENDINGS else "otherwise"] += 1
            if ending not in ENDINGS:
                self.wrong.append(f"{kind}: {ending}")

    def stop(self):
        self.stopping.set()
        for thread in self.threads:
            thread.join()


class Sampler:
    """Once a second: the processes, and a probing request, whose time is measured on a thread of its own."""

    def __init__(self, server, clients, began):
        self.server, self.clients, self.began = server, clients, began
        self.memory, self.descriptors, self.latency = {}, {}, []  # by title: [(seconds, value)]; [(seconds, ms)]
        self.threads = [threading.Thread(target=self._every_second, args=(work,)) for work in (self._look, self._probe)]
        for thread in self.threads:
            thread.start()

    def _every_second(self, work):
        draw, following = random.Random(time.time_ns()), time.monotonic()
        while not self.clients.stopping.is_set():
            work(draw)
            following = max(following + 1, time.monotonic())
            self.clients.stopping.wait(following - time.monotonic())

    def _look(self, _draw):
        at, memory, descriptors = time.monotonic() - self.began, {}, {}
        for pid, title in self.server.family().items():
            with contextlib.suppress(*GONE):
                name = title.removeprefix("runnel: ")
                kib, n = anonymous_kib(pid), n_descriptors(pid)
                memory[name], descriptors[name] = memory.get(name, 0) + kib / 1024, descriptors.get(name, 0) + n
        for found, series in ((memory, self.memory), (descriptors, self.descriptors)):
            for name, value in {**found, "all": sum(found.values())}.items():
                series.setdefault(name, []).append((at, value))

    def _probe(self, draw):
        body = {"prompt": f"{draw.choice(WORDS)} {draw.random()}", "max_tokens": 1, "ignore_eos": True}
        answer = ask(self.server, post("/v1/completions", body))
        ending = judge(self.server, answer)
        if ending == DONE:
            self.latency.append((answer.began - self.began, (answer.ended - answer.began) * 1e3))
        self.clients.count("probing", ending)

    def join(self):
        for thread in self.threads:
            thread.join()


class Soak:
    def __init__(self, options):
        self.options, self.kills, self.wrong = options, [], []
        self.n_seconds = options.minutes * 60

    def run(self):
        options = self.options
        flags = ["--workers", options.workers, "--parallel", 16 * options.workers, "--max-wait-s", 0, *options.flags]
        with Server(options.runnel, options.model, *flags) as self.server:
            options.vocabulary = vocabulary(self.server)
            self.began = time.monotonic()
            self.watch, self.clients = CounterWatch(self.server), Clients(self.server, options)
            self.sampler = Sampler(self.server, self.clients, self.began)
            try:
                self._kill_now_and_then()
            finally:
                self.clients.stop()
                self.sampler.join()
                self.watch.stop()
            if self.server.process.poll() is not None:
                self.wrong.append("the server ended by itself")
            self._await_idle()
            status = self.server.stop()
        self._judge(status)
        return self._record(status)

    def _kill_now_and_then(self):
        places, every = max(self.options.workers - 1, 1), self.options.kill_every
        end, following = self.began + self.n_seconds, self.began + every
        while (now := time.monotonic()) < end and self.server.process.poll() is None:
            if now >= following and self.server.metric("runnel_workers") == self.options.workers:
                following += every
                victim = next(pid for pid, place in self.server.workers().items() if place == len(self.kills) % places)
                self.kills.append(self.server.kill_worker(victim) - self.began)
            time.sleep(min(0.1, end - now))

    def _await_idle(self):
        end = time.monotonic() + PATIENCE_S
        while self.server.process.poll() is None and any(self.server.metric(name) for name in IDLE):
            if time.monotonic() > end:
                held = {name: self.server.metric(name) for name in IDLE}
                self.wrong.append(f"not idle {PATIENCE_S} s after the last request: {held}")
                return
            time.sleep(0.2)

    def _judge(self, status):
        self.wrong += self.clients.wrong + [f"a counter went back: {fault}" for fault in self.watch.faults]
        crashed = self.watch.value('runnel_worker_exits_total{how="crashed"}')
        if crashed != len(self.kills):
            self.wrong.append(f"{len(self.kills)} workers were killed, and the server counted {crashed:.0f}")
        if status:
            self.wrong.append(f"the server ended with status {status}")
        self.wrong += [f"in the log: {line}" for line in self.server.lines if " crash: " in line]
        self.trends = [{"series": name, **trend.judge(samples, self.n_seconds, limit)} for name, samples, limit in self._series()]
        if self.n_seconds >= trend.SHORTEST_S:
            self.wrong += [f"{one['series']} grew by {one['growth']:.1f}, at most {one['limit']:.1f} is allowed"
                           for one in self.trends if not one["flat"]]

    def _series(self):
        """(name, samples, limit)"""
        sampler = self.sampler
        for what, series, of_one, of_all in (("memory, MiB", sampler.memory, trend.MEMORY, trend.MEMORY_OF_ALL),
                                             ("descriptors", sampler.descriptors, trend.DESCRIPTORS, trend.DESCRIPTORS)):
            for name in self._places(series):
                yield f"{what}: {name}", series[name], of_all if name == "all" else of_one
        yield "latency, ms", sampler.latency, trend.LATENCY

    @staticmethod
    def _places(series):
        """What lives all the time; a greeter or a process that has no title yet is part of all."""
        return [name for name in sorted(series) if name in ("all", "supervisor", "keeper") or name.startswith("worker ")]

    def _record(self, status):
        sampler = self.sampler
        return {"date": time.strftime("%Y-%m-%d"), "machine": machine.describe(os.getcwd()), "model": os.path.basename(self.options.model),
                "minutes": self.options.minutes, "workers": self.options.workers, "good": self.options.good,
                "long_tokens": self.options.long_tokens, "flags": self.options.flags, "exit_status": status, "kills": self.kills,
                "endings": self.clients.endings, "looks_at_counters": self.watch.n_samples, "trends": self.trends,
                "judged": self.n_seconds >= trend.SHORTEST_S, "wrong": self.wrong[:100], "n_wrong": len(self.wrong),
                "memory_mib": rounded(sampler.memory), "descriptors": rounded(sampler.descriptors),
                "latency_ms": rounded({"": sampler.latency})[""]}


def rounded(series):
    return {name: [[round(at, 1), round(value, 2)] for at, value in samples] for name, samples in series.items()}


def report(record):
    lines = [f"{record['minutes']:g} minutes, {record['model']}, {record['workers']} workers, {len(record['kills'])} kills, "
             f"{record['looks_at_counters']} looks at the counters",
             f"{'requests':26}{'as it should':>14}{'left, as meant':>16}{'lost with worker':>18}{'otherwise':>11}"]
    lines += [f"{kind:26}{ends[DONE]:14}{ends[LEFT]:16}{ends[LOST]:18}{ends['otherwise']:11}" for kind, ends in record["endings"].items()]
    judged = "" if record["judged"] else " (too short to tell)"
    lines.append(f"{'trend':26}{'level':>14}{'growth':>16}{'allowed':>18}{judged}")
    lines += [f"{one['series']:26}{one['level']:14.1f}{one['growth']:16.2f}{one['limit']:18.1f}{'' if one['flat'] or judged else '  GROWS'}"
              for one in record["trends"]]
    return "\n".join(lines)


def share_above(samples, n_bins, share):
    """Of each part of the time the value that so large a share does not pass."""
    if not samples:
        return []
    width, bins = (samples[-1][0] or 1) / n_bins, {}
    for at, value in samples:
        bins.setdefault(int(at / width), []).append(value)
    return [((index + 0.5) * width, sorted(values)[min(int(len(values) * share), len(values) - 1)]) for index, values in sorted(bins.items())]


def picture(record):
    panels = []
    for title, series in (("memory, MiB (RssAnon + VmSwap; shared weights count in each)", record["memory_mib"]),
                          ("open descriptors", record["descriptors"])):
        panels.append(Panel(title, [(name, trend.medians(series[name], POINTS)) for name in Soak._places(series)]))
    latency = record["latency_ms"]
    panels.append(Panel("a request for one token, ms", [(f"{share:.0%} within", share_above(latency, 60, share)) for share in (0.5, 0.95)]))
    found = record["machine"]
    return draw(f"{record['minutes']:g} minutes of good, bad, slow, leaving and huge requests, and {len(record['kills'])} kills",
                f"{record['model']}, {record['workers']} workers, {found['cpu']}, {found['cores']} cores, {record['date']}", panels,
                record["minutes"] * 60, record["kills"], "Red lines: a worker is killed.")


def write(path, content):
    if path:
        with open(path, "w", encoding="utf-8") as file:
            file.write(content)


def read_arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("--minutes", type=float, default=20)
    parser.add_argument("--runnel", default="build/runnel")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--good", type=int, default=3, help="good clients")
    parser.add_argument("--kill-every", type=float, default=30, help="seconds")
    parser.add_argument("--long-tokens", type=int, default=4000, help="the longest prompt; it must fit the context")
    parser.add_argument("--flags", type=shlex.split, default=[], metavar="OPTIONS", help="more options of `runnel serve`, as one text")
    parser.add_argument("--json", metavar="FILE", help="the record")
    parser.add_argument("--svg", metavar="FILE", help="the plot")
    return parser.parse_args()


def main():
    options = read_arguments()
    record = Soak(options).run()
    print(report(record))
    write(options.json, json.dumps(record) + "\n")
    write(options.svg, picture(record))
    for wrong in record["wrong"][:20]:
        print(wrong, file=sys.stderr)
    print("all well" if not record["n_wrong"] else f"{record['n_wrong']} things were not as they should be")
    return 1 if record["n_wrong"] else 0


if __name__ == "__main__":
    sys.exit(main())
