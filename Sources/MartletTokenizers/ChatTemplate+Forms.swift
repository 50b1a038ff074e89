// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

// How each family writes its turns. What a family's public templates do differently is a field, read from the program's text; the
// comments name the templates that made each field necessary.

extension ChatTemplate {
  enum Form: Sendable, Hashable {
    case chatML(ChatML)
    case headers(Headers)
    case gemma(Gemma)
    case instructions(Instructions)
  }

  /// What a template refuses to write.
  struct Problem: Error {
    var text: String

    static let alternation = Problem(text: "after an optional system message, user and assistant take turns, and the user begins")
    static let noSystem = Problem(text: "it has no place for a system message; leave it out, or put it into the first question")
    static func role(_ role: String) -> Problem { Problem(text: "it has no role \"\(role)\" (has: system, user, assistant)") }
  }

  /// The first message if it is the system's, and the others, which alternate.
  fileprivate static func turns(_ messages: [ChatMessage]) throws(Problem) -> (system: String?, turns: ArraySlice<ChatMessage>) {
    let system = messages.first.flatMap { $0.role == "system" ? $0.content : nil }
    let turns = messages.dropFirst(system == nil ? 0 : 1)
    for (index, message) in turns.enumerated() {
      if (message.role == "user") != (index % 2 == 0) { throw .alternation }
      if message.role != "user" && message.role != "assistant" { throw .role(message.role) }
    }
    return (system, turns)
  }
}

// MARK: - ChatML and Qwen

extension ChatTemplate {
  /// `<|im_start|>role⏎content<|im_end|>⏎`.
  struct ChatML: Sendable, Hashable {
    /// What becomes of `<think>…</think>` in earlier answers.
    enum Reasoning: Sendable, Hashable {
      case kept
      /// Dropped, except in a last message (QwQ).
      case keptInLastMessage
      /// Dropped up to the last question, and marked as reasoning after it (Qwen3).
      case keptAfterLastQuestion
    }

    var reasoning = Reasoning.kept
    /// What the generation prompt has after its mark: `<think>⏎` where the model must reason (QwQ).
    var answerOpening = ""
    var writesBOS = false
  }
}

extension ChatTemplate.ChatML {
  init?(_ program: JinjaSource) {
    let strings = program.strings
    if strings.contains("</think>") {
      reasoning = program.mentions("last_query_index") ? .keptAfterLastQuestion : .keptInLastMessage
    } else if program.writes("</think>") {
      return nil
    }
    if strings.contains("<|im_start|>assistant\n<think>\n") { answerOpening = "<think>\n" }
    writesBOS = program.mentions("bos_token")
  }

  /// The system message that a program holds whole: the text between `<|im_start|>system⏎` and `<|im_end|>` within one string literal, or
  /// within the plain text around its tags.
  static func defaultSystemMessage(in program: JinjaSource) -> String? {
    for text in program.strings {
      guard let start = text.firstRange(of: "<|im_start|>system\n")?.upperBound,
        let end = text[start...].firstRange(of: "<|im_end|>")?.lowerBound, start < end
      else { continue }
      return String(text[start..<end])
    }
    return nil
  }

  func render(_ messages: [ChatMessage], bos: String, _ addsGenerationPrompt: Bool) throws(ChatTemplate.Problem) -> String {
    var text = writesBOS ? bos : ""
    let lastQuestion = messages.lastIndex { $0.role == "user" } ?? messages.count - 1
    for (index, message) in messages.enumerated() {
      var content = message.content
      if reasoning != .kept {
        guard ["system", "user", "assistant"].contains(message.role) else { throw .role(message.role) }
        if message.role == "assistant" {
          content = answer(content, isLast: index == messages.count - 1, isAfterLastQuestion: index > lastQuestion)
        }
      }
      text += "<|im_start|>\(message.role)\n\(content)<|im_end|>\n"
    }
    if addsGenerationPrompt { text += "<|im_start|>assistant\n" + answerOpening }
    return text
  }

  /// An earlier answer of the model as the conversation goes on.
  private func answer(_ content: String, isLast: Bool, isAfterLastQuestion: Bool) -> String {
    let mark = "</think>"
    guard reasoning == .keptAfterLastQuestion else {
      guard !isLast, let end = content.lastRange(of: mark)?.upperBound else { return content }
      return String(content[end...]).trimmed(leading: ["\n"])
    }
    var (thought, said) = ("", content)
    if let first = content.firstRange(of: mark)?.lowerBound, let last = content.lastRange(of: mark)?.upperBound {
      said = String(content[last...]).trimmed(leading: ["\n"])
      thought = String(content[..<first]).trimmed(trailing: ["\n"])
      if let opening = thought.lastRange(of: "<think>")?.upperBound { thought = String(thought[opening...]) }
      thought = thought.trimmed(leading: ["\n"])
    }
    guard isAfterLastQuestion, isLast || !thought.isEmpty else { return said }
    return "<think>\n\(thought.trimmed(leading: ["\n"], trailing: ["\n"]))\n</think>\n\n\(said.trimmed(leading: ["\n"]))"
  }
}

// MARK: - Llama 3

extension ChatTemplate {
  /// `<|start_header_id|>role<|end_header_id|>⏎⏎content<|eot_id|>`.
  struct Headers: Sendable, Hashable {
    /// What Llama 3.1 and later write before the system message, which they then always have: dates. A program that would ask for
    /// today's date is given none, and writes the date that it has for that case.
    var preamble: String?
    var writesBOS = true
  }
}

extension ChatTemplate.Headers {
  init(_ program: JinjaSource) {
    writesBOS = program.mentions("bos_token")
    guard let date = program.string(assignedTo: "date_string"),
      let cutoff = program.strings.first(where: { $0.hasPrefix("Cutting Knowledge Date:") }),
      let today = program.expressions.first(where: { $0.contains(.name("date_string")) })
    else { return }
    preamble = cutoff + today.map { $0 == .name("date_string") ? date : $0.string ?? "" }.joined()
  }

  func render(_ messages: [ChatMessage], bos: String, _ addsGenerationPrompt: Bool) throws(ChatTemplate.Problem) -> String {
    var text = writesBOS ? bos : ""
    func append(_ role: String, _ content: String) { text += "<|start_header_id|>\(role)<|end_header_id|>\n\n\(content)<|eot_id|>" }
    var turns = messages[...]
    if let preamble {
      let system = turns.first?.role == "system" ? turns.removeFirst().content.trimmed() : ""
      append("system", preamble + system)
      for turn in turns where !["system", "user", "assistant"].contains(turn.role) { throw .role(turn.role) }
    }
    for turn in turns { append(turn.role, turn.content.trimmed()) }
    if addsGenerationPrompt { text += "<|start_header_id|>assistant<|end_header_id|>\n\n" }
    return text
  }
}

// MARK: - Gemma

extension ChatTemplate {
  /// `<start_of_turn>role⏎content<end_of_turn>⏎`, where the assistant is called "model" and the system speaks through the first question.
  struct Gemma: Sendable, Hashable {
    /// Gemma 1 and 2 refuse a system message.
    var refusesSystem = false
    var writesBOS = true
  }
}

extension ChatTemplate.Gemma {
  init(_ program: JinjaSource) {
    refusesSystem = program.writes("System role not supported")
    writesBOS = program.mentions("bos_token")
  }

  func render(_ messages: [ChatMessage], bos: String, _ addsGenerationPrompt: Bool) throws(ChatTemplate.Problem) -> String {
    let (system, turns) = try ChatTemplate.turns(messages)
    if system != nil && refusesSystem { throw .noSystem }
    var text = writesBOS ? bos : ""
    for (index, turn) in turns.enumerated() {
      text += "<start_of_turn>\(turn.role == "assistant" ? "model" : turn.role)\n"
      if index == 0, let system { text += system + "\n\n" }
      text += turn.content.trimmed() + "<end_of_turn>\n"
    }
    if addsGenerationPrompt { text += "<start_of_turn>model\n" }
    return text
  }
}

// MARK: - Llama 2 and Mistral

extension ChatTemplate {
  /// `[INST] question [/INST] answer</s>`, in the many spacings of Llama 2 and Mistral.
  struct Instructions: Sendable, Hashable {
    enum Beginning: Sendable, Hashable { case never, once, everyQuestion }

    enum System: Sendable, Hashable {
      /// The template raises an error (Mistral 7B 0.1 and 0.2).
      case refused
      /// Around the system message, within the first question, or the last.
      case inFirst(String, String)
      case inLast(String, String)
      /// A turn of its own.
      case turn(String, String)
    }

    /// The text before a question, and after it.
    var question = ["[INST] ", "[/INST]"]
    var trimsQuestion = false
    /// The text before an answer, between it and the end of text, and after that.
    var answer = [" ", "", ""]
    var trimsAnswer = true
    var beginning = Beginning.once
    var system = System.inLast("", "\n\n")
    var alternates = true

    static let llama2 = Instructions(
      question: ["[INST] ", " [/INST]"], trimsQuestion: true, answer: [" ", " ", ""], beginning: .everyQuestion,
      system: .inFirst("<<SYS>>\n", "\n<</SYS>>\n\n"))
    /// As Mistral 7B 0.3 and Large write.
    static let mistral = Instructions()
  }
}

extension ChatTemplate.Instructions {
  /// Nil where a turn is not written by one tag from its content and its marks.
  init?(_ program: JinjaSource) {
    let turns = program.expressions.compactMap(Turn.init)
    guard let question = turns.first(where: { $0.strings(0).contains("[INST]") && !$0.mentions("system_message") }),
      let answer = turns.first(where: { $0.tokens.contains(.name("eos_token")) })
    else { return nil }
    self.question = [question.strings(0), question.strings(1)]
    trimsQuestion = question.trims
    self.answer = [answer.strings(0), answer.strings(1), answer.strings(2)]
    trimsAnswer = answer.trims
    beginning = question.mentions("bos_token") ? .everyQuestion : program.mentions("bos_token") ? .once : .never
    alternates = program.writes("must alternate")
    guard let system = Self.system(of: program, turns: turns) else { return nil }
    self.system = system
  }

  private static func system(of program: JinjaSource, turns: [Turn]) -> System? {
    if program.writes("<<SYS>>") { return .inFirst("<<SYS>>\n", "\n<</SYS>>\n\n") }
    if let turn = turns.first(where: { $0.strings(0).contains("[SYSTEM_PROMPT]") }) { return .turn(turn.strings(0), turn.strings(1)) }
    guard let joined = turns.first(where: { $0.mentions("system_message") }) else {
      return program.mentions("system_message") ? nil : .refused
    }
    guard let place = program.pieces.firstIndex(of: .expression(joined.tokens)), place > 0 else { return nil }
    // Between the system message and the question stands one string; before the former stands the question's own mark.
    let between = joined.tokens.drop { $0 != .name("system_message") }.prefix { !Turn.isContent($0) }.compactMap(\.string).joined()
    let condition = program.pieces[..<place].reversed().compactMap { piece -> [JinjaSource.Token]? in
      if case .statement(let tokens) = piece { tokens } else { nil }
    }.first
    if condition?.contains(.name("last")) == true { return .inLast("", between) }
    if condition?.contains(.name("first")) == true { return .inFirst("", between) }
    return nil
  }

  /// A tag that writes a message: `'…' + message['content'] + '…' + eos_token + '…'`.
  private struct Turn {
    var tokens: [JinjaSource.Token]
    private var content: Int

    init?(_ tokens: [JinjaSource.Token]) {
      guard let content = tokens.lastIndex(where: Self.isContent) else { return nil }
      self.tokens = tokens
      self.content = content
    }

    static func isContent(_ token: JinjaSource.Token) -> Bool { token == .name("content") || token == .string("content") }

    func mentions(_ name: String) -> Bool { tokens.contains(.name(name)) }

    var trims: Bool { mentions("trim") || mentions("strip") }

    /// What is written before the content (0), after it (1), and after the end of text (2).
    func strings(_ part: Int) -> String {
      let end = tokens.firstIndex(of: .name("eos_token")) ?? tokens.count
      let part = part == 0 ? tokens[..<content] : part == 1 ? tokens[(content + 1)..<max(end, content + 1)] : tokens[end...]
      return part.compactMap(\.string).joined()
    }
  }

  func render(_ messages: [ChatMessage], bos: String, eos: String) throws(ChatTemplate.Problem) -> String {
    var text = beginning == .once ? bos : ""
    let (message, turns) = alternates ? try ChatTemplate.turns(messages) : (nil, messages[...])
    if case .turn(let opening, let closing) = system, let message { text += opening + message + closing }
    if case .refused = system, message != nil { throw .noSystem }
    for (index, turn) in turns.enumerated() {
      switch turn.role {
      case "user":
        var content = turn.content
        if case .inFirst(let opening, let closing) = system, let message, index == 0 { content = opening + message + closing + content }
        if case .inLast(let opening, let closing) = system, let message, index == turns.count - 1 {
          content = opening + message + closing + content
        }
        text += (beginning == .everyQuestion ? bos : "") + question[0] + (trimsQuestion ? content.trimmed() : content) + question[1]
      case "assistant":
        text += answer[0] + (trimsAnswer ? turn.content.trimmed() : turn.content) + answer[1] + eos + answer[2]
      case "system":
        guard case .turn(let opening, let closing) = system else { throw .noSystem }
        text += opening + turn.content + closing
      default: throw .role(turn.role)
      }
    }
    return text
  }
}

// MARK: - Trimming, as Python does it

extension String {
  /// Without white space at both ends: Jinja's `trim`.
  fileprivate func trimmed() -> String {
    let isSpace = { (scalar: Unicode.Scalar) in scalar.properties.isWhitespace || (0x1C...0x1F).contains(scalar.value) }
    let rest = unicodeScalars.drop(while: isSpace)
    return String(rest[..<(rest.lastIndex { !isSpace($0) }.map { rest.index(after: $0) } ?? rest.startIndex)])
  }

  fileprivate func trimmed(leading: Set<Unicode.Scalar> = [], trailing: Set<Unicode.Scalar> = []) -> String {
    let rest = unicodeScalars.drop { leading.contains($0) }
    return String(rest[..<(rest.lastIndex { !trailing.contains($0) }.map { rest.index(after: $0) } ?? rest.startIndex)])
  }

  fileprivate func lastRange(of part: String) -> Range<Index>? { ranges(of: part).last }
}
