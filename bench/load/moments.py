#!/usr/bin/env python3
"""The moments that users of a server notice, each on a server of its own, with medians where a thing is done repeatedly.

    moments.py MODEL [--runnel build/runnel] [--only ready,memory,stall,cached,prefix,window,joining]

ready     seconds from starting the command to the first 200 of /health
memory    resident memory, 10^9 bytes, with 8 streams of 2,048 tokens of prompt and answer
stall     the longest gap between the tokens of 4 streams while a prompt of 3,000 tokens arrives; /health meanwhile
cached    first token of a 12-token question after a system prompt of 300 tokens that is in the cache
prefix    first token of a prompt of 1,000 tokens, and of a second one that begins with the same 1,000
window    most pages in use while 4,096 tokens are generated with --keep-last 512
joining   mean first token of 5 clients: --parallel 1 against joining batches, without and with a window of 100 ms, in turns
"""
import argparse
import json
import random
import statistics
import sys
import threading
import time

import family

DRAW = random.Random(time.time_ns())


def tokens(n):
    return [DRAW.randrange(1000, 30000) for _ in range(n)]


class Server(family.Server):
    def __init__(self, options, *flags):
        super().__init__(options.runnel, options.model, *flags)

    def stream(self, prompt, n, **more):
        """Milliseconds from the request to each event with a choice in it."""
        body = {"prompt": prompt, "max_tokens": n, "stream": True, "ignore_eos": True, "temperature": 0, "logprobs": 0,
                **more}
        connection = self.connect()
        began = time.monotonic()
        connection.request("POST", "/v1/completions", json.dumps(body), {"Content-Type": "application/json"})
        response = connection.getresponse()
        assert response.status == 200, response.read()
        times = []
        for line in response:
            if line.startswith(b"data: {") and b'"choices":[{' in line:
                times.append((time.monotonic() - began) * 1e3)
        connection.close()
        return times


def together(work, n):
    """What n calls of work give, each on a thread."""
    results = [None] * n

    def run(i):
        results[i] = work(i)

    threads = [threading.Thread(target=run, args=(i,)) for i in range(n)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return results


def ready(options):
    times = []
    for _ in range(5):
        with Server(options) as server:
            times.append(server.ready_s)
    return f"ready after {statistics.median(times):.2f} s (of 5: {min(times):.2f} to {max(times):.2f})"


def memory(options):
    with Server(options, "--parallel", "8") as server:
        together(lambda _: server.stream(tokens(1536), 512), 8)
        return f"{server.resident_bytes() / 1e9:.3f} x 10^9 bytes resident after 8 streams of 2,048 tokens"


def stall(options):
    with Server(options) as server:
        health, done = [], threading.Event()

        def watch():
            while not done.is_set():
                health.append(server.health()[1] * 1e3)
                time.sleep(0.02)

        watcher = threading.Thread(target=watch)
        watcher.start()

        def work(i):
            if i < 4:
                return server.stream(tokens(30), 200)
            time.sleep(2)
            return server.stream(tokens(3000), 1)

        results = together(work, 5)
        done.set()
        watcher.join()
        gaps = [b - a for times in results[:4] for a, b in zip(times, times[1:])]
        return (f"longest gap {max(gaps):.0f} ms (median {statistics.median(gaps):.0f}); the long prompt's first token after "
                f"{results[4][0] / 1e3:.1f} s; slowest /health of {len(health)}: {max(health):.0f} ms")


def cached(options):
    with Server(options) as server:
        system = tokens(300)
        server.stream(system + tokens(12), 1)
        firsts = [server.stream(system + tokens(12), 1)[0] for _ in range(15)]
        return f"first token {statistics.median(firsts):.0f} ms (of 15: {min(firsts):.0f} to {max(firsts):.0f})"


def prefix(options):
    with Server(options) as server:
        pairs = []
        for _ in range(5):
            first = tokens(1000)
            pairs.append((server.stream(first, 1)[0], server.stream(first + tokens(1), 1)[0]))
        a, b = (statistics.median(times) for times in zip(*pairs))
        return f"first token {a:.0f} ms, then {b:.0f} ms: {b / a:.3f} of the time"


def window(options):
    with Server(options, "--keep-last", "512", "--ctx", "2048") as server:
        usage, done = [], threading.Event()

        def watch():
            while not done.is_set():
                usage.append((server.metric("vllm:kv_cache_usage_perc"), server.resident_bytes()))
                time.sleep(0.5)

        watcher = threading.Thread(target=watch)
        watcher.start()
        n = len(server.stream(tokens(100), 4096))
        done.set()
        watcher.join()
        most = max(pages for pages, _ in usage)
        late = [resident for _, resident in usage[len(usage) // 4:]]
        return (f"{n} events; at most {most * 100:.1f} % of the pages in use; resident memory grew by "
                f"{(max(late) - min(late)) / 1e6:.1f} MB over the last three quarters")


def joining(options):
    firsts = {"--parallel 1": [], "joining": [], "joining, window 100 ms": []}
    flags = {"--parallel 1": ["--parallel", "1"], "joining": [], "joining, window 100 ms": ["--batch-window-ms", "100"]}
    for _ in range(2):
        for name, results in firsts.items():
            with Server(options, *flags[name]) as server:
                for times in together(lambda _: [server.stream(tokens(70), 48)[0] for _ in range(4)], 5):
                    results.extend(times)
    means = {name: statistics.mean(times) for name, times in firsts.items()}
    alone = means["--parallel 1"]
    return "mean first token: " + "; ".join(f"{name} {mean:.0f} ms ({1 - mean / alone:+.0%})" for name, mean in means.items())


MOMENTS = [ready, memory, stall, cached, prefix, window, joining]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("--runnel", default="build/runnel")
    parser.add_argument("--only", default=",".join(moment.__name__ for moment in MOMENTS))
    options = parser.parse_args()
    for moment in MOMENTS:
        if moment.__name__ in options.only.split(","):
            print(f"{moment.__name__:8}  {moment(options)}", flush=True)


if __name__ == "__main__":
    sys.exit(main())
