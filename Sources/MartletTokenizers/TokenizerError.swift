// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

public import MartletFormats

/// Why a file's tokenizer or chat template cannot be used.
public enum TokenizerError: Error, Hashable {
  /// The file lacks something, or has it in another type.
  case format(GGUFError)
  /// A JSON file beside the model cannot be read.
  case json(JSONError, file: String)
  /// A directory without `tokenizer.json`.
  case noTokenizerFile(directory: String)
  /// A part of a `tokenizer.json` that this build does not have, and that would change token ids or text; `found` is what the file has.
  case unsupportedPart(field: String, found: String, supported: [String])
  /// A kind of tokenizer that this build does not have.
  case unsupportedModel(String, supported: [String])
  /// A way to cut text into words that this build does not have; nil if the file does not say.
  case unsupportedPreTokenizer(String?, supported: [String])
  /// A field of the vocabulary has a value that no valid file has.
  case malformed(field: String, problem: String)
  /// The file has no chat template.
  case noChatTemplate(known: [String])
  /// The file's chat template is not one of those that this build renders.
  case unrecognisedChatTemplate(known: [String])
  /// No chat template has this name.
  case unknownChatTemplate(String, known: [String])
  /// The conversation has what the template refuses: roles out of order, or a system message without a place.
  case unwritableConversation(template: String, problem: String)
}

extension TokenizerError: CustomStringConvertible {
  public var description: String {
    switch self {
    case .format(let error):
      error.description
    case .json(let error, let file):
      "tokenizer: \(file): \(error.description)"
    case .noTokenizerFile(let directory):
      "tokenizer: \"\(directory)\" has no tokenizer.json (a tokenizer.model or vocab.json is not read); save_pretrained of the transformers "
        + "package's tokenizer writes one"
    case .unsupportedPart(let field, let found, let supported):
      "tokenizer: \(field) is \"\(found)\", which this build does not have"
        + (supported.isEmpty ? "" : " (has: \(supported.joined(separator: ", ")))") + "; convert the model to GGUF, or report the file"
    case .unsupportedModel(let model, let supported):
      "tokenizer: the file's tokenizer.ggml.model is \"\(model)\", which this build cannot read (reads: \(supported.joined(separator: ", ")))"
    case .unsupportedPreTokenizer(let name?, let supported):
      "tokenizer: the file's tokenizer.ggml.pre is \"\(name)\", which this build does not have (has: \(supported.joined(separator: ", ")))"
    case .unsupportedPreTokenizer(nil, let supported):
      "tokenizer: the file does not say in tokenizer.ggml.pre how to cut text into words; convert the model again with a current converter "
        + "(this build has: \(supported.joined(separator: ", ")))"
    case .malformed(let field, let problem):
      "tokenizer: \(field) \(problem): the file is damaged or was written wrongly; fetch or convert it again"
    case .noChatTemplate(let known):
      "tokenizer: the file has no chat template; name one (--chat-template \(known.joined(separator: "|"))) or use a model tuned for chat"
    case .unrecognisedChatTemplate(let known):
      "tokenizer: the file's chat template is not one that this build renders; name the nearest (--chat-template \(known.joined(separator: "|")))"
    case .unknownChatTemplate(let name, let known):
      "tokenizer: there is no chat template \"\(name)\" (there is: \(known.joined(separator: ", ")))"
    case .unwritableConversation(let template, let problem):
      "the \(template) chat template cannot write this conversation: \(problem)"
    }
  }
}
