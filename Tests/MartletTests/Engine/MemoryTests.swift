// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

import Martlet
import MartletCPU
import MartletCore
import MartletFormats
import MartletKVCache
import MartletModels
import MartletTestSupport
import Synchronization
import Testing

/// A CPU that says how much memory it has, and counts what is prepared on it.
private final class LimitedDevice: Device {
  let availableByteCount: Int
  let preparedBytes = Atomic<Int>(0)
  private let cpu: CPUDevice

  init(availableByteCount: Int) throws {
    self.availableByteCount = availableByteCount
    cpu = try CPUDevice(threads: 1)
  }

  var name: String { "small" }
  var summary: String { cpu.summary }
  var tensorKernels: any TensorKernels { cpu.tensorKernels }
  var attentionKernels: any AttentionKernels { cpu.attentionKernels }
  func makeBuffer(byteCount: Int) throws(DeviceError) -> DeviceBuffer { try cpu.makeBuffer(byteCount: byteCount) }
  func makeHostBuffer<Element>(of type: Element.Type, count: Int) throws(DeviceError) -> HostBuffer<Element> {
    try cpu.makeHostBuffer(of: type, count: count)
  }
  func makeQueue() -> any DeviceQueue { cpu.makeQueue() }
  var activations: [Activations] { cpu.activations }
  func prepare(_ parts: [Weight], activations: Activations) throws(DeviceError) -> any PreparedWeight {
    let prepared = try cpu.prepare(parts, activations: activations)
    preparedBytes.add(prepared.byteCount, ordering: .relaxed)
    return prepared
  }
  func preparedByteCount(_ format: WeightFormat, rows: Int, columns: Int) -> Int {
    cpu.preparedByteCount(format, rows: rows, columns: columns)
  }
  func service<Service>(_ type: Service.Type) -> Service? { cpu.service(type) }
}

@Suite("A model that is too large for the device")
struct MemoryTests {
  /// Less than a sequence of 64 tokens takes, and more than a page of each kind of layer.
  static let cacheBytes = 1 << 15

  private func load(_ files: ModelFiles, on device: LimitedDevice) throws -> LLM {
    try LLM(
      files: files,
      configuration: EngineConfiguration(
        device: device, kvCache: KVCacheConfig(budget: .bytes(Self.cacheBytes)), maxSequenceLength: 64, maxBatchSize: 1))
  }

  /// A GGUF file, a directory, and a file with two equal matrices: all tie the embedding.
  private func models() throws -> [(ModelFiles, vectorBytes: Int)] {
    let model = TinyModel(.gemma3, seed: 21)
    let directory = try ModelFiles(path: TinyCheckpoint.file("qwen3"))
    guard case .directory(let checkpoint) = directory else { return [] }
    let vectors = checkpoint.tensors.filter { $0.shape.count == 1 }.reduce(0) { $0 + 4 * $1.count }
    // The embedding once more, as if it were an output matrix.
    var twice = model
    twice.matrices["output.weight"] = twice.matrices["token_embd.weight"]
    return [
      (.gguf(try GGUFCheckpoint(model.file())), model.vectors.values.reduce(0) { $0 + 4 * $1.count }),
      (directory, vectors),
      (.gguf(try GGUFCheckpoint(twice.file())), model.vectors.values.reduce(0) { $0 + 4 * $1.count }),
    ]
  }

  @Test("is refused before a weight is read, with what it needs and what there is")
  func refused() throws {
    let models = try models()
    #expect(models.count == 3)
    for (files, vectorBytes) in models {
      let roomy = try LimitedDevice(availableByteCount: .max)
      _ = try load(files, on: roomy)
      // What was really prepared, and every vector as float32.
      let weights = roomy.preparedBytes.load(ordering: .relaxed) + vectorBytes

      let device = try LimitedDevice(availableByteCount: weights + Self.cacheBytes - 1)
      let error = #expect(throws: LLMError.self) { try load(files, on: device) }
      let expected = LLMError.modelTooLarge(
        weights: weights, cache: Self.cacheBytes, available: weights + Self.cacheBytes - 1, device: "small")
      #expect(error == expected)
      #expect(device.preparedBytes.load(ordering: .relaxed) == 0)
      let message = "\(expected)"
      #expect(message.contains("\(weights) bytes") && message.contains("\(weights + Self.cacheBytes - 1) free"), "\(message)")

      // One byte more is enough.
      _ = try load(files, on: LimitedDevice(availableByteCount: weights + Self.cacheBytes))
    }
  }

  /// What an error says that a model takes on a device with 1000 bytes free.
  private static func sizes(in error: LLMError?) -> (weights: Int, cache: Int)? {
    guard let error, error.code == .modelTooLarge,
      let match = error.description.firstMatch(
        of: /weights take (\d+) bytes and the key\/value cache at least (\d+), device small has about 1000 free/),
      let weights = Int(match.1), let cache = Int(match.2)
    else { return nil }
    return (weights, cache)
  }

  @Test("is not refused for a budget that its sequences can never use")
  func generousBudget() throws {
    let file = try TinyModel(.gemma3, seed: 21).file()
    func configuration(_ device: LimitedDevice) -> EngineConfiguration {
      EngineConfiguration(
        device: device, kvCache: KVCacheConfig(budget: .bytes(.max)), maxSequenceLength: 64, maxBatchSize: 1)
    }
    let error = #expect(throws: LLMError.self) {
      try LLM(file: file, configuration: configuration(LimitedDevice(availableByteCount: 1000)))
    }
    let (weights, cache) = try #require(Self.sizes(in: error))
    // Two pages of each of seven layers with one head of 32 dims, keys and values in bfloat16, pages of 32 tokens.
    #expect(cache == 2 * 7 * 2 * 32 * 2 * 32)
    _ = try LLM(file: file, configuration: configuration(LimitedDevice(availableByteCount: weights + cache)))
  }

  /// Six experts, three used, of 20 values between their products; 48 in the stream, once. Of DeepSeek 12 values, 36 in the stream, for each token what
  /// the shared experts answer; three heads of 20 + 12 dims for queries, against latents of 24 + 12 in 40, and 16 for values.
  @Test("is refused for what its experts and latents work in, which grows with the tokens of a step")
  func working() throws {
    let latent = 1 + 3 * 32 + 36 + 24 + 4 * 40 + 3 * 20 + 2 * 3 * 24 + 2 * 3 * 16
    for (name, columns, once, maxNumTokens) in [
      ("qwen3-moe", 6 + 3 * 48 + 3 * 60, 48, 16), ("qwen3-moe", 6 + 3 * 48 + 3 * 60, 48, 1000),
      ("deepseek-v2", 6 + 4 * 36 + 3 * 36 + latent, 0, 100),
    ] {
      let source = try ModelRegistry.builtIn.source(HuggingFaceDirectory(path: TinyCheckpoint.file(name)))
      let device = try LimitedDevice(availableByteCount: 1000)
      let error = #expect(throws: LLMError.self) {
        try EngineParts(source, configuration: EngineConfiguration(device: device, maxNumTokens: maxNumTokens), progress: nil)
      }
      let bytes = 4 * (maxNumTokens * columns + once)
      #expect(error?.description.contains("what its layers work in \(bytes), ") == true, "\(error.map(String.init(describing:)) ?? "")")
      #expect(error?.description.contains("take fewer tokens a step (maxNumTokens)") == true)
    }
  }

  /// Of three heads of 20 + 12 dims, 16 for values, in pages of 64 tokens of bf16: the longest sequence has one; and working memory for its keys and for
  /// the queries of a step. W_uk of each head once more, in the checkpoint's bf16.
  @Test("is refused for what expanded prompts take, too")
  func expandedPrompts() throws {
    let source = try ModelRegistry.builtIn.source(HuggingFaceDirectory(path: TinyCheckpoint.file("deepseek-v2")))
    let device = try LimitedDevice(availableByteCount: 1000), maxNumTokens = 100
    func workingBytes(_ form: LatentPrompts) throws -> Int {
      let configuration = EngineConfiguration(device: device, latentPrompts: form, maxSequenceLength: 64, maxNumTokens: maxNumTokens)
      let error = #expect(throws: LLMError.self) { try EngineParts(source, configuration: configuration, progress: nil) }
      let match = try #require(error?.description.firstMatch(of: /what its layers work in (\d+)/))
      return try #require(Int(match.1))
    }
    let layers = try DeepSeek2.attentionLayers(of: source, on: device).count
    let copies = layers * 3 * device.preparedByteCount(.bf16, rows: 20, columns: 24)
    let pages = 64 * 3 * (32 + 16) * 2
    let slab = 64 * (24 + 12 + 16 + 3 * (20 + 32 + 16)), queries = maxNumTokens * 3 * (2 * 32 + 16)
    #expect(try workingBytes(.expanded(leastTokens: 1)) - workingBytes(.absorbed) == copies + pages + 4 * (slab + queries))
  }

  @Test("tells how often each expert was chosen, though counts wrap around")
  func expertTokens() throws {
    let source = try ModelRegistry.builtIn.source(HuggingFaceDirectory(path: TinyCheckpoint.file("qwen3-moe")))
    let runner = try EngineParts(source, configuration: EngineConfiguration(device: CPUDevice(threads: 1)), progress: nil).runner
    var counts: [[Int]] = []
    runner.addExpertTokens(to: &counts)
    #expect(counts == [[0, 0, 0, 0, 0, 0], [0, 0, 0, 0, 0, 0]])
    let load = try #require(runner.model.expertLoads[1].unsafeHostPointer(to: Int32.self))
    load[4] = .max
    runner.addExpertTokens(to: &counts)
    load[4] &+= 5
    load[0] = 3
    runner.addExpertTokens(to: &counts)
    runner.addExpertTokens(to: &counts)
    #expect(counts == [[0, 0, 0, 0, 0, 0], [3, 0, 0, 0, Int(Int32.max) + 5, 0]])
  }

  @Test("is refused with the option's name where numbers are beyond all bounds")
  func absurd() throws {
    let file = try TinyModel(.gemma3, seed: 21).file()
    for pageSize in [0, 3, 1 << 21, 1 << 62] {
      let configuration = EngineConfiguration(
        device: try CPUDevice(threads: 1), kvCache: KVCacheConfig(pageSize: .tokens(pageSize)))
      #expect { try LLM(file: file, configuration: configuration) } throws: { "\($0)".contains("pageSize") }
    }
    let quantised = EngineConfiguration(device: try CPUDevice(threads: 1), quantConfig: QuantConfig(fp8Output: true))
    #expect { try LLM(file: file, configuration: quantised) } throws: { "\($0)".contains("quantConfig.fp8Output") }
    let configuration = EngineConfiguration(device: try CPUDevice(threads: 1), maxNumTokens: 1_000_000_000_000_000_000)
    #expect { try LLM(file: file, configuration: configuration) } throws: { "\($0)".contains("maxNumTokens") }
  }

  @Test("is refused whatever the budget: an automatic cache needs a page of each kind of layer")
  func automaticBudget() throws {
    let device = try LimitedDevice(availableByteCount: 1000)
    let error = #expect(throws: LLMError.self) {
      try LLM(file: TinyModel(.gemma3, seed: 21).file(), configuration: EngineConfiguration(device: device))
    }
    let (_, cache) = try #require(Self.sizes(in: error))
    // Seven layers with one head of 32 dims, keys and values in bfloat16, pages of 32 tokens.
    #expect(cache == 7 * 2 * 32 * 2 * 32)
  }
}
