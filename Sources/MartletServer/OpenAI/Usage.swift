// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

#if HTTPServer
import Martlet
import MartletTemplates

/// What a request took, in tokens.
package struct Usage: Sendable {
  var promptTokens: Int
  /// Of the prompt, what was in the cache.
  var cachedTokens: Int
  /// Of all answers; end tokens count.
  var completionTokens: Int
  /// Of them, thoughts; nil where the model has none.
  var reasoningTokens: Int?

  package init(promptTokens: Int, cachedTokens: Int = 0, completionTokens: Int = 0) {
    self.promptTokens = promptTokens
    self.cachedTokens = cachedTokens
    self.completionTokens = completionTokens
  }

  var json: JSON {
    var usage: JSON.Object = [
      "prompt_tokens": .integer(promptTokens), "completion_tokens": .integer(completionTokens),
      "total_tokens": .integer(promptTokens + completionTokens),
      "prompt_tokens_details": ["cached_tokens": .integer(cachedTokens)],
    ]
    if let reasoningTokens { usage["completion_tokens_details"] = ["reasoning_tokens": .integer(reasoningTokens)] }
    return .object(usage)
  }
}

extension FinishReason {
  /// OpenAI's word.
  var openAI: String {
    switch self {
    case .endToken, .stopString, .cancelled: "stop"
    case .length, .deadline: "length"
    }
  }

  /// What else there is to say, as vLLM's `stop_reason`.
  var stopReason: JSON {
    switch self {
    case .deadline: "deadline"
    case .stopString: "stop_string"
    default: .null
    }
  }
}

extension Float {
  /// JSON has no infinities; OpenAI and vLLM write -9999 for the logarithm of nothing.
  var logprobJSON: JSON { .number(isFinite ? Double(self) : -9999) }
}
#endif
