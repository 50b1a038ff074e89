// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

import MartletFormats

/// The tokens of a file that have a part to play: begin, end, unknown, and whether the model wants BOS.
struct SpecialTokens: Sendable {
  let bos: Int32?
  let eos: Int32?
  let unknown: Int32?
  let ends: Set<Int32>
  let addsBOS: Bool

  /// Tokens that end an answer under these names, whatever the file says of their ids and kinds: a chat model's file often names only one of
  /// them, and some call them text.
  private static let endNames: Set<String> = [
    "<|im_end|>", "<end_of_turn>", "<|eot_id|>", "<|eom_id|>", "<|end|>", "<|endoftext|>", "<|end_of_text|>", "<|end_of_turn|>", "<EOT>",
    "<end_of_utterance>", "<｜end▁of▁sentence｜>",
  ]

  /// Whether a token of this name ends an answer, and so is a control token whatever kind a GGUF file gives it: llama.cpp overrides kinds likewise.
  static func isEndName(_ name: Span<UInt8>) -> Bool {
    guard name.count > 0, name[0] == UInt8(ascii: "<"), name.count <= longestEndName else { return false }
    return endNames.contains(name.withUnsafeBufferPointer { String(decoding: $0, as: UTF8.self) })
  }

  private static let longestEndName = endNames.map(\.utf8.count).max() ?? 0

  /// - Parameter addsBOSByDefault: What a file that does not say means.
  init(_ file: GGUFFile, _ vocabulary: Vocabulary, addsBOSByDefault: Bool) throws(TokenizerError) {
    func token(_ role: String) throws(TokenizerError) -> Int32? {
      let key = "tokenizer.ggml.\(role)_token_id"
      let id: Int?
      do { id = try file.integer(ifPresent: key) } catch { throw .format(error) }
      // Converters write −1 for a token that the model does not have, in 32 bits without a sign or with one.
      guard let id, id != -1, id != Int(UInt32.max) else { return nil }
      guard id >= 0, id < vocabulary.count else { throw .malformed(field: key, problem: "is \(id) of \(vocabulary.count) tokens") }
      return Int32(id)
    }
    bos = try token("bos")
    eos = try token("eos")
    unknown = try token("unknown")
    ends = Set([eos, try token("eot"), try token("eom")].compactMap { $0 }).union(Self.namedEnds(vocabulary))
    let asksForBOS: Bool?
    do { asksForBOS = try file.bool(ifPresent: "tokenizer.ggml.add_bos_token") } catch { throw .format(error) }
    if asksForBOS == true && bos == nil {
      throw .malformed(field: "tokenizer.ggml.add_bos_token", problem: "is true, but there is no tokenizer.ggml.bos_token_id")
    }
    addsBOS = asksForBOS ?? (addsBOSByDefault && bos != nil)
  }

  /// - Parameter ends: Further tokens that end an answer, besides `eos` and those of known names.
  init(bos: Int32?, eos: Int32?, unknown: Int32?, ends: [Int32], addsBOS: Bool, _ vocabulary: Vocabulary) {
    self.bos = bos
    self.eos = eos
    self.unknown = unknown
    self.ends = Set(ends + [eos].compactMap { $0 }).union(Self.namedEnds(vocabulary))
    self.addsBOS = addsBOS
  }

  private static func namedEnds(_ vocabulary: Vocabulary) -> [Int32] {
    (0..<Int32(vocabulary.count)).filter { token in
      let name = vocabulary.bytes(of: token)
      guard name.first == UInt8(ascii: "<") else { return false }
      let text = String(decoding: name, as: UTF8.self)
      // HTML has this one, too.
      return endNames.contains(text) || text == "</s>" && vocabulary.kinds[Int(token)] == .control
    }
  }
}
