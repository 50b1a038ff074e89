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
  /// Properties of the engine that an option sets.
  private static let engine = [
    "kvCache.budget": "--kv-cache-memory", "kvCache.pageSize": "--page-size", "kvCache.dataType": "--kv-cache-dtype",
    "maxSequenceLength": "--context", "maxBatchSize": "--batch-size", "maxNumTokens": "--step-tokens", "chunkSize": "--chunk",
    "targetStepTime": "--step-time", "chatTemplate": "--chat-template", "attentionBackend": "--attention-backend",
    "maxWaitingRequests": "--max-queue", "maxWaitingTokens": "--max-queue-tokens",
    "pooling": "--pooling", "activations": "--activations", "latentPrompts": "--latent-prompts",
  ]
  /// Properties of one request.
  private static let sampling = [
    "truncates": "--truncate", "dimensions": "--dimensions", "maxTokens": "--max-tokens", "topK": "--top-k", "topP": "--top-p",
    "minP": "--min-p", "repetitionPenalty": "--repetition-penalty",
    "presencePenalty": "--presence-penalty", "frequencyPenalty": "--frequency-penalty", "logitBias": "--logit-bias",
  ]
  private static let options = engine.merging(sampling) { $1 }

  /// What a server tells its clients: those settings that are of `martlet serve`. What is of a request is a field there.
  static let ofServer = engine.merging([
    "ServerConfiguration.hosts": "--allowed-host", "ServerConfiguration.livePrompts": "--live-prompts",
    "ServerConfiguration.bodyTimeout": "--body-timeout", "ServerConfiguration.maxBodyBytes": "--max-body",
    "ServerConfiguration.maxBodyBytesInFlight": "--max-bodies", "maxTokens": "max_tokens",
    "truncates": "truncate",
  ]) { $1 }

  /// A message with options in the place of properties.
  static func asOptions(_ message: String) -> String { message.replacingNames(options) }
}
