// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

// Two real models, against what the Python `gguf` package (0.19) reads from the same files.

import Foundation
import MartletCore
import MartletFormats
import MartletTestSupport
import Testing

@Suite struct RealModelTests {
  /// The file of a known model.
  private func open(_ name: String) async throws -> GGUFFile {
    try GGUFFile(path: try await RealModelFile.path(name))
  }

  private func formats(_ file: GGUFFile) -> [String: Int] {
    file.tensors.reduce(into: [:]) { $0[$1.type.name, default: 0] += 1 }
  }

  @Test func `SmolLM2 is read as the reference reads it`() async throws {
    let file = try await open("smollm2-135m")
    #expect(file.version == 3 && file.byteCount == 98_362_432 && file.alignment == 32)
    #expect(file.metadataKeys.count == 33 && file.tensors.count == 272)
    #expect(formats(file) == ["Q4_1": 210, "F32": 61, "Q8_0": 1])
    #expect(try file.string("general.architecture") == "llama")
    #expect(try file.integer("llama.block_count") == 30)
    #expect(try file.integer("llama.attention.head_count_kv") == 3)
    #expect(try file.float("llama.rope.freq_base") == 100_000)
    #expect(try file.float("llama.attention.layer_norm_rms_epsilon") == 1e-5)
    #expect(try file.bool("tokenizer.ggml.add_bos_token") == false)
    #expect(try file.array("general.languages").strings() == ["en"])
    #expect(file.tensors.last?.name == "output_norm.weight")

    let merges = try file.array("tokenizer.ggml.merges")
    #expect(merges.count == 48_900)
    let recorded = [0: "Ġ t", 63: "u r", 64: "u t", 65: "r a", 1000: "Ġpl an", 12345: "Ġf ounder", 48_899: "ect able"]
    for (index, text) in recorded {
      guard case .string(let merge) = merges[index] else { throw Unexpected() }
      #expect(merge == text)
    }

    let embedding = try file.weight("token_embd.weight", rows: 49_152, columns: 576)
    #expect(embedding.format == .q8_0 && Array(embedding.bytes.prefix(8)) == [0x32, 0x19, 0xD6, 0x0D, 0x13, 0xF7, 0xE5, 0xEE])
    let down = try file.weight("blk.7.ffn_down.weight", rows: 576, columns: 1536)
    #expect(down.format == .q4_1 && Array(down.bytes.prefix(8)) == [0x2F, 0x29, 0x48, 0xB5, 0x45, 0x95, 0x65, 0x64])
    #expect(try file.floats("output_norm.weight", count: 576).prefix(4) == [1.7578125, 1.8203125, 1.78125, 1.6015625])
    #expect(file.tensor("output_norm.weight")?.offset == 98_360_128)
  }

  @Test func `Gemma 3 is read as the reference reads it`() async throws {
    let file = try await open("gemma3-270m")
    #expect(file.metadataKeys.count == 33 && file.tensors.count == 236)
    #expect(formats(file) == ["F32": 109, "Q5_0": 81, "Q4_K": 27, "Q8_0": 10, "Q6_K": 9])
    #expect(try file.string("general.architecture") == "gemma3")
    #expect(try file.integer("gemma3.attention.key_length") == 256)
    #expect(try file.float("gemma3.rope.freq_base") == 1_000_000)
    #expect(file.value("tokenizer.chat_template") == nil)

    let tokens = try file.array("tokenizer.ggml.tokens")
    #expect(tokens.count == 262_144)
    for (index, text) in [0: "<pad>", 63: "<unused57>", 64: "<unused58>", 1000: "put", 12345: "Tag", 262_143: "<unused6241>"] {
      guard case .string(let token) = tokens[index] else { throw Unexpected() }
      #expect(token == text)
    }
    #expect(try file.array("tokenizer.ggml.scores")[12345].float == -11851)

    let query = try file.weight("blk.0.attn_q.weight", rows: 1024, columns: 640)
    #expect(query.format == .q5_0 && Array(query.bytes.prefix(8)) == [0xC0, 0x17, 0x72, 0x0B, 0x47, 0xDD, 0x3E, 0x64])
    let down = try file.weight("blk.7.ffn_down.weight", rows: 640, columns: 2048)
    #expect(down.format == .q6_K && down.bytes.count == 1_075_200)
    #expect(try file.floats("output_norm.weight").prefix(4) == [7.125, 9.5625, 47, 145])
  }
}
