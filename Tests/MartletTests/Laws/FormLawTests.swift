// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

import Martlet
import MartletFormats
import MartletKVCache
import MartletTestSupport
import Testing

/// A form takes tokens away and does nothing else: what it leaves is chosen as if the others had never been.
@Suite("The law of forms", .serialized, .timeLimit(.minutes(45)))
struct FormLawTests {
  private static let model = TinyModel(.llama, seed: 45)

  /// Keeps what a processor is handed to tokens that are ASCII, and end tokens.
  private static func ascii(_ llm: LLM) -> RequestOptions {
    let ends = llm.tokenizer.endTokens
    return RequestOptions { logits, _ in
      for index in logits.indices where index >= 128 && !ends.contains(Int32(index)) { logits[index] = -.infinity }
    }
  }

  private static func samplings(maxTokens: Int) -> [SamplingParams] {
    let filters = [
      SamplingParams(), SamplingParams(temperature: 20), SamplingParams(temperature: 20, topK: 40),
      SamplingParams(temperature: 20, topP: 0.8), SamplingParams(temperature: 20, minP: 0.1, frequencyPenalty: 0.5),
    ]
    return filters.enumerated().map { index, filter in
      var sampling = filter
      sampling.seed = UInt64(index)
      sampling.maxTokens = maxTokens
      sampling.logprobs = 5
      return sampling
    }
  }

  @Test("A form that allows everything changes no bit")
  func everything() async throws {
    let llm = try Tiny.llm(Self.model)
    for (index, sampling) in Self.samplings(maxTokens: 40).enumerated() {
      let prompt = Prompt.tokenIDs(Tiny.prompt(20, seed: UInt64(index)))
      // A model of bytes also writes what is no UTF-8.
      let free = try await llm.generate(prompt, sampling: sampling, options: Self.ascii(llm)).output()
      var formed = sampling
      formed.form = .regex(#"[\s\S]*"#)
      let output = try await llm.generate(prompt, sampling: formed, options: Self.ascii(llm)).output()
      #expect(output.bits == free.bits && output.text == free.text && output.finishReason == free.finishReason)
    }
  }

  @Test("A form that allows everything changes no bit of a real model's answer", arguments: GoldenTests.models)
  func everythingReal(model: String) async throws {
    let passage = try GoldenRecord(model).passage.tokenIDs
    let llm = try await RealModel.llm(model, context: 256)
    let sampling = SamplingParams(maxTokens: 40, logprobs: 20)
    let free = try await llm.generate(.tokenIDs(Array(passage.prefix(100))), sampling: sampling).output()
    var formed = sampling
    formed.form = .regex(#"[\s\S]*"#)
    #expect(try await llm.generate(.tokenIDs(Array(passage.prefix(100))), sampling: formed).output().bits == free.bits)
  }

  @Test("An answer is the one of a processor that bans what the form does")
  func banned() async throws {
    let llm = try Tiny.llm(Self.model)
    let texts = ["green", "greenish", "grey", "red", "re.d", "größer"]
    let ends = llm.tokenizer.endTokens
    let processor = RequestOptions { logits, context in
      let answer = context.tokenIDs.dropFirst(context.promptTokenCount).map { UInt8($0) }
      let going = texts.filter { $0.utf8.starts(with: answer) }.map { Array($0.utf8.dropFirst(answer.count)) }
      for index in logits.indices {
        let isAllowed = ends.contains(Int32(index)) ? going.contains([]) : going.contains { $0.first.map(Int.init) == index }
        if !isAllowed { logits[index] = -.infinity }
      }
    }
    var answers: Set<String> = []
    for (index, sampling) in Self.samplings(maxTokens: 20).enumerated() {
      for prompt in 0..<4 {
        let prompt = Prompt.tokenIDs(Tiny.prompt(20, seed: UInt64(10 * index + prompt)))
        let banned = try await llm.generate(prompt, sampling: sampling, options: processor).output()
        var formed = sampling
        formed.form = .choice(texts)
        let output = try await llm.generate(prompt, sampling: formed).output()
        #expect(output.bits == banned.bits && output.text == banned.text && texts.contains(output.text))
        answers.insert(output.text)
      }
    }
    #expect(answers.count > 2)
  }

  /// Of every kind, short and long, and some without.
  private static let forms: [AnswerForm?] = [
    .regex("[a-z]{40,60}"), .jsonSchema(#"{"type": "array", "items": {"type": "boolean"}, "minItems": 8, "maxItems": 12}"#), nil,
    .grammar(#"root ::= [0-9]{30,50} "." [a-f]*"#), .choice(["yes", "no", "perhaps"]), .regex("([a-c][0-9]){20,30}"),
  ]

  @Test("An answer of a form is the same alone and among others, after pauses and in chunks")
  func together() async throws {
    let model = Self.model
    var jobs: [(prompt: Prompt, sampling: SamplingParams)] = []
    for index in 0..<60 {
      var sampling = Self.samplings(maxTokens: 60)[index % 5]
      sampling.seed = UInt64(index)
      sampling.form = Self.forms[index % Self.forms.count]
      if sampling.form == nil { sampling.ignoresEndTokens = true }
      // Some begin alike.
      jobs.append((.tokenIDs(Tiny.prompt(40, seed: UInt64(index % 4)) + Tiny.prompt(10 + index, seed: UInt64(index + 100))), sampling))
    }
    let single = try Tiny.llm(model, context: 180, maxBatchSize: 1, maxNumTokens: 160, reusesPrefixes: false)
    // Sixteen that run would take up to 2700 tokens.
    let bytesPerToken = model.numLayers * model.numKVHeads * model.headDim * 2 * 2
    let shared = try Tiny.llm(
      model, budget: .bytes(600 * bytesPerToken), context: 180, maxBatchSize: 16, maxNumTokens: 64, chunkSize: 32,
      capacityPolicy: .maxUtilization)
    let generations = try jobs.map { try shared.generate($0.prompt, sampling: $0.sampling) }
    var pausesOfForms = 0
    for (job, generation) in zip(jobs, generations) {
      let output = try await generation.output()
      let alone = try await single.generate(job.prompt, sampling: job.sampling).output()
      #expect(output.bits == alone.bits && output.text == alone.text && output.finishReason == alone.finishReason)
      if job.sampling.form != nil { pausesOfForms += output.pauses }
    }
    #expect(pausesOfForms > 0, "the room was to be so tight that requests pause")
  }

  @Test("Samples of a prompt share a form, and each is as if it were alone")
  func samples() async throws {
    let llm = try Tiny.llm(Self.model)
    let sampling = SamplingParams(temperature: 20, seed: 7, maxTokens: 60, form: .regex("[a-f]{10,20}"))
    var answers: Set<String> = []
    for generation in try llm.generate("samples", sampling: sampling, count: 6) {
      let output = try await generation.output()
      var alone = sampling
      alone.seed = sampling.seed(ofSample: output.index)
      #expect(output.bits == (try await llm.generate("samples", sampling: alone).output().bits))
      answers.insert(output.text)
    }
    #expect(answers.count == 6)
  }

  @Test("A real model writes JSON of a schema", arguments: GoldenTests.models)
  func realSchema(model: String) async throws {
    let llm = try await RealModel.llm(model, context: 256)
    let schema = """
      {"type": "object", "properties": {"name": {"type": "string", "maxLength": 20}, "capital": {"type": "string", "maxLength": 20},
       "members": {"type": "array", "items": {"type": "integer", "minimum": 0, "maximum": 99}, "maxItems": 3}},
       "required": ["name", "capital", "members"], "additionalProperties": false}
      """
    for temperature in [0, 1] as [Float] {
      let sampling = SamplingParams(temperature: temperature, seed: 5, maxTokens: 150, form: .jsonSchema(schema))
      let output = try await llm.generate("France as a JSON object: ", sampling: sampling).output()
      #expect(output.finishReason == .endToken, "\(output.text)")
      let value = try JSONValue(parsing: Array(output.text.utf8))
      #expect(value.members.map { $0.key.string } == ["name", "capital", "members"])
      for key in ["name", "capital"] { #expect((value[key]?.string?.unicodeScalars.count).map { $0 <= 20 } == true) }
      #expect(value["members"]?.elements.allSatisfy { $0.integer.map { (0...99).contains($0) } == true } == true)
    }
  }
}
