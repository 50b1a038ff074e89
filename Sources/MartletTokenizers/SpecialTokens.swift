// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

import MartletFormats

/// The tokens of a file that have a part to play: begin, end, unknown, and whether the model wants BOS.
struct SpecialTokens: Sendable {
  let bos: Int32?
  let eos: Int32?
  let unknown: Int32?
  let ends: Set<Int32>
  let addsBOS: Bool
  /// What is put around a text on its own.
  let frame: TextFrame

  /// Tokens that end an answer under these names, whatever the file says of their ids and kinds: a chat model's file often names only one of
  /// them, and some call them text. The last line is of models whose answers have messages inside (gpt-oss, Solar), and of Gemma 4, where the answer
  /// of a tool comes next.
  private static let endNames: Set<String> = [
    "<|im_end|>", "<end_of_turn>", "<|eot_id|>", "<|eom_id|>", "<|end|>", "<|endoftext|>", "<|end_of_text|>", "<|end_of_turn|>", "<EOT>",
    "<end_of_utterance>", "<｜end▁of▁sentence｜>",
    "<|return|>", "<|call|>", "<|calls|>", "<|flush|>", "<turn|>", "<|tool_response>",
  ]

  /// These do so only where the file calls them control tokens: in other files they are text, as `</s>` of HTML.
  private static let controlEndNames: Set<String> = ["</s>", "<eos>", "[EOS]", "[EOT]", "[e~["]

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
    ends = Self.ends([eos, try token("eot"), try token("eom")], vocabulary)
    let asksForBOS: Bool?, asksForEOS: Bool?
    do {
      asksForBOS = try file.bool(ifPresent: "tokenizer.ggml.add_bos_token")
      asksForEOS = try file.bool(ifPresent: "tokenizer.ggml.add_eos_token")
    } catch { throw .format(error) }
    if asksForBOS == true && bos == nil {
      throw .malformed(field: "tokenizer.ggml.add_bos_token", problem: "is true, but there is no tokenizer.ggml.bos_token_id")
    }
    addsBOS = asksForBOS ?? (addsBOSByDefault && bos != nil)
    frame = TextFrame(before: addsBOS ? bos.map { [$0] } ?? [] : [], after: asksForEOS == true ? eos.map { [$0] } ?? [] : [])
  }

  /// - Parameter ends: Further tokens that end an answer, besides `eos` and those of known names.
  init(bos: Int32?, eos: Int32?, unknown: Int32?, ends: [Int32], addsBOS: Bool, frame: TextFrame, _ vocabulary: Vocabulary) {
    self.bos = bos
    self.eos = eos
    self.unknown = unknown
    self.ends = Self.ends(ends + [eos], vocabulary)
    self.addsBOS = addsBOS
    self.frame = frame
  }

  /// The tokens that the file names and those of known names, less those that other names show to be no ends here; llama.cpp has the same rules.
  private static func ends(_ stated: [Int32?], _ vocabulary: Vocabulary) -> Set<Int32> {
    var ends = Set(stated.compactMap { $0 })
    var named: [String: [Int32]] = [:]
    for token in 0..<Int32(vocabulary.count) {
      let name = vocabulary.bytes(of: token)
      guard name.first == UInt8(ascii: "<") || name.first == UInt8(ascii: "["), name.count <= longestEndName else { continue }
      let text = String(decoding: name, as: UTF8.self)
      let isControl = vocabulary.kinds[Int(token)] == .control
      guard endNames.contains(text) || isControl && controlEndNames.contains(text) else { continue }
      named[text, default: []].append(token)
      ends.insert(token)
    }
    func has(_ name: String) -> Bool { named[name] != nil }
    // An answer goes on after its first message where another token ends all of it.
    if has("<|call|>") && has("<|return|>") || (has("<|call|>") || has("<|calls|>")) && has("<|flush|>") {
      ends.subtract(named["<|end|>"] ?? [])
    }
    // Gemma 4 has HTML's as a token.
    if has("<|tool_response>") { ends.subtract(named["</s>"] ?? []) }
    return ends
  }
}
