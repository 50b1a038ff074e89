// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

import Foundation
import MartletAttention
import MartletCPU
import MartletCore
import MartletFormats
import MartletModels
import MartletTestSupport
import Testing

/// Files that say something else than the formula: an error that names the key or the tensor, never wrong text.
@Suite("Loading a model")
struct LoadingTests {
  private func message(_ model: TinyModel) throws -> String {
    let file = try model.file()
    do {
      _ = try ModelHarness(file, backend: "VANILLA")
      return "no error"
    } catch {
      return "\(error)"
    }
  }

  @Test("names an architecture that it does not know, and those that it knows")
  func unknownArchitecture() throws {
    var model = TinyModel(.llama, seed: 1)
    model.overrides["general.architecture"] = .string("mamba")
    let message = try message(model)
    #expect(message.contains("\"mamba\"") && message.contains(ModelRegistry.builtIn.names.joined(separator: ", ")), "\(message)")
  }

  @Test(
    "names a key that is missing",
    arguments: [
      "llama.block_count", "llama.embedding_length", "llama.feed_forward_length", "llama.attention.head_count", "llama.context_length",
      "llama.attention.layer_norm_rms_epsilon",
    ])
  func missingKey(key: String) throws {
    var model = TinyModel(.llama, seed: 1)
    model.overrides[key] = .some(nil)
    let message = try message(model)
    #expect(message.contains(key), "\(message)")
  }

  @Test(
    "names a key whose value cannot be",
    arguments: [
      ("llama.block_count", GGUFWriter.Value.uint32(0)), ("llama.block_count", .uint32(1 << 24)),
      ("llama.rope.scaling.attn_factor", .float32(0.5)), ("llama.attention.head_count_kv", .uint32(3)),
      ("llama.rope.dimension_count", .uint32(7)), ("llama.rope.dimension_count", .uint32(64)),
      ("llama.rope.freq_base", .float32(-1)), ("llama.rope.scaling.type", .string("spiral")),
      ("llama.rope.scaling.yarn_attn_factor", .float32(0.5)), ("llama.rope.scaling.yarn_ext_factor", .float32(0.5)),
      ("llama.rope.scaling.yarn_log_multiplier", .float32(0.1)),
      ("llama.attention.head_count_kv", .array(.uint32, [.uint32(2), .uint32(4)])),
      ("llama.attention.head_count_kv", .array(.uint32, [.uint32(2)])), ("llama.attention.head_count_kv", .array(.uint32, [])),
      ("llama.feed_forward_length", .array(.string, [.string("a"), .string("a")])), ("llama.embedding_length", .uint64(1 << 40)),
      ("llama.attention.layer_norm_rms_epsilon", .float32(.nan)), ("llama.attention.head_count", .string("four")),
    ])
  func impossibleValue(key: String, value: GGUFWriter.Value) throws {
    var model = TinyModel(.llama, seed: 1)
    model.overrides[key] = value
    let message = try message(model)
    #expect(message.contains(key) || (key == "llama.embedding_length" && message.contains(key)), "\(message)")
  }

  @Test("names a tensor that is missing, one of the wrong shape, and one that the formula does not use")
  func tensors() throws {
    var model = TinyModel(.llama, seed: 1)
    model.removeTensor("blk.1.ffn_up.weight")
    #expect(try message(model).contains("blk.1.ffn_up.weight"))

    model = TinyModel(.llama, seed: 1)
    model.removeTensor("blk.0.attn_norm.weight")
    model.addVector("blk.0.attn_norm.weight", [1, 2, 3])
    #expect(try message(model).contains("blk.0.attn_norm.weight"))

    model = TinyModel(.llama, seed: 1)
    model.addVector("blk.0.attn_q_norm.weight", Array(repeating: 0.5, count: 32))
    #expect(try message(model).contains("blk.0.attn_q_norm.weight"))

    // One bias alone: the others are missing.
    model = TinyModel(.llama, seed: 1)
    model.addVector("blk.0.attn_q.bias", Array(repeating: 0.5, count: 128))
    #expect(try message(model).contains("blk.0.attn_k.bias"))
  }

  /// As llama.cpp reads them: lists of sizes of layers, a `vocab_size` beside the tokens, a pattern of windows in numbers.
  @Test("reads lists with one value for all layers, and vocab_size as what is only said")
  func lists() throws {
    let tokens: [Int32] = [1, 2, 3]
    let plain = TinyModel(.llama, seed: 1)
    let expected = try ModelHarness(plain.file(), backend: "VANILLA").logits(tokens)
    var model = plain
    model.overrides["llama.attention.head_count"] = .array(.int32, [.int32(4), .int32(4)])
    model.overrides["llama.attention.head_count_kv"] = .array(.uint32, [.uint32(2), .uint32(2)])
    model.overrides["llama.feed_forward_length"] = .array(.uint64, [.uint64(96), .uint64(96)])
    model.overrides["llama.vocab_size"] = .uint32(1000)
    model.overrides["llama.rope.scaling.yarn_ext_factor"] = .float32(-1)
    model.overrides["llama.rope.scaling.yarn_attn_factor"] = .float32(1)
    #expect(try ModelHarness(model.file(), backend: "VANILLA").logits(tokens) == expected)

    var gemma = TinyModel(.gemma3, seed: 1)
    func windows() throws -> [Int?] { try Gemma3.attentionLayers(of: gemma.file(), on: CPUDevice(threads: 1)).map(\.window) }
    gemma.overrides["gemma3.attention.sliding_window_pattern"] = .uint32(3)
    #expect(try windows() == [8, 8, nil, 8, 8, nil, 8])
    gemma.overrides["gemma3.attention.sliding_window_pattern"] = .uint32(0)
    #expect(try windows() == [8, 8, 8, 8, 8, 8, 8])
    gemma.overrides["gemma3.attention.sliding_window_pattern"] = .array(.int32, [1, 0, 1, 0, 1, 1, 0].map { .int32($0) })
    #expect(try windows() == [8, nil, 8, nil, 8, 8, nil])
    gemma.overrides["gemma3.attention.sliding_window_pattern"] = .array(.bool, [1, 0, 1, 0, 1, 1, 0].map { .bool($0 == 1) })
    #expect(try windows() == [8, nil, 8, nil, 8, 8, nil])
    gemma.overrides["gemma3.attention.sliding_window_pattern"] = .array(.int32, [1, 0, 2, 0, 1, 1, 0].map { .int32($0) })
    #expect(throws: (any Error).self) { try windows() }
  }

  /// llama.cpp multiplies cosines and sines by the product of both keys, times 1 + 0.1 · ln(factor).
  @Test("multiplies by YaRN's factor under either key")
  func yarnFactor() throws {
    func magnitude(_ keys: [String: Float]) throws -> Double {
      var model = TinyModel(.llama, seed: 1)
      model.overrides["llama.rope.scaling.type"] = .string("yarn")
      model.overrides["llama.rope.scaling.factor"] = .float32(4)
      model.overrides["llama.rope.scaling.original_context_length"] = .uint32(64)
      for (key, value) in keys { model.overrides["llama.rope.scaling.\(key)"] = .float32(value) }
      return try Llama.attentionLayers(of: model.file(), on: CPUDevice(threads: 1))[0].positionalEmbedding!.rope.magnitude
    }
    let usual = 1 + 0.1 * 1.3862943611198906  // ln 4
    #expect(abs(try magnitude([:]) - usual) < 1e-6)
    #expect(abs(try magnitude(["yarn_attn_factor": 0.5]) - 0.5 * usual) < 1e-6)
    #expect(abs(try magnitude(["attn_factor": 0.5, "yarn_attn_factor": 3, "yarn_ext_factor": 1]) - 1.5 * usual) < 1e-6)
  }

  /// The output matrix and RoPE's frequencies may be missing: what lies in another file would be taken for missing.
  @Test("refuses one file of several, though all tensors that must be there are there")
  func onePart() throws {
    var model = TinyModel(.llama, seed: 1)
    model.overrides["split.count"] = .uint16(2)
    model.overrides["split.no"] = .uint16(0)
    #expect(try message(model).contains("split.count = 2: this is one file of several"))
    model.overrides["split.count"] = .uint16(1)
    #expect(try message(model) == "no error")
  }

  @Test("keeps one matrix in memory where the file holds the embedding twice, and both where they differ")
  func outputMatrix() throws {
    let tied = TinyModel(.llama, seed: 1)
    var twice = tied
    twice.matrices["output.weight"] = tied.matrices["token_embd.weight"]
    #expect(try tied.file().sharesEmbedding() && twice.file().sharesEmbedding())
    let tokens: [Int32] = [1, 2, 3]
    let expected = try ModelHarness(tied.file(), backend: "VANILLA").logits(tokens)
    #expect(try ModelHarness(twice.file(), backend: "VANILLA").logits(tokens) == expected)

    twice.matrices["output.weight"]!.values[twice.matrices["output.weight"]!.values.count - 1] += 100
    #expect(try !twice.file().sharesEmbedding())
    #expect(try ModelHarness(twice.file(), backend: "VANILLA").logits(tokens).last!.last! != expected.last!.last!)
  }

  @Test("refuses a Gemma 3 with soft caps")
  func softCaps() throws {
    var model = TinyModel(.gemma3, seed: 1)
    model.overrides["gemma3.final_logit_softcapping"] = .float32(30)
    #expect(try message(model).contains("final_logit_softcapping"))
  }

  @Test("tells how far it is, up to all")
  func progress() throws {
    let file = try TinyModel(.gemma3, seed: 1).file()
    let device = try CPUDevice(threads: 1)
    var shares: [Double] = []
    let context = AttentionContext(device: device, kvCache: nil, maxNumRequests: 1, maxNumTokens: 8)
    _ = try Gemma3.load(
      file, in: ModelContext(attention: context, attentionBackend: VanillaAttention.self, maxLogitRows: 1) { shares.append($0) })
    #expect(shares == shares.sorted() && shares.count > 10 && shares.last == 1, "\(shares)")
  }

  @Test("describes attention layers without loading the large weights")
  func specs() throws {
    let layers = try Gemma3.attentionLayers(of: TinyModel(.gemma3, seed: 1).file(), on: CPUDevice(threads: 1))
    #expect(layers.map(\.window) == [8, 8, 8, 8, 8, nil, 8])
    #expect(layers[0].positionalEmbedding?.rope.theta == 10000 && layers.allSatisfy { $0.queryNorm != nil && $0.keyNorm != nil })
  }
}

#if os(Linux)
/// What a model takes while it is loaded.
@Suite("Loading a weight")
struct WeightMemoryTests {
  @Test("leaves none of the file's pages in memory, and the values right", arguments: [WeightFormat.f32, .q8_0, .q4_1])
  func pagesAreGivenBack(format: WeightFormat) throws {
    let rows = 1040, columns = 8192, byteCount = rows * format.byteCount(ofRow: columns)
    var random = SeededGenerator(seed: 9)
    var bytes = (0..<byteCount / 8).map { _ in UInt64.random(in: .min ... .max, using: &random) }.withUnsafeBytes { [UInt8]($0) }
    // Halves, and floats, that are numbers.
    for block in stride(from: 0, to: byteCount, by: format.blockByteCount) {
      for byte in stride(from: 1, through: 3, by: 2) { bytes[block + byte] &= 0x3B }
    }
    var writer = GGUFWriter()
    writer.addTensor("weight", type: GGUFTensorType(format), shape: [rows, columns], bytes: bytes)
    let path = FileManager.default.temporaryDirectory.appendingPathComponent("martlet-" + UUID().uuidString).path
    try writer.write(toPath: path)
    defer { try? FileManager.default.removeItem(atPath: path) }

    let weight = try GGUFFile(path: path).weight("weight"), address = try #require(weight.bytes.baseAddress)
    #expect(weight.bytes.elementsEqual(bytes))
    #expect(try residentByteCount(ofFileMapAt: address) >= byteCount, "what was just read is in memory")
    let device = try CPUDevice(threads: 2), prepared = try device.prepare([weight])
    // The system maps neighbours of a page that is read, up to 64 KiB of them.
    #expect(try residentByteCount(ofFileMapAt: address) <= 1 << 17)

    // The last row is in a group that a row alone is not.
    let alone = try device.prepare([try #require(weight.rows(rows - 1..<rows))])
    var values: [[Float]] = []
    for (weight, row) in [(prepared, rows - 1), (alone, 0)] {
      let token = try device.makeTensor(Shape(1), .i32), output = try device.makeTensor(Shape(1, columns), .f32)
      token.unsafeHostPointer(to: Int32.self)![0] = Int32(row)
      device.tensorKernels.embed(tokens: token, weight: weight, scale: 1, output: output, on: device.makeQueue())
      values.append(Array(output.unsafeHostPointer(to: Float.self)!))
    }
    #expect(values[0] == values[1])
  }
}
#endif
