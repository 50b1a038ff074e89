#!/usr/bin/env python3
# Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.
"""Records what the Python package jsonschema says of random instances of random schemas.

    pip install jsonschema==4.26.0
    python3 make_truth.py > truth.json

Instances are made to fit, and then some are spoiled. Their keys stand in the order in which the form writes them, so that every valid one must be
accepted; those that are not valid must not be.
"""

import json
import random

import jsonschema

SEED = 20260101
PATTERNS = [  # with texts that match
    ("^[a-z]{1,4}$", ["a", "bcd", "wxyz"]),
    ("[0-9]{2}", ["a12", "99", "x007y"]),
    ("^(foo|ba[rz])+$", ["foo", "barbaz", "bazfoo"]),
    ("^\\S+@\\S+$", ["me@x", "a.b@c.d"]),
    ("x$", ["x", "xyx"]),
    ("^(?!no)[a-z]+$", ["yes", "on"]),
]
WORDS = ["", "a", "red", "Größe", "\"quoted\"", "back\\slash", "line\nend", "😀", "a/b", "id", "name", "value 1"]


def scalar(random):
    kind = random.randrange(9)
    if kind == 0:
        return {"type": "boolean"}
    if kind == 1:
        return {"type": "null"}
    if kind == 2:
        return {"enum": random.sample([1, 2.5, "red", "Größe", None, True, "a/b", -3, [1, "x"], {"k": 1}], random.randint(1, 4))}
    if kind == 3:
        return {"const": random.choice([7, "fixed", False, [], {"a": [1]}])}
    if kind in (4, 5):
        schema = {"type": random.choice(["integer", "number"])}
        low = random.choice([None, 0, 1, -17, 3.5, 99])
        if low is not None:
            schema[random.choice(["minimum", "exclusiveMinimum"])] = low
        high = random.choice([None, None, 100, 123.25, 1000])
        if high is not None:
            schema[random.choice(["maximum", "exclusiveMaximum"])] = high
        if random.random() < 0.3:
            schema["multipleOf"] = random.choice([1, 5, 7, 0.25, 0.5])
        return schema
    schema = {"type": "string"}
    if random.random() < 0.4:
        schema["pattern"] = random.choice(PATTERNS)[0]
    elif random.random() < 0.6:
        schema["minLength"] = random.randint(0, 3)
        schema["maxLength"] = schema["minLength"] + random.randint(0, 6)
    return schema


def make_schema(random, depth):
    if depth == 0 or random.random() < 0.3:
        return scalar(random)
    kind = random.randrange(8)
    if kind < 4:
        keys = random.sample(["a", "b", "name", "Größe", "k1", "k2", "with space"], random.randint(0, 4))
        schema = {"type": "object", "properties": {key: make_schema(random, depth - 1) for key in keys}}
        schema["required"] = [key for key in keys if random.random() < 0.5]
        extra = random.randrange(3)
        if extra == 0:
            schema["additionalProperties"] = False
        elif extra == 1:
            schema["additionalProperties"] = make_schema(random, depth - 1)
        if random.random() < 0.2:
            schema["patternProperties"] = {"^x_": make_schema(random, depth - 1)}
        if keys and random.random() < 0.2:
            schema["maxProperties"] = random.randint(len(schema["required"]), len(keys))
        if random.random() < 0.15 and len(keys) > 1:
            schema["dependentRequired"] = {keys[0]: [keys[1]]}
        return schema
    if kind < 6:
        schema = {"type": "array", "items": make_schema(random, depth - 1)}
        if random.random() < 0.5:
            schema["minItems"] = random.randint(0, 2)
            schema["maxItems"] = schema["minItems"] + random.randint(0, 3)
        if random.random() < 0.3:
            schema["prefixItems"] = [make_schema(random, depth - 1) for _ in range(random.randint(1, 2))]
        if random.random() < 0.15:
            schema["contains"] = scalar(random)
        return schema
    if kind == 6:
        return {"anyOf": [make_schema(random, depth - 1) for _ in range(2)]}
    return {"allOf": [scalar(random), {"not": scalar(random)}]} if random.random() < 0.5 else {"oneOf": [{"type": "string"}, scalar(random)]}


def anything(random, depth=2):
    kind = random.randrange(7 if depth else 5)
    if kind == 0:
        return random.choice([True, False, None])
    if kind == 1:
        return random.choice([0, 1, 5, -17, 35, 100, 1000, 123456789])
    if kind == 2:
        return random.choice([0.5, 2.5, -3.25, 99.9, 0.1])
    if kind in (3, 4):
        return random.choice(WORDS)
    if kind == 5:
        return [anything(random, depth - 1) for _ in range(random.randint(0, 3))]
    return {key: anything(random, depth - 1) for key in random.sample(["p", "q", "x_1"], random.randint(0, 2))}


def fitting(random, schema, depth=4):
    """A value that may well fit."""
    if schema is True or depth == 0:
        return anything(random, 1)
    if "const" in schema:
        return schema["const"]
    if "enum" in schema:
        return random.choice(schema["enum"])
    for keyword in ("anyOf", "oneOf", "allOf"):
        if keyword in schema:
            return fitting(random, random.choice(schema[keyword]), depth - 1)
    kind = schema.get("type")
    if kind == "boolean":
        return random.random() < 0.5
    if kind == "null":
        return None
    if kind in ("integer", "number"):
        low = schema.get("minimum", schema.get("exclusiveMinimum", -20))
        high = schema.get("maximum", schema.get("exclusiveMaximum", low + 200))
        step = schema.get("multipleOf", 1 if kind == "integer" else random.choice([1, 0.5, 0.125]))
        value = round(random.uniform(low, high) / step) * step
        value = round(value, 4)
        return int(value) if kind == "integer" or value == int(value) else value
    if kind == "string":
        for pattern, texts in PATTERNS:
            if schema.get("pattern") == pattern:
                return random.choice(texts)
        word = random.choice(WORDS) + "abc" * 3
        return word[: random.randint(schema.get("minLength", 0), schema.get("maxLength", 9))]
    if kind == "array":
        count = random.randint(schema.get("minItems", 0), schema.get("maxItems", 3))
        parts = schema.get("prefixItems", [])
        items = [fitting(random, parts[i] if i < len(parts) else schema["items"], depth - 1) for i in range(count)]
        if "contains" in schema and items and random.random() < 0.8:
            items[random.randrange(len(items))] = fitting(random, schema["contains"], depth - 1)
        return items
    if kind == "object":
        value = {}
        for key, inner in schema["properties"].items():
            if key in schema["required"] or random.random() < 0.5:
                value[key] = fitting(random, inner, depth - 1)
        if schema.get("additionalProperties") is not False and random.random() < 0.4:
            inner = schema.get("additionalProperties", True)
            for key in random.sample(["extra", "zusätzlich"], random.randint(1, 2)):
                value[key] = fitting(random, inner, depth - 1)
        if "patternProperties" in schema and random.random() < 0.5:
            value["x_1"] = fitting(random, schema["patternProperties"]["^x_"], depth - 1)
        return value
    return anything(random)


def spoiled(random, value):
    """The same with one thing changed."""
    if isinstance(value, dict) and value and random.random() < 0.8:
        key = random.choice(list(value))
        changed = dict(value)
        if random.random() < 0.3:
            del changed[key]
        elif random.random() < 0.2:
            changed["unknown"] = anything(random, 1)
        else:
            changed[key] = spoiled(random, value[key])
        return changed
    if isinstance(value, list) and value and random.random() < 0.8:
        changed = list(value)
        index = random.randrange(len(value))
        if random.random() < 0.3:
            del changed[index]
        else:
            changed[index] = spoiled(random, value[index])
        return changed
    if isinstance(value, str) and random.random() < 0.5:
        return value + random.choice(["x", "no", "1", "é", "abcdefgh"])
    if isinstance(value, (int, float)) and not isinstance(value, bool) and random.random() < 0.7:
        return value + random.choice([1, -1, 0.5, 1000, -1000])
    return anything(random)


def main():
    source = random.Random(SEED)
    cases = []
    while len(cases) < 120:
        schema = make_schema(source, 3)
        validator = jsonschema.Draft202012Validator(schema)
        texts = {}
        for _ in range(12):
            value = fitting(source, schema)
            for instance in (value, spoiled(source, value)):
                # Integers are written without a fraction.
                text = json.dumps(instance, ensure_ascii=False, separators=(",", ":"))
                texts[text] = validator.is_valid(json.loads(text))
        if any(texts.values()):
            cases.append({"schema": schema, "instances": [{"text": text, "valid": valid} for text, valid in texts.items()]})
    print('{"cases": [')
    print(",\n".join(json.dumps(case, ensure_ascii=False) for case in cases))
    print("]}")


if __name__ == "__main__":
    main()
