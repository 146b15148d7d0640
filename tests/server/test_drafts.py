"""Drafts: guessed tokens that come true make answers faster, and nothing else of them. What one API key was answered is guessed for no
other one."""
import json

from serving import ONE_WORKER

QUESTION = {"prompt": [5, 6, 7, 8] * 5, "max_tokens": 120, "ignore_eos": True, "seed": 3, "temperature": 1}


def ask(serving, key=None, **fields):
    """The answer's text, and its timings."""
    connection = serving.connection()
    headers = {"Content-Type": "application/json"} | ({"Authorization": f"Bearer {key}"} if key else {})
    connection.request("POST", "/v1/completions", json.dumps(QUESTION | fields), headers)
    answer = connection.getresponse()
    body = json.loads(answer.read())
    connection.close()
    assert answer.status == 200, body
    return body["choices"][0]["text"], body["timings"]


def test_the_same_question_again(serve, tiny):
    serving = serve(tiny(), *ONE_WORKER, "--log-json")
    first, _ = ask(serving)
    again, timings = ask(serving)
    assert again == first
    assert timings["draft_n"] >= timings["draft_accepted_n"] > 60  # of 120 tokens
    line = serving.wait_for_lines(lambda lines: len(lines) == 2)[-1]
    assert (line["draft_tokens"], line["draft_accepted"]) == (timings["draft_n"], timings["draft_accepted_n"])


def test_metrics_are_those_of_the_answers(serve, tiny):
    serving = serve(tiny(), *ONE_WORKER)
    answers = [ask(serving, seed=seed)[1] for seed in (1, 1, 2, 2)]
    now = serving.wait_until_idle()
    drafts, drafted, accepted = (now[(f"vllm:spec_decode_num_{name}_total",)] for name in ("drafts", "draft_tokens", "accepted_tokens"))
    assert drafted == sum(timings["draft_n"] for timings in answers)
    assert accepted == sum(timings["draft_accepted_n"] for timings in answers)
    assert 0 < drafts <= drafted
    assert now[("vllm:generation_tokens_total",)] == 4 * QUESTION["max_tokens"]


def test_off(serve, tiny):
    with_drafts, without = serve(tiny(), *ONE_WORKER), serve(tiny(), *ONE_WORKER, "--draft", "off")
    for fields in ({}, {"temperature": 0}, {"seed": 9}, {"presence_penalty": 0.5}, {"logprobs": 3}, {"stop": ["zz", "e"]}):
        for _ in range(2):
            expected, timings = ask(without, **fields)
            assert timings["draft_n"] == timings["draft_accepted_n"] == 0
            assert ask(with_drafts, **fields)[0] == expected, fields
    assert without.metric("vllm:spec_decode_num_draft_tokens_total") == 0
    assert with_drafts.metric("vllm:spec_decode_num_draft_tokens_total") > 0


def test_keys_are_apart(serve, tiny):
    """A second key asks what the first one has asked: it is answered as if nobody had. Its own answers are its history."""
    serving = serve(tiny(), *ONE_WORKER, "--api-key", "one,two")
    accepted = [ask(serving, key)[1]["draft_accepted_n"] for key in ("one", "one", "two", "two")]
    assert accepted[0] < 30 and accepted[2] < 30
    assert accepted[1] > 60 and accepted[3] > 60


def test_several_answers_of_a_prompt(serve, tiny):
    """`n` of them, each with a seed of its own: texts are those without drafts, and the guesses of all are counted."""
    def ask_several(serving):
        connection = serving.connection()
        connection.request("POST", "/v1/completions", json.dumps(QUESTION | {"n": 3}), {"Content-Type": "application/json"})
        answer = json.loads(connection.getresponse().read())
        connection.close()
        return [choice["text"] for choice in answer["choices"]], answer["timings"]["draft_n"]

    with_drafts, without = serve(tiny(), *ONE_WORKER), serve(tiny(), *ONE_WORKER, "--draft", "off")
    expected, _ = ask_several(without)
    assert len(set(expected)) == 3
    drafted = [ask_several(with_drafts) for _ in range(2)]
    assert [texts for texts, _ in drafted] == [expected, expected]
    assert drafted[1][1] > 0
