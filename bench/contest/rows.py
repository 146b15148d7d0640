"""What is compared, and the goals.

A work is a text that every contestant understands: prefill:N, decode:DEPTH, batch:N (all in tokens a second), and
clients:N (Runnel's server alone). A row of the table is a work, or is derived from works."""
from dataclasses import dataclass

LLAMA, OPENVINO, RUNNEL = "llama.cpp", "OpenVINO", "Runnel"  # llama.cpp's builds with and without AMX are settings of one
TRANSFORMERS = "transformers"  # on a GPU, where OpenVINO is not asked
LLAMA_AVX2, RUNNEL_AVX2 = "llama.cpp without AVX-512", "Runnel, AVX2"


@dataclass(frozen=True)
class Row:
    """A line of the table; value(figures) is None where the works were not measured."""
    name: str
    title: str
    works: tuple
    unit: str = "tok/s"

    def value(self, figures):
        if any(figures.get(work) is None for work in self.works):
            return None
        numbers = [figures[work] for work in self.works]
        if self.unit == "%":
            return numbers[0] / numbers[1] * 100
        if self.name == "first-token":
            return FIRST_TOKEN_PROMPT / numbers[0] * 1e3
        return numbers[0]

    @property
    def is_less_better(self):
        return self.unit in ("ms", "s")


FIRST_TOKEN_PROMPT = 8
ROWS = [
    Row("prefill", "prefill, 512 tokens", ("prefill:512",)),
    Row("prefill-16", "prefill, 16 tokens", ("prefill:16",)),
    Row("prefill-4096", "prefill, 4,096 tokens", ("prefill:4096",)),
    Row("prefill-ratio", "prefill, 4,096 against 512", ("prefill:4096", "prefill:512"), "%"),
    Row("decode", "decode, 1 stream", ("decode:0",)),
    Row("decode-4096", "decode behind 4,096 tokens", ("decode:4096",)),
    Row("decode-ratio", "decode, behind 4,096 against 0", ("decode:4096", "decode:0"), "%"),
    Row("batch-8", "decode, 8 streams together", ("batch:8",)),
    Row("batch-16", "decode, 16 streams together", ("batch:16",)),
    Row("batch-32", "decode, 32 streams together", ("batch:32",)),
    Row("batch-ratio", "decode, 32 streams against 16", ("batch:32", "batch:16"), "%"),
    Row("first-token", "first token, 8-token prompt, nothing cached", (f"prefill:{FIRST_TOKEN_PROMPT}",), "ms"),
    Row("clients", "12 clients (70 in, 48 out), P95 of the whole answer", ("clients:answer",), "s"),
    Row("clients-first", "12 clients, P95 of the first token", ("clients:first",), "s"),
]
ROWS_BY_NAME = {row.name: row for row in ROWS}
ROWS_OF_OTHER_MODELS = ["prefill", "decode", "batch-8"]
ROWS_AVX2 = ["prefill", "decode", "batch-8"]
ROWS_ON_GPU = ["prefill", "decode", "batch-8", "first-token"]


@dataclass(frozen=True)
class Goal:
    """A row's value of `who` against another contestant's, against the reading speed, or (against None) by itself."""
    row: str
    factor: float
    against: str = None
    who: str = RUNNEL


BEST_PEER, READING = "the best peer", "the measured reading speed"
GOALS_WITHOUT_AVX512 = [
    Goal("prefill", 1.2, LLAMA_AVX2, RUNNEL_AVX2), Goal("batch-8", 1.2, LLAMA_AVX2, RUNNEL_AVX2),
    Goal("decode", 1.0, LLAMA_AVX2, RUNNEL_AVX2),
]
# Two cores of a Zen 4 EPYC, and of an Intel Xeon with AMX. Rates by themselves are those of such a machine only.
GOALS = [
    Goal("prefill", 1.7, LLAMA), Goal("prefill", 1.5, OPENVINO), Goal("prefill-16", 211), Goal("first-token", 38),
    Goal("decode", 0.95, READING), Goal("decode", 1.0, BEST_PEER),
    Goal("batch-8", 195), Goal("batch-16", 3.7, LLAMA), Goal("batch-ratio", 100),
    Goal("prefill-ratio", 85), Goal("decode-ratio", 85), Goal("clients", 7.5), Goal("clients-first", 4),
    *GOALS_WITHOUT_AVX512,
]
GOALS_WITH_AMX = [
    Goal("prefill", 450), Goal("prefill", 1.4, OPENVINO), Goal("prefill-16", 300), Goal("first-token", 40),
    Goal("decode", 0.95, READING), Goal("decode", 1.0, BEST_PEER),
    Goal("batch-8", 185), Goal("batch-16", 230), Goal("batch-32", 250),
    Goal("prefill-ratio", 75), Goal("decode-ratio", 85), Goal("clients", 6), Goal("clients-first", 2.4),
    *GOALS_WITHOUT_AVX512,
]
# On a GPU. Rates in proportion to its memory are the goals of bench/gpu.
GOALS_ON_GPU = [Goal("decode", 10, TRANSFORMERS), Goal("batch-8", 10, TRANSFORMERS)]
GOALS_OF_OTHER_MODELS = [Goal("prefill", 1.0, LLAMA), Goal("batch-8", 1.0, LLAMA)]


def judge(goal, results, reading_share):
    """The goal as the record and the report show it; None if what it needs was not measured. `results` has, by
    contestant and row, the best setting's {"value", ...}."""
    row = ROWS_BY_NAME[goal.row]
    mine = results.get(goal.who, {}).get(goal.row)
    if not mine:
        return None
    text = f"{goal.who}: {row.title}"
    if goal.against is None:
        found, limit = mine["value"], "at most" if row.is_less_better else "at least"
        met = found <= goal.factor if row.is_less_better else found >= goal.factor
        return {"goal": f"{text}: {limit} {goal.factor:g} {row.unit}", "found": found, "unit": row.unit, "met": met}
    if goal.against == READING:
        found = reading_share
    elif goal.against == BEST_PEER:
        peers = [results[name][goal.row]["value"] for name in (LLAMA, OPENVINO) if goal.row in results.get(name, {})]
        found = mine["value"] / max(peers) if peers else None
    else:
        theirs = results.get(goal.against, {}).get(goal.row)
        found = mine["value"] / theirs["value"] if theirs else None
    if found is None:
        return None
    return {"goal": f"{text}: at least {goal.factor:g} x {goal.against}", "found": found, "unit": "x",
            "met": found >= goal.factor}
