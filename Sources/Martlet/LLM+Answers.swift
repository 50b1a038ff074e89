// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

public import MartletAnswers
public import MartletTokenizers

// From an answer's text to what the model means by it.

extension LLM {
  /// A parser for the answer to a prompt: it knows the prompt's tools, and whether its end has begun the model's reasoning.
  ///
  /// The text that it reads must have its control tokens in it if the format asks for that:
  ///
  /// ```swift
  /// var parser = try llm.answerParser(for: prompt)
  /// var message = AnswerMessage()
  /// let sampling = SamplingParams(showsControlTokens: llm.answersNeedControlTokens)
  /// for try await chunk in try llm.generate(prompt, sampling: sampling) { message.append(parser.append(chunk.text)) }
  /// message.append(parser.finish())
  /// ```
  ///
  /// - Parameters:
  ///   - prompt: what is answered.
  ///   - parsesReasoning: whether reasoning is set apart; if not, it is content.
  /// - Throws: what the chat template does for a conversation that it cannot write. Prompts that are no conversation have no tools.
  public func answerParser(for prompt: Prompt, parsesReasoning: Bool = true) throws -> AnswerParser {
    switch prompt {
    case .tokenIDs, .placedTokenIDs: return AnswerParser(format: answerFormat, parsesReasoning: parsesReasoning)
    case .text(let text):
      return AnswerParser(format: answerFormat, promptEnd: String(text.suffix(Self.promptEndLength)), parsesReasoning: parsesReasoning)
    case .chat(let messages, let tools, let documents, var options):
      options.now = options.now ?? .now
      let text = try chatTemplate.get().render(messages, tools: tools, documents: documents, options: options).text
      return AnswerParser(
        format: answerFormat, tools: tools ?? [], promptEnd: String(text.suffix(Self.promptEndLength)), parsesReasoning: parsesReasoning)
    }
  }

  /// Whether the marks of ``answerFormat`` are control tokens of this model's vocabulary, which an answer's text leaves out unless
  /// ``SamplingParams/showsControlTokens`` asks for them.
  ///
  /// Files differ: `<tool_call>` is text in most files of Qwen's models, and a control token in some.
  public var answersNeedControlTokens: Bool {
    answerFormat.needsControlTokens
      || answerFormat.marks.contains { mark in
        let tokens = tokenizer.encode(mark, parsesSpecialTokens: true)
        return tokens.count == 1 && tokenizer.isControl(tokens[0])
      }
  }

  /// In characters: more than any template writes behind the last message.
  private static let promptEndLength = 512
}

extension AnswerFormat {
  /// The format of a template's answers: of its program for tools, if it has one.
  public init(_ template: ChatTemplate) {
    let program = template.programs["tool_use"] ?? template.programs["default"] ?? template.programs.min { $0.key < $1.key }?.value
    self.init(template: program?.source ?? "", specialTokens: Array(template.specialTokens.values))
    // A program for tools alone may know no reasoning.
    if reasoning == .none, let program = template.programs["default"] {
      reasoning = AnswerFormat(template: program.source, specialTokens: Array(template.specialTokens.values)).reasoning
    }
  }
}
