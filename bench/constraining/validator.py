"""Which texts are JSON that fulfils a schema, by the package jsonschema. A line in: {"schema": ..., "text": "..."}; a line out: {"why": null},
or what is wrong with it. Run by bench/validity in an environment of its own. Fractions are read as decimal ones: as binary ones
10000.89 is no multiple of 0.01, which jsonschema would say of any answer that has it."""
import json
import sys
from decimal import Decimal, InvalidOperation, getcontext

from jsonschema import SchemaError, ValidationError
from jsonschema.validators import validator_for
from referencing.exceptions import Unresolvable


def fraction(text):
    """1.0 is an integer, as jsonschema has it."""
    return int(float(text)) if float(text).is_integer() else Decimal(text)


def wrong(schema, text):
    try:
        value = json.loads(text, parse_float=fraction)
    except ValueError as error:
        return f"no JSON: {error}"
    kind = validator_for(schema)
    try:
        kind(schema, format_checker=kind.FORMAT_CHECKER).validate(value)
    except ValidationError as error:
        return f"{error.json_path}: {error.message}"[:300]
    except (SchemaError, Unresolvable, InvalidOperation) as error:
        return f"jsonschema cannot say: {error}"[:300]
    return None


getcontext().prec = 800  # digits: enough for a remainder of the largest double by the smallest
for line in sys.stdin:
    question = json.loads(line, parse_float=fraction)
    print(json.dumps({"why": wrong(question["schema"], question["text"])}), flush=True)
