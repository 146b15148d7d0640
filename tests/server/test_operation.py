"""What docs, alerts and the unit name is what the server has: options, metrics, headers, and the texts of its errors and its log."""
import re
import shutil
import subprocess
import sys

import pytest
from serving import ROOT, RUNNEL, run_serve

ALERTS = ROOT / "deploy" / "prometheus" / "alerts.yml"
OPTION = r"(?<![\w-])--[a-z][a-z0-9-]+"
NAME = r"(?:vllm:|runnel_|deepseek_|process_)\w+"


@pytest.fixture
def families(serve, tiny):
    """The names of all metrics, without _bucket, _sum and _count."""
    _, _, text = serve(tiny()).get("/metrics")
    return set(re.findall(rf"^# TYPE ({NAME})", text.decode(), re.M))


def test_every_metric_is_explained_and_no_other(families):
    text = (ROOT / "docs" / "operation.md").read_text()
    table = text.split("## Metrics")[1].split("## Memory")[0]
    explained = set(re.findall(rf"`({NAME})[`{{]", table))
    groups = tuple(re.findall(r"`((?:runnel_|process_)\w*)\*`", table))
    assert explained - families <= {"deepseek_gpu_memory_percent"}  # where there is a GPU
    assert {name for name in families - explained if not name.startswith(groups)} <= {"runnel_connections_accepted_total"}


def test_alerts_ask_for_metrics_that_exist(families):
    asked = set(re.findall(NAME, "\n".join(re.findall(r"expr: (.*)", ALERTS.read_text()))))
    assert len(asked) > 5
    assert {re.sub("_bucket$", "", name) for name in asked} <= families


def test_prometheus_reads_the_alerts():
    promtool = shutil.which("promtool")
    if not promtool:
        pytest.skip("promtool is not installed")
    done = subprocess.run([promtool, "check", "rules", ALERTS], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def test_every_option_that_is_named_exists():
    """In what an operator reads; in the other direction docs/reference.md is generated."""
    existing = set()
    overview = subprocess.run([RUNNEL, "help"], capture_output=True, text=True, check=True).stdout
    commands = re.findall(r"^  (\w+) ", overview, re.M)
    assert {"run", "serve", "convert"} <= set(commands)
    scripts = [ROOT / "bench" / "load" / f"{name}.py" for name in ("load", "pairs", "kills", "changes", "soak")]
    for program in [*([RUNNEL, command] for command in commands), *([sys.executable, script] for script in scripts)]:
        existing |= set(re.findall(OPTION, subprocess.run([*program, "--help"], capture_output=True, text=True,
                                                          check=True).stdout))
    of_others = {"--cflags", "--libs", "--no-install-recommends", "--now", "--storage", "--web", "--homepath", "--strip-components",
                 "--data-urlencode"}
    pages = [ROOT / "README.md", ROOT / "deploy/systemd/runnel.service"]
    pages += [ROOT / "docs" / f"{name}.md" for name in ("operation", "page", "quickstart", "server", "tuning", "templates", "model-files", "two-servers")]
    named = {(page.name, option) for page in pages for option in re.findall(OPTION, page.read_text())}
    assert len(named) > 50
    assert {(page, option) for page, option in named if option not in existing | of_others} == set()


def test_numbers_of_the_loop_detector_are_told():
    """How many tokens make a loop of what a cycle is, and of how many it is found at its third time."""
    source = (ROOT / "src" / "engine" / "loop_detector.c").read_text()
    least = [int(re.search(rf"\b{kind}_MIN = (\d+)", source)[1]) for kind in ("SENTENCES", "CLAUSES", "LISTS", "LETTERS", "MARKUP", "SIGNS")]
    section = (ROOT / "docs" / "thoughts.md").read_text().split("## Loops and end tokens")[1].split("\n## ")[0]
    told = re.findall(r"^\|[^|]+\| ([\d,]+) \| (\d+)", section, re.M)
    assert [(int(tokens.replace(",", "")), int(cycle)) for tokens, cycle in told] == [(n, (n + 2) // 3) for n in least]


def test_what_kubernetes_sets_for_a_service_of_this_name(serve, tiny):
    """The message is in the table as the program prints it, and the command line goes before such a variable."""
    links = {"RUNNEL_PORT": "tcp://10.96.0.12:8080", "RUNNEL_SERVICE_HOST": "10.96.0.12", "RUNNEL_PORT_8080_TCP": "tcp://10.96.0.12:8080"}
    done = run_serve("-m", tiny(), env=links)
    text = (ROOT / "docs" / "operation.md").read_text()
    assert done.returncode == 2 and f"`{done.stderr.strip()}`" in text and "`enableServiceLinks: false`" in text
    assert not any("RUNNEL_" in line for line in serve(tiny(), env=links).lines)


def test_headers_and_fields_of_the_log_are_explained():
    sources = {file.name: file.read_text() for file in (ROOT / "src" / "server").rglob("*.c")}
    text = "".join((ROOT / "docs" / f"{name}.md").read_text() for name in ("server", "operation"))
    headers = set(re.findall(r"\bX-(?:Runnel|Request|Api)-\w+", text))
    assert headers == set(re.findall(r"\bX-(?:Runnel|Request|Api)-\w+", "".join(sources.values())))
    fields = set(re.findall(r'\(&?line, "(\w+)"', sources["record.c"]))
    assert len(fields) > 15
    log = text.split("## The log")[1] + text.split("## The log")[2]
    assert {field for field in fields if not re.search(rf"\b{field}\b", log)} == set()
    assert set(re.findall(r"\b[a-z]+_ms\b", log)) <= fields


def test_systemd_reads_the_unit(tmp_path):
    analyze = shutil.which("systemd-analyze")
    if not analyze:
        pytest.skip("systemd-analyze is not installed")
    unit = tmp_path / "runnel.service"
    unit.write_text((ROOT / "deploy/systemd/runnel.service").read_text().replace("/usr/local/bin/runnel", str(RUNNEL.resolve())))
    done = subprocess.run([analyze, "verify", unit], capture_output=True, text=True)
    assert done.returncode == 0 and "runnel.service" not in done.stderr, done.stderr


# Of the texts below: names (also of options, for the library's fields) and numbers, which the program fills in, and what is left out.
FILLED_IN = (r"^runnel: \S+ |\.\.\.|--host [\d.]+|string, but only [0-9]+ bytes are left in the file|\b\d[\d.]*\b|'NAME'|\"\S+\"|"
             r"--chat-template|\(r1, chatml\)|Permission denied|No such file or directory|FOLDER/\S+\.gguf|^runnel serve: |RUNNEL_PORT|'tcp://\S+'|: ")


def test_texts_of_the_troubleshooting_table_are_in_the_program():
    """Those of its first two columns that are longer than a name, word for word."""
    sources = " ".join(file.read_text() for file in sorted((ROOT / "src").rglob("*.c")))
    literals = re.sub(r'"\s*\n\s*"', "", sources)
    table = (ROOT / "docs" / "operation.md").read_text().split("## When something is wrong")[1]
    texts = [text for line in table.splitlines() if line.startswith("|")
             for text in re.findall(r"`([^`]+)`", " ".join(line.split("|")[1:3])) if text.count(" ") > 3]
    assert len(texts) > 15
    missing = {part.strip(" :,()"): text for text in texts for part in re.split(FILLED_IN, text)
               if part.strip(" :,()") not in literals}
    assert not missing


def test_tests_of_what_is_promised_are_there():
    """Each row of that table names some, by file and by function."""
    table = (ROOT / "docs" / "development.md").read_text().split("## What is promised, and its tests")[1].split("\n## ")[0]
    rows = [line.split("|")[2] for line in table.splitlines() if line.startswith("| ")][1:]
    assert len(rows) > 20
    for row in rows:
        file = None
        for name in re.findall("`([^`]+)`", row):
            if "/" in name:
                file = ROOT / "tests" / name
                assert file.exists(), name
            else:
                assert re.search(rf"^(?:def|static void) {name}\(", file.read_text(), re.M), (file, name)
        assert file, row
