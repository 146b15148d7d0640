"""bench/drafts: all of its rows against a tiny model; the texts of both servers are the same."""
import json
import os
import subprocess
import sys
from pathlib import Path

BENCH = Path(__file__).resolve().parents[2] / "bench"


def test_each_row(runnel, tiny, tmp_path):
    record, page = tmp_path / "record.json", tmp_path / "page.md"
    done = subprocess.run([sys.executable, BENCH / "drafts", tiny(), "--runnel", runnel, "--rounds", "1", "--tokens", "60", "--json", record,
                           "--markdown", page], capture_output=True, text=True, env={**os.environ, "RUNNEL_KV_CACHE_MIB": "64"})
    assert done.returncode == 0, done.stderr
    record = json.loads(record.read_text())
    assert record["differing"] == []
    assert [row["kind"] for row in record["rows"]] == ["one"] * 6 + ["again"] * 2 + ["many", "hot", "strange"]
    for row in record["rows"]:
        assert row["ratio"] > 0 and all(pair["drafting"]["n"] == pair["plain"]["n"] > 0 for pair in row["pairs"])
        assert all(pair["plain"]["draft_n"] == 0 for pair in row["pairs"])
        assert f"| {row['name']} |" in page.read_text()
    again = next(row for row in record["rows"] if row["name"] == "the same seed")
    assert again["pairs"][0]["drafting"]["accepted_n"] > 20  # its own history of 60 tokens


def test_an_unknown_row(tiny):
    done = subprocess.run([sys.executable, BENCH / "drafts", tiny(), "--only", "some"], capture_output=True, text=True)
    assert done.returncode == 2 and "--only: expected some of one, again" in done.stderr
