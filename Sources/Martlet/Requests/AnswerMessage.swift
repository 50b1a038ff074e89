// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

public import MartletAnswers
public import MartletTokenizers

/// Collects the parts of an answer as the message with which the conversation goes on.
///
/// ```swift
/// var answer = AnswerMessage()
/// for try await chunk in generation { answer.append(parser.append(chunk.text)) }
/// answer.append(parser.finish())
/// messages.append(answer.message)
/// for call in answer.message.toolCalls { messages.append(ChatMessage(role: "tool", content: try run(call), toolCallID: call.id)) }
/// ```
public struct AnswerMessage: Sendable {
  private struct Call: Sendable {
    var name: String
    var arguments = ""
    var isComplete = false
  }

  /// What the model said.
  public private(set) var content = ""
  /// What it thought.
  public private(set) var reasoning = ""
  private var calls: [Call] = []
  private let firstCallNumber: Int

  /// - Parameter firstCallNumber: the calls' ids count from it: a conversation's calls have different ids if it is the number of the calls before.
  public init(firstCallNumber: Int = 0) { self.firstCallNumber = firstCallNumber }

  /// Takes the next parts, of one parser and in its order.
  public mutating func append(_ parts: some Sequence<AnswerPart>) {
    for part in parts {
      switch part {
      case .reasoning(let text): reasoning += text
      case .content(let text): content += text
      case .callBegan(_, let name): calls.append(Call(name: name))
      case .callArguments(let index, let text): if calls.indices.contains(index) { calls[index].arguments += text }
      case .callEnded(let index): if calls.indices.contains(index) { calls[index].isComplete = true }
      case .callBroke: break
      }
    }
  }

  /// Whether a call has not ended, or broke: its arguments are then the text that there is, and no object.
  public var hasIncompleteCalls: Bool { calls.contains { !$0.isComplete } }

  /// The message of the assistant, as far as it is there. A call's id is "call" and five digits or more: Mistral's templates ask for nine letters.
  public var message: ChatMessage {
    var message = ChatMessage(role: "assistant")
    if !content.isEmpty || calls.isEmpty { message.content = .text(content) }
    if !reasoning.isEmpty { message.reasoning = reasoning }
    message.toolCalls = calls.enumerated().map { index, call in
      let number = String(firstCallNumber + index)
      let id = "call" + String(repeating: "0", count: max(0, 5 - number.count)) + number
      let arguments = call.isComplete ? try? JSON(parsing: call.arguments) : nil
      return ToolCall(id: id, name: call.name, arguments: arguments ?? .string(call.arguments))
    }
    return message
  }
}
