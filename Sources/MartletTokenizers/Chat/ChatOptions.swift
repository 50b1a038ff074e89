// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

public import MartletTemplates

/// How a conversation becomes a prompt, besides what was said.
public struct ChatOptions: Sendable, Hashable {
  /// What becomes of a special token's text, such as `<|im_end|>`, inside of a message.
  ///
  /// Others differ: the transformers package turns it into the token, unless its `sanitize_control_tokens` is set (5.24; off by default; besides
  /// the special tokens it covers those that `chat_control_tokens` of `tokenizer_config.json` lists); so does llama.cpp's server.
  public enum SpecialTokensInContent: String, Sendable, Hashable, Codable {
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

/// An object. What is left out has its default.
extension ChatOptions: Codable {
  private enum CodingKeys: String, CodingKey {
    case variables, now
    case addsGenerationPrompt = "add_generation_prompt"
    case continuesFinalMessage = "continue_final_message"
    case specialTokensInContent = "special_tokens_in_content"
  }

  public init(from decoder: any Decoder) throws {
    let container = try decoder.container(keyedBy: CodingKeys.self)
    self.init()
    func read<Value: Decodable>(_ key: CodingKeys, into property: WritableKeyPath<ChatOptions, Value>) throws {
      if let value = try container.decodeIfPresent(Value.self, forKey: key) { self[keyPath: property] = value }
    }
    try read(.addsGenerationPrompt, into: \.addsGenerationPrompt)
    try read(.continuesFinalMessage, into: \.continuesFinalMessage)
    try read(.variables, into: \.variables)
    now = try container.decodeIfPresent(LocalTime.self, forKey: .now)
    try read(.specialTokensInContent, into: \.specialTokensInContent)
  }

  public func encode(to encoder: any Encoder) throws {
    var container = encoder.container(keyedBy: CodingKeys.self)
    try container.encode(addsGenerationPrompt, forKey: .addsGenerationPrompt)
    try container.encode(continuesFinalMessage, forKey: .continuesFinalMessage)
    try container.encode(variables, forKey: .variables)
    try container.encodeIfPresent(now, forKey: .now)
    try container.encode(specialTokensInContent, forKey: .specialTokensInContent)
  }
}
