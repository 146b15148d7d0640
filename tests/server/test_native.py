"""llama-server's own routes, as its clients know them: /completion, /tokenize, /detokenize, /apply-template, /props, /slots."""
import http.client
import json
import math
import threading
import time

import pytest
from serving import BY_THEN, ONE_WORKER, Serving, make_tiny_model

MESSAGES = [{"role": "user", "content": "Hello"}]
RESULT = {"content", "tokens", "index", "id_slot", "stop", "model", "tokens_predicted", "tokens_evaluated", "tokens_cached",
          "truncated", "has_new_line", "prompt", "stop_type", "stopping_word", "generation_settings", "timings"}
LETTERS = {"a": 100, "b": 100}  # tokens of one byte each: only these are drawn


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    serving = Serving(make_tiny_model(tmp_path_factory.mktemp("model"), "qwen2"), "--ctx", "1000", "--parallel", "4")
    yield serving
    serving.stop()


@pytest.fixture(scope="module")
def r1(tmp_path_factory):
    serving = Serving(make_tiny_model(tmp_path_factory.mktemp("model"), "r1"), "--ctx", "1000", "--parallel", "2")
    yield serving
    serving.stop()


@pytest.fixture(scope="module")
def sentencepiece(tmp_path_factory):
    serving = Serving(make_tiny_model(tmp_path_factory.mktemp("model"), "sentencepiece"), "--ctx", "1000", "--parallel", "2")
    yield serving
    serving.stop()


def ask(server, path="/completion", **body):
    status, _, answer = server.post(path, body)
    assert status == 200, answer
    return answer


def refused(server, param, path="/completion", **body):
    status, _, answer = server.post(path, body)
    assert status == 400 and answer["error"]["param"] == param, answer
    return answer["error"]


def stream(server, **body):
    """The events of a stream, until the server ends it."""
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=60)
    connection.request("POST", "/completion", json.dumps({"stream": True, **body}), {"Content-Type": "application/json"})
    response = connection.getresponse()
    assert response.status == 200 and response.headers.get_content_type() == "text/event-stream"
    events = response.read().decode().split("\n\n")
    connection.close()
    assert events.pop() == ""
    return [json.loads(event.removeprefix("data: ")) for event in events]


# /completion -----------------------------------------------------------------------------------------------------


def test_shape(server):
    answer = ask(server, prompt="abc", n_predict=8, temperature=0)
    assert set(answer) == RESULT
    assert answer["content"] and answer["tokens"] == [] and answer["stop"] is True and answer["truncated"] is False
    assert answer["tokens_predicted"] == 8 and answer["tokens_evaluated"] == 3
    assert answer["stop_type"] == "limit" and answer["stopping_word"] == ""
    assert answer["prompt"] == "abc" and answer["has_new_line"] is ("\n" in answer["content"])
    assert answer["model"] == "Tiny random model" and 0 <= answer["id_slot"] < 4
    settings = answer["generation_settings"]
    assert settings["n_predict"] == 8 and settings["temperature"] == 0 and settings["n_ctx"] == 1000
    assert answer["timings"]["predicted_n"] == 8 and answer["timings"]["prompt_n"] + answer["timings"]["cache_n"] == 3
    assert ask(server, "/completions", prompt="abc", n_predict=8, temperature=0)["content"] == answer["content"]
    openai = ask(server, "/v1/completions", prompt="abc", max_tokens=8, temperature=0)
    assert openai["choices"][0]["text"] == answer["content"]


def test_settings_repeat_the_answer(server):
    """A seed that the server chose can be sent back, also by who keeps numbers in 32 bits."""
    first = ask(server, prompt="abc", n_predict=20, temperature=1.5)
    again = ask(server, prompt="abc", n_predict=20, temperature=1.5, seed=first["generation_settings"]["seed"])
    assert again["content"] == first["content"] and 0 <= first["generation_settings"]["seed"] < 2**31


def test_response_fields(server):
    fields = {"prompt": "abc", "n_predict": 8, "temperature": 0}
    whole = ask(server, **fields)
    names = ["content", "generation_settings/temperature", "timings/predicted_n", "prompt", "no/such", "content/x", "", "stop/"]
    answer = ask(server, response_fields=names, **fields)
    assert answer == {"content": whole["content"], "generation_settings/temperature": 0, "timings/predicted_n": 8,
                      "prompt": "abc"}
    assert set(ask(server, response_fields=[], **fields)) == RESULT
    assert ask(server, response_fields=["nothing"], **fields) == {}
    several = ask(server, prompt=["abc", "abd"], response_fields=["index", "prompt"], n_predict=2)
    assert several == [{"index": 0, "prompt": "abc"}, {"index": 1, "prompt": "abd"}]
    *deltas, last = stream(server, response_fields=["tokens_predicted"], **fields)
    assert last == {"tokens_predicted": 8} and all("content" in delta for delta in deltas)
    refused(server, "response_fields", prompt="a", response_fields="content")
    assert ask(server, response_fields=["index"] * 128, **fields) == {"index": 0}
    refused(server, "response_fields", prompt="a", response_fields=["index"] * 129)


def test_timings_of_each_token(server):
    fields = {"prompt": "abc", "n_predict": 12, "temperature": 0, "ignore_eos": True}
    *deltas, last = stream(server, timings_per_token=True, **fields)
    counts = [delta["timings"]["predicted_n"] for delta in deltas]
    assert counts == sorted(counts) and 1 <= counts[0] and counts[-1] == 12 == last["timings"]["predicted_n"]
    for delta in deltas:
        assert set(delta["timings"]) == set(last["timings"])
        assert delta["timings"]["cache_n"] + delta["timings"]["prompt_n"] == 3
    assert last["generation_settings"]["timings_per_token"] is True
    assert all("timings" not in delta for delta in stream(server, **fields)[:-1])


def test_the_prompt_as_it_was_read(server, r1):
    """Ids and mixtures as text; and the token with which R1 wants its texts to begin."""
    ids = ask(server, "/tokenize", content="abc")["tokens"]
    for prompt in (ids, [ids[0], "bc"], {"prompt_string": "abc"}):
        assert ask(server, prompt=prompt, n_predict=1)["prompt"] == "abc"
    assert ask(r1, prompt="abc", n_predict=1)["prompt"] == "<｜begin▁of▁sentence｜>abc"
    assert ask(server, prompt="a<|im_end|>", n_predict=1)["prompt"] == "a<|im_end|>"


def test_new_lines_are_told(server):
    (new_line,) = ask(server, "/tokenize", content="\n")["tokens"]
    fields = {"prompt": "abc", "n_predict": 3, "temperature": 0}
    for bias, expected in (([[new_line, 100]], True), ([["a", 100]], False)):
        assert ask(server, logit_bias=bias, **fields)["has_new_line"] is expected
        assert stream(server, logit_bias=bias, **fields)[-1]["has_new_line"] is expected


def test_stream(server):
    fields = {"prompt": "abc", "n_predict": 20, "seed": 3, "ignore_eos": True, "logit_bias": [[282, False]]}
    whole = ask(server, return_tokens=True, **fields)
    events = stream(server, **fields)
    *deltas, last = events
    assert "".join(event["content"] for event in events) == whole["content"]
    assert sum((event["tokens"] for event in events), []) == whole["tokens"] and len(whole["tokens"]) == 20
    assert all(set(event) == {"content", "tokens", "index", "stop"} and event["stop"] is False for event in deltas)
    assert set(last) == RESULT and last["stop"] is True and last["content"] == ""
    assert last["tokens_predicted"] == 20


def test_stop_types(server):
    text = ask(server, prompt="abc", n_predict=40, logit_bias=LETTERS, temperature=2, top_k=0, min_p=0, seed=1)["content"]
    assert set(text) == {"a", "b"}
    word = text[10:16]
    fields = {"prompt": "abc", "n_predict": 40, "logit_bias": LETTERS, "temperature": 2, "top_k": 0, "min_p": 0, "seed": 1}
    for stop in (word, ["zz", word]):
        answer = ask(server, stop=stop, **fields)
        assert answer["stop_type"] == "word" and answer["stopping_word"] == word
        assert answer["content"] == text[:text.index(word)]
    assert stream(server, stop=["zz", word], **fields)[-1]["stopping_word"] == word
    end = ask(server, prompt="abc", n_predict=40, logit_bias=[[282, 100]])  # <|im_end|>
    assert end["stop_type"] == "eos" and end["content"] == "" and end["tokens_predicted"] == 1
    assert ask(server, prompt="abc", n_predict=4, logit_bias=[[282, 100]], ignore_eos=True)["stop_type"] == "limit"


def test_prompts(server):
    fields = {"n_predict": 6, "temperature": 0}
    alone = ask(server, prompt="abc", **fields)["content"]
    ids = ask(server, "/tokenize", content="abc")["tokens"]
    assert ask(server, prompt=ids, **fields)["content"] == alone
    assert ask(server, prompt=[ids[0], "b", ids[2]], **fields)["content"] == alone
    assert ask(server, prompt={"prompt_string": "abc"}, **fields)["content"] == alone
    several = ask(server, prompt=["abc", ids, {"prompt_string": "abc"}], **fields)
    assert [answer["content"] for answer in several] == [alone] * 3
    assert [answer["index"] for answer in several] == [0, 1, 2]
    assert len(ask(server, prompt="abc", n=2, **fields)) == 2
    assert [answer["prompt"] for answer in ask(server, prompt=["abc", "abd"], n_cmpl=2, **fields)] == ["abc"] * 2 + ["abd"] * 2
    for prompt in (None, "", [], 3, {}, {"prompt_string": 3}, {"prompt_string": ""}, [[]], [3.5, "a"], [[1], None],
                   [1, [2]], [-1], [289], ["a", 289], {"prompt_string": "a", "multimodal_data": ["x"]}):
        refused(server, "prompt", prompt=prompt)


@pytest.mark.parametrize("path", ["/v1/completions", "/completion"])
@pytest.mark.parametrize("wrong, said", [("", "it is empty"), ([], "it is empty"), ([-1], "expected token ids"),
                                         ("a " * 40000, "the prompt has ")],
                         ids=["no-text", "no-ids", "wrong-ids", "too-long"])
def test_which_prompt_is_at_fault(server, path, wrong, said):
    """Also where it is several requests of the engine's."""
    for n in (1, 2):
        status, _, answer = server.post(path, {"prompt": ["abc", [1, 2], wrong, "abc"], "max_tokens": 2, "n": n})
        assert status == 400 and answer["error"]["param"] == "prompt", answer
        assert answer["error"]["message"].startswith(f"prompt[2]: {said}"), answer
    status, _, answer = server.post(path, {"prompt": "a " * 40000, "max_tokens": 2, "n": 2})
    assert status == 400 and answer["error"]["message"].startswith("the prompt has "), answer


def test_which_entry_of_a_batch_is_at_fault(server):
    status, _, answer = server.post("/generate-batch", [{"prompt": "abc"}, {"prompt": "a " * 40000}])
    assert status == 400 and answer["error"]["message"].startswith("requests[1]: the prompt has "), answer


def test_nothing_to_predict(server):
    """As clients warm the cache: the prompt is computed, and nothing is answered."""
    prompt = "x" * 200
    with server.on_one_connection():
        answer = ask(server, prompt=prompt, n_predict=0)
        assert answer["content"] == "" and answer["tokens_predicted"] == 0 and answer["tokens_evaluated"] == 200
        assert answer["generation_settings"]["n_predict"] == 0
        assert ask(server, prompt=prompt + "y", n_predict=1)["tokens_cached"] > 100
    (last,) = stream(server, prompt=prompt, n_predict=0)
    assert last["stop"] and last["content"] == "" and last["tokens"] == []
    assert ask(server, prompt="abc", n_predict=-1, ignore_eos=True)["tokens_predicted"] > 300  # as many as fit
    refused(server, "n_predict", prompt="a", n_predict=-2)
    refused(server, "n_predict", "/v1/completions", prompt="a", n_predict=0)


def test_probabilities(server):
    fields = {"prompt": "abc", "n_predict": 10, "temperature": 0, "n_probs": 3}
    answer = ask(server, **fields)
    tokens = answer["completion_probabilities"]
    assert len(tokens) == 10
    for token in tokens:
        assert token["logprob"] <= 0 and len(token["top_logprobs"]) == 3
        assert token["id"] == token["top_logprobs"][0]["id"]
        assert sum(math.exp(top["logprob"]) for top in token["top_logprobs"]) <= 1.001
    assert b"".join(bytes(token["bytes"]) for token in tokens).decode(errors="replace") == answer["content"]
    streamed = sum((event.get("completion_probabilities", []) for event in stream(server, **fields)), [])
    assert streamed == tokens
    assert "completion_probabilities" not in ask(server, prompt="a", n_predict=1)
    assert len(ask(server, prompt="a", n_predict=1, n_probs=20)["completion_probabilities"][0]["top_logprobs"]) == 20
    refused(server, "n_probs", prompt="a", n_probs=21)


def test_probabilities_after_sampling(server):
    fields = {"prompt": "abc", "n_predict": 10, "temperature": 1.3, "top_k": 0, "top_p": 1, "min_p": 0, "seed": 4,
              "post_sampling_probs": True}
    plain = ask(server, **fields)
    assert "completion_probabilities" not in plain and plain["generation_settings"]["post_sampling_probs"] is True
    answer = ask(server, n_probs=20, **fields)
    tokens = answer["completion_probabilities"]
    assert answer["content"] == plain["content"] and len(tokens) == 10
    for token in tokens:
        assert set(token) == {"id", "token", "bytes", "prob", "top_probs"} and 0 < token["prob"] < 1
        assert all(set(top) == {"id", "token", "bytes", "prob"} for top in token["top_probs"])
        probs = [top["prob"] for top in token["top_probs"]]
        assert len(probs) == 20 and probs == sorted(probs, reverse=True) and 0 < sum(probs) <= 1 + 1e-6
        assert all(top["prob"] == token["prob"] for top in token["top_probs"] if top["id"] == token["id"])
    streamed = sum((event.get("completion_probabilities", []) for event in stream(server, n_probs=20, **fields)), [])
    assert streamed == tokens
    model = ask(server, n_probs=20, **{**fields, "post_sampling_probs": False})
    assert model["generation_settings"]["post_sampling_probs"] is False and model["content"] == plain["content"]
    assert "logprob" in model["completion_probabilities"][0]

    for top_k, temperature, n in ((2, 1, 2), (1, 1, 1), (40, 0, 1)):  # what sampling excludes is not told
        sampled = ask(server, n_probs=5, **{**fields, "top_k": top_k, "temperature": temperature})
        for token in sampled["completion_probabilities"]:
            assert len(token["top_probs"]) == n and sum(top["prob"] for top in token["top_probs"]) == pytest.approx(1)
            assert token["id"] in [top["id"] for top in token["top_probs"]]
            assert n > 1 or token["prob"] == 1
    (a, b) = ask(server, "/tokenize", content="ab")["tokens"]  # a bias is in them: the model itself thinks otherwise
    biased = {"prompt": "abc", "n_predict": 1, "temperature": 1, "logit_bias": [[a, 100]], "n_probs": 1}
    (token,) = ask(server, post_sampling_probs=True, **biased)["completion_probabilities"]
    assert token["id"] == a and token["prob"] == pytest.approx(1)
    assert ask(server, **biased)["completion_probabilities"][0]["logprob"] < -0.5
    assert ask(server, prompt="a", n_predict=0, n_probs=2, post_sampling_probs=True)["completion_probabilities"] == []
    refused(server, "post_sampling_probs", prompt="a", n_probs=1, post_sampling_probs=1)
    refused(server, "post_sampling_probs", "/v1/completions", prompt="a", post_sampling_probs=True)


def test_logit_bias(server):
    """Ids and texts, in an object and in pairs; false is never."""
    fields = {"prompt": "abc", "n_predict": 12, "temperature": 0}
    (a, b) = ask(server, "/tokenize", content="ab")["tokens"]
    for bias in ({str(a): 100}, {"a": 100}, [[a, 100]], [["a", 100]]):
        assert ask(server, logit_bias=bias, **fields)["content"] == "a" * 12
    assert ask(server, logit_bias=[["ab", 100], [a, False]], **fields)["content"] == "b" * 12
    assert ask(server, "/v1/completions", prompt="abc", max_tokens=3, temperature=0,
               logit_bias=[["a", 100]])["choices"][0]["text"] == "aaa"
    for bias in ("a", 3, [[a]], [[a, 1, 2]], [["a", True]], [[a, "1"]], [["", 1]], [[-1, 1]], [[289, 1]], [[1.5, 1]],
                 [["a", 100.5]], [["a", -101]], {"289": 1}, {"99999999999": 1}, [["a" * 1025, 1]]):
        refused(server, "logit_bias", prompt="a", logit_bias=bias)
    assert ask(server, prompt="a", n_predict=1, logit_bias=[["a" * 1024, 1]])


def test_what_cannot_be_kept_is_refused(server):
    for field, value in (("grammar", "root ::= nothing"), ("json_schema", {"type": "thing"}),
                         ("lora", [{"id": 0}]), ("response_format", {"type": "xml"})):
        refused(server, field, prompt="a", **{field: value})
    # What changes no answer, or asks for nothing, is taken.
    assert ask(server, prompt="a", n_predict=1, cache_prompt=False, id_slot=-1, grammar="", json_schema=None, samplers=["top_k"])
    refused(server, "cache_prompt", prompt="a", cache_prompt="no")
    refused(server, "return_tokens", prompt="a", return_tokens=1)


def test_prompt_too_long(server):
    for prompt in ("a" * 1000, [97] * 1000, ["b" * 3, "a" * 1000]):
        status, _, answer = server.post("/completion", {"prompt": prompt})
        assert status == 400 and answer["error"]["type"] == "exceed_context_size_error"
        assert answer["error"]["code"] == 400
        for words in ("exceeds the available context size", "context_length_exceeded"):  # what clients look for
            assert words in answer["error"]["message"]
        assert answer["error"]["n_prompt_tokens"] == 1000 and answer["error"]["n_ctx"] == 1000
    assert ask(server, prompt="a" * 999, n_predict=9)["tokens_predicted"] == 1  # as much as fits


# Text and tokens -------------------------------------------------------------------------------------------------


def test_tokenize_and_back(server):
    text = "Grüße, <|im_end|> 😀\n"
    ids = ask(server, "/tokenize", content=text)["tokens"]
    assert ask(server, "/detokenize", tokens=ids)["content"] == text
    assert ids.count(282) == 1
    plain = ask(server, "/tokenize", content=text, parse_special=False)["tokens"]
    assert 282 not in plain and ask(server, "/detokenize", tokens=plain)["content"] == text
    pieces = ask(server, "/tokenize", content="aä", with_pieces=True)["tokens"]
    assert pieces == [{"id": 97, "piece": "a"}, {"id": 195, "piece": [195]}, {"id": 164, "piece": [164]}]
    assert ask(server, "/tokenize", content="", add_special=True)["tokens"] == []  # this model wants none
    assert ask(server, "/detokenize", tokens=[])["content"] == ""
    refused(server, "content", "/tokenize")
    refused(server, "content", "/tokenize", content=3)
    refused(server, "add_special", "/tokenize", content="a", add_special="yes")
    for tokens in (None, "a", [289], [-1], [1.5], ["a"]):
        refused(server, "tokens", "/detokenize", tokens=tokens)
    status, _, answer = server.post("/tokenize", [1])
    assert status == 400 and answer["error"]["param"] is None


def test_a_space_before_texts(sentencepiece):
    """SentencePiece sets a space before texts: it is in the tokens, and in no text that comes back."""
    text = "hello<|im_start|>hello world\u6771"
    pieces = ask(sentencepiece, "/tokenize", content=text, with_pieces=True)["tokens"]
    assert [token["piece"] for token in pieces] == ["hello", "<|im_start|>", "hello", " world", [0xe6], [0x9d], [0xb1]]
    ids = [token["id"] for token in pieces]
    assert ids[0] == ids[2] and ids == ask(sentencepiece, "/tokenize", content=text)["tokens"]
    assert ask(sentencepiece, "/detokenize", tokens=ids)["content"] == text
    with_space = ask(sentencepiece, "/tokenize", content=" hello", with_pieces=True)["tokens"]
    assert "".join(token["piece"] for token in with_space) == " hello"


def test_apply_template(server, r1):
    prompt = ask(server, "/apply-template", messages=MESSAGES)["prompt"]
    assert prompt.endswith("<|im_start|>user\nHello<|im_end|>\n<|im_start|>assistant\n")
    # What it gives can be continued, with the answer that the chat would give.
    fields = {"temperature": 0, "max_tokens": 8}
    chat = ask(server, "/v1/chat/completions", messages=MESSAGES, **fields)["choices"][0]["message"]["content"]
    assert ask(server, prompt=prompt, **fields)["content"] == chat
    assert ask(r1, "/apply-template", messages=MESSAGES)["prompt"].endswith("<think>\n")
    off = ask(r1, "/apply-template", messages=MESSAGES, chat_template_kwargs={"enable_thinking": False})["prompt"]
    assert off.endswith("<think>\n\n</think>\n\n")
    begun = [*MESSAGES, {"role": "assistant", "content": "Sure"}]
    assert ask(server, "/apply-template", messages=begun)["prompt"] == prompt + "Sure"
    assert ask(r1, "/apply-template", messages=begun)["prompt"] == off + "Sure"
    assert ask(server, "/apply-template", messages=[{"role": "user", "content": "a\0b"}])["prompt"].count("a\0b") == 1
    refused(server, "messages", "/apply-template", messages=[])


def test_a_template_from_a_file_and_thoughts_off(tmp_path):
    file = tmp_path / "t.jinja"
    file.write_text("{% for m in messages %}[{{ m.role|upper }}]{{ m.content|trim }}{% endfor %}"
                    "{% if messages|length > 3 %}{{ raise_exception('At most 3 messages') }}{% endif %}"
                    "[A]{{ '<think>\n' }}")
    serving = Serving(make_tiny_model(tmp_path, "r1"), "--ctx", "1000", "--chat-template-file", str(file), "--reasoning", "off")
    try:
        closed = "[USER]Hello[A]<think>\n\n</think>\n\n"
        assert ask(serving, "/apply-template", messages=MESSAGES)["prompt"] == closed
        on = {"enable_thinking": True}
        assert ask(serving, "/apply-template", messages=MESSAGES, chat_template_kwargs=on)["prompt"] == "[USER]Hello[A]<think>\n"
        assert ask(serving, "/apply-template", messages=MESSAGES, **on)["prompt"] == "[USER]Hello[A]<think>\n"
        status, _, answer = serving.post("/apply-template", {"messages": 4 * [{"role": "user", "content": "SECRET"}]})
        assert status == 400 and "At most 3 messages" in answer["error"]["message"]
    finally:
        serving.stop()


def test_a_model_without_a_template(tmp_path):
    serving = Serving(make_tiny_model(tmp_path, "bare"))
    try:
        for path, body in (("/v1/chat/completions", {"messages": MESSAGES}), ("/generate", {"prompt": "Hello"}), ("/apply-template", {"messages": MESSAGES})):
            status, _, answer = serving.post(path, body)
            assert status == 400, path
            assert answer["error"]["message"] == ("the model has no chat template: choose one with --chat-template (r1, chatml), "
                                                  "or send the prompt raw"), path
    finally:
        serving.stop()


@pytest.mark.parametrize("path, body, field", [
    ("/v1/chat/completions", {"messages": [{"role": "user", "content": "TEXT"}]}, "messages"),
    ("/apply-template", {"messages": [{"role": "user", "content": "TEXT"}]}, "messages"),
    ("/generate", {"prompt": "TEXT"}, "prompt"),
    ("/generate-batch", [{"prompt": "Hello"}, {"prompt": "TEXT"}], "requests[1].prompt"),
])
def test_a_text_that_is_too_much_for_the_template(tmp_path, path, body, field):
    """One that could never fit is told as all prompts that are too long; one that might, as the template's failure."""
    file = tmp_path / "t.jinja"
    file.write_text("{% for m in messages %}{{ m.content }}{% if m.content|length > 100 %}{{ 'x' * 1000000000 }}{% endif %}{% endfor %}")
    serving = Serving(make_tiny_model(tmp_path, "qwen2"), "--ctx", "128", "--chat-template-file", str(file))
    try:
        def error(text):
            status, _, answer = serving.post(path, json.loads(json.dumps(body).replace("TEXT", text)))
            assert status == 400
            return answer["error"]
        long, short = error(100000 * "a"), error(101 * "a")
        assert (long["type"], long["param"], long["n_ctx"]) == ("exceed_context_size_error", field, 128)
        assert long["n_prompt_tokens"] >= 128 and long["code"] == 400
        assert "has 100000 bytes" in long["message"] and "(context_length_exceeded)" in long["message"]
        assert "exceeds the available context size" in long["message"]
        assert short["type"] == "invalid_request_error" and "chat template, line 1: more than" in short["message"]
    finally:
        serving.stop()


NOTHING = [[token, False] for token in range(289)]  # of the tiny vocabulary: no token is left to draw


@pytest.mark.parametrize("path, body, named", [
    ("/v1/completions", {"prompt": ["a", "b"]}, "prompt[0]: "),
    ("/v1/completions", {"prompt": ["a", "b"], "n": 2}, "prompt[0]: "),
    ("/v1/completions", {"prompt": "a", "n": 2}, "choices[0]: "),
    ("/v1/chat/completions", {"messages": MESSAGES, "n": 2}, "choices[0]: "),
    ("/completion", {"prompt": ["a", "b"]}, "prompt[0]: "),
    ("/v1/completions", {"prompt": "a"}, ""),
    ("/v1/chat/completions", {"messages": MESSAGES}, ""),
])
def test_what_fails_while_it_is_computed_says_which(server, path, body, named):
    body = {**body, "logit_bias": NOTHING, "max_tokens": 4}
    message = named + "logit_bias: expected to leave a token"
    status, _, answer = server.post(path, body)
    assert status == 400 and answer["error"]["message"].startswith(message)
    stream = server.post(path, {**body, "stream": True})[2].decode()
    assert json.loads(stream.rstrip().rsplit("data: ", 1)[1])["error"]["message"].startswith(message)


def test_what_fails_of_a_batch_says_which(server):
    batch = [{"prompt": "a", "max_tokens": 4}, {"prompt": "b", "max_tokens": 4, "logit_bias": NOTHING}, {"prompt": "c", "max_tokens": 4}]
    status, _, answer = server.post("/generate-batch", batch)
    assert status == 400 and answer["error"]["message"].startswith("requests[1]: logit_bias: expected to leave a token")


# /props, /slots --------------------------------------------------------------------------------------------------


def test_props(server, r1):
    props = server.get("/props")[2]
    assert props["total_slots"] == 4 and props["default_generation_settings"]["n_ctx"] == 1000
    assert props["default_generation_settings"]["params"]["temperature"] == pytest.approx(0.8)
    assert props["default_generation_settings"]["params"]["seed"] == -1
    assert props["model_path"].endswith(".gguf") and props["model_alias"] == "Tiny random model"
    assert "<|im_start|>" in props["chat_template"] and props["eos_token"] == "<|im_end|>"
    assert props["build_info"].startswith("b")
    assert r1.get("/props")[2]["default_generation_settings"]["params"]["temperature"] == pytest.approx(0.6)


def test_slots(tmp_path):
    """What runs, in numbers; nobody's text. Both places are of one queue; of several: test_two_workers.py."""
    serving = Serving(make_tiny_model(tmp_path, "long"), *ONE_WORKER, "--ctx", "30000", "--parallel", "2", kv_mib=64)
    try:
        idle = serving.get("/slots")[2]
        assert [slot["id"] for slot in idle] == [0, 1] and not any(slot["is_processing"] for slot in idle)
        streams = [serving.stream("SECRET", 20000) for _ in range(2)]
        events = [one.read_head() and one.events() for one in streams]
        for one in events:
            next(one)
        slots, end = idle, time.monotonic() + BY_THEN  # what is told may be a step old, also of what a stream has told
        while not all(slot["is_processing"] and slot["next_token"]["n_decoded"] for slot in slots):
            assert time.monotonic() < end, slots
            slots = serving.get("/slots")[2]
        assert all(slot["n_prompt_tokens"] >= 1 for slot in slots)
        for slot in slots:
            assert slot["next_token"]["n_decoded"] >= 1
            assert slot["next_token"]["n_decoded"] + slot["next_token"]["n_remain"] == 20000
            assert slot["n_computed"] >= slot["n_prompt_tokens"]
        assert "SECRET" not in json.dumps(slots)
        assert serving.get("/slots?fail_on_no_slot=1")[0] == 503
        for one in streams:
            one.leave()
        serving.wait_until_idle()
        assert serving.get("/slots?fail_on_no_slot=1")[0] == 200
    finally:
        serving.stop()


def test_same_answer_in_company(server):
    fields = {"n_predict": 40, "temperature": 1, "seed": 7}
    alone = ask(server, prompt="abc", **fields)["content"]
    answers = []
    threads = [threading.Thread(target=lambda: answers.append(ask(server, prompt="abc", **fields)["content"]))
               for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert answers == [alone] * 6
