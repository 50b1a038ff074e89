// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

import Martlet
import MartletKVCache
import MartletTokenizers

/// What an error says to whoever reads it on a terminal: options in the place of the library's properties. The words of templates and the names of
/// files stay as they are.
func words(of error: any Error) -> String {
  switch error {
  case is LLMError, is KVCacheError: PropertyNames.asOptions("\(error)")
  case let error as TokenizerError where error.code == .noChatTemplate || error.code == .noDefaultChatTemplate:
    PropertyNames.asOptions("\(error)")
  default: "\(error)"
  }
}

/// The library's messages name its properties; whoever reads them on a terminal knows options.
enum PropertyNames {
  /// Every property that an option sets.
  private static let options = [
    "kvCache.budget": "--kv-cache-memory", "kvCache.pageSize": "--page-size", "kvCache.dataType": "--kv-cache-dtype",
    "maxSequenceLength": "--context", "maxBatchSize": "--batch-size", "maxNumTokens": "--step-tokens", "chunkSize": "--chunk",
    "targetStepTime": "--step-time", "maxTokens": "--max-tokens", "topK": "--top-k", "topP": "--top-p", "minP": "--min-p",
    "repetitionPenalty": "--repetition-penalty", "presencePenalty": "--presence-penalty", "frequencyPenalty": "--frequency-penalty",
    "logitBias": "--logit-bias", "chatTemplate": "--chat-template", "attentionBackend": "--attention-backend",
  ]

  /// A message with options in the place of properties.
  static func asOptions(_ message: String) -> String {
    var text = ""
    var rest = message[...]
    while !rest.isEmpty {
      var word = rest.prefix { $0.isLetter || $0 == "." }
      while word.last == "." { word.removeLast() }  // of a sentence
      text += word.isEmpty ? String(rest.removeFirst()) : options[String(word)] ?? String(word)
      rest.removeFirst(word.count)
    }
    return text
  }
}
