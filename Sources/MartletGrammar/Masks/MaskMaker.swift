// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

/// Finds the tokens that may come in a state of a form, for one vocabulary.
///
/// A token may come if the form can go on behind its last byte. The tree of tokens is walked with the automaton, and what is below a byte that
/// cannot come is never looked at. That is quick where little may come, as between a key and its value. Where much may come, as within a string, the walk
/// is cut in two:
///
/// - Which tokens stay within the lexeme does not depend on what is around it. It is found once per state of the lexeme and kept
///   (``LexemeMask``), whatever the thread's node and stack are.
/// - What is left are tokens that cross the lexeme's end, such as `",` at the end of a string: the kept mask lists the nodes of the tree at
///   which the lexeme may end, and only from there the walk goes on with the automaton.
struct MaskMaker: Sendable {
  /// What of a tree, or of what is below one of its nodes, a lexeme decides alone.
  private struct LexemeMask {
    /// All tokens within the lexeme as bits, if there are many.
    var words: [UInt64]?
    /// The tokens, if there are few.
    var tokens: [Int32] = []
    /// Nodes at which the lexeme may end, and below which there are tokens that do not stay within it.
    var borders: [Int32] = []
  }

  private struct LexemePlace: Hashable {
    var lexeme: ExpressionTable.ID
    /// Below which the tokens are; -1 for all.
    var node: Int32
  }

  let vocabulary: TokenVocabulary
  private let byteLimit: Int
  private var lexemeMasks: [LexemePlace: LexemeMask] = [:]
  private var masks: [Automaton.StateID: [UInt64]] = [:]
  private var firstBytes: [ExpressionTable.ID: ByteSet] = [:]
  private(set) var byteCount = 0
  private var lexemePath: [ExpressionTable.ID]
  private var statePath: [Automaton.StateID]

  init(_ vocabulary: TokenVocabulary, byteLimit: Int) {
    self.vocabulary = vocabulary
    self.byteLimit = byteLimit
    lexemePath = [ExpressionTable.ID](repeating: 0, count: vocabulary.maximumDepth + 1)
    statePath = [Automaton.StateID](repeating: 0, count: vocabulary.maximumDepth + 1)
  }

  /// Sets `mask` to the tokens that may come in `state`, those that end an answer included.
  mutating func make(_ mask: inout TokenMask, _ state: Automaton.StateID, _ automaton: inout Automaton) {
    if let known = masks[state] {
      mask.words.withUnsafeMutableBufferPointer { words in
        known.withUnsafeBufferPointer { _ = words.update(fromContentsOf: $0) }
      }
      return
    }
    mask.removeAll()
    add(state, below: -1, &mask, &automaton)
    if automaton.isAccepting(state) {
      for token in vocabulary.endTokens { mask.insert(Int32(token)) }
    }
    guard !automaton.isExhausted else { return }
    makeRoom(for: mask.words.count * 8)
    masks[state] = mask.words
  }

  private mutating func makeRoom(for count: Int) {
    if byteCount + count > byteLimit {
      masks = [:]
      lexemeMasks = [:]
      byteCount = 0
    }
    byteCount += count
  }

  // MARK: With the automaton

  /// A lexeme that may begin with more bytes than this is looked up rather than walked.
  private static var wide: Int { 48 }
  /// A lexeme that has more states than this behind short texts is walked by the tokens that there are, not by all texts.
  private static var manyStates: Int { 256 }
  /// Below a node with fewer nodes than this, everything is walked.
  private static var large: Int { 1024 }

  /// Adds the tokens below `node` (-1: all tokens) that may come if `state` is reached there.
  private mutating func add(_ state: Automaton.StateID, below node: Int32, _ mask: inout TokenMask, _ automaton: inout Automaton) {
    var narrow: [Automaton.Thread] = []
    let threads = automaton.threads(state)
    for thread in threads {
      guard first(thread.lexeme, &automaton).count > Self.wide else {
        narrow.append(thread)
        continue
      }
      let lexeme = lexemeMask(LexemePlace(lexeme: thread.lexeme, node: node), &automaton)
      if let words = lexeme.words { mask.formUnion(words) }
      for token in lexeme.tokens { mask.insert(token) }
      guard !lexeme.borders.isEmpty else { continue }
      let after = automaton.state(after: thread.node, thread.stack)
      for border in lexeme.borders { walk(after, below: border, &mask, &automaton) }
    }
    guard !narrow.isEmpty else { return }
    walk(narrow.count == threads.count ? state : automaton.intern(narrow, isAccepting: false), below: node, &mask, &automaton)
  }

  private mutating func first(_ lexeme: ExpressionTable.ID, _ automaton: inout Automaton) -> ByteSet {
    if let known = firstBytes[lexeme] { return known }
    let result = automaton.expressions.firstBytes(lexeme)
    if firstBytes.count > 1 << 16 { firstBytes = [:] }
    firstBytes[lexeme] = result
    return result
  }

  private mutating func walk(_ state: Automaton.StateID, below node: Int32, _ mask: inout TokenMask, _ automaton: inout Automaton) {
    if node >= 0 {
      let end = vocabulary.nodeEnds[Int(node)]
      var child = node + 1
      while child < end {
        let next = automaton.next(state, vocabulary.nodeBytes[Int(child)])
        if next != Automaton.dead { visit(child, next, &mask, &automaton) }
        child = vocabulary.nodeEnds[Int(child)]
      }
      return
    }
    var bytes = ByteSet()
    for thread in automaton.threads(state) { bytes = bytes.union(first(thread.lexeme, &automaton)) }
    for byte in UInt8.min...UInt8.max where bytes.contains(byte) {
      let next = automaton.next(state, byte)
      if next == Automaton.dead { continue }
      for tree in 0...vocabulary.slices.count {
        let child = vocabulary.rootChildren[tree << 8 + Int(byte)]
        if child >= 0 { visit(child, next, &mask, &automaton) }
      }
    }
  }

  /// Adds the tokens at and below `node`, at which `state` is reached.
  private mutating func visit(_ node: Int32, _ state: Automaton.StateID, _ mask: inout TokenMask, _ automaton: inout Automaton) {
    let end = Int(vocabulary.nodeEnds[Int(node)])
    if end - Int(node) > Self.large {
      for token in tokens(at: Int(node)) { mask.insert(token) }
      if automaton.threads(state).contains(where: { first($0.lexeme, &automaton).count > Self.wide }) {
        add(state, below: node, &mask, &automaton)
      } else {
        walk(state, below: node, &mask, &automaton)
      }
      return
    }
    let vocabulary = vocabulary
    vocabulary.nodeBytes.withUnsafeBufferPointer { bytes in
      vocabulary.nodeDepths.withUnsafeBufferPointer { depths in
        vocabulary.tokenStarts.withUnsafeBufferPointer { starts in
          statePath.withUnsafeMutableBufferPointer { path in
            path[Int(depths[Int(node)])] = state
            var index = Int(node)
            while true {
              for position in starts[index]..<starts[index + 1] { mask.insert(vocabulary.nodeTokens[Int(position)]) }
              index += 1
              while index < end {
                let depth = Int(depths[index])
                let next = automaton.next(path[depth - 1], bytes[index])
                if next != Automaton.dead {
                  path[depth] = next
                  break
                }
                index = Int(vocabulary.nodeEnds[index])
              }
              if index >= end { break }
            }
          }
        }
      }
    }
  }

  private func tokens(at node: Int) -> ArraySlice<Int32> {
    vocabulary.nodeTokens[Int(vocabulary.tokenStarts[node])..<Int(vocabulary.tokenStarts[node + 1])]
  }

  // MARK: With a lexeme alone

  private mutating func lexemeMask(_ place: LexemePlace, _ automaton: inout Automaton) -> LexemeMask {
    if let known = lexemeMasks[place] { return known }
    var mask = TokenMask(numTokens: vocabulary.numTokens)
    var borders: [Int32] = []
    var isDense = false
    if place.node >= 0 {
      walkLexeme(place.lexeme, Int(place.node) + 1, Int(vocabulary.nodeEnds[Int(place.node)]), &mask, &borders, &automaton.expressions)
    } else {
      let bytes = first(place.lexeme, &automaton)
      let lengths = TokenVocabulary.Slice.Characters.allCases.map { longestText(of: $0, place.lexeme, &automaton.expressions) }
      for tree in 0...vocabulary.slices.count {
        if tree < vocabulary.slices.count, lengths[vocabulary.slices[tree].characters.rawValue] >= vocabulary.slices[tree].maximumLength {
          mask.formUnion(vocabulary.sliceTokens[tree])
          isDense = true
          continue
        }
        bytes.forEach { byte in
          let child = Int(vocabulary.rootChildren[tree << 8 + Int(byte)])
          guard child >= 0 else { return }
          walkLexeme(place.lexeme, child, Int(vocabulary.nodeEnds[child]), &mask, &borders, &automaton.expressions)
        }
      }
    }
    let count = isDense ? Int.max : mask.count
    var result = LexemeMask(words: nil, tokens: [], borders: borders)
    if count > mask.words.count / 8 {
      result.words = mask.words
    } else {
      for (index, word) in mask.words.enumerated() {
        var word = word
        while word != 0 {
          result.tokens.append(Int32(index << 6 + word.trailingZeroBitCount))
          word &= word - 1
        }
      }
    }
    guard !automaton.isExhausted else { return result }
    makeRoom(for: (result.words?.count ?? 0) * 8 + result.tokens.count * 4 + result.borders.count * 4 + 96)
    lexemeMasks[place] = result
    return result
  }

  /// Adds the tokens of nodes `start` to `end`, a node and what is below it or all that is below one, that stay within the lexeme.
  private mutating func walkLexeme(
    _ lexeme: ExpressionTable.ID, _ start: Int, _ end: Int, _ mask: inout TokenMask, _ borders: inout [Int32],
    _ expressions: inout ExpressionTable
  ) {
    guard start < end else { return }
    // Borders below which everything may be within the lexeme: how many tokens were before it.
    var open: [(node: Int, numBefore: Int)] = []
    var numAccepted = 0
    let vocabulary = vocabulary
    func close(_ index: Int, _ borders: inout [Int32]) {
      while let last = open.last, Int(vocabulary.nodeEnds[last.node]) <= index {
        let numBelow = Int(vocabulary.tokenStarts[Int(vocabulary.nodeEnds[last.node])] - vocabulary.tokenStarts[last.node + 1])
        if numAccepted - last.numBefore < numBelow { borders.append(Int32(last.node)) }
        open.removeLast()
      }
    }
    lexemePath[Int(vocabulary.nodeDepths[start]) - 1] = lexeme
    var index = start
    while index < end {
      close(index, &borders)
      let depth = Int(vocabulary.nodeDepths[index])
      let next = expressions.next(lexemePath[depth - 1], vocabulary.nodeBytes[index])
      if next == ExpressionTable.nothing {
        index = Int(vocabulary.nodeEnds[index])
        continue
      }
      lexemePath[depth] = next
      for position in vocabulary.tokenStarts[index]..<vocabulary.tokenStarts[index + 1] {
        mask.insert(vocabulary.nodeTokens[Int(position)])
        numAccepted += 1
      }
      if expressions.isNullable(next) && Int(vocabulary.nodeEnds[index]) > index + 1 { open.append((index, numAccepted)) }
      index += 1
    }
    close(end, &borders)
  }

  /// How many characters of a kind may come in a row whatever they are, at most ``TokenVocabulary/longestInSlice``; or fewer, where finding out takes
  /// more states than ``manyStates``, for their number may double with every character.
  private func longestText(
    of characters: TokenVocabulary.Slice.Characters, _ lexeme: ExpressionTable.ID, _ expressions: inout ExpressionTable
  ) -> Int {
    let ascii =
      switch characters {
      case .letters: ByteSet(0x30...0x39).union(ByteSet(0x41...0x5A)).union(ByteSet(0x61...0x7A))
      case .ascii, .any: TokenVocabulary.plainASCII
      }
    var frontier: Set<ExpressionTable.ID> = [lexeme]
    var seen = frontier
    for length in 0..<TokenVocabulary.longestInSlice {
      var next: Set<ExpressionTable.ID> = []
      for state in frontier {
        guard expressions.addStates(after: ascii, state, to: &next) else { return length }
        guard characters == .any else { continue }
        for form in TokenVocabulary.furtherCharacters {
          var states: Set<ExpressionTable.ID> = [state]
          for bytes in form {
            var following: Set<ExpressionTable.ID> = []
            for state in states {
              guard expressions.addStates(after: bytes, state, to: &following) else { return length }
            }
            states = following
          }
          next.formUnion(states)
        }
      }
      frontier = next.subtracting(seen)
      if frontier.isEmpty { break }
      seen.formUnion(frontier)
      if seen.count > Self.manyStates { return length + 1 }
    }
    return TokenVocabulary.longestInSlice
  }
}

extension ExpressionTable {
  /// Adds the states after each of the bytes; false if one of the bytes cannot come.
  fileprivate mutating func addStates(after bytes: ByteSet, _ state: ID, to states: inout Set<ID>) -> Bool {
    var last: ID = Self.nothing
    for byte in UInt8.min...UInt8.max where bytes.contains(byte) {
      let next = next(state, byte)
      if next == Self.nothing { return false }
      if next != last { states.insert(next) }
      last = next
    }
    return true
  }
}

extension TokenVocabulary {
  /// ASCII that a JSON string may have as it is.
  fileprivate static var plainASCII: ByteSet {
    var set = ByteSet(0x20...0x7F)
    set.words &= ~(ByteSet(UInt8(ascii: "\"")).words | ByteSet(UInt8(ascii: "\\")).words)
    return set
  }

  /// Characters beyond ASCII in UTF-8 (RFC 3629, section 4).
  fileprivate static var furtherCharacters: [[ByteSet]] {
    let tail = ByteSet(0x80...0xBF)
    return [
      [ByteSet(0xC2...0xDF), tail],
      [ByteSet(0xE0...0xE0), ByteSet(0xA0...0xBF), tail],
      [ByteSet(0xE1...0xEC).union(ByteSet(0xEE...0xEF)), tail, tail],
      [ByteSet(0xED...0xED), ByteSet(0x80...0x9F), tail],
      [ByteSet(0xF0...0xF0), ByteSet(0x90...0xBF), tail, tail],
      [ByteSet(0xF1...0xF3), tail, tail, tail],
      [ByteSet(0xF4...0xF4), ByteSet(0x80...0x8F), tail, tail],
    ]
  }
}
