// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

#if HTTPServer
import HTTPTypes
import Hummingbird
import Martlet
package import MartletTemplates

/// The description of all routes (OpenAPI 3.1), from the tables that requests are read by.
///
/// It is written for the server that hands it out: its models' names and its limits are in it, so that what the document allows is what the server
/// takes. What no schema can say, such as a prompt that has no room, is a 400 with a code of its own.
package struct OpenAPIDocument {
  /// One thing to do at one path.
  private struct Operation {
    var method = "post"
    let path: String
    let summary: String
    var body: JSON?
    /// The name of the reply's schema; nil is text.
    var reply: String?
    var streams = false
    /// Whether there is no reply but events, whose data are of the reply's schema.
    var onlyStreams = false
    var needsKey = true
    var form = ErrorForm.openAI
    /// Statuses besides those of its kind.
    var further: [Int] = []
    var parameter: JSON?
  }

  private let configuration: ServerConfiguration
  /// Names that requests may use; nil is any.
  private let models: [String]?

  package init(_ configuration: ServerConfiguration, models: [String]?) {
    self.configuration = configuration
    self.models = models
  }

  package var json: JSON {
    var paths = JSON.Object()
    for operation in operations {
      var item = paths[operation.path]?.object ?? [:]
      item[operation.method] = json(operation)
      paths[operation.path] = .object(item)
    }
    return [
      "openapi": "3.1.0",
      "info": [
        "title": "Martlet", "version": .string(ModelServer.version),
        "description":
          "OpenAI's API and Anthropic's over one model. Paths that begin with /v1 are there without it too. A field that is null counts as absent, and unknown fields are ignored. Every reply has X-Request-Id.",
        "license": ["name": "Apache 2.0", "identifier": "Apache-2.0"],
      ], "servers": [["url": "/"]], "paths": .object(paths),
      "components": [
        "schemas": .object(ReplySchemas.all), "responses": .object(Self.errors),
        "securitySchemes": [
          "bearer": ["type": "http", "scheme": "bearer"], "apiKey": ["type": "apiKey", "in": "header", "name": "X-Api-Key"],
        ],
      ],
    ]
  }

  // MARK: Operations

  private var operations: [Operation] {
    [
      Operation(method: "get", path: "/v1/models", summary: "The model, and its aliases.", reply: "ModelList"),
      Operation(
        method: "get", path: "/v1/models/{id}", summary: "One model.", reply: "Model", further: [404],
        parameter: ["name": "id", "in": "path", "required": true, "schema": ["type": "string", "minLength": 1]]),
      Operation(
        path: "/v1/chat/completions", summary: "Answers a conversation.", body: chatBody, reply: "ChatCompletion", streams: true,
        further: [501]),
      Operation(
        path: "/v1/chat/completions/input_tokens", summary: "Counts the tokens of a conversation's prompt.",
        body: body(ChatCompletionRequest.countTable, required: ["messages"]), reply: "InputTokens", further: [501]),
      Operation(
        path: "/v1/completions", summary: "Goes on with texts.", body: completionBody, reply: "Completion", streams: true, further: [501]),
      Operation(
        path: "/v1/responses", summary: "Answers a conversation; nothing is kept.", body: responseBody, reply: "Response", streams: true,
        further: [501]),
      Operation(
        path: "/v1/responses/input_tokens", summary: "Counts the tokens of a conversation's prompt.",
        body: body(ResponseRequest.countTable, required: ["input"]), reply: "InputTokens", further: [501]),
      Operation(
        path: "/v1/messages", summary: "Answers a conversation, as Anthropic's API does.",
        body: body(MessagesRequest.table, required: ["messages", "max_tokens"]), reply: "Message", streams: true, form: .anthropic,
        further: [501]),
      Operation(
        path: "/v1/messages/count_tokens", summary: "Counts the tokens of a conversation's prompt.",
        body: body(MessagesRequest.countTable, required: ["messages"]), reply: "MessageTokens", form: .anthropic, further: [501]),
      Operation(
        path: "/v1/embeddings", summary: "The vectors of texts, of a model that is made for it.",
        body: body(EmbeddingRequest.table, required: ["input"]), reply: "Embeddings", further: [501]),
      Operation(path: "/tokenize", summary: "The tokens of a text or a conversation.", body: tokenizeBody, reply: "Tokens"),
      Operation(
        path: "/detokenize", summary: "The text of tokens.", body: body(TokenizeFields.detokenizeTable, required: ["tokens"]),
        reply: "Detokenized"),
      Operation(method: "get", path: "/tokenizer_info", summary: "About the tokenizer.", reply: "TokenizerInfo"),
      Operation(method: "get", path: "/health", summary: "Whether requests are answered.", reply: "Status", needsKey: false),
      Operation(method: "get", path: "/readyz", summary: "The same.", reply: "Status", needsKey: false),
      Operation(method: "get", path: "/livez", summary: "Whether the process is there.", reply: "Status", needsKey: false),
      Operation(method: "get", path: "/version", summary: "Of the server.", reply: "Version", needsKey: false),
      Operation(
        method: "get", path: "/metrics", summary: "Counters and times, in Prometheus' text format.",
        needsKey: !configuration.metricsAreOpen,
        further: [404]),
      Operation(
        method: "get", path: "/martlet/live",
        summary: "The engine between its steps: a snapshot an event, at most ten a second, for as long as somebody reads.",
        reply: "LiveSnapshot", onlyStreams: true,
        parameter: [
          "name": "text", "in": "query", "required": false,
          "description": .string(
            "1 for the beginnings of prompts" + (configuration.livePrompts ? "." : ", which this server does not show: 403.")),
          "schema": ["type": "string"],
        ]),
      Operation(method: "get", path: "/openapi.json", summary: "This document.", reply: "Document", needsKey: false),
    ]
  }

  private func json(_ operation: Operation) -> JSON {
    var responses = JSON.Object()
    var content = JSON.Object()
    switch operation.reply {
    case nil: content["text/plain"] = ["schema": Schema.text]
    case "Document": content["application/json"] = ["schema": Schema.anyObject]
    case let name? where operation.onlyStreams:
      content["text/event-stream"] = [
        "schema": Schema.object([
          "data": ["type": "string", "contentMediaType": "application/json", "contentSchema": Schema.ref(name)]
        ])
      ]
    case let name?: content["application/json"] = ["schema": Schema.ref(name)]
    }
    if operation.streams {
      // Of one event. (3.1 has no word for that; tools that read streams take it so.)
      content["text/event-stream"] = ["schema": Schema.object(["data": Schema.text], optional: ["event": Schema.text])]
    }
    responses["200"] = ["description": "What was asked for.", "content": .object(content)]
    var statuses = [403, 405, 500, 503] + operation.further
    if operation.needsKey && !configuration.apiKeys.isEmpty { statuses.append(401) }
    if operation.body != nil { statuses += [400, 404, 408, 413, 415] }
    for status in Set(statuses).sorted() { responses["\(status)"] = Self.error(status, operation.form) }
    let isOpen = !operation.needsKey || configuration.apiKeys.isEmpty
    let words = operation.path.split { !$0.isLetter }.filter { $0 != "v" }
    var object: JSON.Object = [
      "operationId": .string(operation.method + words.map { $0.prefix(1).uppercased() + $0.dropFirst() }.joined()),
      "summary": .string(operation.summary), "responses": .object(responses),
    ]
    object["security"] = isOpen ? [] : [["bearer": []], ["apiKey": []]]
    if let body = operation.body {
      object["requestBody"] = ["required": true, "content": ["application/json": ["schema": body]]]
    }
    if let parameter = operation.parameter { object["parameters"] = [parameter] }
    return .object(object)
  }

  // MARK: Bodies

  /// What depends on the server rather than on the table.
  private var changes: JSON.Object {
    var changes: JSON.Object = ["n": ["type": "integer", "minimum": 1, "maximum": .integer(configuration.maxSamples)]]
    if let models { changes["model"] = ["type": "string", "enum": .array(([""] + models).map { .string($0) })] }
    return changes
  }

  private func body(_ table: [any AnyField], required: [String], rules: [JSON] = []) -> JSON {
    Schema.body(table, required: required, replacing: changes, allOf: rules)
  }

  private var chatBody: JSON {
    body(
      ChatCompletionRequest.table, required: ["messages"],
      rules: [
        Self.streamOptionsRule,
        Schema.any(Self.flagged("logprobs"), Self.noAlternatives),
      ])
  }

  private var completionBody: JSON {
    body(
      CompletionRequest.table, required: ["prompt"],
      rules: [
        Self.streamOptionsRule,
        Schema.any(
          Self.flagged("echo"), ["properties": ["max_tokens": ["anyOf": [["type": "null"], ["type": "integer", "minimum": 1]]]]]),
      ])
  }

  private var responseBody: JSON {
    let logprobs: JSON = ["const": .string(ResponseRequest.includedLogprobs)]
    return body(
      ResponseRequest.table, required: ["input"],
      rules: [
        Schema.any(
          ["required": ["include"], "properties": ["include": Schema.any(logprobs, ["type": "array", "contains": logprobs])]],
          Self.noAlternatives)
      ])
  }

  private var tokenizeBody: JSON {
    // One of them is there.
    let names = ["prompt", "content", "messages"]
    var body = body(TokenizeFields.table, required: []).object ?? [:]
    body["oneOf"] = .array(
      names.map { one in
        [
          "required": [.string(one)],
          "properties": .object(
            JSON.Object(names.map { (key: $0, value: $0 == one ? JSON.object(["not": Schema.null]) : Schema.null) })),
        ]
      })
    return .object(body)
  }

  private static func flagged(_ name: String) -> JSON {
    [
      "type": "object", "required": [.string(name)],
      "properties": .object(JSON.Object([(key: name, value: JSON.object(["const": true]))])),
    ]
  }

  private static var noAlternatives: JSON { ["properties": ["top_logprobs": ["enum": [.null, 0]]]] }
  private static var streamOptionsRule: JSON { Schema.any(flagged("stream"), ["properties": ["stream_options": Schema.null]]) }

  // MARK: Errors

  private static let reasons: [(Int, String, String)] = [
    (400, "Invalid", "The request is wrong; param names the field, code the kind."),
    (401, "Unauthorized", "The key is missing or unknown."),
    (403, "Forbidden", "The server does not answer to this host."),
    (404, "NotFound", "There is no such model or path."),
    (405, "MethodNotAllowed", "The path does not take this method."),
    (408, "Timeout", "The body did not arrive in time."),
    (413, "TooLarge", "The body is too large."),
    (415, "UnsupportedMediaType", "The body is not application/json, or is compressed."),
    (500, "Failed", "The server failed."),
    (501, "NotImplemented", "The model cannot do this."),
    (503, "Unavailable", "Too many requests wait, or the model is being loaded, or the server is shutting down."),
  ]

  private static var errors: JSON.Object {
    var responses = JSON.Object()
    for (status, name, about) in reasons {
      for (prefix, schema) in [("", "Error"), ("Anthropic", "AnthropicError")] {
        var response: JSON.Object = [
          "description": .string(about), "content": ["application/json": ["schema": Schema.ref(schema)]],
        ]
        switch status {
        case 405: response["headers"] = ["Allow": ["required": true, "schema": Schema.text]]
        case 503: response["headers"] = ["Retry-After": ["schema": ["type": "integer", "minimum": 0, "maximum": 120]]]
        default: break
        }
        responses[prefix + name] = .object(response)
      }
    }
    return responses
  }

  private static func error(_ status: Int, _ form: ErrorForm) -> JSON {
    let name = reasons.first { $0.0 == status }?.1 ?? "Failed"
    return ["$ref": .string("#/components/responses/" + (form == .anthropic ? "Anthropic" : "") + name)]
  }
}

extension ModelServer {
  func openAPI(_ request: Request, _ context: any RequestContext, _ exchange: Exchange) async throws -> Response {
    let name: String? = if let name = configuration.modelName { name } else { (try? model()).map(modelName) }
    let models = configuration.acceptsAnyModel ? nil : name.map { [$0] + configuration.modelAliases }
    return Response(json: OpenAPIDocument(configuration, models: models).json)
  }
}
#endif
