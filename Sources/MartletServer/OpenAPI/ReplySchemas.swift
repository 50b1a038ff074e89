// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

#if HTTPServer
import MartletTemplates

/// What replies look like, for the OpenAPI document: every member that is always there is required.
enum ReplySchemas {
  private typealias S = Schema

  static var all: JSON.Object {
    [
      "Error": S.object([
        "error": S.object(
          ["message": S.text, "type": S.text, "param": S.nullable(S.text), "code": S.nullable(S.text)],
          optional: ["n_prompt_tokens": S.count, "n_ctx": S.count, "progress": S.number])
      ]),
      "AnthropicError": S.object(["type": S.const("error"), "error": S.object(["type": S.text, "message": S.text])]),
      "Model": S.object(
        ["id": S.text, "object": S.const("model"), "created": S.integer, "owned_by": S.text, "max_model_len": S.count],
        optional: ["root": S.text, "parent": S.nullable(S.text), "meta": S.anyObject]),
      "ModelList": S.object(["object": S.const("list"), "data": S.array(S.ref("Model"))]),
      "Usage": S.object(
        [
          "prompt_tokens": S.count, "completion_tokens": S.count, "total_tokens": S.count,
          "prompt_tokens_details": S.object(["cached_tokens": S.count]),
        ], optional: ["completion_tokens_details": S.object(["reasoning_tokens": S.count])]),
      "ToolCall": S.object([
        "id": S.text, "type": S.const("function"), "function": S.object(["name": S.text, "arguments": S.text]),
      ]),
      "TokenLogprob": S.object(
        ["token": S.text, "logprob": S.number, "bytes": S.array(byte)],
        optional: ["top_logprobs": S.array(S.object(["token": S.text, "logprob": S.number, "bytes": S.array(byte)]))]),
      "ChatMessage": S.object(
        ["role": S.const("assistant"), "content": S.nullable(S.text), "refusal": S.null],
        optional: ["reasoning_content": S.text, "tool_calls": S.array(S.ref("ToolCall"))]),
      "ChatCompletion": S.object(
        head(
          "chat.completion",
          [
            "choices": S.array(
              S.object(
                [
                  "index": S.count, "message": S.ref("ChatMessage"),
                  "logprobs": S.any(S.object(["content": S.array(S.ref("TokenLogprob")), "refusal": S.null]), S.null),
                  "finish_reason": S.oneOf("stop", "length", "tool_calls"),
                ], optional: ["stop_reason": S.nullable(S.text)])), "usage": S.ref("Usage"),
          ]), optional: ["seed": S.integer]),
      "Completion": S.object(
        head(
          "text_completion",
          [
            "choices": S.array(
              S.object(
                [
                  "index": S.count, "text": S.text, "logprobs": S.any(completionLogprobs, S.null),
                  "finish_reason": S.oneOf("stop", "length"),
                ], optional: ["stop_reason": S.nullable(S.text)])), "usage": S.ref("Usage"),
          ]), optional: ["seed": S.integer]),
      "ResponseItem": S.any(
        S.object([
          "id": S.text, "type": S.const("message"), "status": itemStatus, "role": S.const("assistant"), "content": S.array(outputText),
        ]),
        S.object([
          "id": S.text, "type": S.const("reasoning"), "status": itemStatus, "summary": S.array(S.anyObject),
          "content": S.array(S.object(["type": S.const("reasoning_text"), "text": S.text])),
        ]),
        S.object([
          "id": S.text, "type": S.const("function_call"), "status": itemStatus, "call_id": S.text, "name": S.text, "arguments": S.text,
        ])),
      "Response": response,
      "InputTokens": S.object(["object": S.const("response.input_tokens"), "input_tokens": S.count]),
      "Message": S.object(
        [
          "id": S.text, "type": S.const("message"), "role": S.const("assistant"), "model": S.text,
          "content": S.array(
            S.any(
              S.object(["type": S.const("text"), "text": S.text]),
              S.object(["type": S.const("thinking"), "thinking": S.text, "signature": S.text]),
              S.object(["type": S.const("tool_use"), "id": S.text, "name": S.text, "input": S.anyObject]))),
          "stop_reason": S.oneOf("end_turn", "max_tokens", "stop_sequence", "tool_use"), "stop_sequence": S.nullable(S.text),
          "usage": S.object([
            "input_tokens": S.count, "output_tokens": S.count, "cache_creation_input_tokens": S.count, "cache_read_input_tokens": S.count,
          ]),
        ], optional: ["seed": S.integer]),
      "MessageTokens": S.object(["input_tokens": S.count]),
      "Embeddings": S.object([
        "object": S.const("list"),
        "data": S.array(
          S.object(["object": S.const("embedding"), "index": S.count, "embedding": S.any(S.array(S.number), S.text)])),
        "model": S.text, "usage": S.object(["prompt_tokens": S.count, "total_tokens": S.count]),
      ]),
      "Tokens": S.any(
        S.object(["tokens": S.array(S.count), "count": S.count, "max_model_len": S.count], optional: ["token_strs": S.array(S.text)]),
        S.object(["tokens": S.array(S.object(["id": S.count, "piece": S.any(S.text, S.array(byte))]))])),
      "Detokenized": S.object(["prompt": S.text, "content": S.text]),
      "TokenizerInfo": S.object([
        "tokenizer_class": S.text, "bos_token": S.nullable(S.text), "eos_token": S.nullable(S.text), "add_bos_token": S.flag,
        "model_max_length": S.count, "vocab_size": S.count, "chat_template": S.nullable(S.text),
      ]),
      "Status": S.object(["status": S.const("ok")]),
      "Version": S.object(["version": S.text, "name": S.const("martlet")]),
      "LiveSnapshot": liveSnapshot,
    ]
  }

  private static let byte: JSON = ["type": "integer", "minimum": 0, "maximum": 255]
  private static let itemStatus = Schema.oneOf("in_progress", "completed", "incomplete")
  private static let outputText = Schema.object([
    "type": Schema.const("output_text"), "text": Schema.text, "annotations": Schema.array(Schema.anyObject),
    "logprobs": Schema.array(Schema.ref("TokenLogprob")),
  ])
  private static let completionLogprobs = Schema.object([
    "tokens": S.array(S.text), "token_logprobs": S.array(S.nullable(S.number)), "top_logprobs": S.array(S.nullable(S.anyObject)),
    "text_offset": S.array(S.count),
  ])

  private static let response: JSON = S.object(
    [
      "id": S.text, "object": S.const("response"), "created_at": S.integer,
      "status": S.oneOf("completed", "incomplete", "failed", "in_progress"),
      "model": S.text, "output": S.array(S.ref("ResponseItem")), "error": S.any(S.object(["code": S.text, "message": S.text]), S.null),
      "incomplete_details": S.any(S.object(["reason": S.text]), S.null), "instructions": S.nullable(S.text), "metadata": S.anyObject,
      "parallel_tool_calls": S.flag, "temperature": S.number, "top_p": S.number, "tools": S.array(S.anyObject),
      "tool_choice": S.any(S.text, S.anyObject), "max_output_tokens": S.nullable(S.integer), "previous_response_id": S.null,
      "reasoning": S.anyObject, "text": S.anyObject, "truncation": S.text, "store": S.flag, "background": S.flag,
      "usage": S.any(
        S.object([
          "input_tokens": S.count, "input_tokens_details": S.object(["cached_tokens": S.count]), "output_tokens": S.count,
          "output_tokens_details": S.object(["reasoning_tokens": S.count]), "total_tokens": S.count,
        ]), S.null),
    ],
    optional: [
      "seed": S.integer, "completed_at": S.integer, "user": S.nullable(S.text), "service_tier": S.text, "top_logprobs": S.integer,
      "max_tool_calls": S.null,
    ])

  /// An event of the live view.
  private static let liveSnapshot: JSON = S.object([
    "time": S.number, "model": S.nullable(S.text), "is_running": S.flag, "max_batch_size": S.count, "max_num_tokens": S.count,
    "max_sequence_length": S.count, "waiting_requests": S.count, "waiting_tokens": S.count, "running_requests": S.count,
    "paused_requests": S.count,
    "totals": S.object([
      "steps": S.count, "prompt_tokens": S.count, "cached_prompt_tokens": S.count, "generated_tokens": S.count, "pauses": S.count,
      "requests": S.count,
    ]),
    "pools": S.array(
      S.object([
        "page_size": S.count, "page_bytes": S.count, "window": S.nullable(S.count), "pages": S.count, "free": S.count, "kept": S.count,
        "held": S.count,
        // Count, kind, request.
        "runs": S.array(row(S.count, S.count, S.integer)),
      ])),
    "prefix_tree": S.object([
      // Parent, tokens, pages, holders, idle seconds, retention.
      "nodes": S.array(row(S.integer, S.count, S.count, S.count, S.number, S.integer)), "is_cut": S.flag,
    ]),
    "steps": S.array(
      S.object([
        "number": S.count, "start": S.number, "context_requests": S.count, "context_tokens": S.count, "generation_requests": S.count,
        "model_time": S.number, "sampling_time": S.number, "overhead_time": S.number,
      ])),
    "requests": S.array(
      S.object([
        "number": S.count, "id": S.text, "state": S.text, "waits_for": S.nullable(S.text), "priority": S.integer, "prompt_tokens": S.count,
        "cached_prompt_tokens": S.count, "computed_prompt_tokens": S.count, "generated_tokens": S.count, "pages": S.array(S.count),
        "age": S.number, "time_to_first_token": S.nullable(S.number), "pauses": S.count, "text": S.nullable(S.text),
      ])), "requests_left_out": S.count,
  ])

  /// An array of so many elements, each of its schema.
  private static func row(_ elements: JSON...) -> JSON {
    ["type": "array", "prefixItems": .array(elements), "minItems": .integer(elements.count), "maxItems": .integer(elements.count)]
  }

  /// What both kinds of completions begin with.
  private static func head(_ kind: String, _ members: JSON.Object) -> JSON.Object {
    let head: JSON.Object = [
      "id": S.text, "object": S.const(kind), "created": S.integer, "model": S.text, "system_fingerprint": S.nullable(S.text),
    ]
    return JSON.Object(head.members + members.members)
  }
}
#endif
