// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

import Martlet
import MartletCPU
import MartletCore
import MartletFormats
import MartletModels
import MartletTestSupport
import Synchronization
import Testing

/// A CPU that takes weights for every kind of products, computes exact ones, and knows which weights were prepared for which.
private final class RecordingDevice: Device {
  let activations = Activations.allCases
  private let prepared = Mutex<[String: Activations]>([:])
  private let cpu: CPUDevice

  init() throws { cpu = try CPUDevice(threads: 1) }

  /// By the weights' names in their files.
  var weights: [String: Activations] { prepared.withLock { $0 } }

  var name: String { "recording" }
  var summary: String { cpu.summary }
  var availableByteCount: Int { cpu.availableByteCount }
  var tensorKernels: any TensorKernels { cpu.tensorKernels }
  var attentionKernels: any AttentionKernels { cpu.attentionKernels }
  func makeBuffer(byteCount: Int) throws(DeviceError) -> DeviceBuffer { try cpu.makeBuffer(byteCount: byteCount) }
  func makeHostBuffer<Element>(of type: Element.Type, count: Int) throws(DeviceError) -> HostBuffer<Element> {
    try cpu.makeHostBuffer(of: type, count: count)
  }
  func makeQueue() -> any DeviceQueue { cpu.makeQueue() }
  func prepare(_ parts: [Weight], activations: Activations) throws(DeviceError) -> any PreparedWeight {
    let names = parts.map(\.name)
    prepared.withLock { prepared in for name in names { prepared[name] = activations } }
    return try cpu.prepare(parts, activations: .exact)
  }
  func preparedByteCount(_ format: WeightFormat, rows: Int, columns: Int) -> Int {
    cpu.preparedByteCount(format, rows: rows, columns: columns)
  }
  func service<Service>(_ type: Service.Type) -> Service? { cpu.service(type) }
}

/// How products round rows, as an engine is asked for it. That no bit depends on neighbours then is tested here of whole engines, in `LawTests` of
/// every logit, and in `EmbedTests` of vectors.
@Suite("Activations", .timeLimit(.minutes(45)))
struct ActivationsTests {
  private static let model = TinyModel(.llama, seed: 81)

  @Test("that the device does not have are refused, with those that it has")
  func refused() throws {
    let error = #expect(throws: LLMError.self) { try Tiny.llm(Self.model, activations: .bf16, instructionSet: "portable") }
    #expect(error?.code == .invalidConfiguration && error?.property == "activations")
    let words = error?.description ?? ""
    #expect(words.contains("activations is bf16") && words.contains("cpu, portable") && words.contains("(exact, int8)"), "\(words)")
    _ = try Tiny.llm(Self.model, instructionSet: "portable")

    var configuration = EngineConfiguration(device: try CPUDevice(instructionSet: "portable", threads: 1))
    #expect(configuration.activations == .exact)
    configuration.activations = .bf16
    #expect(throws: LLMError.self) { try LLM(model: TinyCheckpoint.file("bert"), configuration: configuration) }
  }

  @Test("are those of every weight but of the routers of experts, which choose")
  func weights() throws {
    for name in ["qwen3-moe", "deepseek-v2", "gemma4-moe"] {
      for activations in Activations.allCases {
        let device = try RecordingDevice()
        let source = try ModelFiles(path: TinyCheckpoint.file(name) + "/model.gguf").source(for: .builtIn)
        _ = try EngineParts(source, configuration: EngineConfiguration(device: device, activations: activations), progress: nil)
        let weights = device.weights
        #expect(weights.keys.contains { $0.contains("ffn_gate_inp") } && weights.keys.contains { $0.contains("ffn_down_exps") })
        for (weight, found) in weights {
          #expect(found == (weight.contains("ffn_gate_inp") ? .exact : activations), "\(name), \(activations): \(weight)")
        }
      }
    }
    let device = try RecordingDevice()
    _ = try LLM(
      model: TinyCheckpoint.file("bert") + "/model.gguf", configuration: EngineConfiguration(device: device, activations: .bf16))
    #expect(!device.weights.isEmpty && device.weights.values.allSatisfy { $0 == .bf16 })
  }

  /// With twenty neighbours generations are enough for tiles, alone they are not.
  @Test("give a request the same bits alone, beside few and many, and in chunks of any length", arguments: Tiny.activations)
  func oneArithmetic(activations: Activations) async throws {
    let sampling = SamplingParams(maxTokens: 24, logprobs: 5, ignoresEndTokens: true)
    let tokens = Tiny.prompt(90, seed: 82)
    let others = (0..<20).map { Prompt.tokenIDs(Tiny.prompt(1 + 7 * $0, seed: 83 + UInt64($0))) }
    func bits(_ llm: LLM, beside others: [Prompt]) async throws -> [UInt32] {
      let generations = try llm.generate([Prompt.tokenIDs(tokens)] + others, sampling: sampling)
      var outputs: [GenerationOutput] = []
      for generation in generations { outputs.append(try await generation.output()) }
      return outputs[0].bits + (try await llm.score(tokens)).map(\.bitPattern)
    }
    func engine(chunk: Int, threads: Int) throws -> LLM {
      try Tiny.llm(
        Self.model, activations: activations, maxBatchSize: 24, maxNumTokens: 512, chunkSize: chunk, reusesPrefixes: false,
        threads: threads)
    }
    let alone = try await bits(engine(chunk: 512, threads: 1), beside: [])
    for chunk in [1, 7, 512] {
      let llm = try engine(chunk: chunk, threads: 2)
      for count in [0, 3, 20] {
        #expect(try await bits(llm, beside: Array(others.prefix(count))) == alone, "chunks of \(chunk), beside \(count)")
      }
    }
  }

  /// bfloat16 keeps eight bits: an operand is off by up to 1/512, a sum of many, relative to its size, by about as much. Logits of this model are
  /// around 8, so that what they are off by is in the hundredths, and the text's mean with it.
  @Test(
    "in bf16 reach the products: other bits than exact ones, of nearly the same values",
    .enabled(if: Tiny.activations.contains(.bf16), "this machine's device has no products in bf16"))
  func rounding() async throws {
    let tokens = Tiny.prompt(90, seed: 82)
    let exact = try await Tiny.llm(Self.model).score(tokens)
    let rounded = try await Tiny.llm(Self.model, activations: .bf16).score(tokens)
    let mean = zip(exact, rounded).reduce(0) { $0 + abs($1.0 - $1.1) } / Float(exact.count)
    #expect(exact != rounded && mean < 0.1, "\(mean)")
  }
}
