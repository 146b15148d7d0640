#!/usr/bin/env python3
"""check_tree.py finds what is planted in a copy of the sources: what sees upward, and what closes a circle."""
import shutil
import subprocess
import tempfile
import unittest
from pathlib import Path

import check_tree

CHECKOUT = check_tree.ROOT


class Planted(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.addCleanup(setattr, check_tree, "ROOT", check_tree.ROOT)
        for name in ("src", "include"):
            shutil.copytree(check_tree.ROOT / name, Path(folder.name) / name)
        subprocess.run(["git", "init", "-q", folder.name], check=True)
        check_tree.ROOT = Path(folder.name)

    def plant(self, name, text):
        """Adds text at the end of a file, which may be new."""
        file = check_tree.ROOT / name
        file.parent.mkdir(exist_ok=True)
        with file.open("a") as out:
            out.write(text)

    def found(self, check, *words):
        """One complaint that has all of the words."""
        complaints = check()
        self.assertTrue([one for one in complaints if all(word in one for word in words)], complaints)

    def test_copy_is_in_order(self):
        self.assertEqual(check_tree.check_arrows(), [])
        self.assertEqual(check_tree.check_circles(), [])

    def test_include_of_the_floor_above(self):
        self.plant("src/kernels/team.h", '#include "model/gguf.h"\n')
        self.found(check_tree.check_arrows, "src/kernels/team.h:", "model/gguf.h")

    def test_include_of_the_wing_above(self):
        for name, header in (("src/server/net/loop.c", "server/limits/guard.h"), ("src/server/net/http.h", "server/core/server.h"),
                             ("src/server/limits/breaker.c", "server/core/job.h"), ("src/server/core/job.c", "server/api/reply.h"),
                             ("src/server/api/props.c", "server/routes.h"), ("src/model/template/template_run.c", "model/chat.h"),
                             ("src/kernels/dispatch.c", "kernels/x86/avx2.h")):
            self.plant(name, f'#include "{header}"\n')
            self.found(check_tree.check_arrows, f"{name}:", header)

    def test_include_of_a_neighbour(self):
        self.plant("src/kernels/arm/levels.c", '#include "kernels/x86/cpu.h"\n')
        self.plant("src/kernels/x86/cpu.c", '#include "kernels/arm/levels.h"\n')
        self.found(check_tree.check_arrows, "src/kernels/arm/levels.c:", "kernels/x86/cpu.h")
        self.found(check_tree.check_arrows, "src/kernels/x86/cpu.c:", "kernels/arm/levels.h")

    def test_folder_that_has_no_place(self):
        self.plant("src/server/attic/old.c", '#include "server/net/http.h"\n')
        self.found(check_tree.check_arrows, "src/server/attic/old.c:")

    def test_call_upward_without_an_include(self):
        self.plant("src/server/net/loop.c", "int planted(int n);\nint planted(int n)\n{\n    return job_server(0) && n;\n}\n")
        self.found(check_tree.check_arrows, "src/server/net/loop.c uses job_server of src/server/core/job.c")

    def test_words_in_comments_and_texts_are_no_calls(self):
        self.plant("src/server/net/loop.c", '/* job_n_requests(0) */ // job_n_requests\nstatic const char *const planted = "job_n_requests";\n')
        self.assertEqual(check_tree.check_arrows(), [])

    def test_circle_of_includes(self):
        self.plant("src/engine/output.h", '#include "engine/engine.h"\n')
        self.found(check_tree.check_circles, "engine", "output", "circle")

    def test_circle_of_calls(self):
        self.plant("src/engine/step_cost.c", "int planted(void);\nint planted(void)\n{\n    return scheduler_planted();\n}\n")
        self.plant("src/engine/scheduler.c", "int scheduler_planted(void)\n{\n    return 0;\n}\n")
        self.found(check_tree.check_circles, "src/engine/step_cost.c uses scheduler_planted of src/engine/scheduler.c")

    def test_known_circle_that_is_gone(self):
        self.addCleanup(setattr, check_tree, "CIRCLES", check_tree.CIRCLES)
        check_tree.CIRCLES = {"engine": check_tree.CIRCLES["engine"] | {("output", "engine")}}
        self.found(check_tree.check_circles, "output -> engine", "is gone")

    def test_file_that_is_named_like_an_option(self):
        self.plant("--help", "")
        (check_tree.ROOT / "ARCHITECTURE.md").write_text((CHECKOUT / "ARCHITECTURE.md").read_text())
        self.found(check_tree.check_map, "--help is named like an option")


if __name__ == "__main__":
    unittest.main()
