"""bench/quantize in its smallest form: a tiny model, without the peer and its environment."""
import json
import subprocess
import sys
from pathlib import Path

BENCH = Path(__file__).resolve().parents[2] / "bench" / "quantize"


def test_losses_of_a_tiny_model(runnel, tiny, tmp_path):
    text = tmp_path / "text"
    text.write_text("The quick brown fox jumps over the lazy dog. " * 12)
    done = subprocess.run([sys.executable, BENCH, "--source", tiny("qwen2", "F32"), "--types", "F16,Q8_0,Q4_K_M,Q2_K", "--without-peer",
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
