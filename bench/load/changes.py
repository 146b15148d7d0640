#!/usr/bin/env python3
"""What clients notice of a model that is swapped, and of workers that are added and removed, while `runnel serve` answers them.

    changes.py MODEL [--other MODEL] [--runnel build/runnel] [--only swap,workers] [--clients 8] [--rounds 3] [--json FILE]
               [--work build] [--flags="MORE OPTIONS OF SERVE"]

swap      the model's file is exchanged (another one takes its name) and the server gets SIGHUP: a second keeper loads it, its workers take
          the place of the others, which finish what they have. Without --other the other model is a copy, below --work
workers   `runnel ctl workers 3`, then `runnel ctl workers 1`

--clients stream answers of --answer-tokens, one after the other, from before the first change until after the last one. For each
change: seconds until it is carried out (swap: the log says so; workers: the command has ended) and until the processes that had to go have
gone; the median and the worst first token of answers that were asked for meanwhile, beside those of --quiet seconds
before; the longest gap between two pieces of text of an answer. A request that is refused, or an answer that is cut, is a
failure, and the exit status 1. Only the standard library is needed.
"""
import argparse
import json
import os
import shlex
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time

from asking import Load
from family import Server
from kills import wait_until

CHANGED = r"\d workers? of .* ready$"  # a line of the log


def first_tokens_ms(answers):
    return [(answer.times[0] - answer.began) * 1e3 for answer in answers if answer.times]


def longest_gap_ms(answers, began, ended):
    """Between two pieces of text, one of which came within the time."""
    gaps = [b - a for answer in answers for a, b in zip(answer.times, answer.times[1:]) if b >= began and a <= ended]
    return max(gaps, default=0) * 1e3


class Bench:
    """One server under load; each change is a row of the record."""

    def __init__(self, options, folder):
        self.options, self.rows = options, []
        self.models = [os.path.abspath(options.model), os.path.abspath(options.other or os.path.join(folder, "copy.gguf"))]
        if not options.other:
            shutil.copyfile(*self.models)
        self.path, self.key_file = os.path.join(folder, "model.gguf"), os.path.join(folder, "admin")
        with open(self.key_file, "w", encoding="ascii") as file:
            file.write("admin-of-changes\n")
        self.n_swaps = 0
        self._give_name(self.models[0])

    def _give_name(self, model):
        os.symlink(model, self.path + ".new")
        os.replace(self.path + ".new", self.path)

    def run(self):
        options = self.options
        with Server(options.runnel, self.path, "--workers", 1, "--max-wait-s", 0, "--admin-key-file", self.key_file,
                    "--parallel", options.parallel, *options.flags) as self.server:
            self.load = Load(self.server, options.clients, options.prompt_words, options.answer_tokens)
            try:
                wait_until(self.load.all_stream, "all clients get text")
                for _ in range(options.rounds):
                    if "swap" in options.only:
                        self._change("swap", self._swap)
                    if "workers" in options.only:
                        self._change("workers 1 -> 3", lambda: self._workers(3))
                        self._change("workers 3 -> 1", lambda: self._workers(1))
            finally:
                self.load.stop()
            status = self.server.stop()
        for row in self.rows:
            self._judge(row)
        return status

    def _change(self, what, change):
        began_quiet = time.monotonic()
        time.sleep(self.options.quiet)
        old = set(self.server.family()) - {self.server.process.pid}
        began = time.monotonic()
        go = change()
        done = time.monotonic()
        wait_until(lambda: len(old & set(self.server.family())) <= len(old) - go, "the old processes are gone")
        self.rows.append({"what": what, "quiet": began_quiet, "began": began, "done_s": done - began,
                          "gone_s": time.monotonic() - began})

    def _swap(self):
        """How many of the processes that there were must go: all."""
        self.n_swaps += 1
        n_workers = len(self.server.workers())
        self._give_name(self.models[self.n_swaps % 2])
        before = self.server.count_lines(CHANGED)
        self.server.process.send_signal(signal.SIGHUP)
        wait_until(lambda: self.server.count_lines(CHANGED) > before, "the model is swapped")
        return n_workers + 1

    def _workers(self, n):
        """Likewise: all workers, as each has another share of the machine now; the keeper stays."""
        n_workers = len(self.server.workers())
        subprocess.run([self.options.runnel, "ctl", "workers", str(n), "--url", f"http://127.0.0.1:{self.server.port}",
                        "--admin-key-file", self.key_file], check=True, stdout=subprocess.DEVNULL)
        return n_workers

    def _judge(self, row):
        quiet, began = row.pop("quiet"), row.pop("began")
        ended = began + row["gone_s"]
        answers = self.load.answers()
        meanwhile = [answer for answer in answers if began <= answer.began <= ended]
        row["requests"] = len(meanwhile)
        row["first_ms"] = first_tokens_ms(meanwhile)
        row["first_before_ms"] = first_tokens_ms(answer for answer in answers if quiet <= answer.began < began)
        row["gap_ms"] = longest_gap_ms(answers, began, ended)
        row["gap_before_ms"] = longest_gap_ms(answers, quiet, began)


def median(values):
    return statistics.median(values) if values else float("nan")


def table(record):
    lines = [f"{os.path.basename(record['model'])}, {record['cpus']} CPUs, {record['clients']} clients, {record['date']}",
             "change          done s  old gone s  requests  first token ms: median  worst   (before)   longest gap ms (before)"]
    for row in record["changes"]:
        lines.append(f"{row['what']:15} {row['done_s']:6.2f} {row['gone_s']:11.2f} {row['requests']:9} {median(row['first_ms']):23.0f} "
                     f"{max(row['first_ms'], default=float('nan')):6.0f} {median(row['first_before_ms']):10.0f} "
                     f"{row['gap_ms']:16.0f} {row['gap_before_ms']:8.0f}")
    lines.append(f"{record['answers']} answers, {len(record['failed'])} refused or cut")
    return "\n".join(lines)


def read_arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("--other", help="the model that takes its place, and back; default: a copy")
    parser.add_argument("--runnel", default="build/runnel")
    parser.add_argument("--only", default="swap,workers")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--clients", type=int, default=8)
    parser.add_argument("--parallel", type=int, default=24, help="of the server; three workers share it")
    parser.add_argument("--prompt-words", type=int, default=12)
    parser.add_argument("--answer-tokens", type=int, default=48)
    parser.add_argument("--quiet", type=float, default=10, help="seconds before each change")
    parser.add_argument("--work", default="build", help="a folder on the disk, for the copy")
    parser.add_argument("--flags", type=shlex.split, default=["--ctx", "2048"], metavar="OPTIONS",
                        help="more options of `runnel serve`, as one text; default --ctx 2048, for which the part of a worker of the cache has room")
    parser.add_argument("--json", metavar="FILE", help="the record")
    options = parser.parse_args()
    options.only = options.only.split(",")
    if not set(options.only) <= {"swap", "workers"}:
        parser.error("--only: expected swap, workers or both")
    return options


def main():
    options = read_arguments()
    with tempfile.TemporaryDirectory(dir=options.work) as folder:
        bench = Bench(options, folder)
        status = bench.run()
    load = bench.load
    failed = [answer.describe() for answer in load.failed + load.lost]
    record = {"date": time.strftime("%Y-%m-%d"), "model": options.model, "other": options.other, "cpus": len(os.sched_getaffinity(0)),
              "clients": options.clients, "answer_tokens": options.answer_tokens, "flags": options.flags, "exit_status": status,
              "answers": len(load.done), "failed": failed, "changes": bench.rows}
    print(table(record))
    if options.json:
        with open(options.json, "w", encoding="utf-8") as file:
            json.dump(record, file, indent=1)
    for failure in failed[:20]:
        print(failure, file=sys.stderr)
    return 1 if failed or status else 0


if __name__ == "__main__":
    sys.exit(main())
