"""Bodies over 64 KiB are read beside the loop: what they say counts as in short ones, and nobody waits for them."""
import http.client
import json
import re
import threading
from pathlib import Path

import pytest

from serving import BY_THEN, N_WORKERS, ONE_WORKER, SANITIZED
from test_limits import INSTRUMENTED, post as long_post, talk

HEAD = b" HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
FILLER = "y" * 70000  # in a field that nobody knows
# Takes the thread a while: each of its texts is cut into tokens by itself.
SLOW = b'{"prompt":[1' + b',"a"' * (20000 if INSTRUMENTED else 250000) + b'],"max_tokens":1}'
CHAT = {"messages": [{"role": "user", "content": "Who? <|im_end|>"}]}
PIECES = {"content": "a b c", "with_pieces": True}
# Those that are computed always draw the likeliest token.
DRAW = {"max_tokens": 5, "temperature": 0, "seed": 1, "ignore_eos": True}
BODIES = [
    ("/v1/chat/completions", {**CHAT, **DRAW, "n": 2}), ("/v1/completions", {"prompt": ["a b", "c"], **DRAW}),
    ("/v1/completions", {"prompt": "a b", **DRAW}), ("/completion", {"prompt": [1, "b", 2], **DRAW, "stop": ["zz", "z"]}),
    ("/generate", {"prompt": "a b", **DRAW}), ("/generate", {"prompt": "a b", "raw": True, **DRAW}),
    ("/generate-batch", {"requests": [{"prompt": "a", "id": "one", **DRAW}, {"prompt": "b", "id": 2, **DRAW}]}),
    ("/v1/chat/completions/render", CHAT), ("/v1/completions/render", {"prompt": ["a b", "c"]}),
    ("/v1/chat/completions/input_tokens", CHAT), ("/tokenize", PIECES), ("/detokenize", {"tokens": [1, 2, 3]}),
    ("/apply-template", CHAT),
]
VARIES = {"id", "request_id", "created", "timings", "latency_ms", "id_slot", "usage"}


def without(value, names):
    """The value without what is different each time."""
    if isinstance(value, dict):
        return {name: without(one, names) for name, one in value.items() if name not in names}
    return [without(one, names) for one in value] if isinstance(value, list) else value


def send(serving, body, path=b"/v1/completions"):
    """A connection on which this was asked."""
    client = http.client.HTTPConnection("127.0.0.1", serving.port, timeout=BY_THEN)
    client.request("POST", path.decode(), body, {"Content-Type": "application/json"})
    return client


def answer(client):
    response = client.getresponse()
    body = json.loads(response.read())
    client.close()
    return response.status, body


@pytest.mark.parametrize("path, body", BODIES)
def test_the_same_answer(serve, tiny, path, body):
    serving = serve(tiny("r1"))
    short, long = (serving.post(path, asked) for asked in (body, {**body, "filler": FILLER}))
    assert short[0] == long[0] == 200, (short[2], long[2])
    assert without(short[2], VARIES | {"tokens_cached"}) == without(long[2], VARIES | {"tokens_cached"})


def test_the_same_stream(serve, tiny):
    serving = serve(tiny("r1"))
    texts = {serving.stream("a b", 20, temperature=0, filler=filler).text() for filler in ("", FILLER)}
    assert len(texts) == 1 and texts.pop()


@pytest.mark.parametrize("body, says", [
    (b'{"prompt":"a","x":"' + FILLER.encode(), "ends early"), (b'{"prompt":1,"x":"' + FILLER.encode() + b'"}', "prompt"),
    (b"[" * 70000 + b"]" * 70000, "levels of brackets"), (b'{"a":1,"a":"' + FILLER.encode() + b'"}', "twice"),
], ids=["half", "a field of a wrong type", "deep", "a key twice"])
def test_the_same_refusals(serve, tiny, body, says):
    serving = serve(tiny())
    for path in (b"/v1/completions", b"/v1/chat/completions", b"/completion", b"/generate", b"/tokenize"):
        status, said = answer(send(serving, body, path))
        assert status == 400
        if b"prompt" not in body:
            assert says in said["error"]["message"], path
    assert serving.metric("runnel_long_bodies") == 0
    assert serving.metric("runnel_requests_admitted") == 0


@pytest.mark.parametrize("path, field, body", [
    ("/v1/chat/completions", "messages", {"messages": [{"role": "user", "content": "ab " * 50000}]}),
    ("/v1/completions", "prompt", {"prompt": ["a", "ab " * 50000]}), ("/generate", "prompt", {"prompt": "ab " * 50000}),
])
def test_a_prompt_that_does_not_fit_is_counted(serve, tiny, path, field, body):
    serving = serve(tiny("r1"))
    status, _, said = serving.post(path, body)
    text = body[field] if field == "prompt" else None
    content = text[1] if isinstance(text, list) else text or body["messages"][0]["content"]
    n = len(serving.post("/tokenize", {"content": content})[2]["tokens"])
    assert status == 400 and said["error"]["type"] == "exceed_context_size_error"
    assert said["error"]["param"] == field and n <= said["error"]["n_prompt_tokens"] <= n + 30


def test_answers_of_one_connection_keep_their_order(serve, tiny):
    serving = serve(tiny())
    both = [b"POST " + path + HEAD + b"Content-Length: %d\r\n\r\n" % len(body) + body for path, body in (
        (b"/tokenize", json.dumps({"content": "a", "x": FILLER}).encode()), (b"/tokenize", b'{"content":""}'))]
    last = both[1].replace(b"Host", b"Connection: close\r\nHost")
    client = http.client.HTTPConnection("127.0.0.1", serving.port, timeout=BY_THEN)
    client.connect()
    client.sock.sendall(both[0] + both[1] + last)
    said = b""
    while more := client.sock.recv(65536):
        said += more
    bodies = [part.split(b"\r\n\r\n")[1] for part in said.split(b"HTTP/1.1 ")[1:]]
    assert [len(json.loads(body)["tokens"]) for body in bodies] == [1, 0, 0]


# --- many of them ---


def test_they_hold_places(serve, tiny):
    """As many wait as may run; short requests find no place either, and what computes nothing goes on."""
    serving = serve(tiny(), "--limit-concurrency", "3")
    clients = [send(serving, SLOW) for _ in range(3)]
    serving.wait_for(lambda now: now[("runnel_long_bodies",)] == 3)
    status, said = answer(send(serving, json.dumps({"prompt": "a", "x": FILLER}).encode()))
    assert status == 429 and "3 requests are running or waiting" in said["error"]["message"]
    assert serving.post("/v1/completions", {"prompt": "a", "max_tokens": 1})[0] == 429
    assert serving.post("/tokenize", {"content": "a"})[0] == 200
    assert talk(serving, b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n")[0] == 200
    assert {answer(client)[0] for client in clients} == {400}  # they do not fit the context
    serving.wait_for(lambda now: now[("runnel_requests_admitted",)] == 0)
    assert serving.complete("a", 2)


@pytest.mark.skipif(SANITIZED, reason="a sanitizer keeps what is freed")
def test_memory_goes_before_the_next_is_read(serve, tiny):
    """A body of numbers takes twenty times its size while it is understood: not all of them at once, but one in each worker."""
    serving = serve(tiny(), *ONE_WORKER)
    body = b'{"prompt":[' + b",".join([b"1"] * 1000000) + b'],"max_tokens":1}'

    def peak_mib():
        status = Path(f"/proc/{serving.worker}/status").read_text()
        return int(re.search(r"VmHWM:\s+(\d+)", status)[1]) >> 10

    def ask(n):
        clients = [send(serving, body) for _ in range(n)]
        assert {answer(client)[0] for client in clients} == {400}
        return peak_mib()

    few, many = ask(1), ask(12)  # bodies besides: 4 MiB each as they grow
    assert many - few < 150, (few, many)


def test_clients_that_leave(serve, tiny):
    """What waits is dropped at once, what is being read as soon as it has been."""
    serving = serve(tiny(), "--log-json")
    clients = [send(serving, SLOW) for _ in range(6)]
    serving.wait_for(lambda now: now[("runnel_long_bodies",)] == 6)
    for client in clients:
        client.close()
    serving.wait_for(lambda now: now[("runnel_long_bodies",)] <= N_WORKERS, timeout=5)
    serving.wait_for(lambda now: now[("runnel_requests_admitted",)] == 0)
    assert serving.metric("runnel_http_responses_total", "route=/v1/completions", "status=499") == 6
    assert [line["left"] for line in serving.wait_for_lines(lambda lines: len(lines) >= 6)] == [True] * 6
    assert serving.complete("a", 2)


def test_their_time_counts(serve, tiny):
    """Of a queue of them the last ones do not get their turn in time."""
    serving = serve(tiny(), *ONE_WORKER, "--request-timeout-s", "0.3", "--breaker-timeouts", "0")
    clients = [send(serving, SLOW) for _ in range(10)]
    said = [answer(client) for client in clients]
    assert {status for status, _ in said} <= {400, 504} and said[-1][0] == 504
    assert "not finished within 0.3 s" in said[-1][1]["error"]["message"]
    assert serving.metric("runnel_timeouts_total") == [status for status, _ in said].count(504)
    assert serving.complete("a", 2)


@pytest.mark.parametrize("n_signals", [1, 2])
def test_the_end(serve, tiny, n_signals):
    """A server that drains reads them first; one that is ended at once refuses them, and nothing is left over."""
    serving = serve(tiny(), "--timeout-drain", "60")
    clients = [send(serving, SLOW) for _ in range(4)]
    answered = ("runnel_http_responses_total", "route=/v1/completions", "status=400")
    serving.wait_for(lambda now: now[("runnel_long_bodies",)] + now.get(answered, 0) == 4)  # all have come
    for _ in range(n_signals):
        serving.signal()
        threading.Event().wait(0.05)  # one that comes at once is the first one still
    if n_signals == 1:
        assert [answer(client)[0] for client in clients] == [400] * 4
    else:
        for client in clients:
            client.close()
    assert serving.wait() == 0


def test_a_body_at_the_limit(serve, tiny):
    serving = serve(tiny())
    for size in (65536, 65537, 2097152):
        assert talk(serving, long_post(size))[0] == 200
