// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

#if HTTPServer
import HTTPTypes
import Hummingbird
import Martlet
import MartletTemplates

// POST /v1/embeddings

/// The body of `/v1/embeddings`.
struct EmbeddingRequest: Sendable {
  let model: String?
  let texts: [Prompt]
  let options: EmbeddingOptions
  /// Whether vectors are written as base64 of their float32 values, as OpenAI's clients ask; else as numbers.
  let isBase64: Bool

  static let mostTexts = 2048
  static let input = Field<JSON>.any(
    "input", "A text, several texts, the ids of a text's tokens, or those of several.",
    schema: [
      "anyOf": [
        ["type": "string", "minLength": 1],
        ["type": "array", "items": ["type": "string", "minLength": 1], "minItems": 1, "maxItems": .integer(mostTexts)],
        ["type": "array", "items": ["type": "integer"], "minItems": 1],
        [
          "type": "array", "items": ["type": "array", "items": ["type": "integer"], "minItems": 1], "minItems": 1,
          "maxItems": .integer(mostTexts),
        ],
      ]
    ])
  static let encodingFormat = Field<String>.string(
    "encoding_format",
    "Whether vectors are arrays of numbers, which they are without a word, or base64 of float32 values in little endian.",
    in: ["float", "base64"])
  static let dimensions = Field<Int>.integer(
    "dimensions", "The first so many values of each vector, brought to length 1 again; at most as many as the model makes.", in: 1...1 << 20
  )
  static let truncates = Field<Bool>.bool(
    "truncate", "Whether a text that is too long loses its end; it is an error without a word.")
  static let user = Field<String>.string("user", "Ignored.")

  static let table: [any AnyField] = [ChatCompletionRequest.model, input, encodingFormat, dimensions, truncates, user]

  init(_ json: JSON, id: String) throws {
    let fields = try Fields(json)
    try fields.check(Self.table)
    model = try fields(ChatCompletionRequest.model)
    texts = try Self.texts(try fields.require(Self.input))
    isBase64 = try fields(Self.encodingFormat) == "base64"
    options = EmbeddingOptions(dimensions: try fields(Self.dimensions), truncates: try fields(Self.truncates) ?? false, id: id)
  }

  private static func texts(_ json: JSON) throws -> [Prompt] {
    func invalid() -> APIError {
      .invalid("input", "input must be a text, an array of texts, an array of token ids or an array of such arrays; it is \(json.shown)")
    }
    func text(_ text: String) throws -> Prompt {
      if text.isEmpty { throw APIError.invalid("input", "input has an empty text, which has no meaning to make a vector of") }
      return .text(text)
    }
    func ids(_ elements: [JSON]) throws -> Prompt {
      .tokenIDs(
        try elements.map {
          guard let id = $0.wholeNumber else { throw invalid() }
          return id
        })
    }
    if let whole = json.string { return [try text(whole)] }
    guard let elements = json.array, let first = elements.first else { throw invalid() }
    if first.wholeNumber != nil { return [try ids(elements)] }
    if elements.count > mostTexts { throw APIError.invalid("input", "input has \(elements.count) texts; at most \(mostTexts) are taken") }
    return try elements.map { element in
      if let one = element.string { return try text(one) }
      guard let list = element.array, !list.isEmpty else { throw invalid() }
      return try ids(list)
    }
  }
}

extension ModelServer {
  func embeddings(_ request: Request, _ context: any RequestContext, _ exchange: Exchange) async throws -> Response {
    let asked = try await read(request) { try EmbeddingRequest($0, id: "embd-" + RandomName.make()) }
    let llm = try model(named: asked.model)
    try llm.check(asked.options)
    let texts = try await Exchange.offload { [self] in
      try asked.texts.map { text in
        do {
          return try prepare(llm, param: "input") { mostBytes in
            // A text whose end may be left out may be longer than what has room.
            try llm.prepareEmbedding(
              of: text, options: asked.options, mostTextBytes: asked.options.truncates ? max(mostBytes, 1 << 20) : mostBytes)
          }
        } catch let error as LLMError where error.code == .promptTooLong {
          throw APIError(
            .badRequest, error.description, code: "context_length_exceeded", param: "input",
            further: ["n_ctx": .integer(llm.maxSequenceLength)])
        }
      }
    }
    let task = Task { try await llm.embed(texts, options: asked.options) }
    let number = exchange.watcher?.add { task.cancel() }
    let timer = configuration.requestTimeout.map { timeout in
      Task {
        try await Task.sleep(for: timeout)
        task.cancel()
      }
    }
    defer {
      timer?.cancel()
      if let number { exchange.watcher?.remove(number) }
    }
    let vectors = try await withTaskCancellationHandler {
      try await task.value
    } onCancel: {
      task.cancel()
    }
    let tokens = vectors.reduce(0) { $0 + $1.tokenCount }
    exchange.note { $0.promptTokens = tokens }
    let reply: JSON = try await Exchange.offload { [self] in
      [
        "object": "list",
        "data": .array(
          vectors.enumerated().map { index, vector in
            let values: JSON =
              asked.isBase64
              ? .string(
                Base64.encode(vector.values.flatMap { value in (0..<4).map { UInt8(truncatingIfNeeded: value.bitPattern >> (8 * $0)) } }))
              // The shortest number that reads as the same float32.
              : .array(vector.values.map { .number(Double("\($0)") ?? Double($0)) })
            return ["object": "embedding", "index": .integer(index), "embedding": values]
          }), "model": .string(modelName(llm)),
        "usage": ["prompt_tokens": .integer(tokens), "total_tokens": .integer(tokens)],
      ]
    }
    return Response(json: reply)
  }
}

/// RFC 4648, section 4.
enum Base64 {
  private static let digits = Array("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/".utf8)

  static func encode(_ bytes: [UInt8]) -> String {
    var text: [UInt8] = []
    text.reserveCapacity((bytes.count + 2) / 3 * 4)
    for start in stride(from: 0, to: bytes.count, by: 3) {
      let count = min(3, bytes.count - start)
      var bits = 0
      for index in 0..<3 { bits = bits << 8 | (index < count ? Int(bytes[start + index]) : 0) }
      for index in 0..<4 { text.append(index <= count ? digits[bits >> (18 - 6 * index) & 63] : UInt8(ascii: "=")) }
    }
    return String(decoding: text, as: UTF8.self)
  }
}
#endif
