"""Who may ask, and from where: API keys, Host, Origin, CORS."""
import http.client
import json
import urllib.parse
import socket

import pytest
from serving import ONE_WORKER, free_port, run_serve

CHAT = {"messages": [{"role": "user", "content": "a"}], "max_tokens": 2}


@pytest.fixture(scope="module")
def ask():
    """ask(serving, method, path, headers, body): (status, headers, body as it is)."""
    def ask_with(serving, method, path, headers=(), body=None, host=None):
        connection = serving.connection()
        try:
            connection.putrequest(method, path, skip_host=True)
            connection.putheader("Host", host or f"localhost:{serving.port}")
            payload = None if body is None else json.dumps(body).encode()
            if payload is not None:
                connection.putheader("Content-Type", "application/json")
                connection.putheader("Content-Length", str(len(payload)))
            for name, value in headers:
                connection.putheader(name, value)
            connection.endheaders(payload)
            response = connection.getresponse()
            return response.status, response.headers, response.read()
        finally:
            connection.close()
    return ask_with


def bearer(key):
    return [("Authorization", f"Bearer {key}")]


# --- keys ---


def test_keys(serve, tiny, ask, tmp_path):
    file = tmp_path / "keys"
    file.write_text("# of the office\nfrom-the-file\n")
    serving = serve(tiny(), "--api-key", "one,two", "--api-key", "three", "--api-key-file", str(file))
    for key in ("one", "two", "three", "from-the-file"):
        assert ask(serving, "POST", "/v1/chat/completions", bearer(key), CHAT)[0] == 200
    assert ask(serving, "POST", "/v1/chat/completions", [("x-api-key", "two")], CHAT)[0] == 200
    assert ask(serving, "POST", "/v1/chat/completions", [("authorization", "bearer  two")], CHAT)[0] == 200
    for headers in ([], bearer("four"), bearer("one,two"), bearer(""), [("Authorization", "Basic one")],
                    [("Authorization", "one")], bearer("one") * 2, [("X-Api-Key", "wrong")], bearer("On" + "e" * 5000)):
        status, found, body = ask(serving, "POST", "/v1/chat/completions", headers, CHAT)
        error = json.loads(body)["error"]
        assert (status, error["type"], error["code"]) == (401, "authentication_error", 401), headers
        assert found["WWW-Authenticate"] == "Bearer" and b"four" not in body and b"wrong" not in body
    for path in ("/metrics", "/nowhere", "/v1/completions"):
        assert ask(serving, "GET", path)[0] == 401
        assert ask(serving, "GET", path, bearer("one"))[0] != 401
    name = json.loads(ask(serving, "GET", "/v1/models")[2])["data"][0]["id"]
    for path in ("/v1/models", "/models", "/v1/models/" + urllib.parse.quote(name)):
        for headers in ([], bearer("one"), bearer(""), [("X-Api-Key", "")]):  # an empty key is none
            assert ask(serving, "GET", path, headers)[0] == 200, (path, headers)
        for headers in (bearer("four"), [("Authorization", "Basic one")], [("X-Api-Key", "wrong")], bearer("one") * 2):
            status, _, body = ask(serving, "GET", path, headers)
            assert status == 401 and "is not one of" in json.loads(body)["error"]["message"], (path, headers)
    for path in ("/health", "/v1/health", "/"):
        assert ask(serving, "GET", path)[0] == ask(serving, "GET", path, bearer("four"))[0] == 200
    serving.signal()
    assert serving.wait() == 0
    told = "\n".join(serving.lines)
    assert not any(key in told for key in ("one", "two", "three", "from-the-file"))


def test_key_from_the_environment(serve, tiny, ask):
    serving = serve(tiny(), env={"RUNNEL_API_KEY": "of-the-environment"})
    assert ask(serving, "POST", "/v1/chat/completions", [], CHAT)[0] == 401
    assert ask(serving, "POST", "/v1/chat/completions", bearer("of-the-environment"), CHAT)[0] == 200


def test_401_comes_before_the_body(serve, tiny):
    serving = serve(tiny(), "--api-key", "one")
    with socket.create_connection(("127.0.0.1", serving.port), timeout=5) as client:
        client.sendall(b"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
                       b"Expect: 100-continue\r\nContent-Length: 1000000\r\n\r\n")
        answer = b""
        while more := client.recv(65536):
            answer += more
    assert answer.startswith(b"HTTP/1.1 401 ") and b"Connection: close" in answer


@pytest.mark.parametrize("flags, status, named", [
    (["--api-key", ""], 2, "--api-key"), (["--api-key", "SECRET key"], 2, "--api-key"),
    (["--api-key-file", "/nowhere/keys"], 1, "/nowhere/keys"), (["--cors-origin", "app.example"], 2, "--cors-origin"),
    (["--allowed-host", "http://a"], 2, "--allowed-host"),
])
def test_wrong_flags(tiny, flags, status, named):
    ended = run_serve("-m", tiny(), "--port", str(free_port()), *flags)
    assert ended.returncode == status and named in ended.stderr and ended.stderr.count("\n") == 1
    assert "SECRET" not in ended.stderr


def test_another_address_with_a_key(serve, tiny, ask):
    serving = serve(tiny(), "--host", "0.0.0.0", "--api-key", "one")
    assert ask(serving, "GET", "/health", host="whatever.example")[0] == 200
    assert ask(serving, "POST", "/v1/chat/completions", bearer("one"), CHAT, host="whatever.example")[0] == 200


def test_caches_of_keys_are_apart(serve, tiny, ask):
    serving = serve(tiny(), *ONE_WORKER, "--api-key", "one,two")  # workers' caches are apart, whatever the key
    question = {"prompt": [5] * 200 + [6], "max_tokens": 1}

    def n_cached(key):
        status, _, body = ask(serving, "POST", "/v1/completions", bearer(key), question)
        assert status == 200
        return json.loads(body)["usage"]["prompt_tokens_details"]["cached_tokens"]

    assert n_cached("one") == 0
    assert n_cached("one") > 100
    assert n_cached("two") == 0
    assert n_cached("two") > 100


# --- Host ---


def test_host_rule_on_loopback(serve, tiny, ask):
    serving = serve(tiny(), "--allowed-host", "box.example,*.lan")
    for host in ("localhost", f"127.0.0.1:{serving.port}", "[::1]:80", "box.example:99", "a.lan", "a.localhost"):
        assert ask(serving, "GET", "/health", host=host)[0] == 200, host
    for host in ("evil.example", f"evil.example:{serving.port}", "lan", "box.example.evil.example", "10.0.0.1"):
        status, headers, body = ask(serving, "POST", "/v1/chat/completions", (), CHAT, host=host)
        assert status == 403 and json.loads(body)["error"]["type"] == "permission_error", host
        assert host.encode() not in body
    with socket.create_connection(("127.0.0.1", serving.port), timeout=5) as client:  # no browser speaks so
        client.sendall(b"GET /health HTTP/1.0\r\n\r\n")
        assert client.recv(65536).startswith(b"HTTP/1.1 200 ")


# --- Origin ---


def has_no_cors_headers(headers):
    return not any(name.lower().startswith("access-control") for name in headers)


def test_foreign_origins_are_refused(serve, tiny, ask):
    serving = serve(tiny())
    for origin in ("http://evil.example", "null", f"http://localhost:{serving.port + 1}", ""):
        for method, path, body in (("POST", "/v1/chat/completions", CHAT), ("GET", "/health", None),
                                   ("OPTIONS", "/v1/chat/completions", None)):
            headers = [("Origin", origin), ("Access-Control-Request-Method", "POST")]
            status, found, answer = ask(serving, method, path, headers, body)
            assert status == 403 and has_no_cors_headers(found), (origin, path)
            assert b"evil" not in answer
    status, found, _ = ask(serving, "POST", "/v1/chat/completions",
                           [("Origin", f"http://localhost:{serving.port}")], CHAT)
    assert status == 200 and has_no_cors_headers(found), "its own page"
    assert serving.metric("runnel_http_responses_total", "route=other", "status=403") == 12


def test_cors(serve, tiny, ask):
    origin = "https://app.example"
    serving = serve(tiny(), "--cors-origin", origin + ",http://b.example", "--api-key", "one", "--max-body-bytes",
                    "2000")
    preflight = [("Origin", origin), ("Access-Control-Request-Method", "POST"),
                 ("Access-Control-Request-Headers", "authorization,content-type,x-stainless-os")]
    status, headers, body = ask(serving, "OPTIONS", "/v1/chat/completions", preflight)
    assert status == 200 and not body
    assert headers["Access-Control-Allow-Origin"] == origin and headers["Vary"] == "Origin"
    assert "POST" in headers["Access-Control-Allow-Methods"]
    allowed = [name.strip().lower() for name in headers["Access-Control-Allow-Headers"].split(",")]
    assert {"authorization", "content-type", "x-api-key", "*"} <= set(allowed)
    assert int(headers["Access-Control-Max-Age"]) > 0 and "Access-Control-Allow-Credentials" not in headers
    # what the page then asks has the header whatever the answer: else the page could not read why
    for wanted, key, body in ((200, "one", CHAT), (401, "two", CHAT), (400, "one", {}),
                              (413, "one", {"a": "b" * 2000}), (200, "one", {**CHAT, "stream": True})):
        status, headers, answer = ask(serving, "POST", "/v1/chat/completions", [("Origin", origin)] + bearer(key), body)
        assert status == wanted, answer
        assert headers["Access-Control-Allow-Origin"] == origin and headers["Vary"] == "Origin", wanted
    status, headers, _ = ask(serving, "GET", "/health")
    assert status == 200 and headers["Vary"] == "Origin" and has_no_cors_headers(headers)
    status, headers, _ = ask(serving, "OPTIONS", "/v1/chat/completions",
                             [("Origin", "https://evil.example"), ("Access-Control-Request-Method", "POST")])
    assert status == 403 and has_no_cors_headers(headers)


def test_any_origin(serve, tiny, ask):
    serving = serve(tiny(), "--cors-origin", "*")
    status, headers, _ = ask(serving, "GET", "/health", [("Origin", "https://whatever.example")])
    assert status == 200 and headers["Access-Control-Allow-Origin"] == "*"
    assert "Access-Control-Allow-Credentials" not in headers
