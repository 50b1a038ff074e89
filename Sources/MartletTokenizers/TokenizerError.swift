// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

public import MartletFormats
public import MartletTemplates

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
  /// The file has chat templates by name, and none for every conversation.
  case noDefaultChatTemplate(names: [String])
  /// The chat template of that name is no Jinja program.
  case invalidChatTemplate(name: String, TemplateError)
  /// No chat template has this name.
  case unknownChatTemplate(String, known: [String])
  /// The conversation has what the template refuses, or cannot compute with: roles out of order, or a system message without a place.
  case unwritableConversation(TemplateError)
  /// A message, a tool or a document is not what a conversation is made of.
  case malformedMessage(String)
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
    case .noDefaultChatTemplate(let names):
      "tokenizer: the file's chat templates are \(names.joined(separator: ", ")), and none is called \"default\"; name one of Martlet's own "
        + "(--chat-template)"
    case .invalidChatTemplate(let name, let error):
      "tokenizer: the chat template \"\(name)\" is no program that Jinja runs: \(error)"
    case .unknownChatTemplate(let name, let known):
      "tokenizer: there is no chat template \"\(name)\" (there is: \(known.joined(separator: ", ")))"
    case .unwritableConversation(let error):
      "the chat template cannot write this conversation: \(error)"
    case .malformedMessage(let problem):
      "\(problem); messages, tools and documents are objects as OpenAI's API has them"
    }
  }
}
