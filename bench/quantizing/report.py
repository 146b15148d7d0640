"""The table of a record of bench/quantize, and whether the goals are met."""
import statistics

GOAL_MEAN, GOAL_EACH, GOAL_TIME = 1.00, 1.05, 0.5


def ratios(record):
    """Runnel's divergence over llama.cpp's, of the rows that have both; types that only round are equal, both may be 0."""
    rows = [row for row in record["rows"] if "llama_cpp" in row]
    return [(row, row["runnel"]["kl"] / row["llama_cpp"]["kl"] if row["llama_cpp"]["kl"] else 1.0) for row in rows]


def of_processors(record, name):
    return f"{statistics.median(record['seconds'][name + '_cpu']):.1f}"


def table(record):
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
    if "seconds" in record:
        ours = statistics.median(record["seconds"]["runnel"])
        lines += ["", f"Q4_K_M of the large source: Runnel {ours:.1f} s"]
        if record["seconds"]["llama_cpp"]:
            theirs = statistics.median(record["seconds"]["llama_cpp"])
            lines[-1] += (f", llama.cpp {theirs:.1f} s, ratio {ours / theirs:.2f} (goal {GOAL_TIME}): "
                          f"{'met' if ours <= GOAL_TIME * theirs else 'not met'}; of processors {of_processors(record, 'runnel')} and "
                          f"{of_processors(record, 'llama_cpp')} s")
    return "\n".join(lines) + "\n"
