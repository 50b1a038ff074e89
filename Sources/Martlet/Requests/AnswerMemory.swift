// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

import MartletTemplates
import MartletTokenizers

/// Which tokens answers were, so that they come back as those and not as what their text would become.
///
/// A client sends an answer back as a message: text, thoughts, calls of tools. What the template writes for it is not always what the model
/// wrote (a call is written with other spaces), and even the same text may have other tokens (the model may have said "th" and "e"). Keys and
/// values are kept by tokens, so that a prompt which differs in the first answer has nothing of what follows it.
///
/// An answer is known by the prompt that it answered, as the template wrote that, and by its message. Where a later conversation begins with that prompt, goes on
/// with that message, and the template writes both as it did, the prompt's tokens and the answer's own take their place. Where the template writes
/// history otherwise (many leave the thoughts of earlier turns out), nothing is replaced from there on.
///
/// Bounded in bytes and in answers: what was of use last stays longest.
final class AnswerMemory: Sendable {
  /// A prompt as its template wrote it: two hashes of 64 bits, and its length, stand for the text.
  struct PromptKey: Sendable, Hashable {
    private let first: Int
    private let second: Int
    private let byteCount: Int

    init(_ text: MarkedText, _ specialTokensInContent: ChatOptions.SpecialTokensInContent) {
      let bytes = Array(text.text.utf8)
      func hash(_ number: Int) -> Int {
        var hasher = Hasher()
        hasher.combine(number)
        hasher.combine(specialTokensInContent)
        hasher.combine(text.contents)
        hasher.combine(bytes)
        return hasher.finalize()
      }
      (first, second, byteCount) = (hash(1), hash(2), bytes.count)
    }
  }

  /// An answer and the prompt that it answered.
  struct Answer: Sendable {
    var promptTokenIDs: [Int32]
    /// Without the token that ended it.
    var tokenIDs: [Int32]
    /// Of the message's calls, which are no part of what the answer is known by.
    var callIDs: [String?]
  }

  private struct Key: Hashable {
    var prompt: PromptKey
    /// As ``ChatMessage/essence`` has it.
    var message: ChatMessage
  }

  private struct Entry {
    var answer: Answer
    var byteCount: Int
    var lastUse: Int
  }

  private struct State {
    var entries: [Key: Entry] = [:]
    /// How many entries have each message.
    var messages: [ChatMessage: Int] = [:]
    var byteCount = 0
    /// How often an answer was remembered or found, and how often its tokens took its text's place.
    var uses = 0
    var replacements = 0

    mutating func remove(_ key: Key) {
      guard let entry = entries.removeValue(forKey: key) else { return }
      byteCount -= entry.byteCount
      messages[key.message, default: 1] -= 1
      if messages[key.message] == 0 { messages[key.message] = nil }
    }
  }

  /// The most answers.
  static let mostAnswers = 4096
  /// Of a conversation that was rewritten, so many of its answers are looked at, and each costs two renderings.
  private static let mostTries = 8

  private let state = Guarded(State())
  private let byteLimit: Int
  private let tokenizer: any Tokenizer
  /// The names of the tokens that end an answer.
  private let ends: [(token: Int32, name: [UInt8])]

  init(byteLimit: Int, tokenizer: any Tokenizer) {
    self.byteLimit = byteLimit
    self.tokenizer = tokenizer
    ends = tokenizer.endTokens.sorted().map { ($0, tokenizer.bytes(of: $0, showsControlTokens: true)) }.filter { !$0.1.isEmpty }
  }

  /// How many answers are known, and the bytes that are counted for them.
  var size: (answers: Int, byteCount: Int) { state.withLock { ($0.entries.count, $0.byteCount) } }
  /// How often an answer's tokens took its text's place.
  var replacements: Int { state.withLock { $0.replacements } }

  // MARK: Remembering

  func remember(_ message: ChatMessage, _ answer: Answer, after prompt: PromptKey) {
    let key = Key(prompt: prompt, message: message.essence)
    // What dictionaries add is not known; a round number stands for it.
    let byteCount =
      4 * (answer.promptTokenIDs.count + answer.tokenIDs.count) + message.text.utf8.count + (message.reasoning?.utf8.count ?? 0)
      + message.toolCalls.reduce(0) { $0 + $1.name.utf8.count + $1.arguments.text.utf8.count + ($1.id?.utf8.count ?? 0) } + 512
    if byteCount > byteLimit { return }
    state.withLock { state in
      state.remove(key)
      state.uses += 1
      state.entries[key] = Entry(answer: answer, byteCount: byteCount, lastUse: state.uses)
      state.messages[key.message, default: 0] += 1
      state.byteCount += byteCount
      while state.byteCount > byteLimit || state.entries.count > Self.mostAnswers {
        guard let oldest = state.entries.min(by: { $0.value.lastUse < $1.value.lastUse })?.key else { return }
        state.remove(oldest)
      }
    }
  }

  // MARK: Finding

  /// A conversation, and how its template writes its beginnings.
  struct Conversation {
    var messages: [ChatMessage]
    var options: ChatOptions
    /// The whole conversation.
    var text: MarkedText
    /// Throws where the template writes no such conversation.
    var render: ([ChatMessage], ChatOptions) throws -> MarkedText
  }

  /// The tokens of the conversation with the own tokens of its answers, as far as they are known.
  /// - Returns: nil where no answer is: the text is then to be encoded as it is.
  func tokens(of conversation: Conversation) -> [Int32]? {
    // A message that is continued has no end yet.
    let last = conversation.messages.count - (conversation.options.continuesFinalMessage ? 1 : 0)
    var tries = 0
    // The last answer that is known brings what was known before it along: its prompt's tokens hold the earlier answers' own.
    for index in (0..<last).reversed() where index > 0 {
      let essence = conversation.messages[index].essence
      guard state.withLock({ $0.messages[essence] != nil }) else { continue }
      if let tokens = tokens(of: conversation, essence, at: index) { return tokens }
      tries += 1
      if tries == Self.mostTries { return nil }
    }
    return nil
  }

  private func tokens(of conversation: Conversation, _ essence: ChatMessage, at index: Int) -> [Int32]? {
    let text = conversation.text
    let mode = conversation.options.specialTokensInContent
    var options = conversation.options
    options.continuesFinalMessage = false
    options.addsGenerationPrompt = true
    guard let before = try? conversation.render(Array(conversation.messages[..<index]), options), begins(text, with: before, mode),
      let answer = find(essence, after: PromptKey(before, mode))
    else { return nil }
    options.addsGenerationPrompt = false
    var messages = Array(conversation.messages[...index])
    guard let after = try? conversation.render(messages, options), after.text.utf8.starts(with: before.text.utf8), text.begins(with: after)
    else { return nil }
    if messages[index].toolCalls.map(\.id) != answer.callIDs {
      // Other names of the calls are no other answer, unless the template writes them.
      for (call, id) in zip(messages[index].toolCalls.indices, answer.callIDs) { messages[index].toolCalls[call].id = id }
      guard let renamed = try? conversation.render(messages, options), renamed == after else { return nil }
    }
    // The end of the turn is the template's, in place of what the model ended with.
    guard let end = end(of: after, in: before.text.utf8.count..<after.text.utf8.count, mode) else { return nil }
    let rest = text.dropping(end.start)
    let tokens = mode == .text ? tokenizer.encode(rest) : tokenizer.encode(rest.text, parsesSpecialTokens: true)
    guard tokens.first == end.token else { return nil }
    state.withLock { $0.replacements += 1 }
    return answer.promptTokenIDs + answer.tokenIDs + tokens
  }

  private func find(_ essence: ChatMessage, after prompt: PromptKey) -> Answer? {
    let key = Key(prompt: prompt, message: essence)
    return state.withLock { state in
      guard let answer = state.entries[key]?.answer else { return nil }
      state.uses += 1
      state.entries[key]?.lastUse = state.uses
      return answer
    }
  }

  /// Whether the text begins as the prompt does, to the tokens: the role that begins an answer is the program's own in a prompt, and of many
  /// programs a value in what follows, which changes nothing where no mark is made of it.
  private func begins(_ text: MarkedText, with prompt: MarkedText, _ mode: ChatOptions.SpecialTokensInContent) -> Bool {
    guard text.text.utf8.starts(with: prompt.text.utf8) else { return false }
    let beginning = MarkedText(prompt.text, contents: text.clipped(to: 0..<prompt.text.utf8.count))
    guard mode == .text, let difference = beginning.firstDifference(from: prompt) else { return true }
    let start = end(of: prompt, in: 0..<difference, mode)?.start ?? 0
    return tokenizer.encode(beginning.dropping(start)) == tokenizer.encode(prompt.dropping(start))
  }

  /// The last mark there that ends a turn, and where it is; nil where there is none that the template wrote.
  private func end(of text: MarkedText, in bounds: Range<Int>, _ mode: ChatOptions.SpecialTokensInContent) -> (token: Int32, start: Int)? {
    let bytes = Array(text.text.utf8)
    var found: (token: Int32, start: Int, end: Int)?
    for (token, name) in ends {
      var place = bounds.upperBound - name.count
      while place >= bounds.lowerBound {
        let range = place..<place + name.count
        if bytes[range] == name[...], mode == .parsed || !text.contents.contains(where: { $0.overlaps(range) }) {
          // Of two that end together the longer one is the mark, and the other its end.
          if found.map({ ($0.end, -$0.start) < (range.upperBound, -place) }) ?? true { found = (token, place, range.upperBound) }
          break
        }
        place -= 1
      }
    }
    return found.map { ($0.token, $0.start) }
  }
}

// MARK: - The parts that are compared

extension ChatMessage {
  /// What of an assistant's message makes it that message, whichever client sends it: without white space at the ends of its texts, its calls' ids
  /// and what is empty; with arguments as the objects that they are.
  fileprivate var essence: ChatMessage {
    var essence = ChatMessage(role: role)
    switch content {
    case .parts(let parts) where !parts.allSatisfy({ $0["text"]?.string != nil }): essence.content = content
    default: if let text = text.trimmed { essence.content = .text(text) }
    }
    essence.reasoning = reasoning?.trimmed
    essence.name = name
    essence.toolCallID = toolCallID
    essence.toolCalls = toolCalls.map { call in
      var arguments = call.arguments
      if case .string(let text) = arguments {
        if let value = try? JSON(parsing: text), value.object != nil { arguments = value }
        if text.trimmed == nil { arguments = .object(JSON.Object()) }
      }
      return ToolCall(name: call.name, arguments: arguments)
    }
    essence.further = JSON.Object(
      further.members.filter { _, value in
        !value.isNull && value.array?.isEmpty != true && value.object?.isEmpty != true && value.string?.isEmpty != true
      })
    return essence
  }
}

extension String {
  /// nil where nothing is left.
  fileprivate var trimmed: String? {
    var rest = self[...].drop { $0.isWhitespace }
    while rest.last?.isWhitespace == true { rest.removeLast() }
    return rest.isEmpty ? nil : String(rest)
  }
}

extension MarkedText {
  /// Whether the first bytes are those of `beginning`, and came from values where they did there.
  fileprivate func begins(with beginning: MarkedText) -> Bool {
    let bounds = 0..<beginning.text.utf8.count
    return text.utf8.starts(with: beginning.text.utf8) && clipped(to: bounds) == beginning.contents
  }

  /// Without the first bytes.
  fileprivate func dropping(_ count: Int) -> MarkedText {
    let bounds = count..<max(count, text.utf8.count)
    return MarkedText(
      String(decoding: text.utf8.dropFirst(count), as: UTF8.self),
      contents: clipped(to: bounds).map { $0.lowerBound - count..<$0.upperBound - count })
  }

  /// The first byte that came from a value in one of two markings of a text and not in the other.
  fileprivate func firstDifference(from other: MarkedText) -> Int? {
    for index in 0..<max(contents.count, other.contents.count) {
      guard index < contents.count else { return other.contents[index].lowerBound }
      guard index < other.contents.count else { return contents[index].lowerBound }
      let (mine, others) = (contents[index], other.contents[index])
      if mine.lowerBound != others.lowerBound { return min(mine.lowerBound, others.lowerBound) }
      if mine.upperBound != others.upperBound { return min(mine.upperBound, others.upperBound) }
    }
    return nil
  }

  fileprivate func clipped(to bounds: Range<Int>) -> [Range<Int>] {
    contents.compactMap { range in
      let clipped = range.clamped(to: bounds)
      return clipped.isEmpty ? nil : clipped
    }
  }
}
