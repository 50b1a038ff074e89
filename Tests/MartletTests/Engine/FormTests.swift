// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

import Martlet
import MartletFormats
import MartletTestSupport
import Testing

/// Answers of a form inside the engine, on tiny models, whose text is noise where nothing holds it.
@Suite("Answers of a form", .timeLimit(.minutes(45)))
struct FormTests {
  private static let model = TinyModel(.llama, seed: 43)

  /// A form, and whether a text has it, found out without a grammar.
  struct Case: Sendable, CustomTestStringConvertible {
    var form: AnswerForm
    var holds: @Sendable (String) throws -> Bool

    var testDescription: String { "\(form)" }
  }

  private static let schema = """
    {"type": "object", "properties": {"a": {"type": "boolean"}, "n": {"type": "integer", "minimum": 7, "maximum": 512}},
     "required": ["a", "n"], "additionalProperties": false}
    """

  private static let choices = ["green", "grey", "red.", "re(d|t)*", "[x]\\", "größer"]

  private static let cases = [
    Case(form: .regex("[a-c]{2,5}-[0-9]{1,4}")) { try Regex("[a-c]{2,5}-[0-9]{1,4}").wholeMatch(in: $0) != nil },
    Case(form: .choice(choices)) { choices.contains($0) },
    Case(form: .jsonSchema(schema)) { text in
      let value = try JSONValue(parsing: Array(text.utf8))
      return value.count == 2 && value["a"]?.bool != nil && value["n"]?.integer.map { (7...512).contains($0) } == true
    },
    Case(form: .grammar(#"root ::= "(" root ")" | "x""#)) { text in
      let depth = text.prefix { $0 == "(" }.count
      return text == String(repeating: "(", count: depth) + "x" + String(repeating: ")", count: depth)
    },
  ]

  @Test("are of it whatever the model would say, and end with an end token", arguments: cases)
  func held(_ test: Case) async throws {
    let llm = try Tiny.llm(Self.model)
    var answers: Set<String> = []
    for seed in 0..<12 as Range<UInt64> {
      for filters in [SamplingParams(), SamplingParams(topK: 3), SamplingParams(topP: 0.5), SamplingParams(minP: 0.3)] {
        var sampling = filters
        // Random weights are sure of themselves: their logits spread over tens.
        sampling.temperature = seed == 0 ? 0 : 20
        sampling.seed = seed
        sampling.maxTokens = 100
        sampling.form = test.form
        let output = try await llm.generate(.tokenIDs(Tiny.prompt(9, seed: seed)), sampling: sampling).output()
        if output.finishReason == .length {
          // Nothing bounds how deep a grammar nests.
          #expect(output.tokenIDs.count == 100 && output.text.hasPrefix("(((("))
          continue
        }
        #expect(output.finishReason == .endToken && llm.tokenizer.endTokens.contains(Int32(output.tokenIDs.last ?? -1)))
        #expect(try test.holds(output.text), "\(output.text)")
        answers.insert(output.text)
      }
    }
    #expect(answers.count > 2, "the model chooses among the texts of the form")
    let free = try await llm.generate(.tokenIDs(Tiny.prompt(9, seed: 0)), sampling: SamplingParams(maxTokens: 100)).output()
    #expect(!answers.contains(free.text))
  }

  @Test("are any JSON object where that is asked for")
  func json() async throws {
    let llm = try Tiny.llm(Self.model)
    // The closing brace comes wherever it may.
    let closing = SamplingParams(logitBias: [Int(UInt8(ascii: "}")): 1e6], maxTokens: 10, form: .json)
    let output = try await llm.generate("json", sampling: closing).output()
    #expect(output.text == "{}" && output.finishReason == .endToken)
    let quoting = SamplingParams(logitBias: [Int(UInt8(ascii: "\"")): 1e6, Int(UInt8(ascii: "}")): 1e5], maxTokens: 10, form: .json)
    #expect(try await llm.generate("json", sampling: quoting).output().text == #"{"":""}"#)
  }

  // MARK: The end

  @Test("are cut off by a limit, a stop string or a stop token that is text, each with its reason")
  func cut() async throws {
    let llm = try Tiny.llm(Self.model)
    func output(_ adjust: (inout SamplingParams) -> Void) async throws -> GenerationOutput {
      var sampling = SamplingParams(maxTokens: 20, form: .choice(["abcdefgh"]))
      adjust(&sampling)
      return try await llm.generate("cut", sampling: sampling).output()
    }
    let whole = try await output { _ in }
    #expect(whole.text == "abcdefgh" && whole.finishReason == .endToken && whole.tokenIDs.count == 9)
    let short = try await output { $0.maxTokens = 3 }
    #expect(short.text == "abc" && short.finishReason == .length)
    // The form is whole, but nothing says so: the end token did not fit.
    let full = try await output { $0.maxTokens = 8 }
    #expect(full.text == "abcdefgh" && full.finishReason == .length)
    let stopped = try await output { $0.stop = ["de"] }
    #expect(stopped.text == "abc" && stopped.finishReason == .stopString)
    let token = try await output { $0.stopTokenIDs = [Int(UInt8(ascii: "d"))] }
    #expect(token.text == "abc" && token.finishReason == .endToken && token.tokenIDs == Array("abcd".utf8).map(Int.init))
  }

  @Test("may end with a control token that the request names as its end, and have no other control token")
  func controlTokens() async throws {
    let llm = try Tiny.llm(Self.model)
    let control = try #require((256..<Self.model.vocabularySize).first { !llm.tokenizer.endTokens.contains(Int32($0)) })
    var sampling = SamplingParams(logitBias: [control: 1e6], maxTokens: 20, form: .regex("ab{3}c?"))
    let plain = try await llm.generate("control", sampling: sampling).output()
    #expect(!plain.tokenIDs.contains(control) && plain.finishReason == .endToken && ["abbb", "abbbc"].contains(plain.text))
    sampling.stopTokenIDs = [control]
    let named = try await llm.generate("control", sampling: sampling).output()
    #expect(named.tokenIDs == Array("abbb".utf8).map(Int.init) + [control] && named.finishReason == .endToken && named.text == "abbb")
  }

  @Test("need a token that ends them")
  func withoutEnd() async throws {
    var model = Self.model
    let names = try #require(try model.file().array("tokenizer.ggml.tokens").strings())
    let others = names.map { TinyModel.controlTokens.contains($0) ? $0.replacing("|", with: "_") : $0 }
    model.overrides["tokenizer.ggml.tokens"] = .array(.string, others.map { .string($0) })
    model.overrides["tokenizer.ggml.eos_token_id"] = .some(nil)
    let llm = try Tiny.llm(model)
    #expect(llm.tokenizer.endTokens.isEmpty)
    var sampling = SamplingParams(maxTokens: 5, form: .choice(["ab"]))
    #expect { try llm.generate("a", sampling: sampling) } throws: {
      ($0 as? LLMError)?.code == .invalidForm && "\($0)".contains("stopTokenIDs")
    }
    sampling.stopTokenIDs = [257]
    let output = try await llm.generate("a", sampling: sampling).output()
    #expect(output.text == "ab" && output.tokenIDs.last == 257 && output.finishReason == .endToken)
  }

  // MARK: Refusals and failures

  @Test(
    "are refused before they begin where the form cannot be held, in words that name the place",
    arguments: [
      (AnswerForm.regex("a(b"), "regular expression"), (AnswerForm.grammar("root ::= ("), "grammar"),
      (AnswerForm.jsonSchema("{"), "JSON Schema"),
      (AnswerForm.jsonSchema(#"{"type": "object", "properties": {"é": {"type": "string", "format": "rhyme"}}}"#), "#/properties/é/format"),
      (AnswerForm.choice([]), "at least one text"), (AnswerForm.regex(#"[^\s\S]"#), "no text at all"),
    ])
  func refused(_ form: AnswerForm, words: String) throws {
    let llm = try Tiny.llm(Self.model)
    #expect {
      try llm.generate(["a", "b"], sampling: SamplingParams(form: form))
    } throws: { error in
      guard let error = error as? LLMError else { return false }
      return error.code == .invalidForm && error.property == "form" && error.description.contains("form")
        && error.description.contains(words)
    }
    #expect(llm.statistics.waitingRequests == 0 && llm.statistics.runningRequests == 0)
  }

  @Test("are not for requests that ignore end tokens")
  func ignoredEnd() throws {
    let llm = try Tiny.llm(Self.model)
    #expect { try llm.generate("a", sampling: SamplingParams(form: .json, ignoresEndTokens: true)) } throws: {
      ($0 as? LLMError)?.code == .invalidSampling && "\($0)".contains("ignoresEndTokens")
    }
  }

  @Test("fail alone where nothing is left that the form allows")
  func nothingLeft() async throws {
    let llm = try Tiny.llm(Self.model)
    let free = SamplingParams(maxTokens: 12, logprobs: 2)
    let alone = try await llm.generate("neighbour", sampling: free).output()
    let onlyQ = RequestOptions { logits, _ in
      for index in logits.indices where index != Int(UInt8(ascii: "q")) { logits[index] = -.infinity }
    }
    var sampling = SamplingParams(maxTokens: 12, form: .choice(["qqqr", "qs"]))
    let failing = try llm.generate("fails", sampling: sampling, options: onlyQ)
    let neighbour = try llm.generate("neighbour", sampling: free)
    await #expect {
      try await failing.output()
    } throws: {
      ($0 as? LLMError)?.code == .formFailed && "\($0)".contains("token 3")
    }
    #expect(try await neighbour.output().bits == alone.bits)
    sampling.form = .choice(["qqqr", "qqqq"])
    sampling.maxTokens = 4
    #expect(try await llm.generate("goes", sampling: sampling, options: onlyQ).output().text == "qqqq")
    #expect(llm.statistics.ended[.failed] == 1)
  }

  @Test("report the model's own log-probabilities")
  func logprobs() async throws {
    let llm = try Tiny.llm(Self.model)
    let prompt = Tiny.prompt(10, seed: 3)
    let sampling = SamplingParams(maxTokens: 10, form: .choice(["zigzag"]), logprobs: 3)
    let output = try await llm.generate(.tokenIDs(prompt), sampling: sampling).output()
    #expect(output.text == "zigzag" && output.logprobs.count == 7)
    #expect(output.logprobs.map(\.logprob) == Array(try await llm.score(prompt + output.tokenIDs).suffix(7)))
    for entry in output.logprobs { #expect(entry.top.count == 3 && entry.top[0].logprob >= entry.logprob) }
  }
}
