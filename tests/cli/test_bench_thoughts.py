"""bench/thoughts: its questions, and runs against a tiny model that never ends a thought."""
import json
import os
import subprocess
import sys
from pathlib import Path

BENCH = Path(__file__).resolve().parents[2] / "bench"


def run(runnel, tmp_path, model, *options):
    """(exit status, the record, what it said)"""
    file = tmp_path / "record.json"
    done = subprocess.run([sys.executable, BENCH / "thoughts", model, "--runnel", runnel, "--json", file, *options], capture_output=True, text=True,
                          env={**os.environ, "RUNNEL_KV_CACHE_MIB": "64"})
    assert file.exists(), done.stderr
    return done.returncode, json.loads(file.read_text()), done.stdout


def test_the_questions():
    questions = json.loads((BENCH / "thinking" / "questions.json").read_text())["questions"]
    assert len(questions) == len({question["id"] for question in questions}) == len({question["ask"] for question in questions}) == 40


def test_answers_are_counted(runnel, tiny, tmp_path):
    status, record, said = run(runnel, tmp_path, tiny("thinker"), "--max-tokens", "100")
    assert (status, record["n_empty"], record["n_questions"], record["max_tokens"]) == (0, 0, 40, 100)
    assert "0 of 40 answers are empty" in said
    assert sum(record["thinking_end"].values()) == 40 and "None" not in record["thinking_end"]
    for answer in record["answers"]:
        assert answer["answer"].strip() and answer["reasoning_tokens"] <= 100 - 16


def test_empty_ones_are_told(runnel, tiny, tmp_path):
    status, record, said = run(runnel, tmp_path, tiny("thinker"), "--max-tokens", "20", "--answer-reserve", "0", "--only", "sky,ice,moon")
    assert status == 1 and record["n_empty"] == len(record["empty"]) > 0 and record["empty"][0] in said


def test_an_unknown_question(runnel, tiny):
    done = subprocess.run([sys.executable, BENCH / "thoughts", tiny("thinker"), "--only", "nothing"], capture_output=True, text=True)
    assert done.returncode == 1 and "no such question: nothing" in done.stderr
