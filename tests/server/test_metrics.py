"""GET /metrics, read by Prometheus' own parser."""
import json
import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families
from serving import N_WORKERS, ONE_WORKER, ROOT

HISTOGRAMS = ("deepseek_request_latency_seconds", "vllm:time_to_first_token_seconds",
              "vllm:inter_token_latency_seconds", "vllm:e2e_request_latency_seconds",
              "vllm:request_queue_time_seconds", "vllm:request_prefill_time_seconds",
              "vllm:request_decode_time_seconds")
COUNTERS = ("deepseek_requests", "vllm:prefix_cache_queries", "vllm:prefix_cache_hits", "vllm:gpu_prefix_cache_queries",
            "vllm:gpu_prefix_cache_hits", "vllm:prompt_tokens",
            "vllm:generation_tokens", "vllm:request_success", "process_cpu_seconds", "runnel_timeouts", "runnel_refusals",
            "runnel_breaker_opened", "runnel_degraded_requests", "runnel_log_lines_lost")
GAUGES = ("deepseek_memory_percent", "vllm:num_requests_running", "vllm:num_requests_waiting",
          "vllm:kv_cache_usage_perc", "vllm:gpu_cache_usage_perc", "vllm:cache_config_info", "process_resident_memory_bytes", "process_start_time_seconds",
          "process_open_fds", "process_max_fds", "process_virtual_memory_bytes", "runnel_pool_in_use_bytes",
          "runnel_memory_used_bytes", "runnel_memory_limit_bytes", "runnel_memory_growth_bytes", "runnel_breaker_state",
          "runnel_engine_wedged", "runnel_requests_admitted", "runnel_requests_admitted_limit",
          "runnel_long_bodies")


def families(serving):
    status, headers, text = serving.get("/metrics")
    assert status == 200 and headers["Content-Type"].startswith("text/plain; version=0.0.4")
    found = {}
    for family in text_string_to_metric_families(text.decode()):
        assert family.name not in found, f"{family.name} comes twice"
        assert family.documentation and family.samples, family.name
        found[family.name] = family
    return found


def test_names_and_types(serve, tiny):
    serving = serve(tiny(), "--alias", 'a "quoted" \\name')
    serving.complete("hello", 3)
    found = families(serving)
    for names, kind in (HISTOGRAMS, "histogram"), (COUNTERS, "counter"), (GAUGES, "gauge"):
        for name in names:
            assert found[name].type == kind, name
    for family in found.values():
        for sample in family.samples:
            if sample.name.startswith("vllm:"):
                assert sample.labels["model_name"] == 'a "quoted" \\name'
    bounds = {sample.labels["le"] for sample in found["vllm:time_to_first_token_seconds"].samples
              if sample.name.endswith("_bucket")}
    assert {"0.01", "0.02", "60", "600", "+Inf"} <= bounds


def test_what_routers_read(serve, tiny):
    """The size of pages, how many there are, and the former names of vLLM, which have the same values."""
    serving = serve(tiny())
    with serving.on_one_connection():
        for _ in range(2):
            serving.post("/v1/completions", {"prompt": [7] * 200, "max_tokens": 10, "ignore_eos": True})
    now = serving.wait_until_idle()
    ((name, size, number),) = (key for key in now if key[0] == "vllm:cache_config_info")
    assert now[(name, size, number)] == 1 and size == "block_size=32"
    pages = sum(value for key, value in now.items() if key[0] == "runnel_kv_pages")
    assert number == f"num_gpu_blocks={pages:.0f}" and pages > 10
    assert now[("vllm:prefix_cache_hits_total",)] > 100
    for name in "cache_usage_perc", "prefix_cache_hits_total", "prefix_cache_queries_total":
        assert now[(f"vllm:gpu_{name}",)] == now[(f"vllm:{'kv_' * name.startswith('cache')}{name}",)], name


def test_every_description_can_be_read_alone(serve, tiny):
    """Dashboards show one without its neighbours: no word points at them, and none is a word or two."""
    for family in families(serve(tiny())).values():
        said = family.documentation
        assert len(said.split()) > 2, (family.name, said)
        assert not re.search(r"(?i)^(of )?(it|that|these|those)\b|\bthere\.|\bit (ever|may)\b|that limit", said), (family.name, said)


def test_promtool_has_nothing_to_say(serve, tiny):
    promtool = shutil.which("promtool")
    if not promtool:
        pytest.skip("promtool is not there: scripts/install-packages check")
    serving = serve(tiny())
    serving.complete("hello", 3)
    checked = subprocess.run([promtool, "check", "metrics"], input=serving.get("/metrics")[2], capture_output=True)
    said = checked.stdout.decode() + checked.stderr.decode()
    # Of names that vLLM, Prometheus and the project itself made long ago it may have opinions.
    said = [line for line in said.splitlines() if not line.startswith("vllm:") and line.strip()]
    assert not said, said


def test_histograms_add_up(serve, tiny):
    serving = serve(tiny())
    for i in range(5):
        serving.complete("hello", 4 + i)
    serving.wait_until_idle()
    found = families(serving)
    for name in HISTOGRAMS:
        buckets = [sample.value for sample in found[name].samples if sample.name == name + "_bucket"]
        sums = {sample.name: sample.value for sample in found[name].samples}
        assert buckets == sorted(buckets), name
        assert buckets[-1] == sums[name + "_count"], name
        assert sums[name + "_sum"] >= 0
        if name != "vllm:inter_token_latency_seconds":
            assert sums[name + "_count"] == 5, name
        else:
            assert sums[name + "_count"] > 0


def test_counters_move(serve, tiny):
    serving = serve(tiny())
    before = serving.metrics()
    assert before[("deepseek_requests_total",)] == 0
    with serving.on_one_connection():
        body = serving.post("/v1/completions", {"prompt": [7] * 200, "max_tokens": 10, "ignore_eos": True})[2]
        serving.post("/v1/completions", {"prompt": [7] * 200, "max_tokens": 10, "ignore_eos": True})
    serving.post("/generate", {"prompt": "hello", "max_tokens": 5})
    assert serving.post("/v1/completions", {"prompt": 5.5})[0] == 400
    assert serving.get("/nowhere")[0] == 404
    for path in ("/health", "/v1/health", "/health"):
        assert serving.get(path)[0] == 200
    assert body["usage"]["prompt_tokens"] == 200
    now = serving.wait_until_idle()
    assert now[("deepseek_requests_total",)] >= 3
    assert now[("deepseek_request_latency_seconds_count",)] == now[("deepseek_requests_total",)]
    assert now[("vllm:generation_tokens_total",)] >= 21
    assert now[("vllm:prompt_tokens_total",)] >= 200
    assert now[("vllm:prefix_cache_queries_total",)] >= 400
    assert now[("vllm:prefix_cache_hits_total",)] > 100
    assert now[("vllm:request_success_total", "finished_reason=length")] >= 2
    assert now[("runnel_http_responses_total", "route=/v1/completions", "status=200")] == 2
    assert now[("runnel_http_responses_total", "route=/generate", "status=200")] == 1
    assert now[("runnel_http_responses_total", "route=other", "status=404")] == 1
    health = ("runnel_http_responses_total", "route=/health", "status=200")
    assert now[health] == before.get(health, 0) + 3
    assert now[("runnel_http_responses_total", "route=/metrics", "status=200")] >= 1
    assert ("runnel_http_responses_total", "route=other", "status=200") not in now, "a probe is no answer to a client"
    assert sum(value for key, value in now.items() if key[0] == "runnel_http_responses_total"
               and "status=400" in key) == 1
    assert now[("process_cpu_seconds_total",)] >= before[("process_cpu_seconds_total",)]
    serving.wait_for(lambda now: now[("runnel_pool_in_use_bytes",)] == 0)  # what the other worker tells may be a second old
    assert now[("runnel_pool_allocations_total",)] > 0
    assert now[("runnel_pool_reuses_total",)] > 0


def test_gauges_follow(serve, tiny):
    serving = serve(tiny("long"), *ONE_WORKER, "--ctx", "8192", "--parallel", "2", kv_mib=64)  # and one queue
    streams = [serving.stream("once", 4000) for _ in range(3)]
    now = serving.wait_for(lambda now: now[("vllm:num_requests_running",)] == 2
                           and now[("vllm:num_requests_waiting",)] == 1)
    assert now[("runnel_exchanges",)] == 4  # this one, too
    assert now[("runnel_connections",)] == 4
    serving.wait_for(lambda now: 0 < now[("vllm:kv_cache_usage_perc",)] <= 1)
    for stream in streams:
        stream.leave()
    now = serving.wait_until_idle()
    assert now[("vllm:kv_cache_usage_perc",)] == 0
    now = serving.wait_for(lambda now: now[("runnel_clients_left_total",)] == 3)
    assert now[("vllm:request_success_total", "finished_reason=abort")] == 3


def test_the_processes_are_these(serve, tiny):
    """Sums of all workers. What others tell may be a second old, with the connection that asked them, and they may be
    starting."""
    serving = serve(tiny(), kv_mib=64)

    def resident(pid):
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGESIZE")

    def agrees(now):
        workers = serving.workers()
        n_now = sum(len(os.listdir(f"/proc/{pid}/fd")) for pid in workers)  # connections that asked may be gone
        return (len(workers) == N_WORKERS and n_now <= now[("process_open_fds",)] <= n_now + N_WORKERS
                and abs(now[("process_resident_memory_bytes",)] - sum(map(resident, workers))) < 8 * N_WORKERS << 20)

    now = serving.wait_for(agrees, pause=0.1)
    assert 0 < now[("deepseek_memory_percent",)] <= 100
    assert now[("process_resident_memory_bytes",)] > 64 * N_WORKERS << 20  # the KV cache is touched at the start


# What the dashboards read ---------------------------------------------------------------------------------

DASHBOARD = ROOT / "deploy/grafana/runnel.json"
NAME = r"(?:vllm:|runnel_|deepseek_|process_)[a-z_:]+"


def queries():
    """{panel: [expression, ...]} of the dashboard for Grafana."""
    dashboard = json.loads(DASHBOARD.read_text())
    found = {f"{panel['title']} ({panel['id']})": [target["expr"] for target in panel["targets"]]
             for panel in dashboard["panels"] if panel["type"] != "row"}
    assert len(found) > 15
    variables = [variable["query"]["query"] for variable in dashboard["templating"]["list"]
                 if variable["type"] == "query"]
    return {**found, "variables": variables}


def test_the_dashboard_asks_for_what_there_is(serve, tiny):
    serving = serve(tiny())
    serving.complete("hello", 3)
    there = {sample.name: set(sample.labels) for family in families(serving).values() for sample in family.samples}
    for panel, expressions in queries().items():
        for expression in expressions:
            names = re.findall(NAME, expression)
            assert names, (panel, expression)
            for name in names:
                assert name in there, (panel, name)
            for labels in re.findall(r"by \(([^)]*)\)", expression):
                for label in labels.split(", "):
                    assert label == "instance" or any(label in there[name] for name in names), (panel, label)


def test_prometheus_understands_the_dashboard(tmp_path):
    promtool = shutil.which("promtool")
    if not promtool:
        pytest.skip("promtool is not there: scripts/install-packages check")
    rules = [{"record": f"panel_{i}", "expr": re.sub(r"\$__rate_interval", "1m", expression)}
             for i, expression in enumerate(expression for panel, expressions in queries().items()
                                            if panel != "variables" for expression in expressions)]
    path = tmp_path / "rules.yml"  # JSON is YAML
    path.write_text(json.dumps({"groups": [{"name": "dashboard", "rules": rules}]}))
    checked = subprocess.run([promtool, "check", "rules", path], capture_output=True, text=True)
    assert checked.returncode == 0 and f"{len(rules)} rules found" in checked.stdout, checked.stdout + checked.stderr
