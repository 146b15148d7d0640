"""The table of a record of bench/quantize, and whether the goals are met."""
import statistics

GOAL_MEAN, GOAL_EACH, GOAL_TIME = 1.00, 1.05, 0.5


def ratios(record):
    """Runnel's divergence over llama.cpp's, of the rows that have both; types that only round are equal, both may be 0."""
    rows = [row for row in record["rows"] if "llama_cpp" in row]
    return [(row, row["runnel"]["kl"] / row["llama_cpp"]["kl"] if row["llama_cpp"]["kl"] else 1.0) for row in rows]


def of_rows(record):
    lines = ["| type | importance | size, MB | KL, Runnel | KL, llama.cpp | ratio | top-1, Runnel | top-1, llama.cpp |",
             "|---|---|---|---|---|---|---|---|"]
    of_row = {id(row): ratio for row, ratio in ratios(record)}
    for row in record["rows"]:
        ours, theirs = row["runnel"], row.get("llama_cpp")
        lines.append(f"| {row['type']} | {'yes' if row['importance'] else 'no'} | {ours['bytes'] / 1e6:.1f} | {ours['kl']:.6f} | "
                     + (f"{theirs['kl']:.6f} | {of_row[id(row)]:.3f} | " if theirs else "- | - | ")
                     + f"{ours['top1']:.4f} | " + (f"{theirs['top1']:.4f} |" if theirs else "- |"))
    if of_row:
        mean, worst = statistics.mean(of_row.values()), max(of_row.values())
        lines += ["", f"Mean of the ratios {mean:.3f} (goal {GOAL_MEAN:.2f}), largest {worst:.3f} (goal {GOAL_EACH:.2f}): "
                  f"{'met' if mean <= GOAL_MEAN and worst <= GOAL_EACH else 'not met'}"]
    other = [f"{row['type']}: {', '.join(row['other_types'])}" for row in record["rows"] if row.get("other_types")]
    if other:
        lines += ["", f"Tensors of another type than llama.cpp's. {'; '.join(other)}"]
    return lines


def of_times(seconds):
    median = {name: statistics.median(times) for name, times in seconds.items() if times}
    line = f"Q4_K_M of the large source: Runnel {median['runnel']:.1f} s"
    if "llama_cpp" in median:
        ratio = median["runnel"] / median["llama_cpp"]
        line += (f", llama.cpp {median['llama_cpp']:.1f} s, ratio {ratio:.2f} (goal {GOAL_TIME}): {'met' if ratio <= GOAL_TIME else 'not met'}; "
                 f"of processors {median['runnel_cpu']:.1f} and {median['llama_cpp_cpu']:.1f} s")
    return [line]


def table(record):
    parts = ([of_rows(record)] if record["rows"] else []) + ([of_times(record["seconds"])] if "seconds" in record else [])
    return "\n\n".join("\n".join(lines) for lines in parts) + "\n"
