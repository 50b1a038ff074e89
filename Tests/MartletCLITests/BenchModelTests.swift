// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

import Foundation
import Martlet
import MartletCLI
import MartletCPU
import MartletCore
import MartletTestSupport
import Synchronization
import Testing

/// A tiny Llama that writes 3 tokens behind a prompt of 5, watched.
private struct WatchedRun {
  static let threads = 2
  let model = TinyModel(.llama, seed: 5)
  let steps: [StepRecorder.Step]
  let weights: [WeightDescription]
  let tokenIDs: [Int]

  init() async throws {
    let recorder = StepRecorder(workerCount: Self.threads)
    let device = ObservedDevice(try CPUDevice(threads: Self.threads, observer: recorder), observer: recorder)
    var configuration = Self.configuration(device)
    configuration.stepObserver = recorder
    let llm = try LLM(file: model.file(), configuration: configuration)
    recorder.start()
    tokenIDs = try await Self.generate(llm)
    steps = recorder.stop()
    weights = device.weights
    await llm.shutdown()
  }

  static func configuration(_ device: any Device) -> EngineConfiguration {
    EngineConfiguration(device: device, maxBatchSize: 2, maxNumTokens: 16, targetStepTime: nil)
  }

  static func generate(_ llm: LLM) async throws -> [Int] {
    try await llm.generate(.tokenIDs([10, 20, 30, 40, 50]), sampling: SamplingParams(maxTokens: 3, ignoresEndTokens: true)).output()
      .tokenIDs
  }
}

/// A device that counts what it is asked for beside its kernels.
private final class CountingDevice: Device {
  private let base: CPUDevice
  private let count = Mutex((populated: 0, reserved: 0))
  var populated: Int { count.withLock { $0.populated } }
  var reserved: Int { count.withLock { $0.reserved } }

  init() throws { base = try CPUDevice(threads: 1) }

  var name: String { base.name }
  var summary: String { base.summary }
  var availableByteCount: Int { base.availableByteCount }
  var activations: [Activations] { base.activations }
  var tensorKernels: any TensorKernels { base.tensorKernels }
  var attentionKernels: any AttentionKernels { base.attentionKernels }
  func makeBuffer(byteCount: Int) throws(DeviceError) -> DeviceBuffer { try base.makeBuffer(byteCount: byteCount) }
  func makeHostBuffer<Element>(of type: Element.Type, count: Int) throws(DeviceError) -> HostBuffer<Element> {
    try base.makeHostBuffer(of: type, count: count)
  }
  func makeQueue() -> any DeviceQueue { base.makeQueue() }
  func prepare(_ parts: [Weight], activations: Activations) throws(DeviceError) -> any PreparedWeight {
    try base.prepare(parts, activations: activations)
  }
  func preparedByteCount(_ format: WeightFormat, rows: Int, columns: Int) -> Int {
    base.preparedByteCount(format, rows: rows, columns: columns)
  }
  func populate(_ tensor: Tensor) { count.withLock { $0.populated += 1 } }
  func reserve(productRows: Int) { count.withLock { $0.reserved += productRows } }
  func service<Service>(_ type: Service.Type) -> Service? { base.service(type) }
}

@Suite("Steps that are watched")
struct WatchedStepTests {
  @Test("have the memory that steps without a watch have")
  func memory() async throws {
    let counting = try CountingDevice()
    let llm = try LLM(
      file: TinyModel(.llama, seed: 5).file(),
      configuration: WatchedRun.configuration(ObservedDevice(counting, observer: StepRecorder(workerCount: 1))))
    #expect(counting.populated > 0 && counting.reserved == 16)
    await llm.shutdown()
  }

  @Test("have the products, the attention and the bytes that a model's shapes say")
  func counts() async throws {
    let run = try await WatchedRun()
    try #require(run.steps.count == 3)
    #expect(run.steps.map(\.tokens) == [5, 1, 1] && run.steps.map(\.contexts) == [1, 0, 0] && run.steps.map(\.generations) == [0, 1, 1])
    // Of each of the two layers: queries, keys and values of 4 + 2 + 2 heads of 32, the way back, gate and up, down. Then the vocabulary, of
    // which one row is asked for in every step.
    let layer = [(rows: 8 * 32, columns: 64), (rows: 64, columns: 4 * 32), (rows: 2 * 96, columns: 64), (rows: 64, columns: 96)]
    let vocabulary = (rows: 259, columns: 64)
    for (step, tokens, pairs, keys) in [(0, 5, 15, 5), (1, 1, 6, 6), (2, 1, 7, 7)] {
      let breakdown = StepBreakdown([run.steps[step]], weights: run.weights, threads: WatchedRun.threads)
      let perToken = 2 * layer.reduce(0) { $0 + 2 * $1.rows * $1.columns }
      #expect(breakdown.productOperations == Double(tokens * perToken + 2 * vocabulary.rows * vocabulary.columns))
      // A product of a query with a key and of a weight with a value, 32 dims each, for 4 heads in 2 layers.
      #expect(breakdown.attentionOperations == Double(2 * 4 * (2 * 32 + 2 * 32) * pairs))
      // bf16 keys and values of 2 heads in 2 layers.
      #expect(breakdown.cacheBytes == Double(2 * 2 * (32 + 32) * 2 * keys))
      // float32 in groups of 16 rows, whose 259 make 272; and the rows of the embedding that the step's tokens have.
      let matrices = 2 * layer.reduce(0) { $0 + 4 * $1.rows * $1.columns } + 4 * 272 * 64
      let embedded = Double(tokens) * Double(4 * 272 * 64) / 259
      #expect(abs(breakdown.weightBytes - Double(matrices) - embedded) < 1e-6)
      #expect(breakdown.tokensPerStep == Double(tokens) && breakdown.steps == 1)
    }
  }

  @Test("have a row for each kernel and shape, named")
  func rows() async throws {
    let run = try await WatchedRun()
    let rows = StepBreakdown(Array(run.steps[1...]), weights: run.weights, threads: WatchedRun.threads).rows
    let products = rows.filter { $0.kind == .product }
    #expect(Set(products.compactMap(\.weight)) == ["256x64 F32", "64x128 F32", "192x64 F32", "64x96 F32", "259x64 F32"])
    #expect(products.allSatisfy { $0.kernel == "product" && $0.gflops ?? 0 > 0 && $0.gigabytesPerSecond ?? 0 > 0 })
    let calls = Dictionary(rows.map { ($0.weight ?? $0.kernel, $0.calls) }) { $0 + $1 }
    #expect(calls["256x64 F32"] == 2 && calls["259x64 F32"] == 1)
    // A norm before the vocabulary: those of the layers, their gates and sums are the products' own.
    #expect(calls["rmsNorm"] == 1 && calls["add"] == nil && calls["gatedActivation"] == nil)
    #expect(calls["append"] == 2 && calls["attend"] == 2 && calls["embed"] == 1 && calls["gatherRows"] == 1)
    // float32 weights read inputs as they are.
    #expect(!rows.contains { $0.kind == .coding })
    #expect(Set(rows.map(\.kind)) == [.product, .norm, .append, .attend, .gather])
  }

  @Test("are trees: runs lie in calls, calls and choices in steps, one behind the other, and the parts of a step are all of it")
  func nesting() async throws {
    let run = try await WatchedRun()
    func holds(_ outer: StepRecorder.Span, _ inner: [StepRecorder.Span]) -> Bool {
      inner.allSatisfy { outer.begin <= $0.begin && $0.begin <= $0.end && $0.end <= outer.end }
        && zip(inner, inner.dropFirst()).allSatisfy { $0.end <= $1.begin }
    }
    for step in run.steps {
      #expect(holds(step.span, step.calls.map(\.span)) && holds(step.span, step.samplings) && step.samplings.count == 1)
      for call in step.calls {
        #expect(holds(call.span, call.runs.map(\.span)) && !call.runs.isEmpty, "\(call.call.name)")
        for one in call.runs {
          #expect((1...min(one.taskCount, WatchedRun.threads)).contains(one.shares.count))
          for share in one.shares {
            #expect(holds(one.span, [share.span]) && share.busy <= share.span.end - share.span.begin)
          }
        }
      }
      let breakdown = StepBreakdown([step], weights: run.weights, threads: WatchedRun.threads)
      let parts = breakdown.rows.reduce(0) { $0 + $1.seconds } + breakdown.samplingSeconds + breakdown.otherSeconds
      #expect(abs(parts - breakdown.stepSeconds) < 1e-9 && breakdown.otherSeconds >= 0 && breakdown.samplingSeconds > 0)
      #expect(breakdown.rows.allSatisfy { $0.busy >= 0 && $0.busy <= 1 + 1e-9 })
      #expect(breakdown.forkWaitShare >= 0 && breakdown.aloneWaitShare >= 0 && breakdown.forkWaitShare + breakdown.aloneWaitShare <= 1)
    }
  }

  @Test("give the tokens of those that are not")
  func tokens() async throws {
    let run = try await WatchedRun()
    let llm = try LLM(file: run.model.file(), configuration: WatchedRun.configuration(CPUDevice(threads: WatchedRun.threads)))
    #expect(try await WatchedRun.generate(llm) == run.tokenIDs)
  }

  @Test("code the inputs of integer weights apart from the product, and count both")
  func coding() {
    // A call of 10 µs on two threads: 4 µs of coding on one of them, then 5 µs of a product on both, of which one has 3 µs.
    let coding = StepRecorder.Run(
      part: .coding, taskCount: 1, span: .init(1000, 5000), shares: [.init(worker: 0, span: .init(1000, 5000), busy: 4000)])
    let product = StepRecorder.Run(
      part: .main, taskCount: 4, span: .init(5000, 10000),
      shares: [.init(worker: 0, span: .init(5000, 10000), busy: 5000), .init(worker: 1, span: .init(6000, 9000), busy: 3000)])
    let call = StepRecorder.Call(
      call: KernelCall(.product, "product", rows: 1, weight: 0, operations: 6000, byteCount: 3000), span: .init(500, 10500),
      runs: [coding, product])
    let step = StepRecorder.Step(span: .init(0, 20000), generations: 1, tokens: 1, calls: [call], samplings: [.init(12000, 14000)])
    let weight = WeightDescription(rows: 30, columns: 100, formats: [.q4_1, .q8_0], byteCount: 3000)
    let breakdown = StepBreakdown([step, step], weights: [weight], threads: 2)
    #expect(breakdown.rows.map(\.kind) == [.product, .coding] && breakdown.rows.map(\.weight) == ["30x100 Q4_1+Q8_0", nil])
    func isNear(_ a: Double?, _ b: Double) -> Bool { a.map { abs($0 - b) <= 1e-9 * b } ?? false }
    #expect(isNear(breakdown.stepSeconds, 20e-6) && isNear(breakdown.rows[0].seconds, 6e-6) && isNear(breakdown.rows[1].seconds, 4e-6))
    #expect(isNear(breakdown.rows[0].busy, 8.0 / 12) && isNear(breakdown.rows[1].busy, 0.5))
    #expect(isNear(breakdown.rows[0].gflops, 1) && isNear(breakdown.rows[0].gigabytesPerSecond, 0.5))
    #expect(isNear(breakdown.samplingSeconds, 2e-6) && isNear(breakdown.otherSeconds, 8e-6))
    // In the fork of 5 µs two of ten are idle; one thread waits for the other 15 of the step's 20.
    #expect(isNear(breakdown.forkWaitShare, 2.0 / 40) && isNear(breakdown.aloneWaitShare, 15.0 / 40))
    for words in ["30x100 Q4_1+Q8_0", "coding", "choice of tokens", "5.0 % of their time in forks"] {
      #expect(breakdown.text.contains(words), "\(breakdown.text)")
    }
  }

  @Test("become a trace of slices that nest on their tracks")
  func trace() async throws {
    struct Trace: Decodable {
      struct Event: Decodable {
        var name: String
        var ph: String
        var pid: Int
        var tid: Int
        var ts: Double?
        var dur: Double?
        var cat: String?
      }
      var traceEvents: [Event]
      var displayTimeUnit: String
    }
    let run = try await WatchedRun()
    var trace = StepTrace()
    trace.add(run.steps, named: "a \"name\"", weights: run.weights, threads: WatchedRun.threads)
    trace.add([run.steps[2]], named: "another", weights: run.weights, threads: WatchedRun.threads)
    let events = try JSONDecoder().decode(Trace.self, from: JSONEncoder().encode(trace)).traceEvents
    #expect(Set(events.map(\.ph)) == ["M", "X"] && Set(events.map(\.pid)) == [1, 2])
    let slices = events.filter { $0.ph == "X" }
    let steps = slices.filter { $0.cat == "step" }
    #expect(steps.map(\.name) == ["step of 5 tokens", "step of 1 token", "step of 1 token", "step of 1 token"])
    let kinds = Set(KernelCall.Kind.allCases.map(\.rawValue))
    let calls = slices.filter { kinds.contains($0.cat ?? "") }
    #expect(calls.count == run.steps.reduce(0) { $0 + $1.calls.count } + run.steps[2].calls.count)
    #expect(Set(slices.compactMap(\.cat)).subtracting(kinds) == ["step", "sampling", "run", "worker"])
    #expect(calls.contains { $0.name == "product 259x64 F32" })
    for track in Set(slices.map { [$0.pid, $0.tid] }) {
      var open: [(end: Double, name: String)] = []
      // A slice that begins with another holds it where it is longer. Times are whole nanoseconds, written in microseconds.
      for slice in slices.filter({ [$0.pid, $0.tid] == track }).sorted(by: { ($0.ts ?? 0, -($0.dur ?? 0)) < ($1.ts ?? 0, -($1.dur ?? 0)) })
      {
        let begin = try #require(slice.ts), end = begin + (try #require(slice.dur))
        while let last = open.last, last.end <= begin + 1e-4 { open.removeLast() }
        if let last = open.last { #expect(end <= last.end + 1e-4, "\(slice.name) goes beyond \(last.name)") }
        open.append((end, slice.name))
      }
    }
  }
}

@Suite("What a benchmark of models counts")
struct ModelWorkloadTests {
  @Test(
    "of attention are the pairs that each mask shows",
    arguments: [MaskView.causal, .slidingWindow(3), .slidingWindow(50), .around(4), .full, .custom(window: nil), .custom(window: 2)])
  func pairs(mask: MaskView) {
    func sees(_ query: Int, _ key: Int) -> Bool {
      switch mask {
      case .causal, .custom(window: nil): key <= query
      case .slidingWindow(let window), .custom(window: .some(let window)): key <= query && query - window < key
      case .around(let window): abs(query - key) < window
      case .full: true
      }
    }
    for (queries, keys) in [(1, 1), (1, 9), (5, 5), (4, 11), (11, 11), (0, 5)] {
      let seen = (keys - queries..<keys).map { query in (0..<keys).filter { sees(query, $0) } }
      #expect(mask.visiblePairs(queries: queries, keys: keys) == seen.reduce(0) { $0 + $1.count })
      // A key that no query sees lies before all that some query sees, or behind them.
      #expect(mask.visibleKeys(queries: queries, keys: keys) == Set(seen.joined()).count)
    }
  }

  @Test("are workloads that read as they are written")
  func workloads() throws {
    let workload = try #require(ModelWorkload("8x128+64"))
    #expect(
      workload == ModelWorkload(requests: 8, promptTokens: 128, generatedTokens: 64) && "\(workload)" == "8x128+64"
        && workload.length == 192)
    for text in ["", "8", "8x128", "0x1+1", "1x0+1", "1x1+0", "x1+1", "1x1+1+1", "1x2x3+4", "-1x1+1", "1x1048577+1", "8 x 128+64"] {
      #expect(ModelWorkload(text) == nil, "\(text)")
    }
    let prompts = workload.prompts(vocabularySize: 300, seed: 3, series: 0)
    #expect(
      prompts.count == 8 && prompts.allSatisfy { $0.count == 128 && $0.allSatisfy { (0..<300).contains($0) } } && Set(prompts).count == 8)
    #expect(prompts == workload.prompts(vocabularySize: 300, seed: 3, series: 0))
    #expect(Set(prompts).isDisjoint(with: workload.prompts(vocabularySize: 300, seed: 3, series: 1)))
  }

  @Test("are times from when all have their first token")
  func samples() {
    let sample = ModelSample([[(0.5, 1), (1.5, 2), (2, 1)], [(1, 1), (2.5, 3)], []])
    #expect(sample.firstToken == 0.5 && sample.lastFirstToken == 1 && sample.end == 2.5 && sample.tokens == 8)
    #expect(sample.tokensAfterFirst == 6 && sample.generationSeconds == 1.5)
  }
}

/// `martlet bench model` on the real default model.
@Suite(.serialized) struct BenchModelTests {
  struct Report: Decodable {
    struct Breakdown: Decodable {
      struct Row: Decodable {
        var kind: String
        var kernel: String
        var weight: String?
        var calls: Double
        var seconds: Double
        var share: Double
      }
      var steps: Int
      var tokens_per_step: Double
      var step_s: Double
      var rows: [Row]
      var sampling_s: Double
      var other_s: Double
    }
    struct Result: Decodable {
      var part: String
      var workload: String
      var seconds: Double
      var tokens_per_s: Double
      var whole_s: Double
      var samples: [Double]
      var product_operations: Double
      var attention_operations: Double
      var weight_bytes: Double
      var cache_bytes: Double
      var gflops: Double
      var breakdown: Breakdown
    }
    struct Ceilings: Decodable {
      var f32: Double
      var read_gb_per_s: Double
    }
    struct First: Decodable {
      var tokens: Int
      var seconds: Double
    }
    struct Model: Decodable {
      var model: String
      var file_bytes: Int
      var load_s: Double
      var first_prompt: First
      var ceilings: Ceilings
      var results: [Result]
    }
    var models: [Model]
  }

  private let model: String

  init() async throws { model = try await RealModelFile.path("smollm2-135m") }

  @Test func `JSON has each workload with its times, what was counted and where the time went, and a trace is written beside it`() throws {
    let folder = try TemporaryFolder()
    let result = try CommandLine.run([
      "bench", "model", "--model", model, "--prompts", "20", "--depths", "0,40", "--generated", "4", "--concurrency", "3",
      "--tokens-at-once", "6",
      "--repeats", "3", "--threads", "2", "--json", "--trace", folder.path + "/trace.json",
    ])
    #expect(result.status == 0, "\(result.error)")
    let found = try #require(try result.json(Report.self).models.first)
    #expect(found.file_bytes == 98_362_432 && found.load_s > 0 && found.first_prompt.tokens == 512 && found.first_prompt.seconds > 0)
    #expect(found.ceilings.f32 > 0.1 && found.ceilings.read_gb_per_s > 0.01)
    #expect(found.results.map(\.part) == ["prompt", "generation", "generation", "concurrency"])
    #expect(found.results.map(\.workload) == ["1x20+1", "1x1+5", "1x40+5", "3x6+6"])
    for result in found.results {
      #expect(result.samples.count == 3 && result.seconds == result.samples.sorted()[1] && result.whole_s >= result.samples.min()!)
      let parts = result.breakdown.rows.reduce(0) { $0 + $1.seconds } + result.breakdown.sampling_s + result.breakdown.other_s
      #expect(abs(parts - result.breakdown.step_s) < 1e-6)
      #expect(result.breakdown.rows.contains { $0.kind == "coding" } && result.breakdown.rows.contains { $0.kind == "attend" })
      #expect(
        abs(result.gflops * result.seconds * 1e9 / (result.product_operations + result.attention_operations) - 1) < 1e-9
          && result.weight_bytes > 0)
    }
    // One prompt is one step; four tokens after the first are four, and so are five, of all three requests, behind their prompts.
    #expect(found.results.map(\.breakdown.steps) == [1, 4, 4, 5])
    #expect(found.results.map(\.breakdown.tokens_per_step) == [20, 1, 1, 3])
    // 9 heads of 64 on 3 in 30 layers; a step behind 40 tokens sees 41 to 44 keys.
    #expect(found.results[2].cache_bytes == Double(30 * 3 * 128 * 2 * (41 + 42 + 43 + 44)))
    #expect(found.results[2].attention_operations == Double(30 * 9 * 256 * (41 + 42 + 43 + 44)))
    let trace =
      try JSONSerialization.jsonObject(with: Data(contentsOf: URL(fileURLWithPath: folder.path + "/trace.json"))) as? [String: Any]
    #expect((trace?["traceEvents"] as? [Any])?.count ?? 0 > 1000)
  }

  @Test func `a table is for people`() throws {
    let folder = try TemporaryFolder(), plot = folder.path + "/columns.svg"
    let result = try CommandLine.run([
      "bench", "model", "--model", model, "--prompts", "8", "--depths", "0", "--generated", "2", "--concurrency", "none", "--repeats", "1",
      "--plot", plot,
    ])
    #expect(result.status == 0, "\(result.error)")
    for words in ["1x8+1", "tokens/s", "of int8", "of read", "product", "coding", "choice of tokens", "threads wait"] {
      #expect(result.output.contains(words), "\(result.output)")
    }
    #expect(result.output.contains("of bf16 tiles") == result.output.contains("avx512amx"), "\(result.output)")
    // A column for each workload, each with its number; XML that can be read.
    let drawn = try Data(contentsOf: URL(fileURLWithPath: plot)), svg = String(decoding: drawn, as: UTF8.self)
    #expect(svg.components(separatedBy: "<title>").count == 3 && svg.contains(">prompts<") && svg.contains(">1x1+3<"), "\(svg)")
    #expect(Self.isBalanced(svg), "\(svg)")
    let nowhere = try CommandLine.run([
      "bench", "model", "--model", model, "--prompts", "2", "--depths", "none", "--concurrency", "none", "--repeats", "1", "--plot",
      folder.path + "/none/columns.svg",
    ])
    #expect(nowhere.status == 1 && nowhere.error.contains("cannot be written") && nowhere.output.contains("1x2+1"), "\(nowhere.error)")
  }

  /// Whether every element that is opened is closed, in order.
  private static func isBalanced(_ xml: String) -> Bool {
    var open: [Substring] = []
    for piece in xml.split(separator: "<").dropFirst(xml.hasPrefix("<") ? 0 : 1) {
      guard let end = piece.firstIndex(of: ">") else { return false }
      let tag = piece[..<end]
      if tag.hasPrefix("/") {
        if open.popLast() != tag.dropFirst() { return false }
      } else if !tag.hasSuffix("/") {
        open.append(tag.prefix { $0 != " " })
      }
    }
    return open.isEmpty
  }

  @Test func `turns are taken as they are asked for`() throws {
    struct Answer: Decodable {
      var load_s: Double?
      var seconds: Double?
      var time_to_first_token_s: Double?
      var tokens_after_first: Int?
      var error: String?
    }
    let result = try CommandLine.run(
      ["bench", "model", "--turns", "--model", model, "--concurrency", "2", "--tokens-at-once", "8"],
      input: "{\"run\": \"2x8+4\"}\nnonsense\n{\"run\": \"1x100000+1\"}\n{\"run\": \"1x4+3\"}\n")
    #expect(result.status == 0, "\(result.error)")
    let answers = try result.output.split(separator: "\n").map { try JSONDecoder().decode(Answer.self, from: Data($0.utf8)) }
    try #require(answers.count == 5, "\(result.output)")
    #expect(answers[0].load_s ?? 0 > 0)
    for (answer, tokens) in [(answers[1], 6), (answers[4], 2)] {
      #expect(
        answer.error == nil && answer.seconds ?? 0 >= answer.time_to_first_token_s ?? .infinity && answer.tokens_after_first ?? 9 <= tokens)
    }
    #expect(answers[2].error?.contains("nonsense") == true && answers[3].error?.contains("100000") == true)
  }

  @Test(arguments: [
    (["--prompts", "0"], "--prompts"), (["--prompts", "a"], "a"), (["--depths", "-1"], "--depths"), (["--repeats", "0"], "--repeats"),
    (["--prompts", "none", "--depths", "none", "--concurrency", "none"], "nothing is left"),
    (["--turns", "--model", "a", "--model", "b"], "one --model"), (["--turns", "--trace", "x"], "no trace"),
    (["--turns", "--plot", "x"], "no plot"),
  ])
  func `bench model says what is wrong`(arguments: [String], words: String) throws {
    let result = try CommandLine.run(["bench", "model"] + arguments)
    #expect(result.status == 64 && result.error.contains(words), "\(result.error)")
  }
}
