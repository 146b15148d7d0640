"""From what the engines said of each schema to the figures of bench/schemas. Only the standard library is needed."""
import math
import statistics

TAKEN, REFUSED, VALID_REFUSED, INVALID_TAKEN = "passes", "refused", "valid refused", "invalid taken"
OUTCOMES = [TAKEN, REFUSED, VALID_REFUSED, INVALID_TAKEN]


def percentile(values, share):
    """The smallest value that so large a share does not pass; NaN: there are none."""
    return sorted(values)[max(0, math.ceil(len(values) * share / 100) - 1)] if values else math.nan


def outcome(answer, valid):
    """Of a schema: what an engine said (see `runnel constrain`) beside which of its instances are valid. An invalid one that is taken
    weighs more than a valid one that is refused."""
    if answer["error"] is not None:
        return REFUSED
    assert len(answer["results"]) == len(valid), "a result for each instance"
    said = [(result["accepted"], is_valid) for result, is_valid in zip(answer["results"], valid)]
    if (True, False) in said:
        return INVALID_TAKEN
    return VALID_REFUSED if (False, True) in said else TAKEN


def times(values):
    return {"n": len(values), "mean": statistics.fmean(values) if values else math.nan, "p50": percentile(values, 50),
            "p99": percentile(values, 99), "max": max(values, default=math.nan)}


def masks_of(row, engine):
    return [time for result in row[engine]["results"] for time in result["mask_us"]]


def masks_of_both(row, engine, other):
    """Of the instances that both followed equally far, so that both made the same masks."""
    pairs = zip(row[engine]["results"], row[other]["results"])
    return [time for own, its in pairs if len(own["mask_us"]) == len(its["mask_us"]) for time in own["mask_us"]]


def figures(rows, engine, other=None):
    """Of an engine; with another one also its times of the work that both did."""
    compiled = [row for row in rows if row[engine]["error"] is None]
    outcomes = [outcome(row[engine], row["valid"]) for row in rows]
    found = {"schemas": len(rows), "outcomes": {name: outcomes.count(name) for name in OUTCOMES},
             "not followed": sum("error" in result for row in compiled for result in row[engine]["results"]),
             "compile_ms": times([row[engine]["compile_ms"] for row in compiled]),
             "mask_us": times([time for row in compiled for time in masks_of(row, engine)])}
    if other:
        both = [row for row in compiled if row[other]["error"] is None]
        found["of both"] = {"schemas": len(both), "compile_ms": times([row[engine]["compile_ms"] for row in both]),
                            "mask_us": times([time for row in both for time in masks_of_both(row, engine, other)])}
    return found


def slowest(rows, engine, n):
    """Names of schemas with their slowest mask and with their compiling, the slowest first."""
    compiled = [row for row in rows if row[engine]["error"] is None]
    masks = sorted(((max(masks_of(row, engine), default=0), row["name"]) for row in compiled), reverse=True)
    compiling = sorted(((row[engine]["compile_ms"], row["name"]) for row in compiled), reverse=True)
    return {"mask_us": masks[:n], "compile_ms": compiling[:n]}
