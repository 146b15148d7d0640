#!/usr/bin/env python3
"""Writes answers.txt and circles.txt: what small models said, for test_loop_detector.c.

    make_recorded.py answers MODEL.gguf [--runnel PROGRAM] [--threads N]    200 answers or more: explanations, tables, code, lists, numbers
    make_recorded.py circles MODEL.gguf [--runnel PROGRAM] [--threads N]    20 or more texts that end with a cycle that came five times

answers.txt was made with Qwen2.5-Coder-0.5B-Instruct, circles.txt with SmolLM2-135M-Instruct, greedy. An answer that ends in
a cycle by itself belongs to the circles: it is left out, and told.
"""
import argparse
import concurrent.futures
import contextlib
import json
import os
import socket
import subprocess
import sys
import time
import urllib.request

HERE = os.path.dirname(os.path.abspath(__file__))
CYCLE_MIN = 30  # characters, about six tokens; a shorter cycle has to come more often than three times until it is a loop
CYCLE_MAX = 600
CYCLES = 5  # as many of them make a circle of circles.txt; three are no answer any more, and are what the detector has to find

SUBJECTS = ["sorting", "the planets", "bread", "prime numbers", "trains", "rivers of Europe", "a small library", "chess", "cats and dogs",
            "the seasons", "multiplication by 7", "a chat server", "vegetables", "binary numbers", "months and their days", "bicycles",
            "temperatures in a week", "a bank account", "musical notes", "triangles", "weather", "gardens", "coffee", "maps", "sleep", "ships"]
FORMS = ["Explain {} to a child.", "Make a Markdown table about {}, with three columns and eight rows.", "Write a Python program about {}.",
         "List ten facts about {}, one a line.", "Write a JSON array of five objects about {}.", "Write a short poem about {}.",
         "Write a C struct and three functions for {}.", "Compute something about {} step by step.",
         "Write a dialogue of two people about {}.", "Write an HTML page about {}."]
BEGINNINGS = ["Once upon a time there was a", "The answer to 17 + 25 is", "Okay, so I need to find", "I think that the best way to", "Let me think about",
              "The train leaves at nine, and", "First we take the number", "To solve this problem, we", "She said that she would", "The sum of the digits is",
              "Wait, maybe I should", "The capital of the country is", "If x is greater than y, then", "In the year 1900 the", "My favourite colour is",
              "The function returns", "There are three boxes, and", "It is not clear whether", "The doctor told him that", "We know that the triangle",
              "A list of the things we need:", "The reason why it rains is", "One day the king asked", "The cat sat on the", "Suppose that n is even. Then",
              "He walked down the road and", "The probability of that is", "We can write the equation as", "Let us check the result:", "What is the meaning of",
              *(form.format(subject) for form in ("I like {}, and I think that", "What do we know about {}? We know that", "A poem about {}:\n")
                for subject in SUBJECTS)]


def read_arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["answers", "circles"])
    parser.add_argument("model", metavar="MODEL")
    parser.add_argument("--runnel", default=os.path.join(HERE, "..", "..", "build", "runnel"), metavar="PROGRAM")
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    return parser.parse_args()


@contextlib.contextmanager
def serving(options):
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    url = f"http://127.0.0.1:{port}"
    command = [options.runnel, "serve", "-m", options.model, "--threads", str(options.threads), "--port", str(port), "--max-wait-s", "0",
               "--parallel", "8", "--ctx", "2048", "--request-timeout-s", "0"]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        try:
            while True:
                with contextlib.suppress(OSError):
                    urllib.request.urlopen(url + "/health", timeout=60).close()
                    break
                time.sleep(0.2)
            yield url
        finally:
            process.terminate()


def ask(url, path, body):
    request = urllib.request.Request(url + path, json.dumps(body).encode(), {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=3600) as response:
        return json.load(response)["choices"][0]


def find_circle(text, cycles=CYCLES, length_min=1):
    """(begin, length of the cycle) if the text ends with a cycle that came that often; the shortest cycle, from its first time on."""
    for length in range(length_min, CYCLE_MAX + 1):
        begin = len(text) - length
        while begin > 0 and text[begin - 1] == text[begin - 1 + length]:
            begin -= 1
        if len(text) - begin >= cycles * length:
            return begin, length
    return None


def record_answers(url, clients):
    prompts = [form.format(subject) for form in FORMS for subject in SUBJECTS]
    answers = clients.map(lambda prompt: ask(url, "/v1/chat/completions", {
        "messages": [{"role": "user", "content": prompt}], "temperature": 0, "max_tokens": 200})["message"]["content"], prompts)
    for prompt, text in zip(prompts, answers):
        if find_circle(text, 3, CYCLE_MIN):
            print(f"left out, it goes in circles: {prompt}", file=sys.stderr)
        else:
            yield prompt, text.strip("\n")


def record_circles(url, clients):
    texts = clients.map(lambda begin: begin + ask(url, "/v1/completions", {"prompt": begin, "temperature": 0, "max_tokens": 300})["text"], BEGINNINGS)
    for begin, text in zip(BEGINNINGS, texts):
        circle = find_circle(text)
        if not circle:
            print(f"left out, it ends in no cycle: {begin}", file=sys.stderr)
            continue
        at, length = circle
        if length < CYCLE_MIN:
            print(f"left out, its cycle is short: {begin}", file=sys.stderr)
            continue
        yield f"{len(text[:at].encode())} {len(text[at:at + length].encode())}", text[:at + CYCLES * length]


def main():
    options = read_arguments()
    with serving(options) as url, concurrent.futures.ThreadPoolExecutor(8) as clients:
        record = record_answers if options.what == "answers" else record_circles
        texts = list(record(url, clients))
    said = "answers" if options.what == "answers" else "texts that end in a cycle; a name is where it begins and how long it is, in bytes"
    with open(os.path.join(HERE, options.what + ".txt"), "w", encoding="utf-8") as file:
        file.write(f"# {len(texts)} {said}, as make_recorded.py recorded them of {os.path.basename(options.model)}\n")
        for name, text in texts:
            file.write(f"\n=== {name}\n{text}\n")
    print(f"{len(texts)} {options.what}")


if __name__ == "__main__":
    main()
