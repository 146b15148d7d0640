"""Ratios, goals, Markdown."""
import statistics

GOALS = {"one": 1.0, "the same seed": 2.5, "another seed, beside no history": 1.1, "many": 0.99, "hot": 0.99, "strange": 0.95}
MOST = {"strange": 1.05}  # and not above
GOAL_OF_MEAN = 1.4


def goal_of(row):
    return GOALS.get(row["name"], GOALS.get(row["kind"]))


def goal_text(row):
    """The goal as the table has it, and whether it was missed."""
    goal, most = goal_of(row), MOST.get(row["kind"])
    missed = row["ratio"] < goal or (most is not None and row["ratio"] > most)
    return f"{goal}{f' to {most}' if most else ''}{', missed' if missed else ''}"


def shares(row):
    """Tokens a step, and how many of the guesses came true."""
    drafted = [pair["drafting"] for pair in row["pairs"]]
    n, n_drafted, n_accepted = (sum(answer[name] for answer in drafted) for name in ("n", "draft_n", "accepted_n"))
    return n / max(1, n - n_accepted), n_accepted / n_drafted if n_drafted else 0


def line(row):
    per_step, share = shares(row)
    ratios = " ".join(f"{pair['ratio']:.2f}" for pair in row["pairs"])
    return f"{row['name']}: {row['ratio']:.2f} ({ratios}), {per_step:.2f} tokens a step, {share:.0%} of the guesses came true"


def without_texts(row):
    def bare(answer):
        return {name: value for name, value in answer.items() if name != "text"}
    return {**row, "pairs": [{name: bare(value) if isinstance(value, dict) else value for name, value in pair.items()} for pair in row["pairs"]]}


def markdown(record):
    rows = [f"Model {record['model']}, {record['tokens']} tokens an answer, {record['date']}.", "",
            "| what | with drafts | without | ratio (pairs) | goal | tokens a step | guesses that came true |",
            "|---|---|---|---|---|---|---|"]
    for row in record["rows"]:
        per_step, share = shares(row)
        speeds = [statistics.median(pair[side]["tok_s"] for pair in row["pairs"]) for side in ("drafting", "plain")]
        rows.append(f"| {row['name']} | {speeds[0]:.1f} tok/s | {speeds[1]:.1f} tok/s | {row['ratio']:.2f} "
                    f"({min(pair['ratio'] for pair in row['pairs']):.2f} to {max(pair['ratio'] for pair in row['pairs']):.2f}) | "
                    f"{goal_text(row)} | {per_step:.2f} | {share:.0%} |")
    one = [row["ratio"] for row in record["rows"] if row["kind"] == "one"]
    if one:
        mean = statistics.mean(one)
        rows += ["", f"One stream in the mean: {mean:.2f} (goal {GOAL_OF_MEAN}{'' if mean >= GOAL_OF_MEAN else ', missed'})."]
    if record["differing"]:
        rows += ["", f"Texts differ: {', '.join(record['differing'])}."]
    return "\n".join(rows) + "\n"
