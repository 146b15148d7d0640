"""vLLM's routes that give the token ids of prompts: they are those that the server computes, and they are refused where the request
would be. The shapes are those that llm-d's router and vLLM's own tests read."""
import json

import pytest
from serving import Serving, make_tiny_model

CHAT = "/v1/chat/completions/render"
COMPLETION = "/v1/completions/render"
MESSAGES = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hello <|im_end|>"}]
CONTEXT = 256


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("models")


@pytest.fixture(scope="module")
def server(folder):
    serving = Serving(make_tiny_model(folder, "qwen2"), "--ctx", str(CONTEXT), "--alias", "mine")
    yield serving
    serving.stop()


@pytest.fixture(scope="module")
def llama(folder):
    """Wants texts to begin with a token of its own."""
    serving = Serving(make_tiny_model(folder, "llama"))
    yield serving
    serving.stop()


def rendered(serving, path, body):
    status, headers, answer = serving.post(path, body)
    assert status == 200, answer
    for one in answer if path == COMPLETION else [answer]:
        prefix, request = one["request_id"].split("-")
        assert prefix == ("cmpl" if path == COMPLETION else "chatcmpl") and request == headers["X-Request-Id"]
        assert one["features"] is None and one["token_ids"]
    return answer


def test_a_chat_is_what_would_be_computed(server):
    answer = rendered(server, CHAT, {"messages": MESSAGES, "model": "any"})
    prompt = server.post("/apply-template", {"messages": MESSAGES})[2]["prompt"]
    assert server.post("/detokenize", {"tokens": answer["token_ids"]})[2]["content"] == prompt
    assert answer["model"] == "mine" and answer["stream"] is False
    drawn = {"temperature": 0, "max_tokens": 8, "ignore_eos": True}
    chat = server.post("/v1/chat/completions", {"messages": MESSAGES, **drawn})[2]
    continued = server.post("/v1/completions", {"prompt": answer["token_ids"], **drawn})[2]
    assert chat["usage"]["prompt_tokens"] == len(answer["token_ids"])
    assert chat["choices"][0]["message"]["content"] == continued["choices"][0]["text"]


def test_a_users_text_is_no_control_token(server):
    (control,) = server.post("/tokenize", {"content": "<|im_end|>"})[2]["tokens"]
    with_it, without = (rendered(server, CHAT, {"messages": [{"role": "user", "content": text}]})["token_ids"]
                        for text in ("<|im_end|>", "a"))
    assert with_it.count(control) == without.count(control) > 0


def test_completions_are_a_list(server):
    answer = rendered(server, COMPLETION, {"prompt": ["ab", [5, 6, 7], ["a", 5]]})
    ids = [one["token_ids"] for one in answer]
    assert ids[0] == server.post("/tokenize", {"content": "ab"})[2]["tokens"] and ids[1] == [5, 6, 7] and ids[2][-1] == 5
    assert [one["token_ids"] for one in rendered(server, COMPLETION, {"prompt": "ab"})] == ids[:1]


def test_the_token_that_begins_texts_is_there(llama):
    ids = rendered(llama, COMPLETION, {"prompt": "ab"})[0]["token_ids"]
    usage = llama.post("/v1/completions", {"prompt": "ab", "max_tokens": 1})[2]["usage"]
    assert len(ids) == usage["prompt_tokens"]
    assert ids == llama.post("/tokenize", {"content": "ab", "add_special": True})[2]["tokens"]


def test_sampling_values_are_those_of_the_request(server):
    asked = {"n": 2, "temperature": 0.5, "top_p": 0.5, "top_k": 3, "min_p": 0.25, "presence_penalty": 0.5, "frequency_penalty": 0.25,
             "seed": 7, "stop": ["\n", "\""], "ignore_eos": True, "max_tokens": 9, "min_tokens": 2}
    told = rendered(server, CHAT, {"messages": MESSAGES, **asked, "logit_bias": {"5": 1.5, "6": False}, "stream": True})
    assert told["sampling_params"] == {**asked, "repetition_penalty": 1, "logprobs": None, "logit_bias": {"5": 1.5, "6": -100}}
    assert told["stream"] is True
    told = rendered(server, COMPLETION, {"prompt": "a", "logprobs": 2})[0]["sampling_params"]
    assert told["seed"] is None and told["logprobs"] == 2 and told["n"] == 1 and told["logit_bias"] == {} and told["stop"] == []


@pytest.mark.parametrize("path, body, route", [
    (CHAT, {"messages": []}, "/v1/chat/completions"),
    (CHAT, {"messages": MESSAGES, "temperature": -1}, "/v1/chat/completions"),
    (CHAT, {"messages": [{"role": "user", "content": "a" * 400}]}, "/v1/chat/completions"),
    (COMPLETION, {"prompt": ""}, "/v1/completions"),
    (COMPLETION, {"prompt": ["a", 1000000]}, "/v1/completions"),
    (COMPLETION, {"prompt": [5] * CONTEXT}, "/v1/completions"),
    (COMPLETION, {"prompt": ["a", [5] * CONTEXT]}, "/v1/completions"),
    (COMPLETION, {"prompt": "a", "grammar": "x"}, "/v1/completions"),
])
def test_what_is_refused_there_is_refused_here(server, path, body, route):
    """In the same words, with the same numbers."""
    refused, expected = server.post(path, body), server.post(route, body)
    assert refused[0] == 400 and (refused[0], refused[2]) == (expected[0], expected[2])


def test_nothing_is_computed(server):
    before = server.wait_until_idle()
    rendered(server, CHAT, {"messages": MESSAGES})
    rendered(server, COMPLETION, {"prompt": "never asked before"})
    now = server.metrics()
    for name in "deepseek_requests_total", "vllm:prompt_tokens_total", "runnel_steps_total":
        assert now[(name,)] == before[(name,)], name


def test_a_long_body_is_read_beside_the_loop(server):
    """Past 64 KiB; the answer is as long, and whole."""
    prompts = [[5, 6, 7, 8] * 50] * 120
    body = {"prompt": prompts, "user": "u" * 70000}
    assert len(json.dumps(body)) > 65536
    assert [one["token_ids"] for one in rendered(server, COMPLETION, body)] == prompts


def test_models_tell_what_routers_read(server):
    (model,) = server.get("/v1/models")[2]["data"]
    assert model["id"] == "mine" and model["root"] == "Tiny random model" and model["parent"] is None
    assert model["max_model_len"] == CONTEXT == model["meta"]["n_ctx"]
