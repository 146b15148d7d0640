"""With how many threads the program computes under a quota that is no whole number of CPUs. Which number is faster is the
machine's business; that it is measured, said, and only where nobody gave a number, is the program's."""
import contextlib
import json
import os
import re
import subprocess
from pathlib import Path

import pytest

from told import told

SMALL = ("-p", "4", "-n", "2", "-b", "1", "-r", "1")
GROUPS = Path("/sys/fs/cgroup")


@contextlib.contextmanager
def group_of(quota_us):
    """A control group of 100 ms periods, version 1 or 2; gives its cgroup.procs."""
    first, second = GROUPS / "cpu" / f"runnel-test-{os.getpid()}", GROUPS / f"runnel-test-{os.getpid()}"
    folder = first if first.parent.is_dir() else second
    try:
        folder.mkdir()
    except OSError as refused:
        pytest.skip(f"no control group can be made here: {refused}")
    try:
        try:
            if folder == first:
                (folder / "cpu.cfs_period_us").write_text("100000")
                (folder / "cpu.cfs_quota_us").write_text(str(quota_us))
            else:
                (folder / "cpu.max").write_text(f"{quota_us} 100000")
            procs = folder / "cgroup.procs"
            procs.open("a").close()
        except OSError as refused:
            pytest.skip(f"no quota can be set here: {refused}")
        yield procs
    finally:
        folder.rmdir()


def bench(runnel, procs, *args):
    command = ["sh", "-c", 'echo $$ > "$0" && exec "$@"', procs, runnel, "bench", *SMALL, *args]
    done = subprocess.run(command, capture_output=True, text=True, timeout=280)
    assert (done.returncode, told(done.stderr)) == (0, "")
    return done.stdout


def test_a_quota_of_a_cpu_and_a_half(runnel, smollm2):
    if len(os.sched_getaffinity(0)) < 2:
        pytest.skip("one CPU")
    with group_of(150000) as procs:
        said = bench(runnel, procs, "-m", smollm2)
        taken, other, ratio = re.search(r"^threads: (\d) threads?, not (\d): .*?([0-9.]+) times as fast under a quota of 1.5 CPUs$",
                                        said, re.M).groups()
        assert {taken, other} == {"1", "2"} and float(ratio) > 0
        assert f" kernels, {taken} threads" in said
        found = json.loads(bench(runnel, procs, "-m", smollm2, "--json"))
        assert found["threads_why"].startswith(f"{found['threads']} thread")
        found = json.loads(bench(runnel, procs, "-m", smollm2, "--json", "-t", "2"))  # who gives a number gets it, unmeasured
        assert found["threads"] == 2 and "threads_why" not in found
    with group_of(100000) as procs:  # a whole CPU is one thread
        found = json.loads(bench(runnel, procs, "-m", smollm2, "--json"))
        assert found["threads"] == 1 and "threads_why" not in found
