// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

import ArgumentParser
import Foundation
import Martlet
import MartletFormats
import MartletTokenizers

struct Perplexity: AsyncParsableCommand {
  static let configuration = CommandConfiguration(
    abstract: "Says how well the model predicts a text.",
    discussion: """
      The text is cut into windows of --context tokens, and the second half of each is scored, as llama.cpp does; a rest shorter than \
      a window is left out. With --whole the text is one sequence, and every token after the first is scored.
      """)

  @OptionGroup var modelArguments: ModelArguments

  @Argument(help: "A text file; - or nothing reads standard input.", completion: .file())
  var first: String?

  /// The file behind a model.
  @Argument(help: .hidden) var second: String?

  @Option(parsing: .unconditional, help: ArgumentHelp("Tokens in a window.", valueName: "n"))
  var context = 512

  @Flag(help: "Score the whole file as one sequence.")
  var whole = false

  @OptionGroup(title: "Engine options") var engine: EngineOptions
  @OptionGroup(title: "Cache options") var cache: CacheOptions

  @Flag(help: "Print one JSON object.")
  var json = false

  func validate() throws {
    if try arguments.file == TextInput.standard && !TextInput.comesByItself {
      throw ValidationError("give a FILE, or a text on standard input")
    }
    if context < 4 { throw ValidationError("--context is \(context); a window needs at least 4 tokens") }
  }

  private var arguments: (model: String, file: String, isOld: Bool) {
    get throws {
      let (model, file, isOld) = try modelArguments.resolve([first, second].compactMap(\.self), what: "FILE")
      return (model, file ?? TextInput.standard, isOld)
    }
  }

  // `validate` has seen that there are such.
  private var model: String { (try? arguments.model) ?? KnownModel.default.name }
  private var file: String { (try? arguments.file) ?? TextInput.standard }

  func run() async throws {
    try await interruptible { [self] in
      if try arguments.isOld { ModelArguments.note(model) }
      let text = try TextInput.text(of: file, what: "file")
      let path = try await ModelFile.path(of: model)
      let (files, tokenizer) = try ModelFile.reading(path) {
        let files = try ModelFiles(path: path)
        return (files, try files.makeTokenizer())
      }
      // As `generate` reads a prompt: no special tokens, and the beginning-of-text token where the model wants one.
      let beginning = tokenizer.addsBOS ? tokenizer.bosToken.map(Int.init) : nil
      let tokenIDs = [beginning].compactMap(\.self) + tokenizer.encode(text, parsesSpecialTokens: false).map(Int.init)
      if whole { try await scoreWhole(tokenIDs, files) } else { try await scoreWindows(tokenIDs, beginning, files) }
    }
  }

  /// Of the text, for errors.
  private var name: String { file == TextInput.standard ? "standard input" : "\"\(file)\"" }

  private func scoreWhole(_ tokenIDs: [Int], _ files: ModelFiles) async throws {
    guard tokenIDs.count >= 2 else {
      throw CommandError("\(name) has \(tokenIDs.count) tokens; at least 2 are needed, for the first is not scored")
    }
    let llm = try load(files, longest: tokenIDs.count)
    let logprobs = try await llm.score(tokenIDs)
    let perplexity = exp(-mean(logprobs))
    if json {
      try Terminal.writeJSON(WholeReport(activations: activations, tokenIDs: tokenIDs, logprobs: logprobs, perplexity: perplexity))
    } else {
      try Terminal.write("perplexity \(formatted(perplexity)) over \(logprobs.count) tokens\n")
    }
  }

  private func scoreWindows(_ tokenIDs: [Int], _ beginning: Int?, _ files: ModelFiles) async throws {
    let count = tokenIDs.count / context
    guard count >= 1 else {
      throw CommandError(
        "\(name) has \(tokenIDs.count) tokens and a window \(context); give a longer text, a smaller --context, or --whole")
    }
    let llm = try load(files, longest: context)
    let progress = ProgressLine()
    var logprobs: [Float] = []
    for index in 0..<count {
      // Each window begins as a text does: its first token gives way to the beginning-of-text token, where the model has one.
      var window = Array(tokenIDs[index * context..<(index + 1) * context])
      if let beginning { window[0] = beginning }
      // Entry i is token i + 1: the scored ones are tokens context / 2 + 1 … context − 1.
      logprobs += try await llm.score(window)[(context / 2)...]
      progress.show("window \(index + 1) of \(count): perplexity so far \(formatted(exp(-mean(logprobs))))")
    }
    progress.clear()
    let perplexity = exp(-mean(logprobs))
    if json {
      try Terminal.writeJSON(
        WindowReport(
          activations: activations, context: context, windows: count, tokens: tokenIDs.count, scoredTokens: logprobs.count,
          perplexity: perplexity,
          standardError: standardError(logprobs, perplexity)))
    } else {
      let error = standardError(logprobs, perplexity).map { " ± \(formatted($0))" } ?? ""
      try Terminal.write(
        "perplexity \(formatted(perplexity))\(error) over \(logprobs.count) tokens in \(count) windows of \(context)\n")
    }
  }

  private func load(_ files: ModelFiles, longest: Int) throws -> LLM {
    let progress = ProgressLine()
    let llm = try LLM(files: files, configuration: try engine.configuration(cache: cache, context: longest)) { share in
      progress.show("loading \(model): \(Int(share * 100)) %")
    }
    progress.clear()
    return llm
  }

  private func mean(_ values: [Float]) -> Double { values.reduce(0) { $0 + Double($1) } / Double(values.count) }

  /// Of the perplexity, from the spread of the log-probabilities (first order: exp'(x) = exp(x)).
  private func standardError(_ logprobs: [Float], _ perplexity: Double) -> Double? {
    guard logprobs.count > 1 else { return nil }
    let mean = mean(logprobs)
    let variance = logprobs.reduce(0) { $0 + (Double($1) - mean) * (Double($1) - mean) } / Double(logprobs.count - 1)
    return perplexity * (variance / Double(logprobs.count)).squareRoot()
  }

  private func formatted(_ value: Double) -> String { String(format: "%.4f", value) }

  private var activations: String { engine.products.activations.rawValue }

  struct WholeReport: Encodable {
    /// How products rounded rows.
    var activations: String
    var tokenIDs: [Int]
    /// Of token i + 1 given tokens 0…i, in nats.
    var logprobs: [Float]
    var perplexity: Double

    enum CodingKeys: String, CodingKey {
      case activations, logprobs, perplexity
      case tokenIDs = "token_ids"
    }
  }

  struct WindowReport: Encodable {
    var activations: String
    var context: Int
    var windows: Int
    /// Of the file.
    var tokens: Int
    var scoredTokens: Int
    var perplexity: Double
    var standardError: Double?

    enum CodingKeys: String, CodingKey {
      case activations, context, windows, tokens, perplexity
      case scoredTokens = "scored_tokens"
      case standardError = "standard_error"
    }
  }
}
