"""Which texts are JSON that fulfils a schema, by the package jsonschema. A line in: {"schema": ..., "text": "..."}; a line out: {"why": null},
or what is wrong with it. Run by bench/validity in an environment of its own."""
import json
import sys

from jsonschema import SchemaError, ValidationError
from jsonschema.validators import validator_for
from referencing.exceptions import Unresolvable


def wrong(schema, text):
    try:
        value = json.loads(text)
    except ValueError as error:
        return f"no JSON: {error}"
    kind = validator_for(schema)
    try:
        kind(schema, format_checker=kind.FORMAT_CHECKER).validate(value)
    except ValidationError as error:
        return f"{error.json_path}: {error.message}"[:300]
    except (SchemaError, Unresolvable) as error:
        return f"jsonschema cannot say: {error}"[:300]
    return None


for line in sys.stdin:
    question = json.loads(line)
    print(json.dumps({"why": wrong(question["schema"], question["text"])}), flush=True)
