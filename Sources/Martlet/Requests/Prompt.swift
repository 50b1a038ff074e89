// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

public import MartletTemplates
public import MartletTokenizers

/// What a request starts from.
public enum Prompt: Sendable, Hashable, ExpressibleByStringInterpolation {
  /// Plain text. The beginning-of-text token is put before it where the model says so; special tokens in it are not interpreted.
  case text(String)
  /// Token ids, taken as they are: nothing is added.
  case tokenIDs([Int])
  /// Token ids as they are, each with its place in time, height and width: for models with such positions (``LLM/takesTokenPositions``).
  ///
  /// Nothing of such a prompt is taken from the cache or left in it for others, because its keys depend on more than its tokens.
  case placedTokenIDs([Int], TokenPositions)
  /// A conversation, written with the model's own chat template.
  ///
  /// - Parameters:
  ///   - tools: functions as OpenAI's API describes them; nil is none.
  ///   - documents: objects, for templates that take them.
  ///   - options: variables of the template, and how the prompt ends.
  case chat([ChatMessage], tools: [JSON]? = nil, documents: [JSON]? = nil, options: ChatOptions = ChatOptions())

  public init(stringLiteral value: String) { self = .text(value) }
}
