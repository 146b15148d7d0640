"""bench/quantize and bench/awq in their smallest form: a tiny model, without the peer and environments."""
import json
import subprocess
import sys
from pathlib import Path

BENCH = Path(__file__).resolve().parents[2] / "bench"


def test_losses_of_a_tiny_model(runnel, tiny, tmp_path):
    text = tmp_path / "text"
    text.write_text("The quick brown fox jumps over the lazy dog. " * 12)
    done = subprocess.run([sys.executable, BENCH / "quantize", "--source", tiny("qwen2", "F32"), "--types", "F16,Q8_0,Q4_K_M,Q2_K", "--without-peer",
                           "--runnel", runnel, "--calibrate", text, "--held-out", text, "--ctx", "128", "--work", tmp_path,
                           "--json", tmp_path / "record.json", "--markdown", tmp_path / "table.md"],
                          capture_output=True, text=True, timeout=280)
    assert done.returncode == 0, done.stderr
    rows = json.loads((tmp_path / "record.json").read_text())["rows"]
    assert [(row["type"], row["importance"]) for row in rows] == [("F16", False), ("Q8_0", False), ("Q8_0", True), ("Q4_K_M", False),
                                                                  ("Q4_K_M", True), ("Q2_K", False), ("Q2_K", True)]
    kl = [row["runnel"]["kl"] for row in rows if not row["importance"]]
    assert kl == sorted(kl) and kl[1] < kl[2] / 10, kl
    assert (tmp_path / "table.md").read_text() == done.stdout and done.stdout.count("| Q4_K_M |") == 2


def test_quality_with_scales_and_without(runnel, tiny, tmp_path):
    prompts, source = tmp_path / "prompts.txt", tiny("qwen2", "F32")
    prompts.write_text("What is a fox?\nWhat does it jump over?\nabc\n\ndef\n")
    done = subprocess.run([sys.executable, BENCH / "awq", source, "--source", source, "--prompts", prompts, "--tokens", "24", "--types",
                           "Q8_0,Q4_K_M", "--runnel", runnel, "--work", tmp_path, "--json", tmp_path / "record.json",
                           "--markdown", tmp_path / "table.md"], capture_output=True, text=True, timeout=280)
    assert done.returncode == 0, done.stderr
    record = json.loads((tmp_path / "record.json").read_text())
    assert [row["type"] for row in record["rows"]] == ["Q8_0", "Q4_K_M"] and 2 <= record["tokens"] <= 48
    for row in record["rows"]:
        assert row["plain"]["tokens"] == row["awq"]["tokens"] == record["tokens"]
        assert 0 < row["plain"]["quality"] <= 1 and 0 < row["awq"]["quality"] <= 1
    for form in ("plain", "awq"):  # both are of the same model, and were compared with its source
        assert record["rows"][0][form]["kl"] < 0.01 < record["rows"][1][form]["kl"], record
    assert (tmp_path / "table.md").read_text() == done.stdout and "| Q4_K_M |" in done.stdout and "goal at least 95%" in done.stdout
