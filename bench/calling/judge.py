"""Whether an answer calls what a question wants, argument for argument. A call that is written out in the answer's text is none,
as no client can act on it, and no refraining either, as it says nothing to whoever asked: the same for all servers."""
import itertools
import json
import re

WROTE = "wrote a call as text"
# In a fence or between tags, or not; with the two braces that some templates show models, or one.
_WRITTEN = re.compile(r'\s*(```\w*|<\w+>)?\s*\{+\s*"name"\s*:\s*"[^"]*"\s*,\s*"arguments"\s*:\s*\{.*\}\s*(```|</\w+>)?\s*', re.DOTALL)


def why_wrong(question, message):
    """None if the message is right, else why it is not."""
    calls = message.get("tool_calls") or []
    wanted = question["calls"]
    if not calls and is_written_call(message.get("content") or ""):
        return WROTE
    if not wanted:
        if calls:
            return "called " + ", ".join(call["function"]["name"] for call in calls) + " where no tool was needed"
        return None if (message.get("content") or "").strip() else "said nothing"
    if not calls:
        return "called nothing"
    found = [(call["function"]["name"], _arguments(call)) for call in calls]
    if sorted(name for name, _ in found) != sorted(name for name, _ in wanted):
        return "called " + ", ".join(name for name, _ in found)
    reasons = [_why_not_in_order(wanted, order) for order in itertools.permutations(found)]
    return None if None in reasons else reasons[0]


def is_written_call(text):
    """Whether the text is a call and nothing else."""
    return bool(_WRITTEN.fullmatch(text))


def _arguments(call):
    try:
        return json.loads(call["function"]["arguments"])
    except ValueError:
        return None


def _why_not_in_order(wanted, found):
    for (name, expected), (found_name, arguments) in zip(wanted, found):
        if name != found_name:
            return f"called {found_name} for {name}"
        if not isinstance(arguments, dict):
            return f"{name}: its arguments are no JSON object"
        for key in [*expected, *(key for key in arguments if key not in expected)]:
            if not _is_one_of(arguments.get(key), expected.get(key, [None])):
                said = json.dumps(arguments[key], ensure_ascii=False) if key in arguments else "missing"
                return f"{name}: {key} is {said}"
    return None


def _is_one_of(value, accepted):
    return any(_is(value, one) for one in accepted)


def _is(value, wanted):
    """Texts are the same whatever their case and the white space around them, numbers whatever their form, lists in any order; a
    number in quotes is no number."""
    if wanted == "*":
        return value is not None
    if wanted is None:
        return value is None or value == ""
    if isinstance(wanted, dict):
        return isinstance(value, str) and all(word.casefold() in value.casefold() for word in wanted["words"])
    if isinstance(wanted, list):
        return isinstance(value, list) and len(value) == len(wanted) and all(_is_one_of(item, wanted) for item in value) and \
            all(any(_is(item, one) for item in value) for one in wanted)
    if isinstance(wanted, str):
        return isinstance(value, str) and value.strip().casefold() == wanted.casefold()
    return isinstance(value, (int, float)) and not isinstance(value, bool) and value == wanted
