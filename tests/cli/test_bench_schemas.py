"""bench/schemas in its smallest form, without the peer: that it counts what passes, and would see an invalid instance that is taken."""
import json
import math
import subprocess
import sys
from pathlib import Path

import pytest

BENCH = Path(__file__).resolve().parents[2] / "bench"
sys.path.insert(0, str(BENCH))
from constraining import counting, report, vocabulary  # noqa: E402 (the path comes first)


def result(accepted, *mask_us):
    return {"accepted": accepted, "tokens": 2, "mask_us": list(mask_us)}


def answer(*results, error=None, compile_ms=1.0):
    return {"error": error, "compile_ms": compile_ms, "results": list(results)}


@pytest.mark.parametrize("said, valid, expected", [
    ([True, False], [True, False], counting.TAKEN), ([], [], counting.TAKEN), ([False, False], [True, False], counting.VALID_REFUSED),
    ([True, True], [True, False], counting.INVALID_TAKEN), ([False, True], [True, False], counting.INVALID_TAKEN),
])
def test_outcomes(said, valid, expected):
    assert counting.outcome(answer(*map(result, said)), valid) == expected
    assert counting.outcome(answer(error="unknown keyword"), valid) == counting.REFUSED


def test_results_must_be_as_many_as_instances():
    with pytest.raises(AssertionError):
        counting.outcome(answer(result(True)), [True, False])


def test_percentiles():
    assert [counting.percentile(range(1, 101), share) for share in (50, 99, 100)] == [50, 99, 100]
    assert counting.percentile([7], 99) == 7 and math.isnan(counting.percentile([], 50))


def test_figures_of_both_are_of_the_same_work():
    rows = [{"name": "a", "valid": [True, False], "runnel": answer(result(True, 1, 2), result(False, 3)),
             "llguidance": answer(result(True, 10, 20), result(False, 30, 40), compile_ms=2.0)},
            {"name": "b", "valid": [True], "runnel": answer(result(True, 100), compile_ms=9.0), "llguidance": answer(error="not known", compile_ms=5.0)}]
    own, its = counting.figures(rows, "runnel", "llguidance"), counting.figures(rows, "llguidance", "runnel")
    assert own["outcomes"] == {"passes": 2, "refused": 0, "valid refused": 0, "invalid taken": 0} and its["outcomes"]["refused"] == 1
    assert own["mask_us"]["n"] == 4 and own["mask_us"]["max"] == 100 and its["mask_us"]["n"] == 4
    assert own["of both"]["mask_us"]["mean"] == 1.5 and its["of both"]["mask_us"]["mean"] == 15
    assert (own["of both"]["schemas"], own["of both"]["compile_ms"]["max"]) == (1, 1.0) and its["compile_ms"]["n"] == 1
    assert counting.slowest(rows, "runnel", 1) == {"mask_us": [(100, "b")], "compile_ms": [(9.0, "b")]}
    record = {"figures": {"runnel": own, "llguidance": its}, "schemas": 2, "tokens": 6, "machine": {"cores": 2},
              "load": {"before": {"load_average": 0}, "after": {"load_average": 1.5}}}
    table = report.table(record)
    assert "| passes | 2 (100.0 %) | 1 (50.0 %) |" in table and "not met" not in table and "busy (load 1.5" in table
    own["of both"]["mask_us"]["p99"], own["outcomes"]["invalid taken"] = 21, 1
    table = report.table(record)
    assert "no invalid instance is taken: not met" in table and "p99 no slower: not met" in table and "mean no slower: met" in table


def test_tokenizer_json(tiny):
    """The tiny one has the bytes first, then tokens that are added to them."""
    text, n_tokens, end = vocabulary.tokenizer_json(tiny())
    found = json.loads(text)
    assert len(found["model"]["vocab"]) >= 256 and sorted(found["model"]["vocab"].values())[:256] == list(range(256))
    added = {token["content"]: token for token in found["added_tokens"]}
    assert added["<|im_end|>"]["special"] and not added["<think>"]["special"]
    assert 0 < end < n_tokens and found["model"]["merges"]
    with pytest.raises(ValueError, match="Qwen2"):
        vocabulary.tokenizer_json(tiny("sentencepiece"))


def run(runnel, model, tmp_path, schemas, *options):
    file = tmp_path / "schemas.jsonl"
    file.write_text("".join(json.dumps(schema) + "\n" for schema in schemas))
    done = subprocess.run([sys.executable, BENCH / "schemas", model, file, "--without-peer", "--runnel", runnel, "--json", tmp_path / "record.json", "--markdown",
                           tmp_path / "table.md", *options], capture_output=True, text=True, timeout=120)
    assert (tmp_path / "table.md").read_text() == done.stdout, done.stderr
    return done, json.loads((tmp_path / "record.json").read_text())


SCHEMAS = [
    {"name": "good", "schema": {"const": 12}, "tests": [{"valid": True, "data": 12}, {"valid": False, "data": 13}]},
    {"name": "unknown", "schema": {"type": "nonsense"}, "tests": [{"valid": True, "data": 1}]},
    {"name": "strict", "schema": {"type": "string"}, "tests": [{"valid": True, "data": 1}]},
    {"name": "loose", "schema": {"type": "string"}, "tests": [{"valid": True, "data": "\ud800é"}, {"valid": False, "data": "x"}]},
]


def test_small_run(runnel, tiny, tmp_path):
    done, record = run(runnel, tiny(), tmp_path, SCHEMAS, "--limit", "3")
    assert done.returncode == 0, done.stderr
    assert [row["runnel"]["outcome"] for row in record["rows"]] == ["passes", "refused", "valid refused"]
    assert record["figures"]["runnel"]["outcomes"] == {"passes": 1, "refused": 1, "valid refused": 1, "invalid taken": 0}
    assert record["tokens"] == 5 and record["figures"]["runnel"]["mask_us"]["n"] == 5 and record["slowest"]["runnel"]["mask_us"]
    done, record = run(runnel, tiny(), tmp_path, SCHEMAS, "--offset", "3")
    assert done.returncode == 1 and "invalid instance" in done.stderr
    assert [row["name"] for row in record["rows"]] == ["loose"] and "| invalid taken | 1 (100.0 %) |" in done.stdout
