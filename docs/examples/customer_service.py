#!/usr/bin/env python3
"""Customer service: many customers at once, one long system prompt, short answers.

    runnel serve -m r1-1.5b --parallel 8
    python3 customer_service.py [--url http://127.0.0.1:8080] [--budget 128] [QUESTION ...]

The system prompt comes first and is the same for everybody. The server computes it once; of each later request only the
rest of its prompt is computed. The first request here has no other use than to have it computed before the customers come.
Needs the package openai. Its client waits and asks again by itself when the server says 429 or 503.
"""
import argparse
import concurrent.futures
import time

import openai

SYSTEM = """You answer questions of customers of the bicycle shop Spoke & Wheel, in at most two sentences.
Opening hours: Monday to Friday 9 to 18, Saturday 10 to 14, closed on Sunday.
Repairs take two working days. A puncture is repaired while you wait, for 12 euros.
Goods that were not used can be given back within 30 days, with the receipt.
If you do not know something, say that a colleague will call back."""

QUESTIONS = [
    "When are you open on Saturday?",
    "How long does a repair take?",
    "What does it cost to repair a puncture?",
    "Can I give back the helmet that I bought last week?",
]


def ask(client, question, budget, max_tokens):
    """(answer, seconds, tokens of the prompt, of these found in the cache)"""
    began = time.monotonic()
    answer = client.chat.completions.create(
        model="any",
        messages=[{"role": "system", "content": SYSTEM}, {"role": "user", "content": question}],
        max_tokens=budget + max_tokens,  # a limit for thoughts and answer together
        extra_body={"thinking_budget_tokens": budget})
    usage = answer.usage
    return (answer.choices[0].message.content or "", time.monotonic() - began, usage.prompt_tokens,
            usage.prompt_tokens_details.cached_tokens)


def main():
    parser = argparse.ArgumentParser(description="Asks a server as several customers at once.")
    parser.add_argument("--url", default="http://127.0.0.1:8080")
    parser.add_argument("--key", default="none")
    parser.add_argument("--budget", type=int, default=0, help="tokens of a thought at most; 0: none (default)")
    parser.add_argument("--max-tokens", type=int, default=80, help="of an answer")
    parser.add_argument("questions", nargs="*", default=QUESTIONS)
    options = parser.parse_args()
    client = openai.OpenAI(base_url=f"{options.url}/v1", api_key=options.key, max_retries=5)

    ask(client, "Hello", 0, 1)
    with concurrent.futures.ThreadPoolExecutor(len(options.questions)) as customers:
        answers = customers.map(lambda question: ask(client, question, options.budget, options.max_tokens),
                                options.questions)
        for question, (text, seconds, n_prompt, n_cached) in zip(options.questions, answers):
            print(f"{question}\n  {text.strip()}\n  [{seconds:.1f} s, {n_cached} of {n_prompt} prompt tokens cached]\n")


if __name__ == "__main__":
    main()
