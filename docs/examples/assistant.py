#!/usr/bin/env python3
"""An assistant in the terminal: thoughts are shown as they come, and end after a budget.

    runnel serve -m r1-1.5b
    python3 assistant.py [--url http://127.0.0.1:8080] [--budget 512]

A question a line; an empty line or Ctrl-D ends. Thoughts are grey. They come in the field reasoning_content, apart from the
answer, and are not sent back with the history: the model does not want to see its earlier thoughts, and they cost time.
Needs the package openai.
"""
import argparse
import sys

import openai

GREY, PLAIN = ("\033[90m", "\033[0m") if sys.stdout.isatty() else ("", "")


def answer(client, history, options):
    """Prints the answer while it comes; its text, and the last event's counts."""
    stream = client.chat.completions.create(
        model="any", messages=history, stream=True, stream_options={"include_usage": True}, seed=options.seed,
        max_tokens=options.max_tokens, extra_body={"thinking_budget_tokens": options.budget})
    text, usage, finish, thinking = "", None, None, False
    for event in stream:
        usage = event.usage or usage
        if not event.choices:
            continue
        delta = event.choices[0].delta
        finish = event.choices[0].finish_reason or finish
        thought = getattr(delta, "reasoning_content", None)
        if thought:
            print(thought if thinking else GREY + thought, end="", flush=True)
            thinking = True
        if delta.content:
            print(PLAIN + "\n---\n" + delta.content if thinking else delta.content, end="", flush=True)
            text, thinking = text + delta.content, False
    print(PLAIN)
    return text, usage, finish


def main():
    parser = argparse.ArgumentParser(description="Talks with a server's model.")
    parser.add_argument("--url", default="http://127.0.0.1:8080")
    parser.add_argument("--key", default="none")
    parser.add_argument("--budget", type=int, default=512, help="tokens of a thought at most; -1: no limit")
    parser.add_argument("--max-tokens", type=int, default=2048, help="of a thought and its answer together")
    parser.add_argument("--seed", type=int, help="the same seed gives the same answer")
    options = parser.parse_args()
    client = openai.OpenAI(base_url=f"{options.url}/v1", api_key=options.key)
    history = []
    while True:
        try:
            question = input("> " if sys.stdin.isatty() else "").strip()
        except EOFError:
            break
        if not question:
            break
        history.append({"role": "user", "content": question})
        text, usage, finish = answer(client, history, options)
        history.append({"role": "assistant", "content": text})
        n_thought = usage.completion_tokens_details.reasoning_tokens
        cut = ", cut off by --max-tokens" if finish == "length" else ""
        print(f"[{usage.completion_tokens} tokens, {n_thought} of them thoughts{cut}]\n")


if __name__ == "__main__":
    main()
