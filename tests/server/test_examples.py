"""The programs in docs/examples and those in the text of README.md and docs/quickstart.md, run as their readers would run them."""
import re
import shlex
import shutil
import subprocess
import sys

import pytest
from serving import ONE_WORKER, ROOT

EXAMPLES = ROOT / "docs" / "examples"


def run(name, url, *arguments, text=None):
    """What it prints; it must succeed and say nothing on stderr."""
    done = subprocess.run([sys.executable, EXAMPLES / name, "--url", url, *arguments], input=text or "",
                          capture_output=True, text=True, timeout=240)
    assert done.returncode == 0 and not done.stderr, done.stderr
    return done.stdout


@pytest.fixture
def made_up(serve, tiny):
    """A model with made-up weights: its texts mean nothing, its tokens are letters, and it thinks as R1 does. Prompts are shared in
    the cache of one worker."""
    return serve(tiny("r1"), *ONE_WORKER, "--ctx", "1024", "--batch-window-ms", "20")


def customers(url, *arguments):
    """[(tokens of the prompt, of these cached)]"""
    text = run("customer_service.py", url, *arguments)
    return [(int(n_prompt), int(n_cached))
            for n_cached, n_prompt in re.findall(r"\[[\d.]+ s, (\d+) of (\d+) prompt tokens cached\]", text)]


def lines_of(url, *arguments):
    """{character: line}"""
    text = run("game_characters.py", url, *arguments)
    found = dict(re.findall(r"^(\w+): ?(.*)\n    \[(?:first text|no text)", text, re.M))
    assert set(found) == {"Guard", "Smith", "Witch", "Child"}, text
    return found


def test_customers_share_the_system_prompt(made_up):
    counts = customers(made_up.url, "--max-tokens", "8")
    assert len(counts) == 4
    for n_prompt, n_cached in counts:
        assert n_cached >= 0.7 * n_prompt, counts


def test_the_assistant_keeps_its_budget(made_up):
    text = run("assistant.py", made_up.url, "--budget", "8", "--max-tokens", "40", "--seed", "1", text="Hello\n")
    counts = re.findall(r"^\[(\d+) tokens, (\d+) of them thoughts.*\]$", text, re.M)
    assert len(counts) == 1, text
    n_tokens, n_thought = map(int, counts[0])
    assert 0 < n_thought <= 16 and n_thought < n_tokens <= 40, counts  # 8, and those of </think>
    assert "\n---\n" in text


def test_characters_say_the_same_with_the_same_seed(made_up):
    first = lines_of(made_up.url, "--seed", "3")
    assert lines_of(made_up.url, "--seed", "3") == first
    assert lines_of(made_up.url, "--seed", "4") != first


def test_a_real_model(serve, smollm2):
    server = serve(smollm2, *ONE_WORKER, "--temp", "0", "--ctx", "2048", kv_mib=128)
    assert "12 euros" in run("customer_service.py", server.url, "What does it cost to repair a puncture?")
    said = lines_of(server.url)
    assert all(len(line) > 5 for line in said.values()), said
    hits = server.metric("vllm:prefix_cache_hits_total")
    text = run("assistant.py", server.url, "--max-tokens", "60", text="What is 2 + 2?\nWhat is the capital of France?\n")
    assert "4" in text and "Paris" in text, text
    assert server.metric("vllm:prefix_cache_hits_total") > hits  # the second prompt begins with the first question


def blocks_of(page, language):
    """The fenced blocks of a page in a language."""
    return re.findall(rf"^```{language}\n(.*?)^```", (ROOT / page).read_text(), re.S | re.M)


@pytest.mark.parametrize("page", ["README.md", "docs/quickstart.md"])
@pytest.mark.parametrize("kind", ["qwen2", "r1"])  # one that does not think, and one that does
def test_python_in_the_text_runs(serve, tiny, page, kind):
    server = serve(tiny(kind), "--ctx", "512", "--max-tokens", "32")
    blocks = blocks_of(page, "python")
    assert len(blocks) == 1
    done = subprocess.run([sys.executable, "-c", blocks[0].replace("http://127.0.0.1:8080", server.url)],
                          capture_output=True, text=True, timeout=120)
    assert done.returncode == 0 and done.stdout.strip(), done.stderr


@pytest.mark.parametrize("page", ["README.md", "docs/quickstart.md"])
def test_curl_in_the_text_is_answered(serve, tiny, page):
    if not shutil.which("curl"):
        pytest.skip("curl is not installed")
    server = serve(tiny(), "--ctx", "512", "--max-tokens", "32")
    text = "".join(blocks_of(page, "")).replace("\\\n", " ")
    commands = re.findall(r"^curl .*$", text, re.M)
    assert commands, page
    for command in commands:
        arguments = shlex.split(command.replace("http://127.0.0.1:8080", server.url))
        done = subprocess.run([*arguments, "--fail", "--silent"], capture_output=True, text=True, timeout=120)
        assert done.returncode == 0 and done.stdout, (command, done.stderr)
