"""deploy/haproxy/haproxy.cfg with the real HAProxy: in front of servers that pretend, which tells what is asked again and what is not,
and of two real ones, which are killed, drained and replaced under load."""
import itertools
import json
import re
import signal
import socket
import subprocess
import threading
import time

import pytest
from proxy import CONFIGURATION, RESET, Pretender, Proxy, find_haproxy, whole_answer
from serving import BY_THEN, RUNNEL, Serving, cpu_seconds, make_tiny_model, real_model

HAPROXY = find_haproxy()
CHAT = "/v1/chat/completions"
CONTROL = f"{CHAT}/control"
N_CLIENTS = 6


@pytest.fixture
def proxy(tmp_path):
    made = Proxy(tmp_path)
    made.wait_for(lambda: len(made.states()) == 2)
    yield made
    made.stop()


@pytest.fixture
def pretend(proxy):
    """pretend("a", answer) is a server that answers so."""
    made = []

    def start(name, answer):
        made.append(Pretender(proxy.ports[name], answer))
        return made[-1]

    yield start
    for one in made:
        one.stop()


class Pair:
    """The servers a and b behind a proxy."""

    def __init__(self, proxy, model, *flags, kv_mib=64):
        self.proxy, self.model, self.flags, self.kv_mib = proxy, model, flags, kv_mib
        self.servings = {}
        for name in "ab":
            self.start(name, wait=False)
        self.wait_until_up()

    def start(self, name, wait=True):
        self.servings[name] = Serving(self.model, *self.flags, "--threads", "1", "--timeout-drain", str(BY_THEN),
                                      port=self.proxy.ports[name], kv_mib=self.kv_mib, wait=wait)

    def wait_until_up(self):
        for serving in self.servings.values():
            assert serving.ready.wait(BY_THEN) and serving.url, serving.lines
        self.proxy.wait_for_states(a="UP", b="UP")

    def kill(self, name):
        serving = self.servings.pop(name)
        serving.signal(signal.SIGKILL)
        assert serving.wait() == -signal.SIGKILL

    def counts(self):
        """How many requests for text each has had."""
        return {name: serving.metric("deepseek_requests_total") for name, serving in self.servings.items()}

    def asked_since(self, before):
        return {name: count - before[name] for name, count in self.counts().items()}

    def stop(self):
        for serving in self.servings.values():
            serving.stop()


@pytest.fixture
def pair(proxy):
    made = Pair(proxy, real_model("smollm2-135m"), "--ctx", "1024")
    yield made
    made.stop()


@pytest.fixture
def thinkers(proxy, tmp_path):
    """Servers of a tiny model whose thoughts go on until somebody ends them."""
    made = Pair(proxy, make_tiny_model(tmp_path, "thinker"), "--ctx", "65536", "--max-wait-s", "0", "--request-timeout-s", "0", kv_mib=256)
    yield made
    made.stop()


# The file ------------------------------------------------------------------------------------------------------------

def test_it_is_right_and_haproxy_warns_of_nothing():
    done = subprocess.run([HAPROXY, "-c", "-dW", "-f", CONFIGURATION], capture_output=True, text=True)
    assert done.returncode == 0 and "valid" in done.stdout, done.stdout + done.stderr


def test_it_waits_longer_than_the_servers_do():
    """For a whole answer, which comes after silence, and for a stream, which is never silent for so long."""
    text = CONFIGURATION.read_text()
    usage = subprocess.run([RUNNEL, "serve", "--help"], capture_output=True, text=True, check=True).stdout
    longest = max(float(re.search(rf"--{name} .*?\(default:? ([\d.]+)\)", usage, re.S)[1]) for name in ("request-timeout-s", "sse-ping-s"))
    for side in "server", "client":
        assert int(re.search(rf"timeout {side} (\d+)s", text)[1]) > longest
    known_m = int(re.search(r"backend answers\n *stick-table .* expire (\d+)m", text)[1])
    assert known_m * 60 > longest
    taken = int(re.search(r"--limit-concurrency .*?\(default:? (\d+)\)", usage, re.S)[1])
    assert int(re.search(r"default-server .* maxconn (\d+)", text)[1]) > taken


# What is asked again -------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("failure", [b"", RESET, whole_answer(503)], ids=["closed", "reset", "503"])
def test_what_was_not_answered_is_asked_again(proxy, pretend, failure):
    """Whichever server a prompt belongs to: both fail in turn, and no client sees it. The body arrives whole."""
    a, b = pretend("a", failure), pretend("b", whole_answer(200, b'{"from":"b"}'))
    proxy.wait_for_states(a="UP", b="UP")
    for i in range(8):
        body = {"messages": [{"role": "user", "content": f"{i} {'x' * 60000}"}]}
        assert proxy.post(CHAT, body)[::2] == (200, {"from": "b"})
        assert json.loads(b.asked[-1][1]) == body
    assert 0 < len(a.asked) <= 8 == len(b.asked)


def test_a_refused_connection_is_asked_again(proxy, pretend):
    """Before the checks know of it, too: the server goes while HAProxy thinks that it is up."""
    a, b = pretend("a", whole_answer(200, b'{"from":"a"}')), pretend("b", whole_answer(200, b'{"from":"b"}'))
    proxy.wait_for_states(a="UP", b="UP")
    a.stop()
    for i in range(16):
        assert proxy.post(CHAT, {"messages": [{"role": "user", "content": f"{i}"}]})[::2] == (200, {"from": "b"})
    assert len(b.asked) == 16


@pytest.mark.parametrize("half", [b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 100\r\n\r\n{\"half\":",
                                  b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
                                  b"8\r\ndata: {}\r\n"], ids=["whole", "stream"])
def test_what_was_half_answered_is_not(proxy, pretend, half):
    """It is cut, so that its client knows that something is missing."""
    servers = pretend("a", half), pretend("b", half)
    proxy.wait_for_states(a="UP", b="UP")
    with socket.create_connection(("127.0.0.1", proxy.ports["clients"]), timeout=BY_THEN) as client:
        body = b'{"messages":[{"role":"user","content":"a"}]}'
        client.sendall(b"POST %s HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s"
                       % (CHAT.encode(), len(body), body))
        answer = b""
        try:
            while more := client.recv(65536):
                answer += more
        except ConnectionResetError:
            pass
    assert answer.startswith(b"HTTP/1.1 200 ") and (b"half" in answer or b"data: {}" in answer)
    assert not answer.endswith(b"0\r\n\r\n")
    assert sum(len(server.asked) for server in servers) == 1


def test_a_request_that_kills_does_not_go_on_for_ever(proxy, pretend):
    servers = pretend("a", b""), pretend("b", b"")
    proxy.wait_for_states(a="UP", b="UP")
    status, _, answer = proxy.post(CHAT, {"messages": [{"role": "user", "content": "a"}]})
    assert status == 502 and answer["error"]["code"] == 502
    assert sum(len(server.asked) for server in servers) == 3


def test_answers_of_its_own_have_the_shape_of_errors(proxy):
    proxy.wait_for_states(a="DOWN", b="DOWN")
    status, headers, answer = proxy.post(CHAT, {"messages": []})
    assert status == 503 and headers["Retry-After"] == "1"
    assert answer["error"]["type"] == "unavailable_error" and answer["error"]["code"] == 503
    for status, code in re.findall(r"http-error status (\d+) .*\"code\":(\d+)", CONFIGURATION.read_text()):
        assert status == code


def test_a_server_that_is_not_ready_gets_nothing_new(proxy, pretend):
    """And what it has goes on: the answer that it was giving when it said so arrives. Once it is ready again, it is asked again."""
    may_answer = threading.Event()

    def slowly():
        assert may_answer.wait(BY_THEN)
        return whole_answer(200, b'{"from":"a"}')

    a = pretend("a", slowly)
    proxy.wait_for_states(a="UP", b="DOWN")
    got = []
    waiting = threading.Thread(target=lambda: got.append(proxy.post(CHAT, {"messages": [{"role": "user", "content": "a"}]})[::2]))
    waiting.start()
    proxy.wait_for(lambda: a.asked)
    b = pretend("b", whole_answer(200, b'{"from":"b"}'))
    proxy.wait_for_states(b="UP")
    a.healthy = False
    proxy.wait_for_states(a="DOWN")
    for i in range(16):
        assert proxy.post(CHAT, {"messages": [{"role": "user", "content": f"{i}"}]})[::2] == (200, {"from": "b"})
    assert len(a.asked) == 1 and len(b.asked) == 16
    may_answer.set()
    waiting.join(BY_THEN)
    assert got == [(200, {"from": "a"})]
    a.healthy = True
    proxy.wait_for_states(a="UP")
    for i in range(16):
        assert proxy.post(CHAT, {"messages": [{"role": "user", "content": f"new {i}"}]})[0] == 200
    assert len(a.asked) > 1


# What servers and the log are told -------------------------------------------------------------------------------------

def test_the_clients_address_is_passed_on_and_not_what_it_claims(proxy, pretend):
    servers = pretend("a", whole_answer(200)), pretend("b", whole_answer(200))
    proxy.wait_for_states(a="UP", b="UP")
    claims = {"X-Forwarded-For": "10.1.2.3", "X-Prompt-Hash": "10.1.2.3"}
    proxy.post(CHAT, {"messages": [{"role": "user", "content": "a"}]}, headers=claims)
    proxy.ask("GET", "/v1/models", headers=claims)
    for head, _ in servers[0].asked + servers[1].asked:
        assert re.findall(rb"(?im)^x-forwarded-for: *(\S+)", head) == [b"127.0.0.1"] and b"10.1.2.3" not in head


def test_nothing_that_was_asked_is_in_the_log(proxy, pretend):
    for name in "ab":
        pretend(name, whole_answer(200, headers=b"X-Request-Id: abc123\r\n"))
    proxy.wait_for_states(a="UP", b="UP")
    proxy.post("/generate?prompt=zqXjw", {"prompt": "zqXjw"}, headers={"Authorization": "Bearer zqXjw"})
    proxy.wait_for(lambda: proxy.log())
    (line,) = proxy.log()
    assert line["path"] == "/generate" and line["status"] == "200" and line["id"] == "abc123" and line["server"] in ("a", "b")
    assert not any("zqXjw" in line for line in proxy.lines)


# Which server ----------------------------------------------------------------------------------------------------------

def hashes(proxy, servers, requests):
    """The X-Prompt-Hash of each request: (path, body, headers)."""
    found = []
    for path, body, headers in requests:
        before = [len(server.asked) for server in servers]
        assert proxy.post(path, body, headers=headers)[0] == 200
        ((head, _),) = [asked for server, n in zip(servers, before) for asked in server.asked[n:]]
        found.append(re.search(rb"(?im)^x-prompt-hash: *(\S+)", head)[1])
    return found


def test_what_belongs_together(proxy, pretend):
    """The turns of a chat, however its body is written; prompts that begin alike; and not what differs, or another key's."""
    servers = pretend("a", whole_answer(200)), pretend("b", whole_answer(200))
    proxy.wait_for_states(a="UP", b="UP")
    system = {"role": "system", "content": "You help the user, \"user\" and all. \"messages\": [no] }{ ü \n"}
    question, other = ({"role": "user", "content": f"Why is the {what} so, and not otherwise?"} for what in ("sky", "sea"))
    answer, more = {"role": "assistant", "content": "Because {it} is."}, {"role": "user", "content": "And then?"}

    def of(*bodies, path=CHAT, headers=None):
        return hashes(proxy, servers, [(path, body, headers) for body in bodies])

    for beginning in [question], [system, question]:
        turns = of({"messages": beginning}, {"model": "any", "stream": False, "messages": [*beginning, answer, more]},
                   {"messages": [*beginning, answer, more, answer, more], "max_tokens": 5})
        assert len(set(turns)) == 1, beginning
    assert len(set(of({"messages": [question]}, {"messages": [other]}, {"messages": [system, question]}, {"messages": [system, other]}))) == 4
    spaced = json.dumps({"messages": [system, question]}, indent=1).encode()
    assert len(set(of(spaced, json.dumps({"messages": [system, question, answer]}, indent=1).encode()))) == 1
    tools = [{"function": {"name": "draw", "parameters": {"properties": {"prompt": {"type": "string"}}}}}]
    assert len(set(of({"messages": [question], "tools": tools}, {"tools": tools, "messages": [question, answer, more]},
                      {"messages": [question]}))) == 1
    parts = [{"role": "user", "content": [{"type": "text", "text": "Why?"}]}]
    assert len(set(of({"messages": parts}, {"messages": [*parts, answer, more]}))) == 1
    long = {"role": "system", "content": "word " * 400}
    assert len(set(of({"messages": [long, question]}, {"messages": [long, other]}))) == 1
    prompts = of({"prompt": "word " * 400 + "a"}, {"max_tokens": 3, "prompt": "word " * 400 + "b"}, path="/v1/completions")
    assert len(set(prompts)) == 1 and len(set(of({"prompt": "a"}, {"prompt": "b"}, path="/v1/completions"))) == 2
    ids = list(range(1000, 1400))
    assert len(set(of({"prompt": [*ids, 1]}, {"prompt": [*ids, 2]}, path="/v1/completions"))) == 1
    keys = [of({"messages": [question]}, headers=headers)[0]
            for headers in (None, {"Authorization": "Bearer one"}, {"Authorization": "Bearer two"}, {"X-Api-Key": "one"})]
    assert len(set(keys)) == 4


def test_no_body_takes_long_to_look_at(proxy, pretend):
    """What makes a careless pattern try everything from everywhere: HAProxy would end itself, thinking that it hangs."""
    pretend("a", whole_answer(200))
    proxy.wait_for_states(a="UP")
    n = 120000
    before = cpu_seconds(proxy.process.pid)
    for start in b"", b"{}", b"[{}", b'{"messages":[{}', b'{"prompt":[{}':
        for again in b'"user"', b'"messages":["user"', b'"messages":[', b'"prompt":', b'"messages"' + b" " * 300, b"[", b" ", b"x":
            body = start + again * ((n - len(start)) // len(again))
            assert proxy.post(CHAT, body)[0] == 200, (start, again)
    assert cpu_seconds(proxy.process.pid) - before < 4  # of 40 bodies


def test_prompts_that_begin_alike_go_to_one_server(pair):
    """As the servers' own figures tell: all requests of a beginning at one of them, which finds it in its cache; and both are used."""
    beginnings = [f"You are number {i}. " + "You answer questions of customers, and you are always very polite. " * 12 for i in range(12)]
    used = {"a": 0, "b": 0}
    for beginning in beginnings:
        before = pair.counts()
        for question in "Why?", "When?", "Who?":
            body = {"messages": [{"role": "system", "content": beginning}, {"role": "user", "content": question}], "max_tokens": 2}
            status, _, answer = pair.proxy.post(CHAT, body)
            assert status == 200
            if question != "Why?":
                details = answer["usage"]["prompt_tokens_details"]
                assert details["cached_tokens"] > 0.7 * answer["usage"]["prompt_tokens"]
        asked = pair.asked_since(before)
        assert sorted(asked.values()) == [0, 3], asked
        used[max(asked, key=asked.get)] += 1
    assert all(used.values()), used
    for name, serving in pair.servings.items():
        hits, queries = (serving.metric(f"vllm:prefix_cache_{what}_total") for what in ("hits", "queries"))
        assert hits > 0.4 * queries, name


def test_a_popular_beginning_does_not_fill_one_server(pair):
    """Twelve streams at once that begin alike: four go to the server that had one before, the others to the one that has less to do;
    and when their clients leave, the servers learn it through the proxy."""
    body = json.dumps({"messages": [{"role": "user", "content": "Tell me a very long story."}], "max_tokens": 900, "ignore_eos": True,
                       "stream": True}).encode()
    connections, running = [], []
    for _ in range(12):
        connections.append(pair.proxy.connection())
        connections[-1].request("POST", CHAT, body, {"Content-Type": "application/json"})
        assert connections[-1].getresponse().status == 200
        running.append(sorted(serving.metric("runnel_requests_admitted") for serving in pair.servings.values()))
    assert running[3] == [0, 4] and running[7] == [4, 4] and running[11] == [6, 6]
    for connection in connections:
        connection.close()
    for serving in pair.servings.values():
        serving.wait_until_idle()


def test_a_client_that_leaves_before_its_answer_is_told_to_the_server(pair):
    connection = pair.proxy.connection()
    body = json.dumps({"messages": [{"role": "user", "content": "Tell me."}], "max_tokens": 900, "ignore_eos": True}).encode()
    connection.request("POST", CHAT, body, {"Content-Type": "application/json"})
    pair.proxy.wait_for(lambda: sum(serving.metric("vllm:num_requests_running") for serving in pair.servings.values()) == 1)
    connection.sock.close()
    for serving in pair.servings.values():
        serving.wait_until_idle()
    assert sum(serving.metric("runnel_clients_left_total") for serving in pair.servings.values()) == 1, pair.proxy.lines


def stream_of(number):
    """The whole stream of a request with this id."""
    return (b"HTTP/1.1 200 X\r\nContent-Type: text/event-stream\r\nX-Request-Id: %024x\r\nConnection: close\r\n\r\ndata: [DONE]\n\n"
            % number)


def test_what_is_about_an_answer_goes_to_the_server_that_writes_it(proxy, pretend):
    """Of every stream, by either id, as often as it is asked; and what names none is answered, too."""
    numbers = itertools.count(1)
    servers = {name: pretend(name, lambda: stream_of(next(numbers))) for name in "ab"}
    proxy.wait_for_states(a="UP", b="UP")

    def asked(path, body):
        """The id of the answer, and who was asked for it."""
        before = {name: len(server.asked) for name, server in servers.items()}
        status, headers, _ = proxy.post(path, body)
        (name,) = [name for name, server in servers.items() if len(server.asked) > before[name]]
        assert status == 200
        return headers["X-Request-Id"], name

    written = dict(asked(CHAT, {"messages": [{"role": "user", "content": f"{i}"}]}) for i in range(8))
    assert set(written.values()) == {"a", "b"}
    for path in (CONTROL, "/chat/completions/control"):
        for id, name in written.items():
            for body in ({"id": id, "action": "reasoning_end"}, {"action": "reasoning_end", "id": f"chatcmpl-{id}"}):
                assert asked(path, body)[1] == name, (path, body)
    for body in ({"id": "x", "action": "reasoning_end"}, {"id": 3}, {}, b"no JSON"):
        asked(CONTROL, body)


def test_what_is_about_an_answer_is_asked_once(proxy, pretend):
    """Another server would say that there is no such answer."""
    servers = pretend("a", stream_of(1)), pretend("b", stream_of(1))
    proxy.wait_for_states(a="UP", b="UP")
    assert proxy.post(CHAT, {"messages": [{"role": "user", "content": "a"}]})[0] == 200
    for server in servers:
        server.answer = whole_answer(503)
    assert proxy.post(CONTROL, {"id": f"{1:024x}", "action": "reasoning_end"})[0] == 503
    assert sum(len(server.asked) for server in servers) == 2


def test_thoughts_are_ended_through_the_proxy(thinkers):
    """Of four streams, two at each server: two that did not allow it are refused by the server that has them, each time, and the
    others end."""
    proxy, streams = thinkers.proxy, []
    for i in range(4):
        body = {"messages": [{"role": "user", "content": f"Why {i}?"}], "max_tokens": 60000, "temperature": 1, "top_k": 0, "top_p": 1,
                "min_p": 0, "logit_bias": {str(ord(letter)): 60 for letter in "abcdefgh"}, "stop": "ab", "stream": True,
                "reasoning_control": i >= 2}
        connection = proxy.connection()
        connection.request("POST", CHAT, json.dumps(body).encode(), {"Content-Type": "application/json"})
        answer = connection.getresponse()
        assert answer.status == 200
        while b'"reasoning_content"' not in (line := answer.readline()):
            assert line, "it ended before it thought"
        streams.append((connection, answer, answer.headers["X-Request-Id"]))
    assert [serving.metric("runnel_requests_admitted") for serving in thinkers.servings.values()] == [2, 2]

    def end_thought(id):
        return proxy.post(CONTROL, {"id": id, "action": "reasoning_end"})[::2]

    for _, _, id in streams[:2]:
        for said in [id, f"chatcmpl-{id}"] * 8:
            assert end_thought(said) == (200, {"success": False, "message": "reasoning control not enabled for this completion"})
    for _, answer, id in streams[2:]:
        assert end_thought(f"chatcmpl-{id}") == (200, {"success": True, "message": "the thought ends"})
        *_, last, done = answer.read().split(b"data: ")
        assert done.strip() == b"[DONE]" and json.loads(last)["timings"]["thinking_end"] == "asked"
    for connection, _, _ in streams:
        connection.close()


def test_a_body_that_is_too_long_to_keep_is_passed_on(pair):
    body = {"messages": [{"role": "user", "content": "Hello"}], "max_tokens": 2, "metadata": {"note": "x" * 600000}}
    assert pair.proxy.post(CHAT, body)[0] == 200
    status, _, answer = pair.proxy.post(CHAT, {**body, "metadata": {"note": "x" * 3000000}})
    assert status == 413 and answer["error"]["code"] == 413


# Servers that go and come ------------------------------------------------------------------------------------------------

class Load:
    """Clients in a closed loop, each with a chat of its own, that want the same answer again and again: whole, or as a stream. Every
    other one has another API key each time, so that its request belongs to no server yet."""

    def __init__(self, proxy, n_streaming=0):
        self.proxy = proxy
        self.ended = threading.Event()
        self.lock = threading.Lock()
        self.n_answered, self.failures, self.n_cut, self.answers = 0, [], 0, {}
        self.threads = [threading.Thread(target=self._run, args=(i, i < n_streaming), daemon=True) for i in range(N_CLIENTS)]
        for thread in self.threads:
            thread.start()

    def _run(self, number, streams):
        body = {"messages": [{"role": "user", "content": f"Count to {number + 10}."}], "max_tokens": 40, "temperature": 0,
                "ignore_eos": True, "stream": streams}
        connection, keys = self.proxy.connection(), itertools.count()
        while not self.ended.is_set():
            headers = {"X-Api-Key": f"{number}-{next(keys)}"} if number % 2 else {}
            try:
                answer = self._stream(body, headers) if streams else self._whole(body, headers, connection)
            except Exception as failure:  # all of them are counted
                answer, connection = f"{type(failure).__name__}: {failure}", self.proxy.connection()
            with self.lock:
                if answer is None:
                    self.n_cut += 1
                elif answer != self.answers.setdefault(number, answer) or not answer.startswith("200 "):
                    self.failures.append(answer)
                self.n_answered += 1

    def _whole(self, body, headers, connection):
        status, _, answer = self.proxy.post(CHAT, body, headers=headers, connection=connection)
        return f"{status} {answer['choices'][0]['message']['content']}" if status == 200 else f"{status} {answer}"

    def _stream(self, body, headers):
        """None: it was cut after its head."""
        connection = self.proxy.connection()
        connection.request("POST", CHAT, json.dumps(body).encode(), {"Content-Type": "application/json", **headers})
        answer = connection.getresponse()
        if answer.status != 200:
            return f"{answer.status} {answer.read()}"
        try:
            events = [line[6:].strip() for line in answer.read().splitlines() if line.startswith(b"data: ")]
        except Exception:
            return None
        finally:
            connection.close()
        if not events or events[-1] != b"[DONE]":
            return None
        return "200 " + "".join(choice["delta"].get("content") or "" for event in events[:-1] for choice in json.loads(event)["choices"])

    def go_on(self, n):
        """Until n more requests have had their answer."""
        goal, end = self.n_answered + n, time.monotonic() + BY_THEN
        while self.n_answered < goal:
            assert time.monotonic() < end, (self.n_answered, goal)
            time.sleep(0.02)

    def go_on_until(self, condition):
        self.proxy.wait_for(condition)

    def end(self):
        self.ended.set()
        for thread in self.threads:
            thread.join(BY_THEN)
            assert not thread.is_alive()


def busiest(pair):
    return max(pair.servings, key=lambda name: pair.servings[name].metric("vllm:num_requests_running"))


def test_a_killed_server_leaves_no_request_unanswered(pair):
    """Whole answers that it was computing come from the other one. Streams that it had begun are cut, the one exception; there
    are no more of these than it had, and whoever asks again is answered."""
    load = Load(pair.proxy, n_streaming=2)
    load.go_on(2 * N_CLIENTS)
    for _ in range(2):
        victim = busiest(pair)
        load.go_on_until(lambda: pair.servings[victim].metric("vllm:num_requests_running") >= 3)  # of which two may be streams
        pair.kill(victim)
        load.go_on(2 * N_CLIENTS)
        pair.start(victim)
        load.go_on_until(lambda: pair.proxy.states()[victim] == "UP" and pair.counts()[victim] >= N_CLIENTS // 2)
    load.end()
    assert not load.failures, pair.proxy.lines
    assert load.n_cut <= 4
    assert any("+" in line["retries"] for line in pair.proxy.log())  # whole answers were asked again, at another server


def test_a_drained_server_refuses_and_cuts_nothing(pair):
    load = Load(pair.proxy, n_streaming=3)
    load.go_on(2 * N_CLIENTS)
    for name in "ab":
        load.go_on_until(lambda: pair.servings[name].metric("vllm:num_requests_running") >= 1)
        drained = pair.servings.pop(name)
        drained.signal()
        load.go_on(N_CLIENTS)
        assert drained.wait() == 0, drained.lines
        load.go_on(N_CLIENTS)
        pair.start(name)
        load.go_on_until(lambda: pair.proxy.states()[name] == "UP" and pair.counts()[name] >= N_CLIENTS // 2)
    load.end()
    assert not load.failures and not load.n_cut, pair.proxy.lines
