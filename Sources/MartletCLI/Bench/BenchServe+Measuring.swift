// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

#if HTTPServer
import Foundation
import MartletTemplates
import NIOHTTP1

extension BenchServe {
  func measure() async throws -> ServeBenchReport {
    let client = try MeasuringClient(url: url, key: apiKey, timeout: .seconds(timeout))
    let served = try await ServedModel.find(model, client)
    let trace = RequestTrace(
      RequestTrace.Workload(
        requests: requests + warmup, rate: nil, promptTokens: promptTokens, outputTokens: outputTokens, sharedPrefixTokens: 0,
        sharedPrefixShare: 0, vocabularySize: served.vocabularySize ?? 1 << 30, seed: seed))
    let prompts = try await ServePrompts.make(trace.requests.map(\.prompt), endpoint, served, client)
    let bodies = zip(trace.requests, prompts.bodies).enumerated().map { body(served.name, $1.1, $1.0.outputTokens, index: $0) }
    // The warm-up is drawn behind what is measured, which is then the same as without it.
    for body in bodies[requests...] { _ = await client.send(.POST, path, body) }
    try Task.checkCancellation()
    // As bench engine draws them.
    let arrivals =
      rate > 0
      ? RequestTrace(
        RequestTrace.Workload(
          requests: requests, rate: rate, promptTokens: .uniform(1...1), outputTokens: .uniform(1...1), sharedPrefixTokens: 0,
          sharedPrefixShare: 0, vocabularySize: 1, seed: seed)
      ).requests.map(\.arrival) : nil

    let processorBefore = Self.processorSeconds()
    let began = ContinuousClock.now
    let progress = ProgressLine()
    var answers: [(began: Double, answer: RecordedAnswer)?] = Array(repeating: nil, count: requests)
    await withTaskGroup(of: (Int, Double, RecordedAnswer).self) { group in
      var next = 0
      func begin() {
        if next == requests { return }
        let (index, body) = (next, bodies[next])
        next += 1
        group.addTask {
          var at = ContinuousClock.now
          if let arrivals {
            at = began + arrivals[index]
            try? await Task.sleep(until: at, tolerance: .zero, clock: .continuous)
          }
          return (index, (at - began).seconds, await client.send(.POST, path, body, began: at))
        }
      }
      for _ in 0..<(arrivals == nil ? min(concurrency ?? requests, requests) : requests) { begin() }
      var count = 0
      for await (index, time, answer) in group {
        answers[index] = (time, answer)
        count += 1
        progress.show("\(count) of \(requests) requests")
        if !Task.isCancelled { begin() }
      }
    }
    let processor = Self.processorSeconds() - processorBefore
    progress.clear()
    try Task.checkCancellation()
    let samples = answers.compactMap { $0 }.map { began, answer in
      var sample = answer.sample
      sample.began = began
      return sample
    }
    return ServeBenchReport(
      url: url, model: served.name, seed: seed, prompts: prompts.form.rawValue, samples: samples,
      promptTokens: trace.requests.prefix(requests).map(\.prompt.count), clientSeconds: processor)
  }

  private var path: String { endpoint == .chat ? "/v1/chat/completions" : "/v1/completions" }

  private func body(_ model: String, _ prompt: JSON, _ outputTokens: Int, index: Int) -> JSON {
    var body: JSON.Object = [
      "model": .string(model), "stream": true, "stream_options": ["include_usage": true], "max_tokens": .integer(outputTokens),
      "temperature": .number(temperature), "seed": .integer(Int(truncatingIfNeeded: (seed &+ UInt64(index)) & 0x7FFF_FFFF)),
    ]
    if ignoresEndTokens { body["ignore_eos"] = true }
    if endpoint == .chat {
      body["messages"] = [["role": "user", "content": prompt]]
    } else {
      body["prompt"] = prompt
    }
    return .object(body)
  }

  /// Of this process, since it began. POSIX has a million of them a second, on every machine.
  private static func processorSeconds() -> Double { Double(clock()) / 1e6 }
}

/// What is asked, and what the server says of it.
private struct ServedModel {
  var name: String
  var vocabularySize: Int?

  static func find(_ name: String?, _ client: MeasuringClient) async throws -> ServedModel {
    let answer = await client.send(.GET, "/v1/models")
    let models = answer.json?["data"]?.array ?? []
    if let name {
      let model = models.first { $0["id"]?.string == name }
      return ServedModel(name: name, vocabularySize: model?["meta"]?["n_vocab"]?.wholeNumber)
    }
    guard let first = models.first, let id = first["id"]?.string else {
      let reason = answer.failure ?? answer.json?["error"]?["message"]?.string ?? "HTTP \(answer.status ?? 0)"
      throw CommandError(
        "the server at \(client.host):\(client.port) does not say what models it has: \(reason). Is it there? --model names one")
    }
    return ServedModel(name: id, vocabularySize: first["meta"]?["n_vocab"]?.wholeNumber)
  }
}

/// Prompts as they go over.
private struct ServePrompts {
  enum Form: String {
    case tokenIDs = "token_ids"
    case exactText = "exact_text"
    case words
  }

  var form: Form
  var bodies: [JSON]

  /// - Parameter prompts: the ids of the trace, which say how long the texts should be where ids cannot be sent.
  static func make(
    _ prompts: [[Int]], _ endpoint: BenchServe.Endpoint, _ served: ServedModel, _ client: MeasuringClient
  ) async throws -> ServePrompts {
    if endpoint == .completions, served.vocabularySize != nil, let first = prompts.first {
      let answer = await client.send(
        .POST, "/v1/completions",
        ["model": .string(served.name), "prompt": .array(first.prefix(4).map { .integer($0) }), "max_tokens": 1])
      if answer.status == 200 {
        return ServePrompts(form: .tokenIDs, bodies: prompts.map { .array($0.map { .integer($0) }) })
      }
    }
    let texts = prompts.map(words)
    guard let tokens = try await ServerTokenizer.find(served.name, client) else {
      return ServePrompts(form: .words, bodies: texts.map { .string($0) })
    }
    var bodies: [JSON] = []
    for (prompt, text) in zip(prompts, texts) {
      try Task.checkCancellation()
      bodies.append(.string(await tokens.fit(text, to: prompt.count) ?? text))
    }
    return ServePrompts(form: .exactText, bodies: bodies)
  }

  /// As many words as tokens: common ones, of which most vocabularies have each as one token with its space.
  private static func words(_ prompt: [Int]) -> String {
    prompt.map { vocabulary[$0 % vocabulary.count] }.joined(separator: " ")
  }

  private static let vocabulary =
    """
    the of and to in is was for that on as with by at from are this be or have an which not were but had his one they all we when more there been \
    if will would who so no out up into time them some could other than then two may first any like people my over such even most after also did \
    many before must through years where much way well down should because long each just state how too little good world very year still \
    work life against between being under three never know last while house school place home water right small found part every great
    """.split(separator: " ").map(String.init)
}

/// `/tokenize` and `/detokenize` of a server, in vLLM's form or in llama.cpp's.
private struct ServerTokenizer {
  let name: String
  let client: MeasuringClient
  /// The field that holds a text.
  let field: String

  static func find(_ name: String, _ client: MeasuringClient) async throws -> ServerTokenizer? {
    for field in ["prompt", "content"] {
      let tokenizer = ServerTokenizer(name: name, client: client, field: field)
      if let tokens = await tokenizer.tokens(of: "one two three"), !tokens.isEmpty, await tokenizer.text(of: tokens) != nil {
        return tokenizer
      }
    }
    return nil
  }

  func tokens(of text: String) async -> [JSON]? {
    var body: JSON.Object = [field: .string(text)]
    if field == "prompt" {
      body["model"] = .string(name)
      body["add_special_tokens"] = false
    }
    return await client.send(.POST, "/tokenize", .object(body)).json?["tokens"]?.array
  }

  func text(of tokens: [JSON]) async -> String? {
    await client.send(.POST, "/detokenize", ["model": .string(name), "tokens": .array(tokens)]).json?[field]?.string
  }

  /// A text of just so many tokens that begins as `text` does; the nearest that a few tries give, since what a cut leaves may be other tokens.
  func fit(_ text: String, to count: Int) async -> String? {
    var text = text
    for _ in 0..<4 {
      guard let tokens = await tokens(of: text) else { return nil }
      if tokens.count == count { return text }
      if tokens.count > count {
        guard let cut = await self.text(of: Array(tokens.prefix(count))), cut != text else { return text }
        text = cut
      } else {
        text += String(repeating: " the", count: count - tokens.count)
      }
    }
    return text
  }
}
#endif
