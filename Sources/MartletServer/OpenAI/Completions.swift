// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

#if HTTPServer
import HTTPTypes
import Hummingbird
public import Martlet
package import MartletTemplates
import MartletTokenizers

// POST /v1/completions

/// The body of `/v1/completions`.
public struct CompletionRequest: Sendable {
  public var model: String?
  public var prompts: [Prompt]
  /// The prompts' texts where they came as texts, for `echo`.
  var texts: [String?]
  public var count: Int
  public var sampling: SamplingParams
  /// The field that the form of the answers came by (``SamplingParams/form``), for errors.
  var formParam = "response_format"
  public var requestOptions: RequestOptions
  public var isStream: Bool
  public var includesUsage = false
  public var continuousUsage = false
  /// Whether the answer begins with the prompt.
  public var echoes: Bool
  /// How many alternatives to each token; nil is no log-probabilities.
  public var logprobs: Int?
  /// Whether nothing is to be generated: the prompt is only scored.
  public var onlyScores = false

  static let prompt = Field<JSON>.any(
    "prompt", "A text, several texts, the ids of a text's tokens, or those of several.",
    schema: [
      "anyOf": [
        ["type": "string", "minLength": 1],
        ["type": "array", "items": ["type": "string", "minLength": 1], "minItems": 1, "maxItems": .integer(mostPrompts)],
        ["type": "array", "items": ["type": "integer"], "minItems": 1],
        [
          "type": "array", "items": ["type": "array", "items": ["type": "integer"], "minItems": 1], "minItems": 1,
          "maxItems": .integer(mostPrompts),
        ],
      ]
    ])
  static let maxTokens = Field<Int>.integer(
    "max_tokens", "The most tokens of an answer, 16 without a word; 0 scores the prompt, with echo.", in: 0...Int.max)
  static let echo = Field<Bool>.bool("echo", "Whether the answer begins with the prompt.")
  static let logprobs = Field<Int>.integer("logprobs", "Log-probabilities of the tokens and of so many alternatives.", in: 0...20)
  static let suffix = Field<JSON>.any("suffix", "Not supported.", schema: ["const": ""])
  static let mostPrompts = 1024

  package static let table: [any AnyField] =
    [
      ChatCompletionRequest.model, prompt, maxTokens, echo, logprobs, suffix, ChatCompletionRequest.stream,
      ChatCompletionRequest.streamOptions,
    ] + FormFields.table + SamplingFields.table

  package init(_ json: JSON, id: String, server: ServerConfiguration) throws {
    let fields = try Fields(json)
    try fields.check(Self.table)
    model = try fields(ChatCompletionRequest.model)
    sampling = try SamplingFields.read(fields, over: server.sampling)
    requestOptions = try SamplingFields.options(fields, id: id)
    (prompts, texts) = try Self.prompts(try fields.require(Self.prompt))
    count = try fields(SamplingFields.n) ?? 1
    if prompts.count * count > server.maxSamples && count > 1 || prompts.count > Self.mostPrompts {
      throw APIError.invalid("n", "\(prompts.count) prompts with \(count) answers each are more than one request may ask for")
    }
    isStream = try fields(ChatCompletionRequest.stream) ?? false
    if let options = try fields(ChatCompletionRequest.streamOptions) {
      if !isStream { throw APIError.invalid("stream_options", "stream_options is for streams; set stream to true") }
      includesUsage = options["include_usage"]?.flag ?? false
      continuousUsage = options["continuous_usage_stats"]?.flag ?? false
    }
    echoes = try fields(Self.echo) ?? false
    logprobs = try fields(Self.logprobs)
    let most = try fields(Self.maxTokens) ?? 16
    if most == 0 {
      if !echoes { throw APIError.invalid("max_tokens", "max_tokens 0 is for scoring a prompt, with echo; it must be at least 1") }
      onlyScores = true
    }
    sampling.maxTokens = max(1, most)
    sampling.timeout = server.requestTimeout
    sampling.logprobs = logprobs
    sampling.promptLogprobs = echoes ? logprobs : nil
    if let asked = try FormFields.read(fields) {
      try sampling.take(asked)
      formParam = asked.param
    }
    if let text = try fields(Self.suffix), text != "" { throw APIError.unsupported("suffix", "suffix is not supported") }
  }

  private static func prompts(_ json: JSON) throws -> ([Prompt], [String?]) {
    func invalid() -> APIError {
      .invalid(
        "prompt", "prompt must be a text, an array of texts, an array of token ids or an array of such arrays; it is \(json.shown)")
    }
    func ids(_ elements: [JSON]) throws -> Prompt {
      .tokenIDs(
        try elements.map {
          guard let id = $0.wholeNumber else { throw invalid() }
          return id
        })
    }
    func text(_ text: String) throws -> Prompt {
      if text.isEmpty { throw APIError.invalid("prompt", "prompt is empty; there is nothing to go on from") }
      return .text(text)
    }
    if let whole = json.string { return ([try text(whole)], [whole]) }
    guard let elements = json.array, let first = elements.first else { throw invalid() }
    if first.string != nil {
      let texts = try elements.map { element -> String in
        guard let text = element.string else { throw invalid() }
        return text
      }
      return (try texts.map(text), texts)
    }
    if first.array != nil {
      return (
        try elements.map {
          guard let list = $0.array, !list.isEmpty else { throw invalid() }
          return try ids(list)
        }, elements.map { _ in nil }
      )
    }
    return ([try ids(elements)], [nil])
  }
}

extension ModelServer {
  func completions(_ request: Request, _ context: any RequestContext, _ exchange: Exchange) async throws -> Response {
    let id = "cmpl-" + RandomName.make()
    let asked = try await read(request) { [configuration] in try CompletionRequest($0, id: id, server: configuration) }
    let llm = try writer(named: asked.model)
    let generations = try await Exchange.offload { [self] in
      try check(asked.sampling.form, named: asked.formParam, llm)
      // What one prompt has room for must not shorten the answers to others: those with the same limit, mostly all, are submitted together.
      var groups: [Int: [(place: Int, prompt: Prompt)]] = [:]
      for (place, prompt) in asked.prompts.enumerated() {
        let tokens = try prepare(llm, param: "prompt") { try llm.prepare(prompt, mostTextBytes: $0) }.tokenIDs
        var own = asked.sampling
        try fit(&own, promptTokens: tokens.count, llm, param: "prompt")
        groups[own.maxTokens ?? .max, default: []].append((place, .tokenIDs(tokens)))
      }
      var generations: [(place: Int, generation: Generation)] = []
      do {
        for (most, prompts) in groups.sorted(by: { $0.value[0].place < $1.value[0].place }) {
          var sampling = asked.sampling
          sampling.maxTokens = most
          let made = try llm.generate(prompts.map(\.prompt), sampling: sampling, count: asked.count, options: asked.requestOptions)
          for (index, generation) in made.enumerated() {
            generations.append((prompts[index / asked.count].place * asked.count + index % asked.count, generation))
          }
        }
      } catch {
        for (_, generation) in generations { generation.cancel() }
        throw error
      }
      return generations.sorted { $0.place < $1.place }.map(\.generation)
    }
    let head = CompletionHead(id: id, created: UnixTime.now, model: modelName(llm), seed: asked.sampling.seed)
    let promptTokens = stride(from: 0, to: generations.count, by: asked.count).reduce(0) { $0 + generations[$1].promptTokenIDs.count }
    exchange.note { $0.promptTokens = promptTokens }
    let texts = CompletionTexts(asked, llm.tokenizer)
    if asked.isStream {
      return stream(exchange) { [configuration] events in
        try await CompletionStream(asked, generations, head, texts, Usage(promptTokens: promptTokens))
          .write(to: &events, exchange, silence: configuration.keepAliveInterval)
      }
    }
    var usage = Usage(promptTokens: promptTokens)
    var parts = generations.indices.map { texts.choice($0, of: generations[$0]) }
    var cached = [Int](repeating: 0, count: asked.prompts.count)
    try await exchange.read(generations, silence: .seconds(3600)) { event in
      guard case .chunk(let index, let chunk) = event else { return }
      parts[index].add(chunk)
      usage.completionTokens += asked.onlyScores ? 0 : chunk.tokenIDs.count
      if let count = chunk.cachedPromptTokens { cached[index / asked.count] = max(cached[index / asked.count], count) }
    }
    usage.cachedTokens = cached.reduce(0, +)
    var reply = head.object("text_completion")
    reply["choices"] = .array(parts.enumerated().map { .object($1.json(index: $0)) })
    reply["usage"] = usage.json
    reply["seed"] = head.seedJSON
    return Response(json: .object(reply))
  }
}

/// How completions are written down.
private struct CompletionTexts: Sendable {
  let asked: CompletionRequest
  let tokenizer: any Tokenizer

  init(_ asked: CompletionRequest, _ tokenizer: any Tokenizer) {
    self.asked = asked
    self.tokenizer = tokenizer
  }

  func choice(_ index: Int, of generation: Generation) -> CompletionChoice {
    CompletionChoice(self, promptTokens: generation.promptTokenIDs, promptText: asked.texts[index / asked.count])
  }

  /// What a token adds to a text. Bytes that are part of a character are U+FFFD.
  func text(of token: Int) -> String { text(of: [token]) }

  func text(of tokens: [Int]) -> String {
    String(decoding: tokens.flatMap { tokenizer.bytes(of: Int32($0), showsControlTokens: true) }, as: UTF8.self)
  }
}

/// One choice, as far as it is known.
private struct CompletionChoice {
  private let texts: CompletionTexts
  private(set) var text = ""
  private var tokens: [JSON] = []
  private var tokenLogprobs: [JSON] = []
  private var topLogprobs: [JSON] = []
  private var offsets: [JSON] = []
  private var offset = 0
  private var finish: FinishReason?
  private let promptTokens: [Int]
  private var hasPrompt: Bool

  init(_ texts: CompletionTexts, promptTokens: [Int], promptText: String?) {
    self.texts = texts
    self.promptTokens = promptTokens
    hasPrompt = !texts.asked.echoes || texts.asked.logprobs == nil
    // A prompt of tokens is written as its tokens are, control tokens too, so that text and log-probabilities go together.
    if texts.asked.echoes { text = promptText ?? texts.text(of: promptTokens) }
  }

  mutating func add(_ chunk: GenerationChunk) {
    if !hasPrompt, !chunk.promptLogprobs.isEmpty || !chunk.tokenIDs.isEmpty {
      hasPrompt = true
      addPrompt(chunk.promptLogprobs)
    }
    if let reason = chunk.finishReason { finish = reason }
    if texts.asked.onlyScores { return }
    text += chunk.text
    for logprob in chunk.logprobs { add(logprob) }
  }

  /// The prompt's own: nothing is before its first token, so that it has no probability.
  private mutating func addPrompt(_ logprobs: [TokenLogprob]) {
    // The token that begins a text is not in what was sent, unless it was sent as a token.
    let begins =
      texts.asked.texts.first.flatMap { $0 } != nil && promptTokens.first == texts.tokenizer.bosToken.map { Int($0) }
      && texts.tokenizer.addsBOS
    if !begins, let first = promptTokens.first {
      append(token: first, logprob: .null, top: .null)
    }
    for logprob in logprobs { add(logprob) }
  }

  private mutating func add(_ logprob: TokenLogprob) {
    var top: [String: Float] = [:]
    for alternative in logprob.top + [TokenLogprob.Alternative(tokenID: logprob.tokenID, logprob: logprob.logprob)] {
      let text = texts.text(of: alternative.tokenID)
      top[text] = max(top[text] ?? -.infinity, alternative.logprob)
    }
    append(
      token: logprob.tokenID, logprob: logprob.logprob.logprobJSON,
      top: .object(
        JSON.Object(
          top.sorted { $0.value > $1.value || $0.value == $1.value && $0.key < $1.key }.map { (key: $0.key, value: $0.value.logprobJSON) }))
    )
  }

  private mutating func append(token: Int, logprob: JSON, top: JSON) {
    let text = texts.text(of: token)
    tokens.append(.string(text))
    tokenLogprobs.append(logprob)
    topLogprobs.append(top)
    offsets.append(.integer(offset))
    // As Python counts characters.
    offset += text.unicodeScalars.count
  }

  /// What was added since the last call, for a stream; all of it otherwise.
  mutating func take(index: Int) -> JSON.Object {
    defer {
      text = ""
      tokens = []
      tokenLogprobs = []
      topLogprobs = []
      offsets = []
    }
    return json(index: index)
  }

  /// What was added since the last call, where it is a text and nothing else.
  mutating func takeText() -> String? {
    if text.isEmpty || finish != nil || texts.asked.logprobs != nil { return nil }
    defer { text = "" }
    return text
  }

  /// Whether there is something to say.
  var isEmpty: Bool { text.isEmpty && tokens.isEmpty && finish == nil }

  func json(index: Int) -> JSON.Object {
    [
      "index": .integer(index), "text": .string(text),
      "logprobs": texts.asked.logprobs == nil
        ? .null
        : [
          "tokens": .array(tokens), "token_logprobs": .array(tokenLogprobs), "top_logprobs": .array(topLogprobs),
          "text_offset": .array(offsets),
        ],
      "finish_reason": finish.map { .string($0.openAI) } ?? .null, "stop_reason": finish?.stopReason ?? .null,
    ]
  }
}

private struct CompletionStream {
  let asked: CompletionRequest
  let generations: [Generation]
  let head: CompletionHead
  let texts: CompletionTexts
  var usage: Usage

  init(_ asked: CompletionRequest, _ generations: [Generation], _ head: CompletionHead, _ texts: CompletionTexts, _ usage: Usage) {
    self.asked = asked
    self.generations = generations
    self.head = head
    self.texts = texts
    self.usage = usage
  }

  func write(to events: inout EventStream, _ exchange: Exchange, silence: Duration) async throws {
    var usage = usage
    var cached = [Int](repeating: 0, count: asked.prompts.count)
    var choices = generations.indices.map { texts.choice($0, of: generations[$0]) }
    let textEvents = generations.indices.map { index in
      TextEvents { text in
        var choice = CompletionChoice(texts, promptTokens: [], promptText: nil)
        choice.add(GenerationChunk(text: text, tokenIDs: []))
        return whole(choice.json(index: index))
      }
    }
    do {
      try await exchange.read(generations, silence: silence) { event in
        switch event {
        case .silence:
          if ContinuousClock.now - events.lastWrite >= silence { try await events.keepAlive() }
        case .chunk(let index, let chunk):
          choices[index].add(chunk)
          usage.completionTokens += asked.onlyScores ? 0 : chunk.tokenIDs.count
          if let count = chunk.cachedPromptTokens { cached[index / asked.count] = max(cached[index / asked.count], count) }
          usage.cachedTokens = cached.reduce(0, +)
          guard !choices[index].isEmpty else { return }
          if !asked.continuousUsage, let text = choices[index].takeText() {
            events.add(text, as: textEvents[index])
          } else {
            events.add(whole(choices[index].take(index: index), asked.continuousUsage ? usage : nil))
          }
          try await events.flush()
        }
      }
      if asked.includesUsage {
        var last = head.object("text_completion")
        last["choices"] = []
        last["usage"] = usage.json
        events.add(.object(last))
      }
    } catch let error as LLMError {
      events.add(APIError(error).json)
      exchange.note { $0.finish = "error" }
    }
    exchange.end(status: 200)
    events.addDone()
    try await events.flush()
  }

  private func whole(_ choice: JSON.Object, _ usage: Usage? = nil) -> JSON {
    var object = head.object("text_completion")
    object["choices"] = [.object(choice)]
    if let usage { object["usage"] = usage.json }
    return .object(object)
  }
}
#endif
