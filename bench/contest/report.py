"""Figures of all rounds to medians, the best setting of each contestant, goals, and a page of Markdown."""
import statistics

from contest.machine import Limits
from contest.rows import (GOALS, GOALS_OF_OTHER_MODELS, GOALS_ON_GPU, GOALS_WITH_AMX, LLAMA, LLAMA_AVX2, OPENVINO, ROWS, RUNNEL,
                          RUNNEL_AVX2, TRANSFORMERS, judge)


def medians(rounds):
    """The median of each work over the rounds in which it was measured."""
    works = {work for figures in rounds for work in figures}
    return {work: statistics.median(figures[work] for figures in rounds if work in figures) for work in works}


def best_settings(players):
    """For each contestant and row the best setting's value, setting and KL. `players` is a model's part of the record."""
    results = {}
    for player in players:
        figures = player["medians"]
        for row in ROWS:
            value = row.value(figures)
            if value is None:
                continue
            found = results.setdefault(player["group"], {}).get(row.name)
            if not found or (value < found["value"] if row.is_less_better else value > found["value"]):
                results[player["group"]][row.name] = {"value": value, "setting": player["setting"],
                                                      "kl": (player["divergence"] or {}).get("kl")}
    return results


def consistent_ratios(results, players):
    """A ratio of two works belongs to one setting: the one whose rate at 512 tokens, at depth 0 or of 16 streams is the best."""
    for ratio, base in (("prefill-ratio", "prefill"), ("decode-ratio", "decode"), ("batch-ratio", "batch-16")):
        row = next(row for row in ROWS if row.name == ratio)
        for group, rows in results.items():
            if ratio not in rows or base not in rows:
                continue
            player = next(p for p in players if p["group"] == group and p["setting"] == rows[base]["setting"])
            value = row.value(player["medians"])
            if value is not None:
                rows[ratio] = {**rows[base], "value": value}


def evaluate(model, is_first, isa, options):
    """Adds results, limits and goals to a model's part of the record."""
    players = model["players"]
    results = best_settings(players)
    consistent_ratios(results, players)
    own = next(player for player in players if player["group"] == RUNNEL)
    speeds = {name: own["medians"].get(f"machine:{name}") for name in ("read_gb_s", "int8_gmac_s", "decode_share")}
    limits = Limits(model["shape"], speeds["read_gb_s"], speeds["int8_gmac_s"], options.tokens)
    works = {work for row in ROWS for work in row.works if not work.startswith("clients")}
    limit_figures = {work: limits.tok_s(work) for work in works}
    model["results"], model["speeds"] = results, speeds
    model["limits"] = {row.name: row.value(limit_figures) for row in ROWS if row.value(limit_figures) is not None}
    goals_of_machine = GOALS_WITH_AMX if "amx_int8" in isa else GOALS
    goals = GOALS_ON_GPU if options.device else goals_of_machine if is_first else GOALS_OF_OTHER_MODELS
    model["goals"] = [found for goal in goals if (found := judge(goal, results, speeds["decode_share"]))]


def number(value, unit=""):
    digits = 0 if value >= 100 else 1 if value >= 10 else 2
    return f"{value:.{digits}f}{' ' + unit if unit else ''}"


def cell(results, group, row):
    """A contestant's value; for peers with the ratio of Runnel's to it (the other way round where less is better)."""
    found = results.get(group, {}).get(row.name)
    if not found:
        return ""
    text = number(found["value"])
    own_name = RUNNEL_AVX2 if group == LLAMA_AVX2 else RUNNEL
    own = results.get(own_name, {}).get(row.name)
    if own and group not in (RUNNEL, RUNNEL_AVX2) and row.unit != "%":
        ratio = found["value"] / own["value"] if row.is_less_better else own["value"] / found["value"]
        text += f" ({ratio:.2f} x)"
    return text


def divergence_cell(players, group):
    values = sorted(player["divergence"]["kl"] for player in players if player["group"] == group and player["divergence"])
    if not values:
        return "not measured"
    low, high = f"{values[0]:.5f}", f"{values[-1]:.5f}"
    return low if low == high else f"{low} to {high}"


def describe_speeds(speeds):
    read = f"reads {number(speeds['read_gb_s'])} GB/s"
    if speeds["int8_gmac_s"] is None:
        return f"The device {read} of its memory"
    return f"The machine {read} and multiplies {number(speeds['int8_gmac_s'])} GMAC/s of 8 bits"


def model_table(model):
    results, players = model["results"], model["players"]
    groups = [group for group in (RUNNEL, LLAMA, OPENVINO, TRANSFORMERS, RUNNEL_AVX2, LLAMA_AVX2) if group in results]
    lines = [f"### {model['name']}", "", f"{describe_speeds(model['speeds'])} (medians of the same run).", "",
             "| work | unit | " + " | ".join(groups) + " | limit of the machine | Runnel reaches |",
             "|---" * (len(groups) + 4) + "|",
             "| KL from the exact reference | | " + " | ".join(divergence_cell(players, g) for g in groups) + " | 0 | |"]
    for row in ROWS:
        own = results[RUNNEL].get(row.name)
        if not own:
            continue
        limit = model["limits"].get(row.name)
        reached = ""
        if limit:
            reached = f"{(limit / own['value'] if row.is_less_better else own['value'] / limit) * 100:.0f} %"
        lines.append(f"| {row.title} | {row.unit} | " + " | ".join(cell(results, g, row) for g in groups)
                     + f" | {number(limit) if limit else ''} | {reached} |")
    lines += ["", "| goal | found | |", "|---|---|---|"] if model["goals"] else []
    lines += [f"| {goal['goal']} | {number(goal['found'], goal['unit'])} | {'met' if goal['met'] else '**not met**'} |"
              for goal in model["goals"]]
    settings = [f"{group}, {row.title}: {results[group][row.name]['setting']}" for group in groups for row in ROWS
                if results[group].get(row.name, {}).get("setting") and row.unit == "tok/s"]
    lines += ["", "Best settings: " + "; ".join(settings) + "."] if settings else []
    lines += ["", *(f"- {note}" for note in model["notes"])] if model["notes"] else []
    return lines


def markdown(record):
    machine = record["machine"]
    lines = [f"{machine['cpu']} (family {machine['family']}, model {machine['model']}), {machine['cores']} cores, "
             f"{', '.join(machine['isa'])}, {machine['memory_gib']} GiB; {machine['system']}, Linux {machine['kernel']}, "
             f"{machine['compiler']}; load before the run {record['load_before']['load_average']:.2f}, after it "
             f"{record['load_after']['load_average']:.2f}; {record['date']}.",
             f"Runnel at {machine['commit']}{''.join(f', {package}' for package in record['packages'])}. "
             + "; ".join(f"{name}: {build}" for name, build in record["builds"].items()) + ".",
             f"Medians of {record['rounds']} round{'s' * (record['rounds'] > 1)} in which the programs took turns, {record['threads']} threads; of each peer "
             "its best setting for the row. Ratios are Runnel's over theirs.", *(f"- {line}" for line in record["left_out"]), ""]
    for model in record["models"]:
        lines += [*model_table(model), ""]
    return "\n".join(lines)
