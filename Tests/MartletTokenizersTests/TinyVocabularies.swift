// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

import MartletFormats
import MartletTestSupport
import MartletTokenizers

/// `tokenizer.ggml.token_type`.
enum Kind: Int32, CaseIterable { case undefined = 0, normal, unknown, control, userDefined, unused, byte }

/// GPT-2's printable character of a byte, made from its description: the printable bytes of Latin-1 stand for themselves, the others for U+0100 upwards.
func printable(_ byte: UInt8) -> String {
  func isPrintable(_ byte: Int) -> Bool { (0x21...0x7E).contains(byte) || (0xA1...0xAC).contains(byte) || (0xAE...0xFF).contains(byte) }
  let value = isPrintable(Int(byte)) ? Int(byte) : 0x100 + (0..<Int(byte)).count { !isPrintable($0) }
  return String(Unicode.Scalar(UInt32(value))!)
}

func printable(_ text: String) -> String { text.utf8.map { printable($0) }.joined() }

/// A file with a byte-level vocabulary: the 256 bytes as tokens 0…255 (less `missing`), then the merges' products, then `extra`.
func byteLevelFile(
  merges: [(String, String)], extra: [(String, Kind)] = [], missing: Set<UInt8> = [], pre: String? = "gpt-2",
  configure: (inout GGUFWriter) -> Void = { _ in }
) -> [UInt8] {
  var tokens = (UInt8.min...UInt8.max).filter { !missing.contains($0) }.map { (printable($0), Kind.normal) }
  for (left, right) in merges { tokens.append((printable(left + right), .normal)) }
  tokens += extra
  var writer = GGUFWriter()
  writer.add("tokenizer.ggml.model", .string("gpt2"))
  if let pre { writer.add("tokenizer.ggml.pre", .string(pre)) }
  writer.add("tokenizer.ggml.tokens", strings: tokens.map(\.0))
  writer.add("tokenizer.ggml.token_type", int32s: tokens.map(\.1.rawValue))
  writer.add("tokenizer.ggml.merges", strings: merges.map { printable($0.0) + " " + printable($0.1) })
  configure(&writer)
  return writer.bytes()
}

/// A file with a SentencePiece vocabulary: `<unk>`, `<s>`, `</s>`, the 256 byte tokens 3…258 if asked for, then `pieces`.
func sentencePieceFile(
  _ pieces: [(String, Float)], extra: [(String, Kind)] = [], hasBytes: Bool = true, model: String = "llama",
  configure: (inout GGUFWriter) -> Void = { _ in }
) -> [UInt8] {
  var tokens: [(String, Kind, Float)] = [("<unk>", .unknown, 0), ("<s>", .control, 0), ("</s>", .control, 0)]
  if hasBytes {
    for byte in 0..<256 {
      let digits = String(byte, radix: 16, uppercase: true)
      tokens.append(("<0x" + (digits.count == 1 ? "0" : "") + digits + ">", .byte, 0))
    }
  }
  tokens += pieces.map { ($0.0, .normal, $0.1) } + extra.map { ($0.0, $0.1, 0) }
  var writer = GGUFWriter()
  writer.add("tokenizer.ggml.model", .string(model))
  writer.add("tokenizer.ggml.tokens", strings: tokens.map(\.0))
  writer.add("tokenizer.ggml.token_type", int32s: tokens.map(\.1.rawValue))
  writer.add("tokenizer.ggml.scores", floats: tokens.map(\.2))
  writer.add("tokenizer.ggml.bos_token_id", .uint32(1))
  writer.add("tokenizer.ggml.eos_token_id", .uint32(2))
  writer.add("tokenizer.ggml.unknown_token_id", .uint32(0))
  configure(&writer)
  return writer.bytes()
}

func tokenizer(_ bytes: [UInt8]) throws -> any Tokenizer { try makeTokenizer(from: GGUFFile(bytes: bytes)) }

extension Tokenizer {
  /// The texts of the tokens of a text.
  func pieces(_ text: String, parsesSpecialTokens: Bool = false) -> [String] {
    encode(text, parsesSpecialTokens: parsesSpecialTokens).map { String(decoding: bytes(of: $0, showsControlTokens: true), as: UTF8.self) }
  }
}

/// A text of up to `length` characters out of many scripts.
func randomText(length: Int, using generator: inout SeededGenerator) -> String {
  let ranges: [ClosedRange<UInt32>] = [
    0x20...0x7E, 0x20...0x7E, 0x09...0x0D, 0xA0...0x17F, 0x400...0x45F, 0x4E00...0x4E80, 0x1F600...0x1F640,
  ]
  var text = ""
  for _ in 0..<Int.random(in: 0...length, using: &generator) {
    text.unicodeScalars.append(Unicode.Scalar(UInt32.random(in: ranges.randomElement(using: &generator)!, using: &generator))!)
  }
  return text
}
