// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

public import MartletFormats

/// One turn of a conversation.
public struct ChatMessage: Sendable, Hashable {
  /// "system", "user" or "assistant"; a template may know more.
  public var role: String
  public var content: String

  public init(role: String, content: String) {
    self.role = role
    self.content = content
  }
}

/// How a model wants a conversation written as one text.
///
/// A model file has its template as a Jinja program. This build does not run Jinja: it recognises the family by its turn marks, and takes from
/// the program's text in what the family's templates differ: the default system message, spaces around marks, where the system message goes.
/// Tools are not written. Encode the result with `parsesSpecialTokens: true`.
public struct ChatTemplate: Sendable, Hashable {
  /// The family: one of ``names``.
  public let name: String
  /// The system message that the template writes when the conversation does not begin with one.
  public let defaultSystemMessage: String?
  let form: Form

  /// The families that this build renders.
  public static let names = Family.allCases.map(\.rawValue)

  enum Family: String, CaseIterable {
    case chatML = "chatml"
    case llama2, llama3, gemma, mistral, qwen
  }

  /// The family of that name as its newest templates write it, without a default system message.
  public init(named name: String) throws(TokenizerError) {
    guard let family = Family(rawValue: name) else { throw .unknownChatTemplate(name, known: Self.names) }
    self.name = name
    defaultSystemMessage = nil
    form =
      switch family {
      case .chatML: .chatML(ChatML())
      case .qwen: .chatML(ChatML(reasoning: .keptAfterLastQuestion))
      case .llama3: .headers(Headers())
      case .gemma: .gemma(Gemma())
      case .llama2: .instructions(.llama2)
      case .mistral: .instructions(.mistral)
      }
  }

  /// The template of a model file: `tokenizer.chat_template`.
  public init(from file: GGUFFile) throws(TokenizerError) {
    let source: String?
    do { source = try file.string(ifPresent: "tokenizer.chat_template") } catch { throw .format(error) }
    guard let source else { throw .noChatTemplate(known: Self.names) }
    try self.init(source: source)
  }

  /// The family that the Jinja program `source` writes.
  public init(source: String) throws(TokenizerError) {
    let program = JinjaSource(source)
    guard let (family, form) = Self.recognise(program) else { throw .unrecognisedChatTemplate(known: Self.names) }
    name = family.rawValue
    self.form = form
    var message = program.string(assignedTo: "system_message") ?? program.string(assignedTo: "default_system_message")
    if case .chatML = form { message = ChatML.defaultSystemMessage(in: program) ?? message }
    defaultSystemMessage = message
  }

  /// A template whose marks are known and whose ways are not is not recognised: a prompt that is nearly right is worse than an error.
  private static func recognise(_ program: JinjaSource) -> (Family, Form)? {
    // Phi-4 has ChatML's turn marks, and one of its own in place of the newline.
    if program.writes("<|im_start|>"), program.writes("<|im_end|>"), !program.writes("<|im_sep|>") {
      return ChatML(program).map { ($0.reasoning != .kept || program.writes("Qwen") ? .qwen : .chatML, .chatML($0)) }
    }
    if program.writes("<|start_header_id|>"), program.writes("<|eot_id|>") { return (.llama3, .headers(Headers(program))) }
    if program.writes("<start_of_turn>"), program.writes("<end_of_turn>") { return (.gemma, .gemma(Gemma(program))) }
    if program.writes("[INST]"), program.writes("[/INST]") {
      return Instructions(program).map { (program.writes("<<SYS>>") ? .llama2 : .mistral, .instructions($0)) }
    }
    return nil
  }

  /// The conversation as one text, as the family's public template renders it.
  ///
  /// A template that begins with the beginning-of-text token writes it here: put none before it again.
  ///
  /// - Parameters:
  ///   - bos: The text of the model's beginning-of-text token (empty if it has none); nil is the family's usual one.
  ///   - eos: The text of the model's end-of-text token; nil is the family's usual one.
  ///   - addsGenerationPrompt: Whether to end with the mark that begins the assistant's turn, in families that have one.
  /// - Throws: ``TokenizerError/unwritableConversation(template:problem:)`` where the template itself raises an error.
  public func render(
    _ messages: [ChatMessage], bos: String? = nil, eos: String? = nil, addsGenerationPrompt: Bool = true
  ) throws(TokenizerError) -> String {
    var messages = messages
    if let defaultSystemMessage, let first = messages.first, first.role != "system" {
      messages.insert(ChatMessage(role: "system", content: defaultSystemMessage), at: 0)
    }
    do {
      return switch form {
      case .chatML(let form): try form.render(messages, bos: bos ?? "", addsGenerationPrompt)
      case .headers(let form): try form.render(messages, bos: bos ?? "<|begin_of_text|>", addsGenerationPrompt)
      case .gemma(let form): try form.render(messages, bos: bos ?? "<bos>", addsGenerationPrompt)
      case .instructions(let form): try form.render(messages, bos: bos ?? "<s>", eos: eos ?? "</s>")
      }
    } catch {
      throw .unwritableConversation(template: name, problem: error.text)
    }
  }
}
