"""Thoughts that end in time, with an answer after them: budgets, efforts, the reserve, what is written before the close, and ending one from
outside. The model draws what a request's biases let it draw: all of its logits are about 0."""
import contextlib
import json
import os
import signal

import pytest
from serving import BY_THEN, ONE_WORKER, Serving, Stream, make_tiny_model, wait_until
from test_health import connection_with
from test_workers import worker_of

CHAT, CONTROL = "/v1/chat/completions", "/v1/chat/completions/control"
MESSAGES = [{"role": "user", "content": "Why?"}]
END, CLOSE = "284", "288"  # the tokens that end answers and thoughts
LONG = ("--ctx", "65536", "--max-wait-s", "0", "--request-timeout-s", "0")


def bias(letters, **more):
    """One of these letters is drawn, each as likely as any other, and hardly ever anything else."""
    return {str(ord(letter)): 60 for letter in letters} | more


# Eight letters have no sentences, and do not go in circles; with a full stop and a space among four there are sentences.
LETTERS, SENTENCES = bias("abcdefgh"), bias("ab. ")
FREE = {"temperature": 1, "top_k": 0, "top_p": 1, "min_p": 0, "seed": 1, "logit_bias": LETTERS}


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    serving = Serving(make_tiny_model(tmp_path_factory.mktemp("model"), "thinker"), "--ctx", "4096", "--log-json", kv_mib=64)
    yield serving
    serving.stop()


def ask(serving, **fields):
    status, _, answer = serving.post(CHAT, {"messages": MESSAGES, **FREE, **fields})
    assert status == 200, answer
    return answer


class Told:
    """What an answer says of its thought."""

    def __init__(self, answer):
        (self.choice,) = answer["choices"]
        self.text = self.choice["message"]["content"]
        self.thought = self.choice["message"].get("reasoning_content", "")
        self.n = answer["usage"]["completion_tokens"]
        self.n_thought = answer["usage"]["completion_tokens_details"]["reasoning_tokens"]
        self.end = answer["timings"]["thinking_end"]


def think(serving, **fields):
    return Told(ask(serving, **fields))


def refused(serving, param, path=CHAT, **fields):
    start = {"messages": MESSAGES} if path == CHAT else {"prompt": "a"}
    status, _, answer = serving.post(path, {**start, **fields})
    assert status == 400 and answer["error"]["param"] == param, (fields, answer)
    return answer["error"]["message"]


# Budgets -----------------------------------------------------------------------------------------------------------------


def test_a_soft_budget_ends_a_thought_at_a_sentence(server):
    fields = {"logit_bias": SENTENCES, "max_tokens": 400}
    for seed in range(8):
        soft = think(server, soft_thinking_budget_tokens=20, thinking_budget_tokens=300, seed=seed, **fields)
        hard = think(server, thinking_budget_tokens=300, seed=seed, **fields)
        assert (soft.end, hard.end) == ("soft_budget", "budget")
        assert 20 <= soft.n_thought < 300 == hard.n_thought
        assert soft.thought.rstrip()[-1] == "." and hard.thought.startswith(soft.thought.rstrip())
        assert soft.text


def test_without_a_sentence_a_soft_budget_waits_for_the_hard_one(server):
    """Its close does not become so likely that it comes before everything else."""
    told = think(server, soft_thinking_budget_tokens=8, thinking_budget_tokens=40, max_tokens=100)
    assert (told.end, told.n_thought) == ("budget", 40) and told.text


def test_beyond_a_soft_budget_the_close_becomes_likelier(server):
    """Where a sentence has ended the model draws it, before the server writes it."""
    fields = {"logit_bias": {letter: 6 for letter in bias("a?")} | {END: -100}, "max_tokens": 400}
    told = [think(server, soft_thinking_budget_tokens=20, seed=seed, **fields) for seed in range(20)]
    assert all(thought.text for thought in told), [(thought.end, thought.n_thought, thought.text) for thought in told]
    early = [thought for thought in told if thought.end == "soft_budget" and 20 < thought.n_thought < 20 + 32]
    assert len(early) > 5


@pytest.mark.parametrize("effort, n", [("minimal", 20), ("low", 50), ("medium", 100), ("high", 150)])
def test_efforts_are_shares_of_max_tokens(server, effort, n):
    """Where there are no sentences, the hard budget ends the thought; on all names, and by /generate."""
    for fields in ({"reasoning_effort": effort}, {"reasoning": {"effort": effort}}, {"think": effort},
                   {"chat_template_kwargs": {"reasoning_effort": effort}}):
        told = think(server, max_tokens=200, **fields)
        assert (told.end, told.n_thought) == ("budget", n) and told.text
    status, _, answer = server.post("/generate", {"prompt": "Why?", **FREE, "max_tokens": 200, "reasoning_effort": effort})
    assert status == 200 and len(answer["reasoning"].strip()) == n and answer["response"]


def test_an_effort_ends_at_a_sentence(server):
    told = think(server, reasoning_effort="medium", max_tokens=400, logit_bias=SENTENCES)
    assert told.end == "soft_budget" and 120 <= told.n_thought <= 200 and told.thought.rstrip()[-1] == "."


def test_no_effort(server):
    for fields in ({"reasoning_effort": "none"}, {"reasoning": {"effort": "none"}}, {"think": "none"}):
        told = think(server, max_tokens=20, **fields)
        assert (told.end, told.n_thought, told.thought) == (None, 0, "") and told.text


def test_a_budget_that_is_named_goes_before_an_effort(server):
    assert think(server, reasoning_effort="high", thinking_budget_tokens=7, max_tokens=200).n_thought == 7
    assert think(server, reasoning_effort="minimal", max_thinking_tokens=30, max_tokens=200).n_thought == 30


# The reserve -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("n, reserve", [(300, 37), (100, 16), (64, 16), (20, 10), (4096 // 2, 256)])
def test_a_thought_leaves_room_for_the_answer(server, n, reserve):
    told = think(server, max_tokens=n)
    assert told.end == "reserve" and told.choice["finish_reason"] == "length" and told.n == n
    assert told.text and told.n_thought < n - reserve
    assert len(told.text.strip()) <= reserve  # a letter a token
    assert n - reserve - told.n_thought < 10  # the tokens of the close


@pytest.mark.parametrize("n", [2, 3, 4, 5, 6, 8])
def test_few_tokens_are_no_white_space(server, n):
    blank = {str(ord(letter)): 60 for letter in " \n"} | {str(ord("a")): 50, END: -100, CLOSE: -100}
    told = think(server, max_tokens=n, logit_bias=blank)
    assert told.end == "reserve" and told.text.strip() and told.n == n


def test_a_stop_text_of_white_space_leaves_an_answer(server):
    """Empty lines between a thought and its answer do not end it; those behind its first line do."""
    lines = {str(ord("\n")): 60, str(ord("a")): 50, END: -100, CLOSE: -100}
    told = think(server, max_tokens=100, stop=["\n\n"], logit_bias=lines)
    assert told.text.strip() == "a" and told.choice["finish_reason"] == "stop"


def test_the_reserve_of_a_request(server):
    told = think(server, max_tokens=100, answer_reserve=60)
    assert told.end == "reserve" and 20 < told.n_thought < 40 and told.text
    told = think(server, max_tokens=100, answer_reserve=0)
    assert (told.end, told.n_thought, told.text) == (None, 100, "")
    told = think(server, max_tokens=100, thinking_budget_tokens=94)  # a budget that is named goes before the default
    assert (told.end, told.n_thought) == ("budget", 94)
    for fields in ({"thinking_budget_tokens": 97}, {"thinking": {"type": "enabled", "budget_tokens": 1024}}, {"max_thinking_tokens": 100}):
        told = think(server, max_tokens=100, **fields)  # but where it would not leave an answer
        assert told.end == "reserve" and told.text and told.n_thought == 100 - 16 - 4
    told = think(server, max_tokens=100, thinking_budget_tokens=94, answer_reserve=60)
    assert told.end == "reserve" and told.n_thought < 40


def test_the_reserve_where_the_context_ends_first(server):
    """The prompt leaves less than max_tokens: the reserve is of what it leaves."""
    long = [{"role": "user", "content": "x" * 3900}]
    told = think(server, messages=long, max_tokens=4000)
    assert told.end == "reserve" and told.text and told.choice["finish_reason"] == "length"
    n = told.n
    told = think(server, messages=long, max_tokens=4000, reasoning_effort="high")  # whose budgets are of 4,000, and end nothing here
    assert told.end == "reserve" and told.text
    assert 0 <= n - max(16, n // 8) - told.n_thought < 10  # the tokens of the close


def test_the_reserve_of_a_server(serve, tiny):
    for flags, end, least in ((("--answer-reserve", "80"), "reserve", 80), (("--answer-reserve", "0"), None, 0)):
        serving = serve(tiny("thinker"), "--ctx", "1000", *flags)
        told = think(serving, max_tokens=200)
        assert told.end == end and 100 < told.n_thought <= 200 - least and bool(told.text) == bool(least)
        told = think(serving, max_tokens=200, answer_reserve=150)
        assert told.end == "reserve" and told.n_thought < 50
        told = think(serving, max_tokens=100)
        assert told.end == end and 100 - least - 10 < told.n_thought <= 100 - least
        told = think(serving, max_tokens=80)  # where all would be the answer's, a thought has half
        assert told.end == end and told.n_thought > 30


# Loops and end tokens ----------------------------------------------------------------------------------------------------


def test_a_thought_that_goes_in_circles_is_closed(server):
    """In the answer's timings, the log and the metrics; an answer may do what it likes."""
    before = server.metric("runnel_thoughts_total", "end=loop")
    told = think(server, max_tokens=1000, logit_bias=bias("a"))
    assert told.end == "loop" and told.n_thought < 500 and told.thought.strip().strip("a") == ""
    assert told.choice["finish_reason"] == "length" and told.n == 1000 and len(told.text.strip()) > 400
    assert server.wait_for(lambda now: now[("runnel_thoughts_total", "end=loop")] == before + 1)
    assert server.wait_for_lines(lambda lines: lines[-1].get("thought_end") == "loop")


def test_an_end_token_in_a_thought_gives_an_answer_all_the_same(server):
    """It closes the thought, and the first token of the answer is another one."""
    told = think(server, max_tokens=50, logit_bias={END: 100, str(ord("a")): 50})
    assert (told.end, told.choice["finish_reason"], told.text.strip()) == ("end_token", "stop", "a")
    some = {letter: 20 for letter in LETTERS} | {END: 19}
    for seed in range(20):
        told = think(server, max_tokens=60, logit_bias=some, seed=seed)
        assert told.end in ("end_token", "reserve") and told.text.strip(), seed


def test_who_ended_it(server):
    """By the model: nothing is written before the close."""
    told = think(server, max_tokens=50, logit_bias={CLOSE: 50, END: -100} | {str(ord("a")): 49}, reasoning_budget_message="Enough.")
    assert told.end == "model" and "Enough." not in told.thought
    raw = server.post("/v1/completions", {"prompt": "a", **FREE, "max_tokens": 5})[2]
    assert raw["timings"]["thinking_end"] is None


# The message -------------------------------------------------------------------------------------------------------------

ENOUGH = "\nI have thought enough of this."


@pytest.mark.parametrize("fields", [{"reasoning_budget_message": ENOUGH}, {"think_stop_sentence": ENOUGH},
                                    {"logits_processors_args": {"think_stop_sentence": ENOUGH}},
                                    {"think_stop_sentence": ENOUGH, "reasoning_budget_message": ENOUGH}], ids=json.dumps)
def test_a_message_before_the_close(server, fields):
    plain = think(server, max_tokens=150, thinking_budget_tokens=12)
    told = think(server, max_tokens=150, thinking_budget_tokens=12, **fields)
    assert told.end == "budget" and told.n_thought == plain.n_thought == 12, "the message is no thought of the model's"
    assert told.thought.rstrip() == plain.thought.rstrip() + ENOUGH and told.text and ENOUGH not in told.text
    told = think(server, max_tokens=200, **fields)
    assert told.end == "reserve" and told.thought.rstrip().endswith(ENOUGH) and told.text
    status, _, answer = server.post("/generate", {"prompt": "Why?", **FREE, "max_tokens": 150, "thinking_budget": 12, **fields})
    assert status == 200 and answer["reasoning"].rstrip().endswith(ENOUGH) and answer["response"]


# Refusals ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("fields, param", [
    ({"reasoning_effort": "most"}, "reasoning_effort"), ({"reasoning_effort": ""}, "reasoning_effort"),
    ({"reasoning_effort": 3}, "reasoning_effort"), ({"reasoning": {"effort": "LOW"}}, "reasoning.effort"), ({"think": "often"}, "think"),
    ({"chat_template_kwargs": {"reasoning_effort": "x"}}, "chat_template_kwargs.reasoning_effort"),
    ({"soft_thinking_budget_tokens": -2}, "soft_thinking_budget_tokens"),
    ({"soft_thinking_budget_tokens": "5"}, "soft_thinking_budget_tokens"),
    ({"answer_reserve": -2}, "answer_reserve"), ({"answer_reserve": 1.5}, "answer_reserve"),
    ({"reasoning_budget_message": 3}, "reasoning_budget_message"), ({"think_stop_sentence": ["x"]}, "think_stop_sentence"),
    ({"think_stop_sentence": "a\0b"}, "think_stop_sentence"), ({"think_stop_sentence": "a</think>"}, "think_stop_sentence"),
    ({"reasoning_budget_message": "x" * 257}, "reasoning_budget_message"),
    ({"reasoning_budget_message": "x" * 4097}, "reasoning_budget_message"),
    ({"logits_processors_args": 3}, "logits_processors_args"),
    ({"logits_processors_args": {"thinking_budget": "x"}}, "logits_processors_args.thinking_budget")], ids=lambda value: str(value)[:60])
@pytest.mark.parametrize("path", [CHAT, "/generate"])
def test_what_is_no_value_of_a_field(server, path, fields, param):
    refused(server, param, path, **fields)


def test_names_that_contradict_each_other_are_both_told(server):
    for fields, param, other in (({"soft_thinking_budget_tokens": 6, "thinking_token_budget": 5}, "soft_thinking_budget_tokens", "thinking_token_budget"),
                                 ({"reasoning_effort": "low", "think": "high"}, "think", "reasoning_effort"),
                                 ({"think_stop_sentence": "a", "reasoning_budget_message": "b"}, "reasoning_budget_message", "think_stop_sentence"),
                                 ({"logits_processors_args": {"thinking_budget": 3}, "thinking_budget": 4}, "thinking_budget",
                                  "logits_processors_args.thinking_budget")):
        assert other in refused(server, param, **fields)


@pytest.mark.parametrize("path", ["/v1/completions", "/completion"])
def test_without_a_template_there_are_no_thoughts(server, path):
    for field, value in (("soft_thinking_budget_tokens", 5), ("answer_reserve", 5), ("reasoning_budget_message", "x"), ("think_stop_sentence", "x")):
        refused(server, field, path, **{field: value})
        refused(server, field, "/generate", raw=True, **{field: value})
    nothing = {"soft_thinking_budget_tokens": -1, "answer_reserve": 0, "reasoning_budget_message": "", "reasoning_control": True,
               "reasoning_effort": "high"}
    assert server.post(path, {"prompt": "a", "max_tokens": 2, **nothing})[0] == 200


# Ending one from outside -------------------------------------------------------------------------------------------------

UNKNOWN = "no active completion for this id"


class Thinking:
    """A stream that has begun to think; it would not stop for a long time."""

    def __init__(self, serving, key=None, **fields):
        body = {"messages": MESSAGES, **FREE, "max_tokens": 60000, "stream": True, "reasoning_control": True, **fields}
        self.stream = Stream(serving, key, body, CHAT)
        assert self.stream.read_head() == 200
        self.events = self.stream.events()
        self.id = None
        self.read_until("reasoning_content")

    def read_until(self, field):
        """The next text of this kind."""
        for event in self.events:
            self.id = event["id"]
            for choice in event["choices"]:
                if choice["delta"].get(field):
                    return choice["delta"][field]
        raise AssertionError("it ended before")

    def rest(self):
        """All that is left: the thought, the answer, and the last event with timings."""
        events = list(self.events)
        assert events.pop() == "[DONE]"
        deltas = [choice["delta"] for event in events for choice in event["choices"]]
        thought, text = ("".join(delta.get(name) or "" for delta in deltas) for name in ("reasoning_content", "content"))
        return thought, text, events[-1]


@contextlib.contextmanager
def thinking(serving, **how):
    running = Thinking(serving, **how)
    yield running
    running.stream.leave()


def control(serving, id, connection=None, key=None, action="reasoning_end"):
    """What the server says, by this connection if one is given."""
    headers = {"Content-Type": "application/json"} | ({"Authorization": f"Bearer {key}"} if key else {})
    own = connection or serving.connection()
    own.request("POST", CONTROL, json.dumps({"id": id, "action": action}), headers)
    response = own.getresponse()
    answer = json.loads(response.read())
    if not connection:
        own.close()
    return response.status, answer


def reach(serving, worker):
    """A connection that this worker has accepted, closed at the end."""
    connection = connection_with(serving, worker)
    connection.sock.settimeout(BY_THEN)
    return contextlib.closing(connection)


def said(success, message):
    return 200, {"success": success, "message": message}


DONE = said(True, "the thought ends")


@pytest.fixture(scope="module")
def long_server(tmp_path_factory):
    serving = Serving(make_tiny_model(tmp_path_factory.mktemp("model"), "thinker"), *LONG, *ONE_WORKER, "--log-json", kv_mib=1024)
    yield serving
    serving.stop()


def test_a_thought_is_ended(long_server):
    """Its answer follows, which a stop text ends here; then nothing of it is left to be controlled."""
    before = long_server.metric("runnel_thoughts_total", "end=asked")
    with thinking(long_server, stop="ab", reasoning_budget_message=ENOUGH) as running:
        assert control(long_server, running.id) == DONE
        thought, _, last = running.rest()
        assert thought.rstrip().endswith(ENOUGH) and last["choices"][0]["finish_reason"] == "stop"
        assert last["timings"]["thinking_end"] == "asked"
        wait_until(lambda: control(long_server, running.id) == said(False, UNKNOWN))
    assert long_server.wait_for(lambda now: now[("runnel_thoughts_total", "end=asked")] == before + 1)
    lines = long_server.wait_for_lines(lambda lines: {line["path"] for line in lines} == {CHAT, CONTROL})
    assert [line.get("thought_end") for line in lines if line["path"] == CHAT] == ["asked"]


def test_the_id_of_a_request_does_as_well(long_server):
    with thinking(long_server, stop="ab") as running:
        assert control(long_server, running.id.removeprefix("chatcmpl-")) == DONE
        assert running.rest()[2]["timings"]["thinking_end"] == "asked"


def test_an_answer_that_has_begun(long_server):
    with thinking(long_server) as running:
        assert control(long_server, running.id) == DONE
        running.read_until("content")
        assert control(long_server, running.id) == said(False, "no thought is running: the answer has begun")


def test_a_request_that_did_not_allow_it(long_server):
    for fields in ({"reasoning_control": False}, {"reasoning_control": None}):
        with thinking(long_server, **fields) as running:
            assert control(long_server, running.id) == said(False, "reasoning control not enabled for this completion")
            for _ in range(30):  # it thinks on
                running.read_until("reasoning_content")


def test_all_choices_of_a_request(long_server):
    with thinking(long_server, n=2, stop="ab") as running:
        assert control(long_server, running.id) == DONE
        events = list(running.events)
        assert events[-1] == "[DONE]"
        ends = {choice["index"]: choice["finish_reason"] for event in events[:-1] for choice in event["choices"] if choice["finish_reason"]}
        assert ends == {0: "stop", 1: "stop"}


def test_what_is_not_understood(long_server):
    with thinking(long_server) as running:
        for body, param in (({}, "id"), ({"action": "reasoning_end"}, "id"), ({"id": 3, "action": "reasoning_end"}, "id"),
                            ({"id": "", "action": "reasoning_end"}, "id"), ({"id": None, "action": "reasoning_end"}, "id"),
                            ({"id": running.id}, "action"), ({"id": running.id, "action": "stop"}, "action"),
                            ({"id": running.id, "action": ["reasoning_end"]}, "action"), ([running.id], None), ("x", None)):
            status, _, answer = long_server.post(CONTROL, body)
            assert status == 400 and answer["error"]["param"] == param, (body, answer)
            assert running.id not in json.dumps(answer)
        assert long_server.get(CONTROL)[0] == 405
        digits = running.id.removeprefix("chatcmpl-")
        for id in ("x", "chatcmpl-", "chatcmpl-x", digits[:-1], digits + "0", digits.upper(), f"cmpl-{digits}", digits[:-1] + "\0",
                   f"chatcmpl-{digits[:-1]}{'0' if digits[-1] != '0' else '1'}",  # the last digit is another one
                   *(f"chatcmpl-{digits[:14]}{worker}{digits[16:]}" for worker in ("01", "1f", "20", "ff"))):  # nobody's
            if id != digits:
                assert control(long_server, id) == said(False, UNKNOWN), id
        running.read_until("reasoning_content")
        assert control(long_server, running.id) == DONE


@pytest.fixture
def locked(serve, tiny):
    """Two workers, and two keys."""
    if "RUNNEL_DEVICE" in os.environ:
        pytest.skip("a server with a GPU has one worker")
    serving = serve(tiny("thinker"), *LONG, "--workers", "2", "--parallel", "64", "--api-key", "one,two", kv_mib=1024)
    serving.key = "one"
    serving.wait_for(lambda now: now[("runnel_kv_cache_bytes",)] > (1024 - 1) << 20)  # of both
    return serving


def thoughts_of_both(serving):
    """{pid of a worker: a thought that it is at}"""
    found, others = {}, []
    while len(found) < 2:
        running = Thinking(serving, "one", stop="ab")
        if found.setdefault(worker_of(serving, running.stream), running) is not running:
            others.append(running)
        assert len(others) < 100, "one worker gets everything"
    for running in others:
        running.stream.leave()
    return found


def test_whichever_worker_is_asked(locked):
    """The answer of one is controlled by the other, and by itself; another key cannot, and is told the same as of an unknown id."""
    for is_same in (False, True):
        by_worker = thoughts_of_both(locked)
        for pid, running in by_worker.items():
            (asked,) = [other for other in by_worker if (other == pid) == is_same]
            with reach(locked, asked) as connection:
                assert control(locked, running.id, connection, "two") == said(False, UNKNOWN)
                assert control(locked, running.id[:-1] + ("0" if running.id[-1] != "0" else "1"), connection, "one") == said(False, UNKNOWN)
                running.read_until("reasoning_content")
                assert control(locked, running.id, connection, "one") == DONE
            assert running.rest()[2]["timings"]["thinking_end"] == "asked"
            running.stream.leave()
    assert control(locked, "x", key="three")[0] == 401


def test_a_worker_that_does_not_listen(locked):
    """Whoever asks for something of it is told to try again, and others are served."""
    by_worker = thoughts_of_both(locked)
    stopped, asked = by_worker
    with reach(locked, asked) as connection:
        os.kill(stopped, signal.SIGSTOP)
        try:
            status, answer = control(locked, by_worker[stopped].id, connection, "one")
        finally:
            os.kill(stopped, signal.SIGCONT)
        assert status == 503 and "try again" in answer["error"]["message"]
        assert control(locked, by_worker[asked].id, connection, "one") == DONE
        assert by_worker[stopped].rest()[2]["timings"]["thinking_end"] == "asked"  # what was asked is done once it listens again


def test_a_client_that_does_not_wait_for_the_answer(locked):
    """Nothing of its question is left."""
    by_worker = thoughts_of_both(locked)
    stopped, asked = by_worker
    with reach(locked, asked) as connection:
        os.kill(stopped, signal.SIGSTOP)
        connection.request("POST", CONTROL, json.dumps({"id": by_worker[stopped].id, "action": "reasoning_end"}),
                           {"Content-Type": "application/json", "Authorization": "Bearer one"})
    os.kill(stopped, signal.SIGCONT)
    for running in by_worker.values():
        running.stream.leave()
    locked.wait_until_idle()


def test_the_worker_dies_meanwhile(locked):
    by_worker = thoughts_of_both(locked)
    dead, asked = by_worker
    with reach(locked, asked) as connection:
        os.kill(dead, signal.SIGKILL)
        wait_until(lambda: dead not in locked.workers())
        assert control(locked, by_worker[dead].id, connection, "one") == said(False, UNKNOWN)
