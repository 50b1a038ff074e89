// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

import Foundation
import Martlet
import MartletTestSupport
import MartletTokenizers
import Testing

/// `martlet generate` on the real default model.
@Suite(.serialized) struct GenerateTests {
  struct Report: Decodable {
    struct Output: Decodable, Equatable {
      var index = 0
      var prompt_token_ids: [Int]
      var token_ids: [Int]
      var text: String
      var finish_reason: String
    }
    struct Timings: Decodable {
      var load_s: Double
      var time_to_first_token_s: Double
      var prompt_tokens_per_s: Double
      /// None where all tokens came at once, as those of a short answer do on a busy machine.
      var generation_tokens_per_s: Double?
    }
    var attention_backend: String
    var seed: UInt64?
    var activations: String
    var outputs: [Output]
    var timings: Timings
  }

  private let model: String

  init() async throws { model = try await RealModelFile.path("smollm2-135m") }

  @Test func `the text streams to standard output and nothing else does`() throws {
    let result = try CommandLine.run(["generate", "The capital of France is", "--model", model, "--max-tokens", "2"])
    #expect(result.status == 0)
    #expect(result.output == " Paris.\n")
    // Two tokens say nothing of a speed.
    #expect(result.error.contains("first token after") && !result.error.contains("tokens/s"), "\(result.error)")
    #expect(result.error.contains("The answer was cut: --max-tokens 2 was reached"), "\(result.error)")
    let long = try CommandLine.run(
      ["generate", String(repeating: "one two three four ", count: 20), "--model", model, "--max-tokens", "12", "--stop", "\u{1}"])
    #expect(long.error.contains("(prompt at ") && long.error.contains(", then "), "\(long.error)")
  }

  @Test func `a prompt may come from standard input or a file, less the line feed at its end`() throws {
    let folder = try TemporaryFolder()
    let text = "The capital of France is"
    let arguments = ["--model", model, "--max-tokens", "2"]
    for input in [text, text + "\n", text + "\r\n"] {
      #expect(try CommandLine.run(["generate"] + arguments, input: input).output == " Paris.\n")
      #expect(try CommandLine.run(["generate", "-"] + arguments, input: input).output == " Paris.\n")
      let file = try folder.write(input, to: "prompt.txt")
      #expect(try CommandLine.run(["generate", "--prompt-file", file] + arguments).output == " Paris.\n")
    }
    let lines = try CommandLine.run(["generate", "--prompts-file", "-", "--json"] + arguments, input: "one\ntwo\n").json(Report.self)
    #expect(lines.outputs.count == 2)
    let binary = folder.path + "/binary"
    try Data([0xFF, 0xFE]).write(to: URL(fileURLWithPath: binary))
    let refused = try CommandLine.run(["generate", "--prompt-file", binary] + arguments)
    #expect(refused.status == 1 && refused.error.contains("is not UTF-8"), "\(refused.error)")
  }

  @Test func `a system message goes before the question, and options may stand anywhere`() async throws {
    let (system, question) = ("Answer in French.", "Hello")
    let llm = try LLM(model: model)
    let messages = [("system", system), ("user", question)].map { ChatMessage(role: $0.0, content: $0.1) }
    let expected = try await llm.generate(.chat(messages), sampling: SamplingParams(maxTokens: 8)).output().text
    for arguments in [
      ["generate", "--chat", "--system", system, question, "--model", model, "--max-tokens", "8"],
      ["generate", question, "--max-tokens", "8", "--model", model, "--system", system, "--chat"],
      ["generate", "--max-tokens", "8", "--model", model, "--system", system, "--chat", "--", question],
    ] {
      let result = try CommandLine.run(arguments)
      #expect(result.status == 0 && result.output == expected + "\n", "\(result.error)")
    }
  }

  @Test(arguments: ["", "trap '' PIPE; "])
  func `where nobody reads any more it ends without a word, also where the signal for it is ignored`(trap: String) throws {
    let folder = try TemporaryFolder()
    let script =
      trap + #"{ "$@" 2> "$FOLDER/error"; echo $? > "$FOLDER/status"; } | head -c 1 > "$FOLDER/output""#
    let process = Process()
    process.executableURL = URL(fileURLWithPath: "/bin/sh")
    process.arguments =
      ["-c", script, "sh", try CommandLine.executable()]
      + ["generate", "Once upon a time", "--model", model, "--max-tokens", "400", "--logit-bias", "0=-100", "--logit-bias", "2=-100"]
    process.environment = ProcessInfo.processInfo.environment.merging(["FOLDER": folder.path]) { $1 }
    process.standardInput = FileHandle.nullDevice
    try process.run()
    process.waitUntilExit()
    let texts = try ["output", "status", "error"].map { try String(contentsOfFile: folder.path + "/" + $0, encoding: .utf8) }
    #expect(texts[0].utf8.count == 1 && texts[1] == "141\n")
    #expect(!texts[2].contains("rror") && !texts[2].contains("tokens"), "\(texts[2])")
  }

  @Test func `Ctrl-C ends the line, and says that the answer was stopped`() throws {
    let child = try Child([
      "generate", "Once upon a time", "--model", model, "--max-tokens", "4000", "--logit-bias", "0=-100", "--logit-bias", "2=-100",
    ])
    #expect(child.waitForOutput { $0.count > 40 })
    child.interrupt()
    #expect(child.waitForExit() == 130)
    #expect(child.output.hasSuffix("\n") && child.error.contains("Stopped after "), "\(child.error)")
  }

  @Test func `what gives less than was meant is said`() throws {
    let arguments = ["generate", "Hello", "--model", model, "--max-tokens", "2"]
    let alike = try CommandLine.run(arguments + ["--n", "2"])
    #expect(alike.status == 0 && alike.error.contains("all answers to a prompt are alike"), "\(alike.error)")
    #expect(alike.error.contains("2 of 2 answers were cut"), "\(alike.error)")
    #expect(!(try CommandLine.run(arguments + ["--n", "2", "--temperature", "1"]).error.contains("alike")))
    let threads = try CommandLine.run(arguments + ["--threads", "\(ProcessInfo.processInfo.processorCount + 1)"])
    #expect(threads.status == 0 && threads.error.contains("more than the"), "\(threads.error)")
    let late = try CommandLine.run(
      [
        "generate", "Hello", "--model", model, "--max-tokens", "4000", "--timeout", "0.5", "--logit-bias", "0=-100", "--logit-bias",
        "2=-100",
      ])
    #expect(late.error.contains("The answer was cut: the time of --timeout is over."), "\(late.error)")
  }

  @Test(arguments: ["-hi", "-oh", "-5 degrees", "--hello"])
  func `a prompt that looks like an option is an error with the way out`(prompt: String) throws {
    for command in [["generate"], ["tokenize"], ["tokenize", "--model", model]] {
      let result = try CommandLine.run(command + [prompt])
      #expect(result.status == 64 && result.output == "", "\(result.output)")
      #expect(result.error.hasPrefix("Error: Unknown option '\(prompt)'") && result.error.contains("put -- before it"), "\(result.error)")
    }
    #expect(try CommandLine.run(["tokenize", "--model", model, "--", prompt]).status == 0)
    #expect(try CommandLine.run(["generate", "-h"]).output.contains("--max-tokens"))
  }

  @Test func `an answer has the form that is asked for`() throws {
    let folder = try TemporaryFolder()
    let arguments = ["generate", "The capital of France is", "--model", model, "--max-tokens", "60"]
    let choice = try CommandLine.run(arguments + ["--choice", " Rome.", "--choice", " Paris.", "--choice", "-5"])
    #expect(choice.status == 0 && choice.output == " Paris.\n", "\(choice.error)")
    #expect(!choice.error.contains("cut"), "\(choice.error)")
    let number = try CommandLine.run(arguments + ["--regex", "-?[0-9]{3}"])
    #expect(try Regex("-?[0-9]{3}\n").wholeMatch(in: number.output) != nil, "\(number.output)")
    let grammar = try folder.write("root ::= [a-f]{4} tail\ntail ::= \"!\" | \"?\"\n", to: "grammar.gbnf")
    let derived = try CommandLine.run(arguments + ["--grammar", grammar])
    #expect(try Regex("[a-f]{4}[!?]\n").wholeMatch(in: derived.output) != nil, "\(derived.output)")
    struct City: Decodable {
      var name: String
      var capital: Bool
    }
    let schema = try folder.write(
      """
      {"type": "object", "properties": {"name": {"type": "string", "maxLength": 20}, "capital": {"type": "boolean"}},
       "required": ["name", "capital"], "additionalProperties": false}
      """, to: "city.json")
    let city: City = try CommandLine.run(arguments + ["--json-schema", schema]).json()
    #expect(!city.name.isEmpty)
    let object = try CommandLine.run(arguments + ["--json-object", "--max-tokens", "8"])
    #expect(object.status == 0 && object.output.hasPrefix("{"), "\(object.error)")
  }

  @Test func `a form that cannot be held is an error that names the option, before a model is looked for`() throws {
    let folder = try TemporaryFolder()
    let schema = try folder.write(#"{"properties": {"temperature": {"type": "string", "format": "rhyme"}}}"#, to: "schema.json")
    let cases: [(arguments: [String], status: Int32, words: [String])] = [
      (["--regex", "a", "--choice", "b"], 64, ["--regex and --choice"]),
      (["--json-schema", "-"], 64, ["--json-schema is read from a file"]),
      (["--json-schema", schema], 1, ["--json-schema", "schema.json", "#/properties/temperature/format"]),
      (["--json-schema", folder.path + "/missing.json"], 1, ["JSON Schema", "missing.json"]),
      (["--regex", "a(b"], 1, ["--regex: character"]),
    ]
    for command in ["generate", "chat"] {
      for (arguments, status, words) in cases {
        let result = try CommandLine.run([command, "--model", "/nowhere/model.gguf"] + arguments, input: "Hello\n")
        #expect(result.status == status && result.output == "", "\(arguments): \(result.error)")
        for word in words { #expect(result.error.contains(word), "\(arguments): \(result.error)") }
        #expect(!result.error.contains("nowhere"), "\(result.error)")
      }
    }
  }

  @Test func `JSON has the tokens, the text, the reason and the timings`() throws {
    let result = try CommandLine.run(["generate", "The capital of France is", "--model", model, "--max-tokens", "4", "--json"])
    let report = try result.json(Report.self)
    // The recorded greedy tokens of the float32 reference: Fixtures/smollm2-135m.json of the engine's tests.
    #expect(
      report.outputs == [
        Report.Output(
          prompt_token_ids: [504, 3575, 282, 4649, 314], token_ids: [7042, 30, 198, 198], text: " Paris.\n\n", finish_reason: "length")
      ])
    #expect(report.attention_backend == "TRTLLM")
    #expect(report.seed == nil && report.activations == "exact")
    #expect(report.timings.load_s > 0 && report.timings.time_to_first_token_s > 0)
    #expect(report.timings.prompt_tokens_per_s > 0 && report.timings.generation_tokens_per_s ?? 1 > 0)
  }

  @Test func `log-probabilities are printed where they are asked for, of prompt and answer`() throws {
    struct Logprobs: Decodable {
      struct Logprob: Decodable {
        struct Alternative: Decodable {
          var token_id: Int
          var logprob: Float
        }
        var token_id: Int
        var logprob: Float
        var top: [Alternative]
      }
      struct Output: Decodable {
        var prompt_token_ids: [Int]
        var token_ids: [Int]
        var pauses: Int
        var logprobs: [Logprob]?
        var prompt_logprobs: [Logprob]?
      }
      var outputs: [Output]
    }
    let arguments = ["generate", "The capital of France is", "--model", model, "--max-tokens", "3", "--json"]
    let output = try #require(
      try CommandLine.run(arguments + ["--prompt-logprobs", "2", "--logprobs", "1"]).json(Logprobs.self).outputs.first)
    let prompt = try #require(output.prompt_logprobs)
    #expect(prompt.map(\.token_id) == Array(output.prompt_token_ids.dropFirst()) && output.pauses == 0)
    #expect(prompt.allSatisfy { $0.top.count == 2 && $0.logprob <= $0.top[0].logprob && $0.top[1].logprob <= $0.top[0].logprob })
    let answer = try #require(output.logprobs)
    // Greedy: each token is the most probable.
    #expect(answer.map(\.token_id) == output.token_ids && answer.allSatisfy { $0.top.map(\.token_id) == [$0.token_id] })
    let plain = try #require(try CommandLine.run(arguments).json(Logprobs.self).outputs.first)
    #expect(plain.logprobs == nil && plain.prompt_logprobs == nil && plain.token_ids == output.token_ids)
  }

  @Test func `a timeout ends the answer, and a bias bans a token`() throws {
    let arguments = ["generate", "The capital of France is", "--model", model, "--json"]
    let bans = [0, 2].flatMap { ["--logit-bias", "\($0)=-100"] }  // the end tokens
    let late = try CommandLine.run(arguments + ["--max-tokens", "4000", "--timeout", "0.5"] + bans).json(Report.self).outputs[0]
    #expect(late.finish_reason == "deadline" && late.token_ids.count < 4000)
    let banned = try CommandLine.run(arguments + ["--max-tokens", "1", "--logit-bias", "7042=-100"]).json(Report.self).outputs[0]
    #expect(banned.token_ids != [7042] && banned.token_ids.count == 1)
  }

  @Test func `a file of prompts is one batch whose answers are those of each prompt alone`() throws {
    let prompts = ["The capital of France is", "Water boils at", "Once upon a time"]
    let folder = try TemporaryFolder()
    let file = try folder.write(prompts.joined(separator: "\n") + "\n\n", to: "prompts.txt")
    let options = ["--model", model, "--max-tokens", "12", "--json"]
    let batch = try CommandLine.run(["generate", "--prompts-file", file] + options).json(Report.self)
    #expect(batch.outputs.count == 3)
    for (prompt, output) in zip(prompts, batch.outputs) {
      let alone = try CommandLine.run(["generate", prompt] + options).json(Report.self)
      #expect(alone.outputs == [output])
    }
  }

  @Test func `a prompts file is cut at line feeds and nowhere else`() throws {
    struct Lines: Decodable {
      struct Output: Decodable {
        var line: Int
        var prompt_token_ids: [Int]
      }
      var outputs: [Output]
    }
    // A carriage return before a line feed belongs to it; one that stands alone does not.
    let lines = ["one\u{2028}two", "three\u{85}four", "five\u{C}six\u{B}seven", "eight\rnine", "ten"]
    let folder = try TemporaryFolder()
    let file = try folder.write(
      lines[0...2].joined(separator: "\n") + "\r\n\r\n" + lines[3...].joined(separator: "\r\n"), to: "prompts.txt")
    let options = ["--model", model, "--max-tokens", "1", "--json"]
    let report = try CommandLine.run(["generate", "--prompts-file", file] + options).json(Lines.self)
    #expect(report.outputs.map(\.line) == [1, 2, 3, 5, 6])
    for (line, output) in zip(lines, report.outputs) {
      let alone = try CommandLine.run(["generate", line] + options).json(Report.self)
      #expect(alone.outputs.map(\.prompt_token_ids) == [output.prompt_token_ids], "\(line.debugDescription)")
    }
  }

  @Test func `prompts that begin alike are read once, unless that is switched off, and no token changes`() throws {
    struct Reused: Decodable {
      struct Output: Decodable {
        var prompt_token_ids: [Int]
        var cached_prompt_tokens: Int
        var token_ids: [Int]
      }
      var outputs: [Output]
    }
    // More than fit one step, so that the last come when the first are computed.
    let prompts = (1...20).map { String(repeating: "one two three four ", count: 12) + "\($0)" }
    let folder = try TemporaryFolder()
    let file = try folder.write(prompts.joined(separator: "\n"), to: "prompts.txt")
    let arguments = ["generate", "--prompts-file", file, "--model", model, "--max-tokens", "3", "--json"]
    let reused = try CommandLine.run(arguments + ["--capacity-policy", "max-utilization"]).json(Reused.self).outputs
    let plain = try CommandLine.run(arguments + ["--no-prefix-reuse"]).json(Reused.self).outputs
    #expect(reused.map(\.token_ids) == plain.map(\.token_ids) && reused.count == 20)
    #expect(plain.allSatisfy { $0.cached_prompt_tokens == 0 } && reused[0].cached_prompt_tokens == 0)
    // More than a page of 32 tokens, because a part of the next one is copied, and no more than it has in common with another prompt.
    let last = reused[19]
    let common = reused.dropLast().map { other in zip(other.prompt_token_ids, last.prompt_token_ids).prefix { $0 == $1 }.count }.max()!
    #expect(last.cached_prompt_tokens > 32 && last.cached_prompt_tokens <= common && last.prompt_token_ids.count > 40)
  }

  @Test func `the same seed draws the same tokens, and a drawn seed is reported`() throws {
    let options = ["generate", "Once upon a time", "--model", model, "--max-tokens", "12", "--temperature", "1", "--json"]
    let first = try CommandLine.run(options).json(Report.self)
    let seed = try #require(first.seed)
    let again = try CommandLine.run(options + ["--seed", "\(seed)"]).json(Report.self)
    #expect(again.outputs == first.outputs)
    let other = try CommandLine.run(options + ["--seed", "\(seed &+ 1)"]).json(Report.self)
    #expect(other.outputs != first.outputs)
  }

  @Test func `several answers to each prompt come in order, the first as if it were alone`() throws {
    let folder = try TemporaryFolder()
    let file = try folder.write("Once upon a time\nMy name is", to: "prompts.txt")
    let options = ["--model", model, "--max-tokens", "6", "--temperature", "1", "--seed", "5", "--frequency-penalty", "0.5", "--json"]
    let report = try CommandLine.run(["generate", "--prompts-file", file, "--n", "3"] + options).json(Report.self)
    #expect(report.outputs.map(\.index) == [0, 1, 2, 0, 1, 2])
    #expect(Set(report.outputs.map(\.token_ids)).count == 6)
    let alone = try CommandLine.run(["generate", "Once upon a time"] + options).json(Report.self)
    #expect(alone.outputs == [report.outputs[0]])
  }

  @Test func `a penalty keeps an answer from repeating itself`() throws {
    let options = ["generate", "The capital of France is", "--model", model, "--max-tokens", "24", "--json"]
    let report = try CommandLine.run(options + ["--repetition-penalty", "1000000"]).json(Report.self)
    let tokens = report.outputs[0].token_ids
    #expect(Set(tokens).count == tokens.count && Set(tokens).isDisjoint(with: report.outputs[0].prompt_token_ids))
  }

  @Test func `a stop string ends the text before itself`() throws {
    let report = try CommandLine.run(
      ["generate", "The capital of France is", "--model", model, "--stop", ".", "--json"]
    ).json(Report.self)
    #expect(report.outputs[0].text == " Paris")
    #expect(report.outputs[0].finish_reason == "stop_string")
  }

  @Test func `a message is answered through the model's own template`() throws {
    let result = try CommandLine.run(["generate", "--chat", "What is the capital of France?", "--model", model])
    #expect(result.status == 0)
    #expect(result.output.contains("Paris"))
  }

  @Test func `both backends and every cache type answer`() throws {
    for options in [
      ["--attention-backend", "vanilla", "--page-size", "linear", "--kv-cache-dtype", "f32"],
      ["--attention-backend", "VANILLA", "--kv-cache-dtype", "f16", "--page-size", "16"],
      ["--attention-backend", "trtllm", "--kv-cache-dtype", "f32", "--chunk", "2", "--threads", "1"],
      ["--instruction-set", "portable", "--kv-cache-memory", "64M", "--context", "256", "--activations", "EXACT"],
    ] {
      let result = try CommandLine.run(
        ["generate", "The capital of France is", "--model", model, "--max-tokens", "2"] + options)
      #expect(result.output == " Paris.\n", "\(options): \(result.error)")
    }
  }

  @Test func `texts may begin with a dash, and answers say which line of the file they belong to`() throws {
    struct Lines: Decodable {
      struct Output: Decodable { var line: Int }
      var outputs: [Output]
    }
    let options = ["--model", model, "--max-tokens", "2"]
    let stopped = try CommandLine.run(["generate", "The capital of France is", "--stop=---", "--stop", "--x", "--stop", "."] + options)
    #expect(stopped.status == 0 && stopped.output == " Paris\n", "\(stopped.error)")
    #expect(try CommandLine.run(["generate"] + options + ["--", "- apples"]).status == 0)
    let folder = try TemporaryFolder()
    let file = try folder.write("The capital of France is\n\nTwo plus two is\n", to: "prompts")
    let lines = try CommandLine.run(["generate", "--prompts-file", file, "--json"] + options).json(Lines.self)
    #expect(lines.outputs.map(\.line) == [1, 3])
  }

  @Test func `what cannot work is said in one sentence with the way out`() throws {
    let cases: [(arguments: [String], status: Int32, words: [String])] = [
      (["generate"], 64, ["PROMPT", "--prompts-file"]),
      (["generate", "a", "--prompts-file", "b"], 64, ["not both"]),
      (["generate", "- apples"], 64, ["put --"]),
      (["generate", "a", "--prompt-file", "b"], 64, ["PROMPT", "--prompt-file", "not both"]),
      (["generate", "a", "--system", "b"], 64, ["--system", "--chat"]),
      (["generate", "--prompt-file", "/nowhere/prompt"], 1, ["/nowhere/prompt", "No such file"]),
      (["generate", "a", "--threads", "5000"], 1, ["5000 threads", "1 to 4096"]),
      (["generate", "a", "--model", model, "--n", "1000000000"], 1, ["1000000000", "65536"]),
      (["bench", "attention", "--page-size", "4611686018427387904", "4,1,64:16@0"], 64, ["--page-size", "1048576"]),
      (["bench", "attention", "4,1,64:16@9223372036854775807"], 64, ["16@9223372036854775807", "no workload"]),
      (["bench", "attention", "4000000000,1,64:16@0"], 64, ["4000000000", "no workload"]),
      (["bench", "attention", "4,1,64:16@0", "--compare", "/nowhere/x.json"], 1, ["/nowhere/x.json", "No such file or directory"]),
      (["bench", "engine", "--requests", "100000000000"], 64, ["--requests", "1000000"]),
      (["bench", "engine", "--prompt-tokens", "1..9223372036854775807"], 64, ["--prompt-tokens"]),
      (["generate", "a", "--page-size", "4611686018427387904"], 64, ["--page-size", "1048576"]),
      (["generate", "a", "--page-size", "33"], 64, ["33", "power of two"]),
      (["generate", "a", "--capacity-policy", "other"], 64, ["guaranteed-no-evict", "max-utilization"]),
      (["generate", "a", "--timeout", "0"], 64, ["--timeout", "above 0"]),
      (["generate", "a", "--logit-bias", "5"], 64, ["--logit-bias"]),
      (["generate", "a", "--prompt-logprobs", "1"], 64, ["--prompt-logprobs", "--json"]),
      (["generate", "a", "--n", "0"], 64, ["--n", "at least 1"]),
      (["generate", "a", "--presence-penalty", "3"], 64, ["--presence-penalty", "between -2 and 2"]),
      (["generate", "a", "--top-p", "2"], 64, ["--top-p", "at most 1"]),
      (["generate", "a", "--model", "nothing"], 1, ["nothing", "smollm2-135m, gemma3-270m", "qwen2.5-coder-1.5b", "./nothing.gguf"]),
      (["generate", "a", "--model", "./nothing.gguf"], 1, ["./nothing.gguf", "no file"]),
      (["generate", "a", "--model", model, "--attention-backend", "other"], 64, ["other", "TRTLLM", "VANILLA"]),
      (["generate", "a", "--model", model, "--instruction-set", "other"], 1, ["other", "portable"]),
      (
        ["generate", "a", "--model", model, "--instruction-set", "portable", "--activations", "bf16"], 1,
        ["--activations is bf16", "portable", "(exact, int8)"]
      ),
      (
        ["generate", "a", "--model", model, "--latent-prompts", "expanded:64"], 1,
        ["--latent-prompts is expanded:64", "no latent attention", "absorbed"]
      ),
      (["generate", "a", "--latent-prompts", "expanded:0"], 64, ["expanded:0", "--latent-prompts"]),
      (["bench", "latents", "32,8,128:16@0"], 64, ["32,8,128:16@0", "128,mla,512+64"]),
      (["generate", "a", "--activations", "other"], 64, ["other", "--activations", "exact", "bf16", "int8"]),
      (["generate", "a", "--model", model, "--page-size", "linear"], 1, ["linear", "VANILLA"]),
      (["generate", "a b c d e f g h", "--model", model, "--context", "4"], 1, ["--context"]),
      (["generate", "a", "--model", model, "--kv-cache-memory", "1K"], 1, ["1024"]),
      (["generate", "--prompts-file", "/nowhere/prompts"], 1, ["/nowhere/prompts"]),
      (["generate", "a", "--presence-penalty", "-3"], 64, ["--presence-penalty", "between -2 and 2"]),
      (["generate", "a", "--chunk", "-1"], 64, ["--chunk is -1", "at least 1"]),
      (["generate", "a", "--seed", "-1"], 64, ["'-1'", "--seed"]),
      (["bench", "engine", "--rate", "-1"], 64, ["--rate is -1", "above 0"]),
      (["inspect", "--model", model, "--kv-cache-memory", "1G"], 64, ["--kv-cache-memory"]),
      (["inspect", "--model", model, "--no-prefix-reuse"], 64, ["--no-prefix-reuse"]),
    ]
    for (arguments, status, words) in cases {
      let result = try CommandLine.run(arguments)
      #expect(result.status == status, "\(arguments): \(result.error)")
      #expect(result.output == "", "\(arguments)")
      for word in words { #expect(result.error.contains(word), "\(arguments): \(result.error)") }
      let first = result.error.split(separator: "\n").first { !$0.hasPrefix("loading") } ?? ""
      #expect(first.hasPrefix("Error: "), "\(arguments): \(result.error)")
    }
  }
}
