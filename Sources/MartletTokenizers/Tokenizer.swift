// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

public import MartletFormats

/// Text to token ids and back, for one model. Immutable: one value serves every request.
///
/// Token ids are `0..<vocabularySize`. Models may know more (rows of their embedding that only fill it up): an id outside has no text.
public protocol Tokenizer: Sendable {
  /// The number of token ids.
  var vocabularySize: Int { get }
  /// The token that begins a text, if the model has one.
  var bosToken: Int32? { get }
  /// The token that ends a text, if the model has one.
  var eosToken: Int32? { get }
  /// Every token that ends an answer: the end of text, and the end of a turn in the model's chat format.
  var endTokens: Set<Int32> { get }
  /// Whether the model wants `bosToken` before a prompt. ``encode(_:parsesSpecialTokens:)`` leaves that to the caller.
  var addsBOS: Bool { get }
  /// What is put around a text that is read for itself, and not continued: by models whose answer is a vector.
  var textFrame: TextFrame { get }
  /// Whether encoding puts a space before a text, so that decoding a whole text drops one (SentencePiece's "dummy prefix").
  var dropsLeadingSpace: Bool { get }

  /// The tokens of `text`, without BOS or EOS. Near-linear in the length of the text, whatever it holds.
  ///
  /// - Parameter parsesSpecialTokens: Whether the text of a control token, such as `<|im_start|>`, becomes that token. Pass true for a
  ///   text that the program wrote, false for text that somebody else wrote; a text of both is a ``MarkedText``.
  /// - Precondition: the text is shorter than 2 GiB.
  func encode(_ text: String, parsesSpecialTokens: Bool) -> [Int32]

  /// The tokens of a text that a program wrote around contents that it was handed, without BOS or EOS. Near-linear as well.
  ///
  /// The name of a control token becomes that token only where no byte of it lies in `contents`. A token that the file calls text but that is
  /// looked for as a whole (such as Qwen 3's `<think>`) is found in contents too, unless it ends a turn (``endTokens``). Nothing else changes
  /// where contents begin or end: the text is encoded as one.
  /// - Precondition: the text is shorter than 2 GiB; `contents` are in order and within it.
  func encode(_ text: MarkedText) -> [Int32]

  /// Whether the token stands for structure, not text: begin, end, turn marks, unused ids.
  func isControl(_ token: Int32) -> Bool

  /// Appends the bytes of the text that `token` stands for; they may be a part of a character. A control token has none unless
  /// `showsControlTokens`: then it has its name.
  func appendBytes(of token: Int32, showsControlTokens: Bool, to bytes: inout [UInt8])
}

/// Tokens around a text on its own, such as BERT's `[CLS]` and `[SEP]`.
public struct TextFrame: Sendable, Hashable {
  public var before: [Int32]
  public var after: [Int32]

  public init(before: [Int32] = [], after: [Int32] = []) {
    self.before = before
    self.after = after
  }
}

extension Tokenizer {
  /// BOS, where the model wants it, and nothing behind.
  public var textFrame: TextFrame { TextFrame(before: addsBOS ? bosToken.map { [$0] } ?? [] : []) }

  /// The tokens of a rendered conversation as a model is given them: after the one that begins a text, where the model wants that and the template
  /// has not written it.
  public func promptTokens(of text: MarkedText, specialTokensInContent: ChatOptions.SpecialTokensInContent = .text) -> [Int32] {
    switch specialTokensInContent {
    case .text: beginning(encode(text))
    case .parsed: beginning(encode(text.text, parsesSpecialTokens: true))
    }
  }

  /// The tokens of a prompt after the one that begins a text, where the model wants that and they do not begin with it.
  public func beginning(_ tokens: [Int32]) -> [Int32] {
    guard addsBOS, let bosToken, tokens.first != bosToken else { return tokens }
    return [bosToken] + tokens
  }

  /// The bytes of the text that `token` stands for; they may be a part of a character. None for a control token, unless it is to be shown.
  public func bytes(of token: Int32, showsControlTokens: Bool = false) -> [UInt8] {
    var bytes: [UInt8] = []
    appendBytes(of: token, showsControlTokens: showsControlTokens, to: &bytes)
    return bytes
  }

  /// The text of `tokens`, control tokens left out. Bytes that are not UTF-8 become U+FFFD.
  ///
  /// - Parameter continuesText: The tokens go on where other text ended, so that a leading space is kept.
  public func decode(_ tokens: some Sequence<Int32>, continuesText: Bool = false) -> String {
    var bytes: [UInt8] = []
    for token in tokens { appendBytes(of: token, showsControlTokens: false, to: &bytes) }
    if dropsLeadingSpace && !continuesText && bytes.first == UInt8(ascii: " ") { bytes.removeFirst() }
    return String(decoding: bytes, as: UTF8.self)
  }
}

/// The tokenizer that a model file describes.
///
/// `tokenizer.ggml.model` chooses: "gpt2" is byte-level BPE, "llama" SentencePiece's BPE, "t5" SentencePiece's unigram model, "bert" WordPiece.
public func makeTokenizer(from file: GGUFFile) throws(TokenizerError) -> any Tokenizer {
  let model: String
  do { model = try file.string("tokenizer.ggml.model") } catch { throw .format(error) }
  switch model {
  case "gpt2": return try ByteLevelBPE(file)
  case "llama": return try SentencePieceBPE(file)
  case "t5": return try SentencePieceUnigram(file)
  case "bert": return try WordPieceTokenizer(file)
  default: throw .unsupportedModel(model, supported: ["gpt2", "llama", "t5", "bert"])
  }
}
