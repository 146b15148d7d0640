#!/usr/bin/env python3
"""A closed loop of clients against a server of the OpenAI API: each asks again as soon as it is answered.

    load.py [--url http://127.0.0.1:8080] [--clients 1,3,5,8,12] [--requests 8] [--prompt-tokens 70]
            [--answer-tokens 48] [--shared-tokens 0] [--json]

Every prompt is another one, so that no prefix is shared; --shared-tokens puts a beginning before them that all prompts of a
number of clients have in common. Prompts are token ids (/v1/completions), so that all servers and models get as many as they
should; --text sends words instead, to servers that take no ids. One line for each number of clients: first token mean, P50,
P95; whole answer P95; tokens a second of all clients together; failures. Only the standard library is needed.
"""
import argparse
import asyncio
import json
import random
import statistics
import sys
import time
from urllib.parse import urlsplit

WORDS = "river stone window letter garden music number winter table green paper market silver road story".split()


def make_prompt(draw, n_tokens, as_text, beginning=None):
    if as_text:
        return " ".join(([beginning] if beginning else []) + [draw.choice(WORDS) for _ in range(n_tokens)])
    return (beginning or []) + [draw.randrange(1000, 30000) for _ in range(n_tokens)]


async def ask(host, port, body, key=None):
    """Seconds to the first text and to the end, and the tokens of the answer. Raises what goes wrong."""
    reader, writer = await asyncio.open_connection(host, port)
    try:
        data = json.dumps(body).encode()
        authorization = b"Authorization: Bearer %b\r\n" % key.encode() if key else b""
        began = time.monotonic()
        writer.write(b"POST /v1/completions HTTP/1.1\r\nHost: %b\r\nContent-Type: application/json\r\n"
                     % host.encode() + authorization + b"Connection: close\r\nContent-Length: %d\r\n\r\n" % len(data) + data)
        status = int((await reader.readline()).split()[1])
        if status != 200:
            raise RuntimeError(f"status {status}: {(await reader.read())[-300:].decode(errors='replace')}")
        first = n_tokens = None
        complete = False
        async for line in reader:
            if not line.startswith(b"data: "):
                continue
            if line.startswith(b"data: [DONE]"):
                complete = True
                break
            event = json.loads(line[6:])
            if "error" in event:
                raise RuntimeError(event["error"])
            if first is None and event.get("choices"):
                first = time.monotonic() - began
            if event.get("usage"):
                n_tokens = event["usage"]["completion_tokens"]
        if not complete or first is None or not n_tokens:
            raise RuntimeError("the answer is not complete")
        return first, time.monotonic() - began, n_tokens
    finally:
        writer.close()


async def client(host, port, options, seed, beginning, results, failures):
    draw = random.Random(seed)
    for _ in range(options.requests):
        body = {"prompt": make_prompt(draw, options.prompt_tokens, options.text, beginning), "stream": True,
                "ignore_eos": True, "max_tokens": options.answer_tokens, "temperature": 0,
                "stream_options": {"include_usage": True}}
        if options.model:
            body["model"] = options.model
        try:
            results.append(await asyncio.wait_for(ask(host, port, body, options.api_key), options.timeout))
        except (OSError, RuntimeError, ValueError, IndexError, asyncio.TimeoutError) as error:
            failures.append(repr(error))


def percentile(values, share):
    """The smallest value that so large a share does not pass."""
    return sorted(values)[max(0, -(-len(values) * share // 100) - 1)]


async def run(options, n_clients):
    url = urlsplit(options.url)
    results, failures = [], []
    began = time.monotonic()
    # Seeds differ between runs, too: a server that was asked before has nothing of these in its cache.
    seed = f"{options.seed}/{n_clients}"
    beginning = make_prompt(random.Random(seed), options.shared_tokens, options.text)
    await asyncio.gather(*(client(url.hostname, url.port or 80, options, f"{seed}/{index}", beginning, results, failures)
                           for index in range(n_clients)))
    seconds = time.monotonic() - began
    firsts, wholes = [result[0] * 1e3 for result in results], [result[1] * 1e3 for result in results]
    line = {"clients": n_clients, "requests": n_clients * options.requests, "failures": len(failures)}
    if results:
        line |= {"first_token_ms": {"mean": round(statistics.mean(firsts), 1), "p50": round(percentile(firsts, 50), 1),
                                    "p95": round(percentile(firsts, 95), 1)},
                 "answer_p95_ms": round(percentile(wholes, 95), 1),
                 "tok_s": round(sum(result[2] for result in results) / seconds, 1)}
    if failures:
        line["first_failure"] = failures[0]
    return line


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--url", default="http://127.0.0.1:8080")
    parser.add_argument("--clients", default="1,3,5,8,12")
    parser.add_argument("--requests", type=int, default=8, help="of each client")
    parser.add_argument("--prompt-tokens", type=int, default=70)
    parser.add_argument("--answer-tokens", type=int, default=48)
    parser.add_argument("--shared-tokens", type=int, default=0, help="with which all prompts begin")
    parser.add_argument("--text", action="store_true", help="prompts of words, about as many tokens")
    parser.add_argument("--model", help="for servers that need its name")
    parser.add_argument("--api-key", help="for servers that want one")
    parser.add_argument("--seed", default=str(time.time_ns()))
    parser.add_argument("--timeout", type=float, default=600, help="seconds for one answer")
    parser.add_argument("--json", action="store_true", help="one object a line")
    options = parser.parse_args()
    failed = False
    if not options.json:
        print("clients  first token ms: mean    P50    P95  answer P95 ms   tok/s  failures")
    for n_clients in map(int, options.clients.split(",")):
        line = asyncio.run(run(options, n_clients))
        failed |= line["failures"] > 0
        if options.json:
            print(json.dumps(line), flush=True)
        elif "tok_s" in line:
            first = line["first_token_ms"]
            print(f"{n_clients:7}  {first['mean']:20.0f} {first['p50']:6.0f} {first['p95']:6.0f} "
                  f"{line['answer_p95_ms']:14.0f} {line['tok_s']:7.1f} {line['failures']:9}", flush=True)
        if failed and not options.json:
            print(f"         {line.get('first_failure', '')}", file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
