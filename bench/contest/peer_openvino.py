#!/usr/bin/env python3
"""OpenVINO GenAI on the same GGUF file. Runs in the peers' environment; prints one JSON object.

    peer_openvino.py MODEL --threads 2 --tokens 48 --works prefill:512,decode:0,batch:8 --cache DIR [--reference FILE]
                     [--attention paged|sdpa]

Its GGUF reader converts the file to OpenVINO's format, which is kept below DIR. The logits of its divergence come from
the converted model itself, compiled for the CPU with default settings, because the pipelines give none.
"""
import argparse
import hashlib
import json
import pathlib
import statistics

import numpy as np
import openvino
import openvino_genai

from divergence import Divergence

BATCH_PROMPT = 32


def convert(model, cache):
    """The folder of the converted model, made when it is not there."""
    model = pathlib.Path(model).resolve()
    status = model.stat()
    name = hashlib.sha256(f"{model} {status.st_size} {status.st_mtime_ns} {openvino_genai.__version__}".encode())
    folder = pathlib.Path(cache) / f"{model.stem}-{name.hexdigest()[:12]}"
    if not (folder / "done").exists():
        folder.mkdir(parents=True, exist_ok=True)
        link = folder / "model.gguf"
        link.unlink(missing_ok=True)
        link.symlink_to(model)
        openvino_genai.LLMPipeline(link, "CPU", enable_save_ov_model=True)
        (folder / "done").touch()
    return folder


def open_pipeline(folder, threads, attention):
    if attention == "sdpa":
        return openvino_genai.LLMPipeline(folder, "CPU", INFERENCE_NUM_THREADS=threads, ATTENTION_BACKEND="SDPA")
    scheduler = openvino_genai.SchedulerConfig()
    scheduler.cache_size = 1  # GiB
    scheduler.enable_prefix_caching = False
    scheduler.max_num_batched_tokens = 8192
    return openvino_genai.LLMPipeline(folder, "CPU", INFERENCE_NUM_THREADS=threads, ATTENTION_BACKEND="PA",
                                      scheduler_config=scheduler)


class Runner:
    """Generates with prompts of ordinary tokens, others each time."""

    def __init__(self, pipeline):
        self.pipeline, self.n_prompts = pipeline, 0

    def prompt(self, n):
        self.n_prompts += 1
        return [(self.n_prompts * 7919 + i * 131) % 40000 for i in range(n)]

    def generate(self, n_sequences, depth, n_tokens):
        """Seconds to the first token, and from it to the last."""
        config = openvino_genai.GenerationConfig()
        config.max_new_tokens, config.ignore_eos, config.do_sample = n_tokens + 1, True, False
        ids = np.array([self.prompt(depth) for _ in range(n_sequences)], np.int64)
        inputs = openvino_genai.TokenizedInputs(openvino.Tensor(ids), openvino.Tensor(np.ones_like(ids)))
        result = self.pipeline.generate(inputs, config)
        assert all(len(tokens) == n_tokens + 1 for tokens in result.tokens), "OpenVINO stopped early"
        raw = result.perf_metrics.raw_metrics
        times = raw.m_new_token_times  # milliseconds
        return raw.m_times_to_first_token[0] / 1e6, (times[-1] - times[0]) / 1e3

    def measure(self, works, n_tokens):
        """Tokens a second of each work. A prompt that is decoded behind, too, is computed once for both."""
        report = {}
        for work in works:
            kind, number = work.split(":")
            number = int(number)
            if kind == "prefill":
                if f"decode:{number}" not in works:
                    n_repetitions = 3 if number < 100 else 1
                    report[work] = statistics.median(number / self.generate(1, number, 0)[0]
                                                     for _ in range(n_repetitions))
                continue
            n_sequences, depth = (number, BATCH_PROMPT) if kind == "batch" else (1, max(number, 1))
            first_s, decode_s = self.generate(n_sequences, depth, n_tokens)
            report[work] = n_sequences * n_tokens / decode_s
            if kind == "decode" and f"prefill:{number}" in works:
                report[f"prefill:{number}"] = number / first_s
        return report


def diverge(folder, reference, threads):
    compiled = openvino.Core().compile_model(folder / "openvino_model.xml", "CPU", {"INFERENCE_NUM_THREADS": threads})
    divergence = Divergence(reference)
    for passage in divergence.passages:
        request = compiled.create_infer_request()
        n = len(passage["ids"])
        result = request.infer({"input_ids": np.array([passage["ids"]], np.int64),
                                "attention_mask": np.ones((1, n), np.int64),
                                "position_ids": np.arange(n, dtype=np.int64)[None], "beam_idx": np.zeros(1, np.int32)})
        divergence.add(passage, result["logits"][0])
    return divergence.result()


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("model")
    parser.add_argument("--cache", required=True)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--tokens", type=int, default=48)
    parser.add_argument("--works", default="")
    parser.add_argument("--reference")
    parser.add_argument("--attention", choices=["paged", "sdpa"], default="paged")
    args = parser.parse_args()

    folder = convert(args.model, args.cache)
    report = {}
    if args.works:
        runner = Runner(open_pipeline(folder, args.threads, args.attention))
        runner.generate(1, 64, 2)  # threads and pages are there now
        report = runner.measure(args.works.split(","), args.tokens)
    if args.reference:
        report["divergence"] = diverge(folder, args.reference, args.threads)
    report["build"] = openvino.get_version()
    print(json.dumps(report))


if __name__ == "__main__":
    main()
