// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

// Writes what the fuzzers begin with: small valid files, one folder for each target, in the folder that is named.

import CMartletLibc
import MartletCore
import MartletFormats

@main enum Seeds {
  static func main() throws {
    let folder = CommandLine.arguments[1]
    for (name, writer) in try ggufSeeds() { try writer.write(toPath: "\(folder)gguf/\(name)") }
    for (name, bytes) in safetensorsSeeds() { try write(bytes, to: "\(folder)safetensors/\(name)") }
  }

  private struct CannotWrite: Error { var path: String }

  private static func write(_ bytes: [UInt8], to path: String) throws {
    guard let file = fopen(path, "wb") else { throw CannotWrite(path: path) }
    let written = fwrite(bytes, 1, bytes.count, file)
    guard fclose(file) == 0, written == bytes.count else { throw CannotWrite(path: path) }
  }

  /// Headers written by hand, before data of zeros.
  static func safetensorsSeeds() -> [(String, [UInt8])] {
    func file(_ header: String, data: Int) -> [UInt8] {
      withUnsafeBytes(of: UInt64(header.utf8.count).littleEndian) { Array($0) } + Array(header.utf8) + [UInt8](repeating: 0, count: data)
    }
    return [
      ("empty", file("{}", data: 0)),
      ("metadata", file(#"{"__metadata__":{"format":"pt"}}    "#, data: 0)),
      (
        "three",
        file(
          #"{"a":{"dtype":"F32","shape":[2,2],"data_offsets":[0,16]},"b\u00e9":{"dtype":"BF16","shape":[3],"data_offsets":[16,22]},"#
            + #""c":{"dtype":"F16","shape":[],"data_offsets":[22,24]}}"#, data: 24)
      ),
      (
        "other types",
        file(#"{"i":{"dtype":"I64","shape":[1,0,2],"data_offsets":[0,0]},"u":{"dtype":"U8","shape":[1],"data_offsets":[0,1]}}"#, data: 1)
      ),
    ]
  }

  static func ggufSeeds() throws -> [(String, GGUFWriter)] {
    var seeds: [(String, GGUFWriter)] = [
      ("metadata", everyKindOfMetadata()), ("sentencepiece", sentencePiece()), ("byte-level", byteLevel()),
    ]
    for format in GGUFTensorType.readableFormats { seeds.append(("weight-\(format.rawValue)", weight(in: format))) }
    for architecture in TinyModel.Architecture.allCases {
      let model = TinyModel(architecture, seed: 1) { model in
        (model.numLayers, model.hiddenSize, model.feedForwardSize, model.numHeads, model.numKVHeads, model.headDim) = (1, 8, 8, 1, 1, 8)
      }
      seeds.append((architecture.rawValue, model.writer()))
    }
    return seeds
  }

  private static func everyKindOfMetadata() -> GGUFWriter {
    var writer = GGUFWriter()
    writer.alignment = 64
    let values: [GGUFWriter.Value] = [
      .uint8(1), .int8(-1), .uint16(2), .int16(-2), .uint32(3), .int32(-3), .uint64(4), .int64(-4), .float32(0.5), .float64(0.25),
      .bool(true),
      .string("text"), .bytes([0xFF, 0x41]),
    ]
    for (index, value) in values.enumerated() { writer.add("value.\(index)", value) }
    writer.add("array.strings", strings: ["", "b", "ç", "long enough"])
    writer.add("array.floats", floats: [0, -1, 2])
    writer.add("array.integers", int32s: [0, -1, 2])
    writer.add("array.bools", .array(.bool, [.bool(true), .bool(false)]))
    writer.add("array.arrays", .array(.array, [.array(.string, [.string("x")]), .array(.array, [.array(.int8, [.int8(1)])])]))
    writer.add("split.no", .uint16(0))
    writer.add("split.count", .uint16(2))
    writer.addTensor("half", type: GGUFTensorType(.f16), shape: [3], bytes: [0, 0x3C, 0, 0x3C, 0, 0x3C])
    writer.addTensor("of an unknown type", type: GGUFTensorType(code: 99), shape: [1, 256], bytes: [1, 2, 3])
    return writer
  }

  private static func weight(in format: WeightFormat) -> GGUFWriter {
    var writer = GGUFWriter()
    let bytes = (0..<2 * format.blockByteCount).map { UInt8(truncatingIfNeeded: 37 * $0) }
    writer.addTensor("w", type: GGUFTensorType(format), shape: [2, format.blockSize], bytes: bytes)
    return writer
  }

  private static func sentencePiece() -> GGUFWriter {
    let pieces = ["<unk>", "<s>", "</s>", "<0x0A>", "▁", "▁Hello", "H", "e", "l", "o", "He", "ll", "Hell", "ü", "<end_of_turn>"]
    var writer = GGUFWriter()
    writer.add("tokenizer.ggml.model", .string("llama"))
    writer.add("tokenizer.ggml.tokens", strings: pieces)
    writer.add("tokenizer.ggml.token_type", int32s: [2, 3, 3, 6, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 4])
    writer.add("tokenizer.ggml.scores", floats: pieces.indices.map { -Float($0) })
    for (key, id) in [("bos", 1), ("eos", 2), ("unknown", 0), ("padding", 0)] {
      writer.add("tokenizer.ggml.\(key)_token_id", .uint32(UInt32(id)))
    }
    writer.add("tokenizer.ggml.add_bos_token", .bool(true))
    writer.add("tokenizer.ggml.add_space_prefix", .bool(true))
    return writer
  }

  private static func byteLevel() -> GGUFWriter {
    let tokens = ["H", "e", "l", "o", ",", "Ġ", "w", "r", "d", "He", "ll", "Hell", "Hello", "Ġw", "<|im_start|>", "<|endoftext|>"]
    var writer = GGUFWriter()
    writer.add("tokenizer.ggml.model", .string("gpt2"))
    writer.add("tokenizer.ggml.pre", .string("gpt-2"))
    writer.add("tokenizer.ggml.tokens", strings: tokens)
    writer.add("tokenizer.ggml.token_type", int32s: tokens.indices.map { $0 < 14 ? 1 : 3 })
    writer.add("tokenizer.ggml.merges", strings: ["H e", "l l", "He ll", "Hell o", "Ġ w"])
    writer.add("tokenizer.ggml.eos_token_id", .uint32(15))
    writer.add(
      "tokenizer.chat_template",
      .string("{% for message in messages %}{{'<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>'}}{% endfor %}"))
    return writer
  }
}
