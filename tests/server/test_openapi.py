"""What /openapi.json says is what the server does: schemathesis asks for all of it, right and wrong. With EXAMPLES=N it asks N
times for each route, and for every bound of every field as well."""
import json
import os
import re

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, settings
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (content_type_conformance, response_schema_conformance,
                                               status_code_conformance)
from serving import ROOT, Serving, make_tiny_model

EXAMPLES = int(os.environ.get("EXAMPLES", "0"))
PHASES = (Phase.explicit, Phase.generate) if EXAMPLES else (Phase.generate,)  # bounds are explicit examples: five minutes of them


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    serving = Serving(make_tiny_model(tmp_path_factory.mktemp("model"), "qwen2"), "--ctx", "96", "--parallel", "4",
                      "--max-tokens", "4", "--limit-concurrency", "16")
    yield serving
    serving.stop()


@pytest.fixture(scope="module")
def described(server):
    return server.get("/openapi.json")[2]


@pytest.fixture(scope="module")
def api(server):
    return schemathesis.openapi.from_url(f"http://127.0.0.1:{server.port}/openapi.json")


def test_all_references_resolve(described):
    assert described["openapi"].startswith("3.")
    schemas = described["components"]["schemas"]
    for name in re.findall(r'"\$ref": "([^"]*)"', json.dumps(described)):
        assert name.removeprefix("#/components/schemas/") in schemas, name
    for path, methods in described["paths"].items():
        (operation,) = methods.values()
        assert operation["summary"] and "200" in operation["responses"], path


def test_the_page_is_described(server, described):
    responses = described["paths"]["/"]["get"]["responses"]
    status, headers, _ = server.get("/")
    assert status == 200 and headers.get_content_type() in responses["200"]["content"]
    files = described["paths"]["/web/{file}"]["get"]
    (parameter,) = files["parameters"]
    assert "main.js" in parameter["schema"]["enum"]
    for name in parameter["schema"]["enum"]:
        status, headers, _ = server.get(f"/web/{name}")
        assert status == 200 and headers.get_content_type() in files["responses"]["200"]["content"]


def test_the_routes_are_documented(described):
    text = (ROOT / "docs" / "server.md").read_text()
    for path in described["paths"]:
        assert f"{path}`" in text, f"docs/server.md lacks {path}"


def test_every_documented_route_answers(server, described):
    for path, methods in described["paths"].items():
        (method,) = methods
        if "{" in path:
            (value, *_) = methods[method]["parameters"][0]["schema"].get("enum", ["Tiny%20random%20model"])
            path = path.split("{")[0] + value
        body = {} if method == "post" else None
        status = server.ask(method.upper(), path, body)[0]
        assert status == (400 if method == "post" else 200), path
        assert server.ask("GET" if method == "post" else "POST", path)[0] == 405


schema = schemathesis.pytest.from_fixture("api")
if not EXAMPLES:  # once for routes that have two names
    schema = schema.exclude(path=["/chat/completions", "/chat/completions/input_tokens", "/chat/completions/control", "/completions", "/models",
                                  "/models/{model}"])


@schema.parametrize()
@settings(max_examples=EXAMPLES or 10, phases=PHASES, deadline=None, derandomize=True, database=None,
          suppress_health_check=list(HealthCheck))
def test_it_is_as_described(case):
    case.call_and_validate(checks=[not_a_server_error, status_code_conformance, content_type_conformance,
                                   response_schema_conformance])
