"""A memory limit as a container has it: a cgroup that a test makes, and in which the server lives that it starts."""
import contextlib
import os
import re
import time
from pathlib import Path

import pytest
from serving import BY_THEN

ROOT = Path("/sys/fs/cgroup")


def folders():
    """Where this process may make a group with a limit: (folder, whether it is version 2)."""
    for line in Path("/proc/self/cgroup").read_text().splitlines():
        _, controllers, path = line.split(":", 2)
        if "memory" in controllers.split(","):
            yield ROOT / controllers / path.lstrip("/"), False
        elif not controllers:  # a group with processes in it limits no groups within: one above does
            folder = ROOT / path.lstrip("/")
            for above in (folder, *folder.parents):
                with contextlib.suppress(OSError):
                    if "memory" in (above / "cgroup.subtree_control").read_text().split():
                        yield above, True
                if above == ROOT:
                    break


class MemoryGroup:
    def __init__(self, folder, is_v2):
        self.folder = folder / f"runnel-test-{os.getpid()}-{time.monotonic_ns()}"
        self.is_v2 = is_v2
        self.folder.mkdir()
        self.procs = self.folder / "cgroup.procs"

    def limit(self, n_bytes):
        """From now on, and what was the most in use is forgotten where the system can."""
        (self.folder / ("memory.max" if self.is_v2 else "memory.limit_in_bytes")).write_text(str(n_bytes))
        with contextlib.suppress(OSError):  # without swap a limit is one
            (self.folder / ("memory.swap.max" if self.is_v2 else "memory.memsw.limit_in_bytes")).write_text(str(0 if self.is_v2 else n_bytes))

    def used_bytes(self):
        return int((self.folder / ("memory.current" if self.is_v2 else "memory.usage_in_bytes")).read_text())

    def n_killed(self):
        """Processes that the system has ended for want of memory."""
        text = (self.folder / ("memory.events" if self.is_v2 else "memory.oom_control")).read_text()
        found = re.search(r"^oom_kill (\d+)", text, re.M)
        return int(found[1]) if found else 0

    def remove(self):
        """Once its processes are gone."""
        end = time.monotonic() + BY_THEN
        while True:
            try:
                return self.folder.rmdir()
            except OSError:
                assert time.monotonic() < end, self.procs.read_text()
                time.sleep(0.05)


def make_memory_group():
    """Skips the test where none can be made."""
    why = "this process's cgroups have no memory controller for groups within them"
    for folder, is_v2 in folders():
        try:
            group = MemoryGroup(folder, is_v2)
        except OSError as error:
            why = str(error)
            continue
        try:
            group.limit(1 << 40)
            return group
        except OSError as error:
            why = str(error)
            group.remove()
    pytest.skip(f"no memory cgroup can be made here: {why}")
