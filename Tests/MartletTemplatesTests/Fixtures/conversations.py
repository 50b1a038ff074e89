# Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.
"""The conversations that templates are rendered with: the everyday ones, a to h, and some that fewer templates take."""

TOOLS = [
    {"type": "function", "function": {
        "name": "get_weather",
        "description": "Says what the weather is, in °C & %; \"now\" <or> later.",
        "parameters": {"type": "object", "properties": {
            "city": {"type": "string", "description": "The city's name"},
            "unit": {"type": "string", "enum": ["celsius", "fahrenheit"], "default": "celsius"},
            "days": {"type": "array", "description": "Which days", "items": {"type": "integer", "minimum": 0}},
        }, "required": ["city"]},
    }},
    {"type": "function", "function": {
        "name": "find",
        "description": "Looks a word up.",
        "parameters": {"type": "object", "properties": {
            "word": {"type": ["string", "null"], "description": "The word"},
            "options": {"type": "object", "properties": {"limit": {"type": "number"}, "exact": {"type": "boolean"}}},
        }, "required": ["word", "options"]},
    }},
]

DOCUMENTS = [
    {"doc_id": 1, "title": "Martlets", "text": "A martlet is a bird without feet.", "content": "A martlet is a bird without feet."},
    {"doc_id": 2, "title": "Swifts", "text": "Swifts sleep in flight.\nThey do.", "content": "Swifts sleep in flight.\nThey do."},
]


def tool_conversation(arguments, content):
    """A question, the call of a tool, its result, the answer and one more question."""
    call = {"id": "call00001", "type": "function", "function": {"name": "get_weather", "arguments": arguments}}
    return [
        {"role": "system", "content": "Use the tools."},
        {"role": "user", "content": "How warm is it in Łódź?"},
        {"role": "assistant", "content": content, "tool_calls": [call]},
        {"role": "tool", "name": "get_weather", "tool_call_id": "call00001", "content": "{\"celsius\": 21.5}"},
        {"role": "assistant", "content": "It has 21.5 °C."},
        {"role": "user", "content": "And tomorrow?"},
    ]


OBJECT = {"city": "Łódź", "days": [1, 2], "unit": None, "exact": True, "share": 0.5}
STRING = "{\"city\": \"Łódź\", \"days\": [1, 2], \"unit\": null, \"exact\": true, \"share\": 0.5}"

# name → (what it is, messages, tools, documents)
EVERYDAY = {
    "a": ("one question", [{"role": "user", "content": "Who are you?"}], None, None),
    "b": ("system and question", [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Who are you?"}], None, None),
    "c": ("question, answer, question", [
        {"role": "user", "content": "Name a bird."}, {"role": "assistant", "content": "A swift."}, {"role": "user", "content": "Another?"}], None, None),
    "d": ("system and three turns", [
        {"role": "system", "content": "Answer with one word."}, {"role": "user", "content": "One?"}, {"role": "assistant", "content": "1"},
        {"role": "user", "content": "Two?"}, {"role": "assistant", "content": "2"}, {"role": "user", "content": "Three?"}], None, None),
    "e": ("tools, call, result, answer; arguments as an object", tool_conversation(OBJECT, ""), TOOLS, None),
    "e2": ("the same with arguments as a string", tool_conversation(STRING, ""), TOOLS, None),
    "f": ("white space at both ends of contents", [
        {"role": "system", "content": "  Be brief.\n"}, {"role": "user", "content": "\n\n Who? \t"}, {"role": "assistant", "content": " \u00a0I.\n\n"},
        {"role": "user", "content": "\u3000Why?\n "}], None, None),
    "g": ("a thought in an earlier answer", [
        {"role": "user", "content": "What is 6 × 7?"}, {"role": "assistant", "content": "42", "reasoning_content": "Six sevens:\n6 × 7 = 42."},
        {"role": "user", "content": "Sure?"}], None, None),
    "h": ("an empty system message", [{"role": "system", "content": ""}, {"role": "user", "content": "Who are you?"}], None, None),
}

FURTHER = {
    "e3": ("a call without content", tool_conversation(OBJECT, None), TOOLS, None),
    "e4": ("a question with tools", [{"role": "user", "content": "How warm is it?"}], TOOLS, None),
    "e5": ("a result comes last", tool_conversation(OBJECT, "I look.")[:4], TOOLS, None),
    "i": ("content as a list of parts", [
        {"role": "user", "content": [{"type": "text", "text": "Who "}, {"type": "text", "text": "are you?"}]}], None, None),
    "j": ("documents", [{"role": "user", "content": "What is a martlet?"}], None, DOCUMENTS),
    "k": ("a thought within an answer's text", [
        {"role": "user", "content": "6 × 7?"}, {"role": "assistant", "content": "<think>\nSix sevens.\n</think>\n\n42"}, {"role": "user", "content": "Sure?"}], None, None),
}
