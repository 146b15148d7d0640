"""Schemas with instances, and processes that are asked of them, a line each."""
import gzip
import itertools
import json
import os
import subprocess
import sys


def read_schemas(path, offset, limit):
    with (gzip.open if path.endswith(".gz") else open)(path, "rt", encoding="utf-8") as file:
        lines = itertools.islice(file, offset, None if limit is None else offset + limit)
        return [json.loads(line) for line in lines]


def written(value):
    """JSON without spaces, in UTF-8 but for halves of surrogate pairs, which have none."""
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    try:
        text.encode()
    except UnicodeEncodeError:
        text = json.dumps(value, separators=(",", ":"))
    return text


class Asked:
    """A process that answers a line with a line."""

    def __init__(self, *command):
        variables = {name: value for name, value in os.environ.items() if not name.startswith("RUNNEL_")} | {"RAYON_NUM_THREADS": "1"}
        self.command = command
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=variables)

    def read(self):
        line = self.process.stdout.readline()
        if not line:
            sys.exit(f"{self.command[0]} {self.command[1]} ended with status {self.process.wait()}")
        return json.loads(line)

    def ask(self, line):
        self.process.stdin.write(line.encode() + b"\n")
        self.process.stdin.flush()
        return self.read()

    def end(self):
        self.process.stdin.close()
        self.process.wait()
