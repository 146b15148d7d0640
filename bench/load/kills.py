#!/usr/bin/env python3
"""Workers of `runnel serve` are killed under load: what others notice, and how often the weights are in memory.

    kills.py MODEL [--runnel build/runnel] [--workers 1,2,4] [--kills 20] [--clients 4] [--goals] [--json FILE]
             [--flags="MORE OPTIONS OF SERVE"]

For each number of workers a server is started. --clients stream answers of --answer-tokens, one after the other; another client
asks for /metrics ten times a second. Each worker has places for all of them (--parallel): with the server's own 8 for all workers, a new
request that comes to a worker whose places are taken would wait for one of these (--flags="--ctx 2048 --parallel 8" shows it). Then, --kills times, a worker gets SIGKILL, one place after the other. Measured:

first token, short answer   from the SIGKILL to the first piece of text, and to the end, of a new request: its client connects and
                            asks at once after the kill (8 words, --short-tokens). It waits in the queue of the listening socket if
                            there is no other worker. Goals for one worker: 150 ms in the median, 400 ms the worst.
ready                       from its start to the end of it, of the worker that takes the place, as the server's log tells
lost                        streams whose connection the killed worker had accepted. It is stopped (SIGSTOP) for a moment before
                            it is killed, so that the system can be asked which these are. They end there, and their clients ask
                            again after --back-after seconds (1; with 0 their prompts compete with the measured request)
beside                      streams of another worker that got text before and after a kill, summed over the kills. One that ends before it
                            should although its own worker was not killed has failed
longest gap                 between two pieces of text of one of those, with the kill in it
failed                      requests that were refused or cut although their worker was not killed: must be 0
counters                    those of /metrics (*_total, *_count, *_sum, *_bucket) that were less than before, or gone: must be 0
memory, weights             PSS (/proc/PID/smaps_rollup: a page that n processes share counts as 1/n) of all processes of the
                            server together while the streams run, before the first kill; and of it the packed weights, beside
                            their size. The goal: the weights are there once

The table says of each row with a goal whether it is met. The exit status is 1 if something was wrong, whatever the times; with --goals also
if one of the times of one worker is past its goal. Only the standard library is needed.
"""
import argparse
import json
import os
import random
import shlex
import statistics
import sys
import time

from asking import Load, ask, text_request
from counters import CounterWatch
from family import Server, anonymous_kib, weights_kib

PATIENCE_S = 300  # for what must happen
ONCE = 1.01       # times the size of the weights: in memory once
GOALS_MS = (150, 400)
SHORT_WORDS = 8


def wait_until(condition, what):
    end = time.monotonic() + PATIENCE_S
    while not condition():
        if time.monotonic() > end:
            raise SystemExit(f"kills.py: waited {PATIENCE_S} s in vain: {what}")
        time.sleep(0.01)


def memory(server):
    """Bytes; the weights' own size is what the keeper has of them."""
    weights = server.of_all(weights_kib)
    return {"pss": server.resident_bytes(), "weights_pss": sum(pss for _, pss in weights.values()) << 10,
            "weights": max(resident for resident, _ in weights.values()) << 10,
            "anonymous": sum(server.of_all(anonymous_kib).values()) << 10}


def gap_over(answer, killed):
    """Seconds between the pieces of text before and after that moment; None: it was not between two."""
    before = [at for at in answer.times if at <= killed]
    after = [at for at in answer.times if at > killed]
    return after[0] - before[-1] if before and after else None


def ready_ms(line):
    return float(line.split(" is ready after ")[1].split()[0])


class Measurement:
    """Of one number of workers."""

    def __init__(self, options, n_workers):
        self.options, self.n_workers = options, n_workers
        self.kills, self.new = [], []
        self.draw = random.Random(time.time_ns())

    def run(self):
        options = self.options
        n_places = max(8, self.n_workers * (options.clients + 2))
        with Server(options.runnel, options.model, "--workers", self.n_workers, "--parallel", n_places, "--max-wait-s", 0,
                    *options.flags) as self.server:
            wait_until(lambda: len(self.server.workers()) == self.n_workers
                       and self.server.metric("runnel_workers") == self.n_workers, "all workers")
            self.load = Load(self.server, options.clients, options.prompt_words, options.answer_tokens, options.back_after)
            self.watch = CounterWatch(self.server)
            try:
                wait_until(self.load.all_stream, "all clients get text")
                self.memory = memory(self.server)
                for i in range(options.kills):
                    self._kill(i % self.n_workers)
            finally:
                self.load.stop()
                self.watch.stop()
            status = self.server.stop()
        return self._result(status)

    def _kill(self, place):
        server, before = self.server, self.server.count_lines(" is ready after ")
        wait_until(self.load.all_stream, "all clients get text")
        victim = next(pid for pid, found in server.workers().items() if found == place)
        killed = server.kill_worker(victim)
        answer = ask(server, text_request(self.draw, SHORT_WORDS, self.options.short_tokens))
        self.kills.append(killed)
        self.new.append(answer)
        wait_until(lambda: server.count_lines(" is ready after ") > before, "the next worker is ready")
        time.sleep(self.options.pause)

    def _result(self, status):
        answered = [(killed, answer) for killed, answer in zip(self.kills, self.new) if answer.is_complete and answer.times]
        gaps = [gap for answer in self.load.done + self.load.lost for killed in self.kills
                if self.server.lost.get(answer.port) != killed and (gap := gap_over(answer, killed)) is not None]
        failed = [answer.describe() for answer in self.load.failed]
        failed += [f"a new request after a kill: {answer.describe()}" for answer in self.new if not answer.is_complete]
        return {"workers": self.n_workers, "kills": len(self.kills), "exit_status": status,
                "first_ms": [(answer.times[0] - killed) * 1e3 for killed, answer in answered],
                "whole_ms": [(answer.ended - killed) * 1e3 for killed, answer in answered],
                "ready_ms": [ready_ms(line) for line in self.server.lines if " is ready after " in line][-len(self.kills):],
                "answers": len(self.load.done), "lost": len(self.load.lost), "beside": len(gaps),
                "gap_ms": max(gaps, default=0) * 1e3, "failed": failed,
                "counter_samples": self.watch.n_samples, "counter_faults": self.watch.faults,
                "crashed": self.watch.value('runnel_worker_exits_total{how="crashed"}'), "memory": self.memory}


def complaints(result):
    """What is wrong whatever the machine."""
    found = list(result["failed"]) + [f"a counter went back: {fault}" for fault in result["counter_faults"]]
    if weights_times(result) > ONCE:
        found.append(f"the weights are in memory {weights_times(result):.2f} times")
    if result["crashed"] != result["kills"]:
        found.append(f"{result['kills']} workers were killed, and the server counted {result['crashed']:.0f}")
    if result["exit_status"]:
        found.append(f"the server ended with status {result['exit_status']}")
    return [f"{result['workers']} workers: {complaint}" for complaint in found]


def median(values):
    return statistics.median(values) if values else float("nan")


class Row:
    """value(result) is what the table shows; is_met(result), of a row with a goal, whether it is met, None: it says nothing of this one."""

    def __init__(self, title, value, goal="", is_met=lambda result: None):
        self.title, self.value, self.goal, self.is_met = title, value, goal, is_met

    def cell(self, result):
        return f"{self.value(result)}{ {None: '', True: ' met', False: ' MISSED'}[self.is_met(result)]}"


def timed(title, measure, goal_ms):
    """Milliseconds, whose goal is for one worker."""
    return Row(title, lambda r: f"{measure(r):.0f}", f"{goal_ms} (1 worker)", lambda r: measure(r) <= goal_ms if r["workers"] == 1 else None)


def worst(values):
    return max(values, default=float("nan"))


def weights_times(result):
    return result["memory"]["weights_pss"] / result["memory"]["weights"]


TIMED = [
    timed("first token after a kill, ms: median", lambda r: median(r["first_ms"]), GOALS_MS[0]),
    timed("  first token, worst", lambda r: worst(r["first_ms"]), GOALS_MS[1]),
    timed("short answer after a kill, ms: median", lambda r: median(r["whole_ms"]), GOALS_MS[0]),
    timed("  short answer, worst", lambda r: worst(r["whole_ms"]), GOALS_MS[1]),
]
ROWS = [
    *TIMED,
    Row("ready, ms: median", lambda r: f"{median(r['ready_ms']):.0f}"),
    Row("streams lost with their worker", lambda r: r["lost"]),
    Row("streams of other workers beside", lambda r: r["beside"]),
    Row("  longest gap, ms", lambda r: f"{r['gap_ms']:.0f}"),
    Row("requests failed, of all", lambda r: f"{len(r['failed'])} of {r['answers'] + r['lost'] + len(r['failed']) + r['kills']}", "0",
        lambda r: not r["failed"]),
    Row("counters gone back, looks", lambda r: f"{len(r['counter_faults'])}, {r['counter_samples']}", "0", lambda r: not r["counter_faults"]),
    Row("memory, all processes, MB", lambda r: f"{r['memory']['pss'] / 1e6:.1f}"),
    Row("  of it weights, MB", lambda r: f"{r['memory']['weights_pss'] / 1e6:.1f}"),
    Row("  times their size", lambda r: f"{weights_times(r):.3f}", "1", lambda r: weights_times(r) <= ONCE),
]


def missed(result):
    """The times that are past their goals."""
    return [f"{result['workers']} workers: {row.title.strip()}: {row.value(result)}, the goal is {row.goal}" for row in TIMED
            if row.is_met(result) is False]


def table(record):
    results = record["results"]
    lines = [f"{os.path.basename(record['model'])}, {record['cpus']} CPUs, {record['clients']} streams beside, {record['date']}",
             f"{'workers':38}" + "".join(f"{result['workers']:>16}" for result in results) + "  goal"]
    lines += [f"{row.title:38}" + "".join(f"{row.cell(result):>16}" for result in results) + f"  {row.goal}".rstrip() for row in ROWS]
    return "\n".join(lines)


def read_arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("--runnel", default="build/runnel")
    parser.add_argument("--workers", default="1,2,4", help="a server for each number")
    parser.add_argument("--kills", type=int, default=20, help="for each number of workers")
    parser.add_argument("--clients", type=int, default=4, help="that stream")
    parser.add_argument("--prompt-words", type=int, default=12)
    parser.add_argument("--answer-tokens", type=int, default=200)
    parser.add_argument("--short-tokens", type=int, default=4)
    parser.add_argument("--back-after", type=float, default=1, help="seconds until who lost an answer asks again")
    parser.add_argument("--pause", type=float, default=2, help="seconds between a worker that is ready and the next kill")
    parser.add_argument("--flags", type=shlex.split, default=["--ctx", "2048"], metavar="OPTIONS",
                        help="more options of `runnel serve`, as one text; default --ctx 2048, for which the part of a worker of the cache has room")
    parser.add_argument("--goals", action="store_true", help="a time past its goal is wrong, too")
    parser.add_argument("--json", metavar="FILE", help="the record")
    return parser.parse_args()


def main():
    options = read_arguments()
    record = {"date": time.strftime("%Y-%m-%d"), "model": options.model, "cpus": len(os.sched_getaffinity(0)),
              "clients": options.clients, "answer_tokens": options.answer_tokens, "short_tokens": options.short_tokens,
              "back_after": options.back_after, "flags": options.flags, "results": []}
    wrong = []
    for n_workers in map(int, options.workers.split(",")):
        result = Measurement(options, n_workers).run()
        record["results"].append(result)
        wrong += complaints(result) + (missed(result) if options.goals else [])
    print(table(record))
    if options.json:
        with open(options.json, "w", encoding="utf-8") as file:
            json.dump(record, file, indent=1)
    for complaint in wrong[:20]:
        print(complaint, file=sys.stderr)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
