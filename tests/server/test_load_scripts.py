"""kills.py, changes.py and soak.py of bench/load in their smallest form, and that what they look for would be found."""
import json
import os
import random
import signal
import subprocess
import sys
import xml.etree.ElementTree

import pytest
from serving import BY_THEN, ROOT, RUNNEL, SANITIZED

LOAD = ROOT / "bench" / "load"
sys.path.insert(0, str(LOAD))
import counters  # noqa: E402 (the path comes first)
import kills  # noqa: E402
import trend  # noqa: E402
from asking import Load  # noqa: E402
from family import Server, family_of  # noqa: E402

pytestmark = pytest.mark.skipif(SANITIZED, reason="test_workers.py kills workers under sanitizers; these look at the scripts")


def run_script(name, model, record, *options):
    done = subprocess.run([sys.executable, LOAD / name, model, "--runnel", RUNNEL, "--json", record, *map(str, options)],
                          capture_output=True, text=True, timeout=BY_THEN * 4)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout, json.loads(record.read_text())


def test_kills(tiny, tmp_path):
    table, record = run_script("kills.py", tiny("long"), tmp_path / "record", "--workers", "1,2", "--kills", 2, "--pause", 0, "--clients", 2,
                               "--back-after", 0, "--answer-tokens", 3900, "--flags=--kv-cache-mib 64 --ctx 4096")
    assert [result["workers"] for result in record["results"]] == [1, 2] and "weights" in table
    for result in record["results"]:
        assert result["crashed"] == len(result["first_ms"]) == len(result["ready_ms"]) == 2
        assert not result["failed"] and not result["counter_faults"] and result["counter_samples"] > 1
        assert 0 < result["memory"]["weights"] < result["memory"]["pss"]
    assert record["results"][0]["lost"], "its streams were those of the only worker"


def test_changes(tiny, tmp_path):
    table, record = run_script("changes.py", tiny(), tmp_path / "record", "--other", tiny("llama"), "--rounds", 1, "--quiet", 0, "--clients", 4,
                               "--work", tmp_path, "--flags=--kv-cache-mib 64")
    assert [change["what"] for change in record["changes"]] == ["swap", "workers 1 -> 3", "workers 3 -> 1"]
    assert record["answers"] and not record["failed"] and "0 refused or cut" in table


def test_soak(tiny, tmp_path):
    table, record = run_script("soak.py", tiny(), tmp_path / "record", "--minutes", 0.1, "--kill-every", 2, "--long-tokens", 600,
                               "--svg", tmp_path / "plot.svg", "--flags=--kv-cache-mib 64")
    assert record["kills"] and not record["wrong"] and not record["judged"] and "all well" in table
    assert set(record["endings"]) == {"good", "bad", "slow", "leaving", "huge", "probing"}
    assert record["endings"]["good"]["done"] and record["endings"]["bad"]["done"] and not any(
        endings["otherwise"] for endings in record["endings"].values())
    assert {"supervisor", "keeper", "worker 0", "worker 1", "all"} <= set(record["memory_mib"])
    texts = [element.text for element in xml.etree.ElementTree.parse(tmp_path / "plot.svg").iter() if element.tag.endswith("}text")]
    assert {"open descriptors", "keeper", "worker 1", "minutes"} <= set(texts)


def test_a_stream_that_is_cut_is_a_failure_unless_its_worker_was_killed_here(tiny):
    with Server(RUNNEL, tiny("long"), "--workers", 1, "--kv-cache-mib", 64, "--ctx", 4096) as server:
        load = Load(server, 1, 8, 4000)
        try:
            kills.wait_until(load.all_stream, "it streams")
            server.kill_worker(next(iter(server.workers())))
            kills.wait_until(lambda: load.lost and load.all_stream(), "it streams again")
            assert not load.failed
            os.kill(next(iter(server.workers())), signal.SIGKILL)  # by somebody else
            kills.wait_until(lambda: load.failed, "it is noticed")
        finally:
            load.stop()
        assert len(load.lost) == len(load.failed) == 1
        pid = server.process.pid
    assert not family_of(pid)


def test_counters_that_go_back():
    before = counters.read_counters('# HELP a_total x_total 3\na_total{b="c d"} 5\na_total{b="e"} 2\nx_bucket{le="+Inf"} 4\nx_sum 0.5\ngauge 7\n')
    assert len(before) == 4
    assert counters.gone_back(before, before) == []
    now = {'a_total{b="c d"}': 4.0, 'x_bucket{le="+Inf"}': 4.0, "x_sum": float("nan")}
    assert [line.split(":")[0] for line in counters.gone_back(before, now)] == ['a_total{b="c d"}', 'a_total{b="e"}', "x_sum"]


def test_what_is_called_flat():
    def judge(value):
        return trend.judge([(at, value(at)) for at in range(1200)], 1200, trend.Limit(8, 0.01))

    assert judge(lambda at: 100 + at % 7)["flat"]
    assert judge(lambda at: 100 + 50 * (at < 300))["flat"], "the start does not count"
    assert judge(lambda at: 10 if at % 60 < 3 else 100)["flat"], "nor do holes where a worker was killed"
    draw = random.Random(1)
    assert judge(lambda at: draw.choice([100, 200, 1000]))["flat"], "chance"
    growing = judge(lambda at: 100 + at / 60)
    assert not growing["flat"] and abs(growing["growth"] - 800 / 60) < 0.1 and growing["limit"] == 8
    assert judge(lambda at: 10000 + at / 20)["flat"], "40 of 10,000 are below 1 %"
    assert trend.judge([], 1200, trend.LATENCY)["flat"]


@pytest.mark.skipif(os.environ.get("LOAD_SCRIPTS") != "long", reason="it takes a minute; ctest has it as server_test_load_scripts_long")
def test_kills_and_changes_of_a_real_model(smollm2, tmp_path):
    table, record = run_script("kills.py", smollm2, tmp_path / "kills", "--workers", "1,2", "--kills", 6, "--pause", 1, "--back-after", 0.1,
                               "--answer-tokens", 24)
    assert all(result["crashed"] == len(result["first_ms"]) == 6 and result["answers"] for result in record["results"]), table
    assert "MISSED" not in "".join(line for line in table.splitlines() if "ms:" not in line and "worst" not in line), table
    table, record = run_script("changes.py", smollm2, tmp_path / "changes", "--rounds", 2, "--quiet", 1, "--work", tmp_path)
    assert len(record["changes"]) == 6 and record["answers"] and "0 refused or cut" in table


def times_of(n_workers, ms):
    return {"workers": n_workers, "first_ms": ms, "whole_ms": ms}


def test_times_past_their_goals_are_told():
    median_missed, worst_missed, none = times_of(1, [151] * 3), times_of(1, [100, 100, 401]), times_of(1, [])
    assert kills.missed(times_of(1, [100, 150, 400])) == kills.missed(times_of(2, [1000])) == []
    assert kills.missed(median_missed) == ["1 workers: first token after a kill, ms: median: 151, the goal is 150 (1 worker)",
                                           "1 workers: short answer after a kill, ms: median: 151, the goal is 150 (1 worker)"]
    assert [line.split(": ")[2][:3] for line in kills.missed(worst_missed)] == ["401", "401"]
    assert len(kills.missed(none)) == 4, "nothing was answered"
    median_row = kills.ROWS[0]
    assert [median_row.cell(times) for times in (times_of(1, [20]), median_missed, times_of(2, [999]))] == ["20 met", "151 MISSED", "999"]


def test_memory_that_is_there_twice_is_told():
    result = {"workers": 2, "kills": 1, "crashed": 1, "exit_status": 0, "failed": [], "counter_faults": [],
              "memory": {"weights": 1000, "weights_pss": 1005}}
    assert kills.complaints(result) == []
    result["memory"]["weights_pss"] = 2000
    assert kills.complaints(result) == ["2 workers: the weights are in memory 2.00 times"]
