// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

public import MartletTemplates

/// How a conversation becomes a prompt, besides what was said.
public struct ChatOptions: Sendable, Hashable {
  /// What becomes of a special token's text, such as `<|im_end|>`, inside of a message.
  ///
  /// Others differ: the transformers package turns it into the token, unless its `sanitize_control_tokens` is set (5.24; off by default; besides
  /// the special tokens it covers those that `chat_control_tokens` of `tokenizer_config.json` lists); so does llama.cpp's server.
  public enum SpecialTokensInContent: Sendable, Hashable {
    /// It is text: nobody can end his turn, or speak as somebody else, by writing the mark.
    case text
    /// It is the token. Whoever writes a message can then write whole turns of others: only for messages that you wrote yourself.
    case parsed
  }

  /// Whether the prompt ends with the mark that begins the assistant's turn.
  public var addsGenerationPrompt: Bool
  /// Whether the prompt ends where the last message does, so that the model goes on with it. It takes the place of a generation prompt.
  public var continuesFinalMessage: Bool
  /// Further variables of the template, such as `enable_thinking` or `reasoning_effort`.
  public var variables: JSON.Object
  /// What the template's clock shows; nil is now.
  public var now: LocalTime?
  public var specialTokensInContent: SpecialTokensInContent

  public init(
    addsGenerationPrompt: Bool = true, continuesFinalMessage: Bool = false, variables: JSON.Object = JSON.Object(), now: LocalTime? = nil,
    specialTokensInContent: SpecialTokensInContent = .text
  ) {
    self.addsGenerationPrompt = addsGenerationPrompt
    self.continuesFinalMessage = continuesFinalMessage
    self.variables = variables
    self.now = now
    self.specialTokensInContent = specialTokensInContent
  }
}
