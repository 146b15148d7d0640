"""What the files of deploy/ say, and what they must agree with."""
import json
import re
import subprocess

import yaml
from serving import ROOT, RUNNEL

DEPLOY = ROOT / "deploy"
DOCKERFILE = DEPLOY / "docker" / "Dockerfile"


def instructions():
    """The instructions of the Dockerfile, stage after stage: [[(name, argument), ...], ...]."""
    text = re.sub(r"^#.*\n", "", DOCKERFILE.read_text(), flags=re.M)
    stages = []
    for line in re.sub(r"\\\n\s*", " ", text).splitlines():
        if line.strip():
            name, argument = line.split(maxsplit=1)
            if name == "FROM":
                stages.append([])
            stages[-1].append((name, argument))
    return stages


def last_of(name):
    """The argument of an instruction that the last stage has once."""
    found = [argument for instruction, argument in instructions()[-1] if instruction == name]
    assert len(found) == 1, (name, found)
    return found[0]


def exec_form(argument):
    """The words of `CMD ["a", "b"]`."""
    words = json.loads(argument[argument.index("["):])
    assert all(isinstance(word, str) for word in words)
    return words


def image_environment():
    return dict(word.split("=", 1) for word in last_of("ENV").split())


def documents(path):
    """What a file of YAML holds."""
    return [document for document in yaml.safe_load_all(path.read_text()) if document]


def options_of_serve():
    return set(re.findall(r"(?<![\w-])--([a-z][a-z0-9-]+)", subprocess.run([RUNNEL, "serve", "--help"], capture_output=True, text=True,
                                                                         check=True).stdout))


def option_default(name):
    """The default of an option of serve, a number."""
    text = subprocess.run([RUNNEL, "serve", "--help"], capture_output=True, text=True, check=True).stdout
    entry = re.split(r"\n\s+(?:-\w, )?--", text.split(f"--{name} ", 1)[1])[0]
    return float(re.search(r"\(default:? ([\d.]+)\)", entry)[1])


def seconds(text):
    """Docker's durations: 10s, 5m."""
    return int(text[:-1]) * {"s": 1, "m": 60}[text[-1]]
