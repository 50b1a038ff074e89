// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

/// The tokens of a model as bytes, in the order in which masks are made: a tree in which tokens with the same beginning share it.
///
/// How the tokens came about (byte-level BPE, SentencePiece with or without bytes to fall back on) does not matter, for an answer's text is the bytes of
/// its tokens in a row. Make one for each model; it is large, and forms share it.
///
/// Tokens that are text such as one finds within a JSON string are put into *slices*, by the characters that they have and how many: where any such
/// text may come, all tokens of a slice may, and none is looked at. The rest is a tree of its own.
public final class TokenVocabulary: Sendable {
  /// A set of texts: up to so many characters of a kind.
  struct Slice: Sendable {
    enum Characters: Int, Sendable, CaseIterable {
      /// Letters and digits of ASCII.
      case letters
      /// ASCII that a JSON string may have as it is.
      case ascii
      /// Any character that a JSON string may have as it is.
      case any
    }

    let characters: Characters
    let maximumLength: Int
  }

  /// The longest text in a slice, in characters.
  static var longestInSlice: Int { 16 }

  /// Tokens of the vocabulary, with and without text.
  public let numTokens: Int
  /// Tokens that end an answer, in order.
  public let endTokens: [Int]

  let slices: [Slice]
  /// Of each slice: its tokens.
  let sliceTokens: [[UInt64]]
  /// Of each tree (the slices', then the rest's) and byte: the node below the root, or -1.
  let rootChildren: [Int32]

  // The nodes of all trees, each before those below it.
  let nodeBytes: [UInt8]
  /// Bytes from the root to the node, from 1.
  let nodeDepths: [UInt16]
  /// The node behind all that are below.
  let nodeEnds: [Int32]
  /// Where the node's tokens begin in `nodeTokens`; they end where the next node's begin.
  let tokenStarts: [Int32]
  let nodeTokens: [Int32]
  let maximumDepth: Int

  private let texts: [UInt8]
  private let textStarts: [Int32]

  /// - Parameters:
  ///   - tokens: the bytes of each token, by number; nil for special tokens, which are no text and never allowed unless they end an answer. Empty ones and
  ///     those of more than 65 535 bytes are never allowed either.
  ///   - endTokens: the tokens that end an answer. They are allowed exactly where the answer may end.
  public init(tokens: [[UInt8]?], endTokens: [Int]) {
    numTokens = tokens.count
    self.endTokens = Set(endTokens.filter { tokens.indices.contains($0) }).sorted()
    let ends = Set(self.endTokens)
    var texts: [UInt8] = []
    var textStarts: [Int32] = [0]
    for token in tokens {
      texts.append(contentsOf: token ?? [])
      textStarts.append(Int32(texts.count))
    }
    let lengths = [3, 6, Self.longestInSlice]
    slices = Slice.Characters.allCases.flatMap { characters in lengths.map { Slice(characters: characters, maximumLength: $0) } }
    var members = [[Int32]](repeating: [], count: slices.count + 1)
    for (number, token) in tokens.enumerated() {
      guard let token, !token.isEmpty, token.count <= Int(UInt16.max), !ends.contains(number) else { continue }
      members[Self.slice(of: token, lengths)].append(Int32(number))
    }
    var trees = TreeBuilder(texts, textStarts)
    var rootChildren: [Int32] = []
    var sliceTokens: [[UInt64]] = []
    for (index, list) in members.enumerated() {
      rootChildren.append(contentsOf: trees.add(list))
      guard index < slices.count else { break }
      var mask = TokenMask(numTokens: numTokens)
      for token in list { mask.insert(token) }
      sliceTokens.append(mask.words)
    }
    self.rootChildren = rootChildren
    self.sliceTokens = sliceTokens
    nodeBytes = trees.bytes
    nodeDepths = trees.depths
    nodeEnds = trees.ends
    tokenStarts = trees.tokenStarts + [Int32(trees.tokens.count)]
    nodeTokens = trees.tokens
    maximumDepth = Int(trees.depths.max() ?? 0)
    self.texts = texts
    self.textStarts = textStarts
  }

  /// The bytes of a token; none of a special one.
  func bytes(_ token: Int) -> ArraySlice<UInt8> { texts[Int(textStarts[token])..<Int(textStarts[token + 1])] }

  /// The number of the slice that the token belongs to; one beyond the last if it is in none.
  private static func slice(of token: [UInt8], _ lengths: [Int]) -> Int {
    var kind = Slice.Characters.letters
    var count = 0
    guard let text = String(validating: token, as: UTF8.self) else { return 3 * lengths.count }
    for scalar in text.unicodeScalars {
      count += 1
      if scalar.value < 0x20 || scalar == "\"" || scalar == "\\" { return 3 * lengths.count }
      if scalar.value > 0x7F {
        kind = .any
      } else if kind == .letters && !(scalar.properties.isAlphabetic || scalar.value >= 0x30 && scalar.value <= 0x39) {
        kind = .ascii
      }
    }
    guard let length = lengths.firstIndex(where: { count <= $0 }) else { return 3 * lengths.count }
    return kind.rawValue * lengths.count + length
  }
}

/// Builds trees of tokens one after the other.
private struct TreeBuilder {
  let texts: [UInt8]
  let textStarts: [Int32]
  var bytes: [UInt8] = []
  var depths: [UInt16] = []
  var ends: [Int32] = []
  var tokenStarts: [Int32] = []
  var tokens: [Int32] = []

  init(_ texts: [UInt8], _ textStarts: [Int32]) {
    self.texts = texts
    self.textStarts = textStarts
  }

  /// Adds a tree; its nodes below the root, by byte.
  mutating func add(_ list: [Int32]) -> [Int32] {
    let sorted = texts.withUnsafeBufferPointer { texts in
      list.sorted { a, b in
        let x = texts[Int(textStarts[Int(a)])..<Int(textStarts[Int(a) + 1])]
        let y = texts[Int(textStarts[Int(b)])..<Int(textStarts[Int(b) + 1])]
        for (i, j) in zip(x, y) where i != j { return i < j }
        return x.count != y.count ? x.count < y.count : a < b
      }
    }
    var roots = [Int32](repeating: -1, count: 256)
    var path: [Int] = []
    for token in sorted {
      let text = Int(textStarts[Int(token)])..<Int(textStarts[Int(token) + 1])
      var common = 0
      while common < path.count && common < text.count && bytes[path[common]] == texts[text.lowerBound + common] { common += 1 }
      while path.count > common { ends[path.removeLast()] = Int32(bytes.count) }
      for depth in common..<max(common, text.count) {
        let byte = texts[text.lowerBound + depth]
        if depth == 0 { roots[Int(byte)] = Int32(bytes.count) }
        path.append(bytes.count)
        bytes.append(byte)
        depths.append(UInt16(depth + 1))
        ends.append(0)
        tokenStarts.append(Int32(tokens.count))
      }
      tokens.append(token)
    }
    while let node = path.popLast() { ends[node] = Int32(bytes.count) }
    return roots
  }
}
