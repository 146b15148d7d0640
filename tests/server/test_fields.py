"""Fields of requests that ask for nothing special, or for something small; other servers' names; what is refused by name."""
import json

import pytest
from serving import Serving, make_tiny_model

MESSAGES = [{"role": "user", "content": "Hello"}]
TOOL = {"type": "function", "function": {"name": "look", "description": None, "parameters": {"type": "object"}}}
ROUTES = {"/v1/chat/completions": {"messages": MESSAGES}, "/v1/completions": {"prompt": "abc"},
          "/completion": {"prompt": "abc"}, "/generate": {"prompt": "abc"}}
END = "284"  # the token that ends the tiny R1's answers
CLOSE = "288"  # and the one that ends its thoughts


@pytest.fixture(scope="module")
def r1(tmp_path_factory):
    serving = Serving(make_tiny_model(tmp_path_factory.mktemp("model"), "r1"), "--ctx", "1000", "--parallel", "4")
    yield serving
    serving.stop()


def ask(server, path="/v1/chat/completions", **fields):
    status, _, answer = server.post(path, {**ROUTES[path], "max_tokens": 16, "temperature": 0, **fields})
    assert status == 200, answer
    return answer


def text_of(answer):
    """What an answer says, in the form of any route."""
    if "choices" not in answer:
        return [answer.get(name) for name in ("content", "response", "reasoning")]
    (choice,) = answer["choices"]
    return choice.get("text", choice.get("message"))


def refused(server, param, path="/v1/chat/completions", **fields):
    status, _, answer = server.post(path, {**ROUTES[path], "max_tokens": 16, **fields})
    assert status == 400 and answer["error"]["param"] == param, (fields, answer)
    return answer["error"]["message"]


@pytest.mark.parametrize("fields", [
    {"continue_final_message": False}, {"chat_template_kwargs": {}}, {"chat_template_kwargs": {"documents": None}},
    {"tools": [TOOL], "tool_choice": "none"}, {"functions": [{"name": "look"}], "function_call": "none"},
    {"tools": [], "tool_choice": "auto"}, {"tools": None, "tool_choice": None, "functions": None, "function_call": None},
    {"best_of": 1}, {"n": 1, "best_of": 1}, {"best_of": None}, {"stop": ""}, {"stop": [""]}, {"stop": []},
    {"json_schema": ""}, {"json_schema": None}, {"structured_outputs": {}}, {"grammar": ""}, {"response_format": None}, {"logprobs": False},
    {"logprobs": None, "top_logprobs": None}, {"min_tokens": 0}, {"min_tokens": None}, {"logit_bias": None}, {"n": None},
    {"reasoning_format": None}, {"post_sampling_probs": False}, {"post_sampling_probs": None}, {"seed": None},
    {"min_tokens": 16}], ids=json.dumps)
@pytest.mark.parametrize("path", ROUTES)
def test_what_asks_for_nothing_is_answered(r1, path, fields):
    if path in ("/completion", "/generate") and "logprobs" in fields:
        fields = {name: None for name in fields}
    assert text_of(ask(r1, path, **fields)) == text_of(ask(r1, path))


def test_best_of_as_many_as_n(r1):
    assert len(ask(r1, n=2, best_of=2)["choices"]) == 2
    refused(r1, "best_of", n=2, best_of=3)


@pytest.mark.parametrize("path", ROUTES)
def test_min_tokens(r1, path):
    """Tokens before the end token, which is as likely as can be; in a thought it would be none."""
    fields = {"logit_bias": {END: 100}, "enable_thinking": False}
    for name in ("min_tokens", "min_new_tokens"):
        answer = ask(r1, path, **fields, **{name: 7})
        assert text_of(answer) != text_of(ask(r1, path, **fields))
        counts = answer.get("usage", {}).get("completion_tokens") or answer.get("tokens_predicted")
        assert counts in (None, 8)  # and the end token
        refused(r1, name, path, **{name: 17})
        refused(r1, name, path, **{name: -1})


@pytest.mark.parametrize("most", ["max_tokens", "max_completion_tokens", "n_predict"])
@pytest.mark.parametrize("path", ROUTES)
def test_min_tokens_past_max_tokens_names_both(r1, path, most):
    message = refused(r1, "min_tokens", path, **{"max_tokens": None, most: 5}, min_tokens=6)
    assert message == f"min_tokens: expected at most {most}, 5, found 6"


def test_min_tokens_where_nothing_is_answered(r1):
    assert "n_predict, 0, found 1" in refused(r1, "min_tokens", "/completion", max_tokens=None, n_predict=0, min_tokens=1)


def test_min_tokens_past_the_servers_own_max_tokens(serve, tiny):
    """Who says the one, and not the other, gets as many."""
    server = serve(tiny("r1"), "--max-tokens", "4")
    for path in ("/v1/chat/completions", "/v1/completions"):
        answer = ask(server, path, max_tokens=None, min_tokens=9, ignore_eos=True)
        assert answer["usage"]["completion_tokens"] == 9


def test_min_tokens_holds_no_stop_text_back(r1):
    whole = text_of(ask(r1, "/v1/completions", ignore_eos=True))
    stopped = ask(r1, "/v1/completions", ignore_eos=True, stop=whole[2:4], min_tokens=16)
    assert stopped["choices"][0]["finish_reason"] == "stop" and whole.startswith(text_of(stopped))


def test_the_stopping_word_is_the_one_that_was_given(r1):
    whole = ask(r1, "/completion", ignore_eos=True)["content"]
    answer = ask(r1, "/completion", ignore_eos=True, stop=["", "not there", "", whole[2:4]])
    assert answer["stop_type"] == "word" and answer["stopping_word"] == whole[2:4]


def test_thoughts_in_the_content_and_apart(r1):
    """deepseek-legacy: the content is that of none, reasoning_content that of deepseek; whole and streamed."""
    fields = {"max_tokens": 40, "temperature": 1, "seed": 3, "logit_bias": {CLOSE: -100}, "thinking_budget_tokens": 9,
              "logprobs": True}
    apart, together, both = (ask(r1, reasoning_format=name, **fields)["choices"][0]
                             for name in ("deepseek", "none", "deepseek-legacy"))
    assert both["message"]["content"] == together["message"]["content"] != apart["message"]["content"]
    for name in ("reasoning_content", "reasoning"):
        assert both["message"][name] == apart["message"][name] and name not in together["message"]
    assert both["logprobs"] == together["logprobs"]
    status, _, events = r1.post("/v1/chat/completions", {"messages": MESSAGES, "stream": True,
                                                         "reasoning_format": "deepseek-legacy", **fields})
    assert status == 200
    deltas = [json.loads(event.removeprefix("data: "))["choices"][0]["delta"]
              for event in events.decode().split("\n\n") if event.startswith("data: {")]
    for name in ("content", "reasoning_content", "reasoning"):
        assert "".join(delta.get(name) or "" for delta in deltas) == both["message"][name]


BUDGETS = [{name: 9} for name in ("thinking_token_budget", "reasoning_budget_tokens", "reasoning_budget", "max_thinking_tokens",
                                  "reasoning_max_tokens", "thinking_budget")]
BUDGETS += [{"custom_params": {"thinking_budget": 9}}, {"logits_processors_args": {"thinking_budget": 9}}, {"thinking": {"type": "enabled", "budget_tokens": 9}},
            {"reasoning": {"max_tokens": 9}}, {"chat_template_kwargs": {"thinking_budget": 9}}]
OFF = [{"think": False}, {"thinking": {"type": "disabled"}}, {"thinking": {"type": "disabled", "budget_tokens": None}},
       {"reasoning": {"effort": "none"}}, {"reasoning": {"enabled": False}}, {"chat_template_kwargs": {"thinking": False}},
       {"reasoning_effort": "none"}, {"think": "none"}]


@pytest.mark.parametrize("fields", BUDGETS, ids=json.dumps)
def test_budgets_of_other_names(r1, fields):
    answer = ask(r1, max_tokens=30, logit_bias={CLOSE: -100}, **fields)
    assert answer["usage"]["completion_tokens_details"]["reasoning_tokens"] == 9
    entry = ask(r1, "/generate", logit_bias={CLOSE: -100}, max_tokens=30, **fields)
    assert entry["response"] and entry["reasoning"]


@pytest.mark.parametrize("fields", OFF, ids=json.dumps)
def test_thinking_switched_off_by_other_names(r1, fields):
    assert text_of(ask(r1, **fields)) == text_of(ask(r1, enable_thinking=False)) != text_of(ask(r1))


@pytest.mark.parametrize("fields", [{"think": True}, {"thinking": {"type": "enabled"}}, {"thinking": {"type": "adaptive"}},
                                    {"reasoning": {"enabled": True}}, {"chat_template_kwargs": {"thinking": True}}], ids=json.dumps)
def test_thinking_that_stays_on(r1, fields):
    assert text_of(ask(r1, **fields)) == text_of(ask(r1))


def test_budgets_that_differ_are_both_named(r1):
    message = refused(r1, "thinking_budget", thinking_budget=5, max_thinking_tokens=6)
    assert "max_thinking_tokens" in message and "thinking_budget" in message
    refused(r1, "reasoning_budget_tokens", "/completion", reasoning_budget_tokens=5)


@pytest.mark.parametrize("field, value", [
    ("prompt_logprobs", 0), ("prompt_logprobs", 2), ("skip_special_tokens", False), ("no_stop_trim", True), ("mirostat", 2),
    ("typical_p", 0.5), ("dry_multiplier", 0.8), ("format", "json"), ("options", {"num_ctx": 4096}), ("verbosity", "low"),
    ("return_token_ids", True), ("truncate_prompt_tokens", 5), ("chat_template", "x"), ("t_max_predict_ms", 100)])
@pytest.mark.parametrize("path", ROUTES)
def test_what_cannot_be_honoured_is_refused_by_name(r1, path, field, value):
    refused(r1, field, path, **{field: value})


def test_samplers_that_are_switched_off(r1):
    """As llama-server's own page and other clients send them."""
    off = {"dynatemp_range": 0, "dynatemp_exponent": 1, "typical_p": 1, "top_n_sigma": -1, "xtc_probability": 0,
           "xtc_threshold": 0.1, "dry_multiplier": 0, "dry_base": 1.75, "dry_allowed_length": 2, "mirostat": 0,
           "mirostat_tau": 5, "samplers": ["top_k"], "n_keep": 0, "t_max_predict_ms": 0, "return_progress": False}
    for path in ROUTES:
        assert text_of(ask(r1, path, **off)) == text_of(ask(r1, path))


@pytest.mark.parametrize("field, value", [("instructions", "Be brief."), ("stop_sequences", ["a"]), ("response_prefix", "x")])
@pytest.mark.parametrize("path", ROUTES)
def test_names_of_other_apis_that_would_change_the_answer(r1, path, field, value):
    refused(r1, field, path, **{field: value})
    ask(r1, path, **{field: None})
