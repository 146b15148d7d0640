"""runnel eval: perplexity, KL and top-1, compared with what plain Python makes of `runnel logits`; references; what can go wrong."""
import array
import json
import math
import signal
import struct
import subprocess
import time
from pathlib import Path

import pytest
from plain_model import tokens, write_text
from told import told


def command(runnel, model, *args):
    return [runnel, "eval", "-m", str(model), *map(str, args)]


def evaluate(*args):
    return subprocess.run(command(*args), capture_output=True, text=True, timeout=280)


def score(*args):
    done = evaluate(*args, "--json")
    assert done.returncode == 0 and done.stdout.count("\n") == 1, done.stderr
    found = json.loads(done.stdout)
    assert list(found) == ["perplexity", "kl_mean", "top1", "n_tokens"]
    return found


def assert_fails(done, status, *words):
    assert (done.returncode, done.stdout, told(done.stderr).count("\n")) == (status, "", 1), done.stderr
    for word in words:
        assert str(word) in done.stderr, done.stderr


def log_probs(runnel, model, ids, tmp_path):
    """ln of all probabilities after each token."""
    (tmp_path / "ids.json").write_text(json.dumps(ids))
    done = subprocess.run([runnel, "logits", "-m", model, "--ids", tmp_path / "ids.json", "-o", tmp_path / "logits"])
    assert done.returncode == 0
    values = array.array("f", (tmp_path / "logits").read_bytes())
    n_vocab, rows = len(values) // len(ids), []
    for i in range(len(ids)):
        row = values[i * n_vocab:(i + 1) * n_vocab]
        largest = max(row)
        log_sum = largest + math.log(math.fsum(math.exp(value - largest) for value in row))
        rows.append([value - log_sum for value in row])
    return rows


def expected_of(runnel, model, reference, ids, context, tmp_path):
    """The score of a text in chunks, each scored from its second token on."""
    loss, kl, same, n = 0, 0, 0, 0
    for begin in range(0, len(ids), context):
        chunk = ids[begin:begin + context]
        rows = log_probs(runnel, model, chunk, tmp_path)
        others = log_probs(runnel, reference, chunk, tmp_path) if reference else rows
        for row, other, following in zip(rows, others, chunk[1:]):
            loss, n = loss - row[following], n + 1
            if reference:
                kl += math.fsum(math.exp(q) * (q - p) for q, p in zip(other, row))
                same += row.index(max(row)) == other.index(max(other))
    return {"perplexity": math.exp(loss / n), "kl_mean": kl / n, "top1": same / n, "n_tokens": n}


def assert_scores(found, expected):
    assert found["n_tokens"] == expected["n_tokens"]
    assert math.isclose(found["perplexity"], expected["perplexity"], rel_tol=1e-5)
    assert math.isclose(found["kl_mean"], expected["kl_mean"], rel_tol=1e-4, abs_tol=1e-6)
    assert math.isclose(found["top1"], expected["top1"], rel_tol=1e-9)


def test_the_score_of_a_text(runnel, tiny, tmp_path):
    model, other, text = tiny("qwen2"), tiny("qwen2", "Q8_0"), write_text(tmp_path, 30)
    ids = tokens(runnel, model, text)
    assert 60 < len(ids) < 200 and len(ids) % 40 > 1
    for context in (40, 2048):
        reference = tmp_path / f"reference-{context}"
        found = score(runnel, model, "-f", text, "--ctx", context, "--write-reference", reference)
        assert (found["kl_mean"], found["top1"]) == (None, None)
        expected = expected_of(runnel, other, model, ids, context, tmp_path)
        own = expected_of(runnel, model, None, ids, context, tmp_path)
        assert math.isclose(found["perplexity"], own["perplexity"], rel_tol=1e-5)
        assert found["n_tokens"] == own["n_tokens"] == len(ids) - -(-len(ids) // context)
        found = score(runnel, other, "-f", text, "--reference", reference)
        assert_scores(found, expected)
        assert 0.001 < found["kl_mean"] and found["top1"] < 1  # there is something to compare
        assert score(runnel, other, "--reference", reference) == found  # the reference has the tokens
        again = score(runnel, model, "--reference", reference)
        assert again["kl_mean"] < 1e-7 and again["top1"] == 1 and again["perplexity"] == pytest.approx(own["perplexity"])
        assert score(runnel, other, "-f", text, "--ctx", context) == {**found, "kl_mean": None, "top1": None}


def test_a_real_model(runnel, smollm2, tmp_path):
    text, reference = tmp_path / "text.txt", tmp_path / "reference"
    text.write_text("The sky is blue because air scatters short waves more than long ones. 天空为什么是蓝色的?")
    expected = expected_of(runnel, smollm2, None, tokens(runnel, smollm2, text), 2048, tmp_path)
    found = score(runnel, smollm2, "-f", text, "--write-reference", reference)
    assert math.isclose(found["perplexity"], expected["perplexity"], rel_tol=1e-5)
    found = score(runnel, smollm2, "-f", text, "--reference", reference)
    assert found["kl_mean"] < 1e-7 and found["top1"] == 1
    assert reference.stat().st_size == pytest.approx(found["n_tokens"] * 2 * 49152, rel=0.01)


def test_a_part_of_a_text(runnel, tiny, tmp_path):
    model, text = tiny(), write_text(tmp_path, 30)
    expected = expected_of(runnel, model, None, tokens(runnel, model, text)[:21], 2048, tmp_path)
    found = score(runnel, model, "-f", text, "--tokens", 21)
    assert found["n_tokens"] == 20 and math.isclose(found["perplexity"], expected["perplexity"], rel_tol=1e-5)


def rows_of(path):
    """A reference: for each sequence its ids and the first scored position, and the rows (largest, step, top)."""
    data = path.read_bytes()
    assert data[:8] == b"RNLREF\r\n"
    _, _, n_vocab, n_sequences, n_ids, n_rows = struct.unpack_from("<IIIIQQ", data, 8)
    spans = [struct.unpack_from("<II", data, 56 + 8 * i) for i in range(n_sequences)]
    place = 56 + 8 * n_sequences
    ids = list(struct.unpack_from(f"<{n_ids}i", data, place))
    place, sequences = place + 4 * n_ids, []
    for n, first in spans:
        sequences.append((ids[:n], first))
        ids = ids[n:]
    rows = [struct.unpack_from("<ffI", data, place + i * (16 + 2 * n_vocab)) for i in range(n_rows)]
    return sequences, rows


@pytest.mark.parametrize("kind", ["qwen2", "r1"])
def test_own_answers(runnel, tiny, tmp_path, kind):
    """A model agrees with all that it wrote itself, and what it wrote is its greedy answer."""
    model, prompts, reference = tiny(kind), tmp_path / "prompts.txt", tmp_path / "reference"
    prompts.write_text("Why is the sky blue?\n\nWrite a loop.\r\nab\nabc\nabcd")
    found = score(runnel, model, "-f", prompts, "--own-answers", "-n", 24, "--write-reference", reference)
    assert 5 <= found["n_tokens"] <= 5 * 24 and found["top1"] is None
    sequences, rows = rows_of(reference)
    assert len(sequences) == 5 and len(rows) == found["n_tokens"]
    likeliest = iter(rows)
    for ids, first in sequences:
        for following in ids[first + 1:]:
            assert next(likeliest)[2] == following
    again = score(runnel, model, "--reference", reference)
    assert again["top1"] == 1 and again["n_tokens"] == found["n_tokens"] and again["kl_mean"] < 1e-7
    other = score(runnel, tiny(kind, "Q8_0"), "-f", prompts, "--reference", reference)
    assert other["top1"] < 1
    done = evaluate(runnel, model, "--reference", reference)
    assert "quality     100.00 %" in done.stdout


def test_the_table(runnel, tiny, tmp_path):
    model, text, reference = tiny(), write_text(tmp_path, 30), tmp_path / "reference"
    done = evaluate(runnel, model, "-f", text, "--write-reference", reference)
    assert done.returncode == 0 and "perplexity" in done.stdout and "KL" not in done.stdout
    done = evaluate(runnel, model, "-f", text, "--reference", reference)
    assert "perplexity" in done.stdout and "top-1       100.00 %" in done.stdout and "KL          0.000000" in done.stdout


def test_options_that_change_nothing_are_told(runnel, tiny, tmp_path):
    """A reference has its own chunks; a model has no more context than it was trained for."""
    model, text, reference = tiny(), write_text(tmp_path, 30), tmp_path / "reference"
    done = evaluate(runnel, model, "-f", text, "--write-reference", reference, "--ctx", 16, "--tokens", 40)
    assert done.returncode == 0 and "--ctx" not in done.stderr and "--tokens" not in done.stderr, done.stderr
    plain = evaluate(runnel, model, "--reference", reference)
    same = evaluate(runnel, model, "--reference", reference, "--ctx", 16, "--tokens", 40)
    assert plain.returncode == 0 and told(plain.stderr) == told(same.stderr) == "", same.stderr
    done = evaluate(runnel, model, "--reference", reference, "--ctx", 8, "--tokens", 20)
    assert f"--ctx 8: {reference} says how much is computed at once, 16 tokens\n" in done.stderr, done.stderr
    assert f"--tokens 20: {reference} says which, " in done.stderr and done.stdout == plain.stdout
    done = evaluate(runnel, model, "--reference", reference, "--ctx", 2048)  # asked for, though it is the default
    assert f"--ctx 2048: {reference} says" in done.stderr and done.stdout == plain.stdout
    done = evaluate(runnel, model, "-f", text, "--ctx", 1 << 20)
    assert done.returncode == 0 and "--ctx 1048576: the model was trained for " in done.stderr, done.stderr


def test_wrong_texts(runnel, tiny, tmp_path):
    model = tiny()
    for name, content in (("empty", b""), ("one", b"a"), ("bytes", b"a\xffb")):
        (tmp_path / name).write_bytes(content)
    for name, word in (("empty", "too short"), ("one", "too short"), ("bytes", "UTF-8"), ("none", "No such file")):
        assert_fails(evaluate(runnel, model, "-f", tmp_path / name), 1, tmp_path / name, word)
        assert not (tmp_path / "reference").exists()
    (tmp_path / "empty lines").write_text("\n\r\n\n")
    assert_fails(evaluate(runnel, model, "-f", tmp_path / "empty lines", "--own-answers", "--write-reference",
                          tmp_path / "reference"), 1, "empty lines", "a prompt a line")


def test_wrong_references(runnel, tiny, smollm2, tmp_path):
    model, text, reference = tiny(), write_text(tmp_path, 30), tmp_path / "reference"
    assert evaluate(runnel, model, "-f", text, "--write-reference", reference).returncode == 0
    assert_fails(evaluate(runnel, smollm2, "--reference", reference), 1, reference, "another vocabulary", "49152")
    assert_fails(evaluate(runnel, model, "-f", write_text(tmp_path, 31), "--reference", reference), 1, reference,
                 "another text")
    assert_fails(evaluate(runnel, model, "--reference", text), 1, text, "expected a reference")
    assert_fails(evaluate(runnel, model, "--reference", tmp_path / "none"), 1, tmp_path / "none")
    whole = reference.read_bytes()
    for broken in (whole[:-1], whole[:70], whole + b"x", whole[:20] + b"\0\0\0\0" + whole[24:],
                   whole[:24] + b"\xff" * 24 + whole[48:], whole[:56] + b"\xff" * 8 + whole[64:],
                   whole[:64] + b"\xff" * 4 + whole[68:], whole[:8] + b"\x02" + whole[9:]):
        reference.write_bytes(broken)
        assert_fails(evaluate(runnel, model, "--reference", reference), 1, reference)
    words = bytearray(whole)
    words[48] ^= 1  # the same numbers, but of other words
    reference.write_bytes(words)
    assert_fails(evaluate(runnel, model, "--reference", reference), 1, reference, "another vocabulary")


def test_wrong_usage(runnel, tiny, tmp_path):
    model, text = tiny(), write_text(tmp_path, 30)
    for args, word in (([], "-f TEXT"), (["-f", text, "--own-answers"], "--write-reference"), (["-f", text, "--ctx", 1], "--ctx"),
                       (["-f", text, "--reference", "a", "--write-reference", "b"], "--write-reference")):
        assert_fails(evaluate(runnel, model, *args), 2, word)
    assert_fails(evaluate(runnel, model, "-f", text, "--write-reference", "/dev/full"), 1, "/dev/full", "No space")
    for precious in (text, model):
        before = Path(precious).read_bytes()
        assert_fails(evaluate(runnel, model, "-f", text, "--write-reference", precious), 1, precious, "not written over")
        assert Path(precious).read_bytes() == before


def test_interrupted(runnel, smollm2, tmp_path):
    """Ctrl-C leaves no half of a reference."""
    text, reference, part = tmp_path / "text.txt", tmp_path / "reference", tmp_path / "reference.part"
    text.write_text("The sky is blue because air scatters short waves more than long ones. " * 2000)
    running = subprocess.Popen(command(runnel, smollm2, "-f", text, "--write-reference", reference),
                               stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    while running.poll() is None and not (part.exists() and part.stat().st_size > 2 << 20):
        time.sleep(0.01)
    running.send_signal(signal.SIGINT)
    output, _ = running.communicate(timeout=280)
    assert (running.returncode, output) == (130, "")
    assert not reference.exists() and not part.exists()


def test_a_context_without_room(runnel, tiny, tmp_path):
    """A begin token would be all that a chunk has."""
    model, text = Path(tiny("gemma3")), write_text(tmp_path, 20)
    data, key = bytearray(model.read_bytes()), b"gemma3.context_length"
    at = data.index(key) + len(key)
    assert struct.unpack_from("<I", data, at) == (4,)
    struct.pack_into("<I", data, at + 4, 1)
    model.write_bytes(data)
    for arguments in (["eval"], ["imatrix", "-o", tmp_path / "out"]):
        done = subprocess.run([runnel, *map(str, arguments), "-m", model, "-f", text], capture_output=True, text=True, timeout=120)
        assert_fails(done, 1, "at least 2 tokens", "the model has 1")


def test_a_prompt_that_is_too_long(runnel, tiny, tmp_path):
    prompts = tmp_path / "prompts"
    prompts.write_text("Why?\n\n" + "how " * 200 + "\n")
    assert_fails(evaluate(runnel, tiny(), "-f", prompts, "--own-answers", "--ctx", 100, "--write-reference", tmp_path / "out"), 1,
                 f"{prompts}, line 3: the prompt has", "room for 99")
    assert not (tmp_path / "out").exists()


def test_prompts_with_a_zero_byte(runnel, tiny, tmp_path):
    """What comes behind it would be left out without a word."""
    prompts = tmp_path / "prompts"
    prompts.write_bytes(b"Why?\n\0\nHow?\n")
    assert_fails(evaluate(runnel, tiny(), "-f", prompts, "--own-answers", "--write-reference", tmp_path / "out"), 1, prompts, "zero byte")
    assert not (tmp_path / "out").exists()
