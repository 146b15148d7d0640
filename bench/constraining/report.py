"""The table of a record of bench/schemas, and whether the goals are met."""
from constraining.counting import INVALID_TAKEN, OUTCOMES, TAKEN

NAMES = {"runnel": "Runnel", "llguidance": "llguidance"}


def of_times(title, engines, take):
    lines = [f"| {title}: mean |" + "".join(f" {take(engine)['mean']:.3g} |" for engine in engines)]
    lines += [f"| ... {name} |" + "".join(f" {take(engine)[name]:.3g} |" for engine in engines) for name in ("p50", "p99", "max")]
    return lines


def goals(figures):
    """Runnel against the other one, of one run."""
    own, other = figures["runnel"], figures["llguidance"]
    masks, its = own["of both"]["mask_us"], other["of both"]["mask_us"]
    met = {"at least as many pass": own["outcomes"][TAKEN] >= other["outcomes"][TAKEN], "no invalid instance is taken": not own["outcomes"][INVALID_TAKEN],
           "masks of both, mean no slower": masks["mean"] <= its["mean"], "masks of both, p99 no slower": masks["p99"] <= its["p99"]}
    return "; ".join(f"{name}: {'met' if is_met else 'not met'}" for name, is_met in met.items())


def table(record):
    figures = record["figures"]
    engines = list(figures)
    lines = [f"| {record['schemas']} schemas, {record['tokens']} tokens |" + "".join(f" {NAMES[engine]} |" for engine in engines),
             "|---|" + "---|" * len(engines)]
    for name in OUTCOMES:
        counts = [figures[engine]["outcomes"][name] for engine in engines]
        lines.append(f"| {name} |" + "".join(f" {count} ({100 * count / max(1, record['schemas']):.1f} %) |" for count in counts))
    lines.append("| instances that could not be followed |" + "".join(f" {figures[engine]['not followed']} |" for engine in engines))
    lines += of_times("compile, ms", engines, lambda engine: figures[engine]["compile_ms"])
    lines += of_times("mask, us", engines, lambda engine: figures[engine]["mask_us"])
    if len(engines) > 1:
        both = {engine: figures[engine]["of both"] for engine in engines}
        n = both[engines[0]]
        lines += of_times(f"compile, ms, the {n['schemas']} schemas of both", engines, lambda engine: both[engine]["compile_ms"])
        lines += of_times(f"mask, us, the {n['mask_us']['n']} of both", engines, lambda engine: both[engine]["mask_us"])
        lines += ["", f"Goals: {goals(figures)}"]
    busy = max(record["load"][moment]["load_average"] for moment in ("before", "after"))
    if busy > record["machine"]["cores"] / 2:
        lines += ["", f"The machine was busy (load {busy:.1f} on {record['machine']['cores']} CPUs): the times are of no use but side by side."]
    return "\n".join(lines) + "\n"
