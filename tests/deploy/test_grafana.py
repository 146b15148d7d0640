"""What Grafana's board asks, asked of a real Prometheus that has scraped two servers as deploy/prometheus/prometheus.yml says: each
question has an answer. Without Prometheus test_metrics.py looks at least whether the servers have what is asked for."""
import json
import math
import re
import shutil
import subprocess
import sys
import threading
import time
import urllib.parse
import urllib.request
from pathlib import Path

import pytest
import yaml

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "server"))
from serving import BY_THEN, ROOT, Serving, free_port, make_tiny_model, wait_until  # noqa: E402

PROMETHEUS = shutil.which("prometheus")
if not PROMETHEUS:
    pytest.skip("prometheus is not installed", allow_module_level=True)
CONFIGURATION = ROOT / "deploy" / "prometheus" / "prometheus.yml"
GRAFANA = ROOT / "deploy" / "grafana"


def panels():
    """(title, question), with what Grafana fills in."""
    board = json.loads((GRAFANA / "runnel.json").read_text())
    found = [(panel["title"], target["expr"].replace("$instance", ".*").replace("$__rate_interval", "20s"))
             for panel in board["panels"] for target in panel.get("targets", [])]
    assert len(found) > 30 and not any("$" in question for _, question in found)
    return found


class Prometheus:
    def __init__(self, folder, targets):
        configuration = yaml.safe_load(CONFIGURATION.read_text())
        configuration["global"] = {"scrape_interval": "1s"}
        configuration["rule_files"] = [str(CONFIGURATION.parent / name) for name in configuration["rule_files"]]
        for job in configuration["scrape_configs"]:
            if job["job_name"] == "runnel":
                (group,) = job["static_configs"]
                assert len(group["targets"]) == len(targets)
                group["targets"] = targets
        path = Path(folder) / "prometheus.yml"
        path.write_text(yaml.safe_dump(configuration))
        self.address = f"127.0.0.1:{free_port()}"
        self.log = open(Path(folder) / "prometheus.log", "w+")
        self.process = subprocess.Popen([PROMETHEUS, f"--config.file={path}", f"--storage.tsdb.path={folder}/data",
                                         f"--web.listen-address={self.address}"], stdout=self.log, stderr=self.log)

    def ask(self, path, **query):
        with urllib.request.urlopen(f"http://{self.address}{path}?{urllib.parse.urlencode(query)}", timeout=BY_THEN) as answer:
            return json.loads(answer.read())["data"]

    def values(self, question):
        """Of all series that it gives."""
        return [float(series["value"][1]) for series in self.ask("/api/v1/query", query=question)["result"]]

    def stop(self):
        self.process.terminate()
        self.process.wait(BY_THEN)
        self.log.close()


@pytest.fixture
def two_servers(tmp_path):
    model = make_tiny_model(tmp_path, "qwen2")
    servings = [Serving(model), Serving(model)]
    yield servings
    for serving in servings:
        serving.stop()


@pytest.fixture
def prometheus(two_servers, tmp_path):
    made = Prometheus(tmp_path, [f"127.0.0.1:{serving.port}" for serving in two_servers])
    yield made
    made.stop()


def keep_asking(servings, ended):
    n = 0
    while not ended.wait(0.1):
        for serving in servings:
            serving.post("/v1/chat/completions", {"messages": [{"role": "user", "content": f"Hello {n % 7}"}], "max_tokens": 20})
        n += 1


def test_every_question_of_the_board_has_an_answer(two_servers, prometheus):
    """A number that is one, after some seconds of requests; of both servers where the board tells them apart."""
    ended = threading.Event()
    asking = threading.Thread(target=keep_asking, args=(two_servers, ended), daemon=True)
    asking.start()
    unanswered, end = panels(), time.monotonic() + BY_THEN
    while unanswered:
        assert time.monotonic() < end and prometheus.process.poll() is None, unanswered
        time.sleep(0.5)
        try:
            unanswered = [(title, question) for title, question in unanswered
                          if not (values := prometheus.values(question)) or any(math.isnan(value) for value in values)]
        except OSError:
            pass  # it does not listen yet
    processors = dict(panels())["Processors in use"]
    wait_until(lambda: len(prometheus.values(processors)) == len(two_servers))  # one may have been looked at later than the other
    instances = {f"127.0.0.1:{serving.port}" for serving in two_servers}
    assert set(prometheus.ask("/api/v1/label/instance/values", **{"match[]": "vllm:num_requests_running"})) == instances
    assert len(prometheus.values('max by (instance) (runnel_breaker_state{instance=~".*"})')) == 2
    assert prometheus.values("sum(vllm:generation_tokens_total)")[0] > 0
    left_out = re.search(r'route!~"([^"]*)"', dict(panels())["Answers by status"])[1].split("|")
    assert set(left_out) == {"/health", "/metrics"}
    assert two_servers[0].get("/health")[0] == 200
    wait_until(lambda: set(left_out) <= set(prometheus.ask("/api/v1/label/route/values")))  # what probes get is told apart
    shown = subprocess.run([GRAFANA / "show", "--prometheus", f"http://{prometheus.address}"], capture_output=True, text=True)
    assert shown.returncode == 0, shown.stdout + shown.stderr
    assert {line[:32].strip() for line in shown.stdout.splitlines()} == {title for title, _ in panels()}
    told = {(line[:32].strip(), line[33:61].strip()) for line in shown.stdout.splitlines()}
    assert {("First token", "p99"), *(("Processors in use", instance) for instance in instances)} <= told
    ended.set()
    asking.join(BY_THEN)


def test_the_board_as_text_tells_what_is_missing(tmp_path):
    """No Prometheus at all; and one that has nothing."""
    nobody = subprocess.run([GRAFANA / "show", "--prometheus", f"http://127.0.0.1:{free_port()}"], capture_output=True, text=True)
    assert nobody.returncode == 1 and "expected Prometheus there" in nobody.stderr and not nobody.stdout
    made = Prometheus(tmp_path, [f"127.0.0.1:{free_port()}" for _ in range(2)])
    try:
        end = time.monotonic() + BY_THEN
        while True:
            nothing = subprocess.run([GRAFANA / "show", "--prometheus", f"http://{made.address}"], capture_output=True, text=True)
            if nothing.stdout:
                break
            assert time.monotonic() < end, nothing.stderr
            time.sleep(0.1)
        assert nothing.returncode == 1 and "nothing yet: " in nothing.stdout
    finally:
        made.stop()


def test_the_alerts_were_read(prometheus):
    end = time.monotonic() + BY_THEN
    while True:
        try:
            groups = prometheus.ask("/api/v1/rules")["groups"]
            break
        except OSError:
            assert time.monotonic() < end
            time.sleep(0.1)
    assert {group["name"] for group in groups} == {"runnel"} and len(groups[0]["rules"]) > 5


def test_grafana_finds_prometheus_and_the_board():
    """The files that tell it: the address of the command in prometheus.yml, its interval, and the folder of the board."""
    (source,) = yaml.safe_load((GRAFANA / "provisioning/datasources/prometheus.yml").read_text())["datasources"]
    assert source["type"] == "prometheus" and source["isDefault"]
    address = source["url"].removeprefix("http://")
    assert f"--web.listen-address={address}" in CONFIGURATION.read_text()
    assert source["jsonData"]["timeInterval"] == yaml.safe_load(CONFIGURATION.read_text())["global"]["scrape_interval"]
    (provider,) = yaml.safe_load((GRAFANA / "provisioning/dashboards/runnel.yml").read_text())["providers"]
    assert provider["type"] == "file" and provider["options"]["path"] == "$RUNNEL_GRAFANA"
