"""The record of bench/tools as a table."""
from calling import judge


def counts(record, player):
    """Right calls and right refrainings of a player."""
    answers = [question["answers"][player] for question in record["questions"]]
    needs = [question["needs_tool"] for question in record["questions"]]
    return tuple(sum(answer["why_wrong"] is None for answer, need in zip(answers, needs) if need == is_call) for is_call in (True, False))


def markdown(record):
    n = len(record["questions"])
    n_calls = sum(question["needs_tool"] for question in record["questions"])
    lines = [f"{record['model']}: {n} questions, greedy, `tool_choice` auto", "",
             f"| server | right calls of {n_calls} | right refrainings of {n - n_calls} | together of {n} |", "|---|--:|--:|--:|"]
    found = [counts(record, player) for player in record["players"]]
    lines += [f"| {player} | {calls} | {refrainings} | {calls + refrainings} |"
              for player, (calls, refrainings) in zip(record["players"], found)]
    if len(found) == 2:
        verdicts = [f"{what} {'met' if own >= peer else 'missed'} ({own} against {peer})" for what, own, peer in
                    zip(("calls", "refrainings", "together"), (*found[0], sum(found[0])), (*found[1], sum(found[1])))]
        lines += ["", f"Goal, at least as many as the peer: {', '.join(verdicts)}."]
    wrote = [sum(question["answers"][player]["why_wrong"] == judge.WROTE and not question["needs_tool"] for question in record["questions"])
             for player in record["players"]]
    if any(wrote):
        lines += ["", "Not counted as refrainings, as they are calls written out as text: " + ", ".join(
            f"{n} of {player}" for player, n in zip(record["players"], wrote)) + "."]
    wrong = [(question["id"], player, question["answers"][player]["why_wrong"]) for question in record["questions"]
             for player in record["players"] if question["answers"][player]["why_wrong"]]
    lines += ["", "| wrong | server | why |", "|---|---|---|"] + [
        f"| {name} | {player} | {why.replace('|', chr(92) + '|')} |" for name, player, why in wrong] if wrong else []
    return "\n".join(lines) + "\n"
