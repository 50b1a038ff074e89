# Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.
"""The chat rendering of transformers 5.24.0, taken out of its wheel at run time: no copy of it is kept here.

    from transformers_chat import Transformers
    chat = Transformers(wheel=None)          # None downloads the wheel with pip
    chat.compile(source)                     # the jinja2 template in transformers' environment
    chat.apply(source, messages, tools=None, documents=None, special_tokens={"bos_token": "<s>"},
               add_generation_prompt=True, enable_thinking=True)

The functions are found in the wheel's sources by their names in the syntax tree, and run as they stand there. What they import is given to
them here: jinja2 is the installed one (3.1.6 is wanted), the clock stands still, numpy and PyTorch are not needed.
"""

import __future__
import ast
import dataclasses
import inspect
import json
import pathlib
import re
import subprocess
import sys
import tempfile
import types
import typing
import zipfile
from collections.abc import Callable, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import datetime
from functools import lru_cache
from typing import Any, no_type_check

import jinja2
import jinja2.exceptions
import jinja2.ext
import jinja2.meta
import jinja2.nodes
import jinja2.parser
import jinja2.runtime
from jinja2.ext import Extension
from jinja2.sandbox import ImmutableSandboxedEnvironment

VERSION = "5.24.0"
CLOCK = datetime(2026, 11, 29, 12, 34, 56)


class StandingClock(datetime):
    """A clock that always says the same, so that what was recorded can be compared on another day."""

    @classmethod
    def now(cls, tz=None):
        return CLOCK


def wheel_path(given=None):
    """The wheel of transformers: the given one, or one that pip brings into a temporary folder."""
    if given:
        return pathlib.Path(given)
    folder = tempfile.mkdtemp(prefix="transformers-")
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary", ":all:", "-d", folder]
    subprocess.run(command + [f"transformers=={VERSION}"], check=True)
    return next(pathlib.Path(folder).glob("transformers-*.whl"))


def take(source, names, inside=None):
    """The top-level definitions and assignments of these names, or those of a class's body, as one module's syntax tree."""
    body = ast.parse(source).body
    if inside:
        body = next(node for node in body if isinstance(node, ast.ClassDef) and node.name == inside).body
    found = {}
    for node in body:
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
            found[node.name] = node
        elif isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
            found.setdefault(node.targets[0].id, node)
    missing = [name for name in names if name not in found]
    if missing:
        raise SystemExit(f"transformers {VERSION} has no {', '.join(missing)}: is this its wheel?")
    return ast.Module([found[name] for name in names], [])


def run(tree, name, namespace):
    """Runs a syntax tree; annotations stay text, since they name things that are not imported here."""
    flags = __future__.annotations.compiler_flag
    exec(compile(ast.fix_missing_locations(tree), name, "exec", flags=flags, dont_inherit=True), namespace)


class Transformers:
    """transformers' own functions around Jinja, with a clock that stands."""

    def __init__(self, wheel=None):
        with zipfile.ZipFile(wheel_path(wheel)) as archive:
            utilities = archive.read("transformers/utils/chat_template_utils.py").decode()
            base = archive.read("transformers/tokenization_utils_base.py").decode()
        logger = types.SimpleNamespace(warning_once=lambda *_: None, warning=lambda *_: None)
        version = types.SimpleNamespace(parse=lambda text: tuple(int(part) for part in text.split(".")[:3]))
        self.names = {
            "dataclasses": dataclasses, "inspect": inspect, "json": json, "re": re, "types": types, "Callable": Callable,
            "Mapping": Mapping, "contextmanager": contextmanager, "ContextVar": ContextVar, "datetime": StandingClock,
            "lru_cache": lru_cache, "isfunction": inspect.isfunction, "Any": Any, "no_type_check": no_type_check,
            "typing": typing, "np": types.SimpleNamespace(generic=()), "version": version, "logger": logger,
            "is_jinja_available": lambda: True, "jinja2": jinja2, "Extension": Extension,
            "ImmutableSandboxedEnvironment": ImmutableSandboxedEnvironment,
        }
        run(take(utilities, [
            "_REASONING_FIELDS", "_cached_compile_jinja_template", "_compile_jinja_template", "_alias_reasoning_fields",
            "_message_objects_to_dicts", "_normalize_chat_messages", "_plain_template_data",
            "_render_with_assistant_indices", "render_jinja_template",
        ]), "chat_template_utils.py", self.names)
        methods = take(base, ["apply_chat_template", "get_chat_template"], inside="PreTrainedTokenizerBase")
        run(methods, "tokenization_utils_base.py", self.names)
        self.tokenizer_type = type("Tokenizer", (), {
            "apply_chat_template": self.names["apply_chat_template"],
            "get_chat_template": self.names["get_chat_template"],
        })

    def compile(self, source):
        """The template in the environment that transformers builds; each source is compiled once."""
        return self.names["_compile_jinja_template"](source)

    def apply(self, source, messages, tools=None, documents=None, special_tokens=None, **options):
        """What `tokenizer.apply_chat_template(messages, …, tokenize=False)` gives for a tokenizer with these named special tokens."""
        tokenizer = self.tokenizer_type()
        tokenizer.chat_template = source
        tokenizer.special_tokens_map = dict(special_tokens or {})
        return tokenizer.apply_chat_template(messages, tools=tools, documents=documents, tokenize=False, **options)


def outcome(render):
    """What a rendering gives, as the fixtures hold it: its output, or the error's class and message, and its line if it is one of syntax."""
    try:
        return {"output": render()}
    except Exception as error:
        result = {"error": type(error).__name__, "message": str(error.message if isinstance(error, jinja2.TemplateError) else error)}
        if isinstance(error, jinja2.TemplateSyntaxError):
            result["line"] = error.lineno
        return result
