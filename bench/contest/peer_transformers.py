#!/usr/bin/env python3
"""Hugging Face's transformers on the first NVIDIA card, with the weights of the same GGUF file as F16. Runs in its own environment;
prints one JSON object.

    peer_transformers.py MODEL --threads 2 --tokens 48 --works prefill:512,decode:0,batch:8 [--reference FILE] [--compiled]

What is asked is its generate(), greedy, with token ids: the time to the first token of a prompt, and from there to the last one. Each work
is done once before it counts, so that what is chosen or compiled at its first time is there. --compiled: a cache of fixed size, for which
generate() compiles the model.
"""
import argparse
import json
import os
import statistics
import time

import torch
import transformers
from transformers.generation import BaseStreamer

from divergence import Divergence

BATCH_PROMPT = 32


class Clock(BaseStreamer):
    """When tokens came: generate() hands over the prompt, and then the tokens of each step, in the host's memory."""

    def __init__(self):
        self.times = []

    def put(self, value):
        self.times.append(time.perf_counter())

    def end(self):
        pass


class Runner:
    """Generates with prompts of ordinary tokens, others each time."""

    def __init__(self, path, is_compiled):
        folder, name = os.path.split(os.path.abspath(path))
        self.model = transformers.AutoModelForCausalLM.from_pretrained(folder, gguf_file=name, dtype=torch.float16).to("cuda").eval()
        self.model.generation_config = transformers.GenerationConfig(do_sample=False, pad_token_id=0)  # no end: as many tokens as asked for
        self.n_vocab, self.n_prompts = self.model.get_input_embeddings().num_embeddings, 0
        self.cache = {"cache_implementation": "static"} if is_compiled else {}

    def prompt(self, n):
        self.n_prompts += 1
        return [(self.n_prompts * 7919 + i * 131) % (self.n_vocab // 2) for i in range(n)]

    def generate(self, n_sequences, depth, n_tokens):
        """Seconds to the first token, and from it to the last."""
        ids = torch.tensor([self.prompt(depth) for _ in range(n_sequences)], device="cuda")
        clock = Clock()
        torch.cuda.synchronize()
        start = time.perf_counter()
        result = self.model.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=n_tokens + 1, streamer=clock, **self.cache)
        assert result.shape[1] == depth + n_tokens + 1, "transformers stopped early"
        return clock.times[1] - start, clock.times[-1] - clock.times[1]

    def measure_prefill(self, n):
        self.generate(1, n, 0)
        return statistics.median(n / self.generate(1, n, 0)[0] for _ in range(3))

    def measure_decode(self, n_sequences, depth, n_tokens):
        self.generate(n_sequences, depth, n_tokens)
        return n_sequences * n_tokens / self.generate(n_sequences, depth, n_tokens)[1]

    def measure(self, works, n_tokens):
        """Tokens a second of each work."""
        report = {}
        for work in works:
            kind, number = work.split(":")
            number = int(number)
            if kind == "prefill":
                report[work] = self.measure_prefill(number)
            else:
                n_sequences, depth = (number, BATCH_PROMPT) if kind == "batch" else (1, max(number, 1))
                report[work] = self.measure_decode(n_sequences, depth, n_tokens)
        return report

    def diverge(self, reference):
        divergence = Divergence(reference)
        for passage in divergence.passages:
            with torch.no_grad():
                logits = self.model(torch.tensor([passage["ids"]], device="cuda")).logits[0]
            divergence.add(passage, logits.float().cpu().numpy())
        return divergence.result()


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("model")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--tokens", type=int, default=48)
    parser.add_argument("--works", default="")
    parser.add_argument("--reference")
    parser.add_argument("--compiled", action="store_true")
    args = parser.parse_args()

    assert torch.cuda.is_available(), "PyTorch finds no card (torch.cuda.is_available())"
    torch.set_num_threads(args.threads)
    transformers.utils.logging.set_verbosity_error()
    runner = Runner(args.model, args.compiled)
    report = runner.measure(args.works.split(","), args.tokens) if args.works else {}
    report["build"] = f"{transformers.__version__}, PyTorch {torch.__version__}, F16, {torch.cuda.get_device_name()}"
    if args.reference:
        report["divergence"] = runner.diverge(args.reference)
    print(json.dumps(report))


if __name__ == "__main__":
    main()
