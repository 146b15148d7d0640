#!/usr/bin/env python3
"""Two servers side by side, a second each in turns: which one gives more tokens?

    pairs.py MODEL [--a build/runnel] [--b other/build/runnel] [--a-flags "..."] [--b-flags "--workers 2"] [--pairs 60]
             [--a-fields JSON] [--b-fields '{"json_schema": {...}}'] [--clients 8] [--prompt-tokens 70] [--answer-tokens 24] [--json]

Both have loaded MODEL and wait; while one is asked the other computes nothing. A slice is an answer of each client at once, about a
second for a model of 1.5 billion weights; a pair is a slice of each, in the order a b, b a, a b ... So what the machine does
meanwhile meets both alike. --a-fields and --b-fields are fields that the requests of one have besides. Printed: tokens a second of both (medians), and the ratio b / a of the pairs: median, quartiles, and the
interval in which the median lies with 95 % by the order of the pairs. Exit status 1 if an answer failed. Only the standard
library is needed; see load.py.
"""
import argparse
import asyncio
import json
import random
import shlex
import socket
import statistics
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

from load import ask, make_prompt

RUNNEL = Path(__file__).resolve().parents[2] / "build" / "runnel"


class Server:
    def __init__(self, program, model, flags, fields):
        self.fields = json.loads(fields)
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self.process = subprocess.Popen([program, "serve", "-m", model, "--port", str(self.port), *shlex.split(flags)],
                                        stderr=subprocess.DEVNULL)

    def wait_until_ready(self, patience_s=120):
        end = time.monotonic() + patience_s
        while time.monotonic() < end and self.process.poll() is None:
            try:
                with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/health", timeout=5) as answer:
                    if answer.status == 200:
                        return
            except OSError:
                time.sleep(0.05)
        sys.exit(f"no server: {shlex.join(map(str, self.process.args))}")

    async def slice(self, draw, options):
        """Tokens a second of one answer for each client."""
        bodies = [{"prompt": make_prompt(draw, options.prompt_tokens, False), "stream": True, "ignore_eos": True,
                   "max_tokens": options.answer_tokens, "temperature": 0, "stream_options": {"include_usage": True}, **self.fields}
                  for _ in range(options.clients)]
        began = time.monotonic()
        answers = await asyncio.gather(*(ask("127.0.0.1", self.port, body) for body in bodies))
        return sum(n_tokens for _, _, n_tokens in answers) / (time.monotonic() - began)

    def stop(self):
        self.process.terminate()
        self.process.wait()


def interval_of_median(values):
    """Between these of the sorted values the median lies with 95 % (the sign test, by its normal approximation)."""
    values, n = sorted(values), len(values)
    reach = 0.98 * n ** 0.5
    return values[max(0, int(n / 2 - reach))], values[min(n - 1, int(n / 2 + reach))]


def measure(servers, options):
    draw = random.Random(options.seed)
    rates = {"a": [], "b": []}
    for server in servers.values():
        asyncio.run(server.slice(draw, options))  # not counted
    for i in range(options.pairs):
        for name in ("a", "b") if i % 2 == 0 else ("b", "a"):
            rates[name].append(asyncio.run(servers[name].slice(draw, options)))
    return rates


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", metavar="MODEL")
    parser.add_argument("--a", default=RUNNEL, metavar="PROGRAM")
    parser.add_argument("--b", default=RUNNEL, metavar="PROGRAM")
    parser.add_argument("--a-flags", default="", metavar="FLAGS", help="of serve")
    parser.add_argument("--b-flags", default="", metavar="FLAGS")
    parser.add_argument("--a-fields", default="{}", metavar="JSON", help="further fields of each request")
    parser.add_argument("--b-fields", default="{}", metavar="JSON")
    parser.add_argument("--pairs", type=int, default=60)
    parser.add_argument("--clients", type=int, default=8)
    parser.add_argument("--prompt-tokens", type=int, default=70)
    parser.add_argument("--answer-tokens", type=int, default=24)
    parser.add_argument("--seed", default=str(time.time_ns()))
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    servers = {"a": Server(options.a, options.model, options.a_flags, options.a_fields),
               "b": Server(options.b, options.model, options.b_flags, options.b_fields)}
    try:
        for server in servers.values():
            server.wait_until_ready()
        rates = measure(servers, options)
    except (OSError, RuntimeError) as error:
        print(f"an answer failed: {error}", file=sys.stderr)
        sys.exit(1)
    finally:
        for server in servers.values():
            server.stop()
    ratios = [b / a for a, b in zip(rates["a"], rates["b"])]
    low, high = interval_of_median(ratios)
    quartiles = statistics.quantiles(ratios, n=4)
    found = {"pairs": len(ratios), "tok_s": {name: round(statistics.median(values), 1) for name, values in rates.items()},
             "ratio": round(statistics.median(ratios), 4), "quartiles": [round(quartiles[0], 4), round(quartiles[2], 4)],
             "median_95": [round(low, 4), round(high, 4)]}
    print(json.dumps(found) if options.json else
          f"{found['pairs']} pairs: a {found['tok_s']['a']} tok/s, b {found['tok_s']['b']} tok/s; b / a {found['ratio']} "
          f"(quartiles {quartiles[0]:.3f} to {quartiles[2]:.3f}; the median with 95 % {low:.4f} to {high:.4f})")


if __name__ == "__main__":
    main()
