// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

// A request as a file or a queue keeps it.

import MartletKVCache
import MartletTemplates
import MartletTokenizers

/// `{"text": …}`, `{"token_ids": […]}`, perhaps with `"positions": {"time": […], "height": […], "width": […]}`, or `{"messages": […]}` with `tools`, `documents` and `options` where there are any.
extension Prompt: Codable {
  private enum CodingKeys: String, CodingKey {
    case text, messages, tools, documents, options, positions
    case tokenIDs = "token_ids"
  }

  public init(from decoder: any Decoder) throws {
    let container = try decoder.container(keyedBy: CodingKeys.self)
    let text = try container.decodeIfPresent(String.self, forKey: .text)
    let tokenIDs = try container.decodeIfPresent([Int].self, forKey: .tokenIDs)
    let messages = try container.decodeIfPresent([ChatMessage].self, forKey: .messages)
    switch (text, tokenIDs, messages) {
    case (let text?, nil, nil): self = .text(text)
    case (nil, let tokenIDs?, nil):
      let positions = try container.decodeIfPresent(TokenPositions.self, forKey: .positions)
      self = positions.map { .placedTokenIDs(tokenIDs, $0) } ?? .tokenIDs(tokenIDs)
    case (nil, nil, let messages?):
      self = .chat(
        messages, tools: try container.decodeIfPresent([JSON].self, forKey: .tools),
        documents: try container.decodeIfPresent([JSON].self, forKey: .documents),
        options: try container.decodeIfPresent(ChatOptions.self, forKey: .options) ?? ChatOptions())
    default:
      throw DecodingError.dataCorrupted(
        DecodingError.Context(
          codingPath: decoder.codingPath, debugDescription: "a prompt has one of \"text\", \"token_ids\" and \"messages\""))
    }
  }

  public func encode(to encoder: any Encoder) throws {
    var container = encoder.container(keyedBy: CodingKeys.self)
    switch self {
    case .text(let text): try container.encode(text, forKey: .text)
    case .tokenIDs(let tokenIDs): try container.encode(tokenIDs, forKey: .tokenIDs)
    case .placedTokenIDs(let tokenIDs, let positions):
      try container.encode(tokenIDs, forKey: .tokenIDs)
      try container.encode(positions, forKey: .positions)
    case .chat(let messages, let tools, let documents, let options):
      try container.encode(messages, forKey: .messages)
      try container.encodeIfPresent(tools, forKey: .tools)
      try container.encodeIfPresent(documents, forKey: .documents)
      if options != ChatOptions() { try container.encode(options, forKey: .options) }
    }
  }
}

/// With the names of OpenAI's API and vLLM's where they have one; what is left out has its default, and the timeout is in seconds.
extension SamplingParams: Codable {
  private enum CodingKeys: String, CodingKey {
    case temperature, seed, timeout, stop, logprobs
    case topK = "top_k"
    case topP = "top_p"
    case minP = "min_p"
    case repetitionPenalty = "repetition_penalty"
    case presencePenalty = "presence_penalty"
    case frequencyPenalty = "frequency_penalty"
    case logitBias = "logit_bias"
    case maxTokens = "max_tokens"
    case stopTokenIDs = "stop_token_ids"
    case promptLogprobs = "prompt_logprobs"
    case cacheRetention = "cache_retention"
    case ignoresEndTokens = "ignore_eos"
    case showsControlTokens = "show_control_tokens"
  }

  public init(from decoder: any Decoder) throws {
    let container = try decoder.container(keyedBy: CodingKeys.self)
    func value<T: Decodable>(_ key: CodingKeys, or standard: T) throws -> T {
      try container.decodeIfPresent(T.self, forKey: key) ?? standard
    }
    let standard = SamplingParams()
    self.init(
      temperature: try value(.temperature, or: standard.temperature), topK: try container.decodeIfPresent(Int.self, forKey: .topK),
      topP: try value(.topP, or: standard.topP), minP: try value(.minP, or: standard.minP),
      repetitionPenalty: try value(.repetitionPenalty, or: standard.repetitionPenalty),
      presencePenalty: try value(.presencePenalty, or: standard.presencePenalty),
      frequencyPenalty: try value(.frequencyPenalty, or: standard.frequencyPenalty),
      logitBias: try value(.logitBias, or: standard.logitBias), seed: try value(.seed, or: standard.seed),
      maxTokens: try container.decodeIfPresent(Int.self, forKey: .maxTokens),
      timeout: try container.decodeIfPresent(Double.self, forKey: .timeout).map { seconds in
        // Beyond a duration's range there is no duration.
        guard abs(seconds) <= 2 * (Self.longestTimeout / .seconds(1)) else {
          throw DecodingError.dataCorruptedError(forKey: .timeout, in: container, debugDescription: "a timeout of \(seconds) s is none")
        }
        return .seconds(seconds)
      },
      stop: try value(.stop, or: standard.stop), stopTokenIDs: try value(.stopTokenIDs, or: standard.stopTokenIDs),
      logprobs: try container.decodeIfPresent(Int.self, forKey: .logprobs),
      promptLogprobs: try container.decodeIfPresent(Int.self, forKey: .promptLogprobs),
      cacheRetention: try container.decodeIfPresent(KVRetention.self, forKey: .cacheRetention),
      ignoresEndTokens: try value(.ignoresEndTokens, or: standard.ignoresEndTokens),
      showsControlTokens: try value(.showsControlTokens, or: standard.showsControlTokens))
  }

  public func encode(to encoder: any Encoder) throws {
    var container = encoder.container(keyedBy: CodingKeys.self)
    try container.encode(temperature, forKey: .temperature)
    try container.encodeIfPresent(topK, forKey: .topK)
    try container.encode(topP, forKey: .topP)
    try container.encode(minP, forKey: .minP)
    try container.encode(repetitionPenalty, forKey: .repetitionPenalty)
    try container.encode(presencePenalty, forKey: .presencePenalty)
    try container.encode(frequencyPenalty, forKey: .frequencyPenalty)
    if !logitBias.isEmpty { try container.encode(logitBias, forKey: .logitBias) }
    try container.encode(seed, forKey: .seed)
    try container.encodeIfPresent(maxTokens, forKey: .maxTokens)
    try container.encodeIfPresent(timeout.map { $0 / .seconds(1) }, forKey: .timeout)
    if !stop.isEmpty { try container.encode(stop, forKey: .stop) }
    if !stopTokenIDs.isEmpty { try container.encode(stopTokenIDs.sorted(), forKey: .stopTokenIDs) }
    try container.encodeIfPresent(logprobs, forKey: .logprobs)
    try container.encodeIfPresent(promptLogprobs, forKey: .promptLogprobs)
    try container.encodeIfPresent(cacheRetention, forKey: .cacheRetention)
    try container.encode(ignoresEndTokens, forKey: .ignoresEndTokens)
    if showsControlTokens { try container.encode(showsControlTokens, forKey: .showsControlTokens) }
  }
}
