#!/usr/bin/env python3
"""Characters of a game: each says a short line, all at the same time, streamed.

    runnel serve -m r1-1.5b --parallel 8 --batch-window-ms 20
    python3 game_characters.py [--url http://127.0.0.1:8080] [--seed 1] [SITUATION]

A scene asks for all characters in the same moment. The batch window lets the first of these requests wait 20 ms for the others
when the server is idle, so that their prompts are computed together. Each character has a seed of its own, made from
the scene's: the same scene with the same seed is the same again, whatever else the server does meanwhile. The stop
text "\\n" ends a line. Needs the package openai.
"""
import argparse
import asyncio
import time

import openai

CHARACTERS = {
    "Guard": "You are a tired guard at the gate of a castle. You are polite and trust nobody.",
    "Smith": "You are a blacksmith. You are cheerful and speak of iron whenever you can.",
    "Witch": "You are an old witch in the woods. You speak in riddles.",
    "Child": "You are a curious child of seven years. You ask questions.",
}
RULE = " Answer with one short sentence, as this person would say it aloud."


async def speak(client, name, number, options, began):
    """(name, line, seconds to its first text, seconds to its end)"""
    stream = await client.chat.completions.create(
        model="any", stream=True, stop=["\n"], max_tokens=options.max_tokens, seed=options.seed * 1000 + number,
        messages=[{"role": "system", "content": CHARACTERS[name] + RULE},
                  {"role": "user", "content": options.situation}],
        extra_body={"chat_template_kwargs": {"enable_thinking": False}})
    line, first = "", None
    async for event in stream:
        if event.choices and event.choices[0].delta.content:
            first = first or time.monotonic() - began
            line += event.choices[0].delta.content  # a game would show it letter by letter from here on
    return name, line.strip(), first, time.monotonic() - began


async def scene(options):
    client = openai.AsyncOpenAI(base_url=f"{options.url}/v1", api_key=options.key, max_retries=5)
    began = time.monotonic()
    lines = [speak(client, name, number, options, began) for number, name in enumerate(CHARACTERS)]
    for coming in asyncio.as_completed(lines):
        name, line, first, end = await coming
        times = f"first text {first * 1e3:.0f} ms, end" if first else "no text,"
        print(f"{name}: {line}\n    [{times} {end * 1e3:.0f} ms]", flush=True)


def main():
    parser = argparse.ArgumentParser(description="Has a server's model play several characters.")
    parser.add_argument("--url", default="http://127.0.0.1:8080")
    parser.add_argument("--key", default="none")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--max-tokens", type=int, default=40, help="of a line")
    parser.add_argument("situation", nargs="?", default="A stranger in a grey cloak asks you for the way to the tower.")
    asyncio.run(scene(parser.parse_args()))


if __name__ == "__main__":
    main()
