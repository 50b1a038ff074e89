# Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.
"""What schemathesis has to know about the server besides its document."""

import schemathesis

# The 400s that a request may get although its schema allows it: what no schema can say. (code, param); None is any param.
REFUSALS = {
    ("context_length_exceeded", None),  # the prompt has no room
    ("chat_template_error", None),  # the model's template does not take the conversation
    ("invalid_value", "logit_bias"),  # the vocabulary is the model's
    ("invalid_value", "stop_token_ids"),
    ("invalid_value", "tokens"),
    ("invalid_value", "prompt"),
    ("invalid_value", ""),  # the template made a prompt without tokens
    ("invalid_value", "n"),  # prompts times answers
    ("unsupported_parameter", "best_of"),  # it must be n
    ("too_many_requests_in_one", None),
}


@schemathesis.hook
def before_call(context, case, kwargs=None):
    """Keeps answers short."""
    body = case.body
    if not isinstance(body, dict):
        return
    names = {
        "/v1/chat/completions": ["max_completion_tokens", "max_tokens"],
        "/v1/completions": ["max_tokens"],
        "/v1/responses": ["max_output_tokens"],
        "/v1/messages": ["max_tokens"],
    }.get(case.operation.path)
    if not names:
        return
    for name in names:
        value = body.get(name)
        # 1e9 is an integer too.
        if isinstance(value, (int, float)) and not isinstance(value, bool) and 3 < value < 2**63 and value == int(value):
            body[name] = 3
    if all(body.get(name) is None for name in names) and case.operation.path != "/v1/messages":
        body[names[0]] = 3
    for name in ("n", "best_of"):
        value = body.get(name)
        if isinstance(value, int) and not isinstance(value, bool) and 4 < value <= 128:
            body[name] = 4


@schemathesis.check
def what_is_documented_is_taken(ctx, response, case):
    """A request that the document allows is refused only with a code of REFUSALS."""
    meta = case.meta
    if meta is None or meta.generation.mode != schemathesis.GenerationMode.POSITIVE or response.status_code not in (400, 415, 422):
        return
    error = response.json()["error"]
    code, param = error.get("code"), (error.get("param") or "").split("[")[0].split(".")[0]
    message = error.get("message", "")
    if (code, None) in REFUSALS or (code, param) in REFUSALS:
        return
    # Anthropic's form has no codes.
    if case.operation.path.startswith("/v1/messages") and any(words in message for words in ("prompt is too long", "chat template", "no tokens")):
        return
    raise AssertionError(f"refused, although the document allows it: {error}")


@schemathesis.check
def failures_say_when_to_try_again(ctx, response, case):
    """A 503 has Retry-After."""
    if response.status_code == 503:
        assert response.headers.get("retry-after"), "503 without Retry-After"
