// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

import ArgumentParser
import Foundation
import Martlet
import MartletModels

struct Embed: AsyncParsableCommand {
  static let configuration = CommandConfiguration(
    abstract: "Makes vectors of texts, with a model that is made for it.",
    discussion: """
      Texts are the arguments, or the lines of a file or of standard input. For each a line is printed: a JSON array of its values, or with --json an \
      object with the text's number and tokens. With --similarity it is the cosine of every two texts instead.

      A model whose files name a pooling is one that is made for it: a directory with the files of sentence-transformers, or a GGUF file. Other \
      models can be pooled with --pooling. Where a model wants an instruction before a text, write it there.
      """)

  @Option(
    name: .customLong("model"), help: ArgumentHelp("Name or path.", valueName: "model"),
    completion: .list(KnownModel.all.map(\.name)))
  var model = KnownModel.defaultForEmbeddings.name

  @Argument(help: "The texts; without any, they are read from standard input, one a line.")
  var texts: [String] = []

  @Option(help: ArgumentHelp("A file with texts, one a line; - is standard input.", valueName: "file"), completion: .file())
  var file: String?

  @OptionGroup var pooling: PoolingOption

  @Option(
    parsing: .unconditional,
    help: ArgumentHelp("The first so many values of a vector, for models that were trained for it (default: all).", valueName: "n"))
  var dimensions: Int?

  @Flag(help: "Leave the end of a text out that is too long for the model.")
  var truncate = false

  @Option(
    parsing: .unconditional,
    help: ArgumentHelp(
      "The most tokens of a text (default: the model's, at most \(EngineConfiguration.defaultMaxEmbeddingLength)).", valueName: "n"))
  var context: Int?

  @Flag(help: "Print the cosine of every two texts, a table with a row for each text.")
  var similarity = false

  @Flag(help: "Print an object for each text: index, tokens, embedding.")
  var json = false

  @OptionGroup(title: "Engine options") var engine: EngineOptions

  func validate() throws {
    try validatePositive(dimensions, "--dimensions")
    try validatePositive(context, "--context")
    if similarity && json { throw ValidationError("--similarity prints a table, and --json objects; give one of them") }
    if file != nil && !texts.isEmpty { throw ValidationError("give texts, or a --file with them") }
    if texts.isEmpty && file == nil && !TextInput.comesByItself {
      throw ValidationError("give texts, a --file with a text on each line, or lines on standard input")
    }
  }

  func run() async throws {
    try await interruptible { [self] in
      var texts = texts
      if texts.isEmpty {
        let text = try TextInput.text(of: file ?? TextInput.standard, what: "file")
        texts = TextInput.withoutFinalNewline(text).split(omittingEmptySubsequences: false) { $0.isNewline }.map(String.init)
      }
      let path = try await ModelFile.path(of: model)
      var configuration = try engine.configuration(cache: nil, context: context)
      configuration.pooling = pooling.pooling
      let llm = try ModelFile.reading(path) { [configuration] in
        let progress = ProgressLine()
        defer { progress.clear() }
        return try LLM(files: ModelFiles(path: path), configuration: configuration) { progress.show("loading \(Int($0 * 100)) %") }
      }
      let vectors = try await llm.embed(
        texts.map { .text($0) }, options: EmbeddingOptions(dimensions: dimensions, truncates: truncate))
      if similarity {
        try Terminal.write(Self.table(vectors.map(\.values)))
      } else if json {
        for (index, vector) in vectors.enumerated() {
          try Terminal.writeJSON(Report(index: index, tokens: vector.tokenCount, embedding: vector.values))
        }
      } else {
        for vector in vectors { try Terminal.write("[" + vector.values.map { "\($0)" }.joined(separator: ", ") + "]\n") }
      }
    }
  }

  private static func table(_ vectors: [[Float]]) -> String {
    func cosine(_ a: [Float], _ b: [Float]) -> Double {
      var (product, first, second) = (0.0, 0.0, 0.0)
      for (x, y) in zip(a, b) {
        product += Double(x) * Double(y)
        first += Double(x) * Double(x)
        second += Double(y) * Double(y)
      }
      return product / max((first * second).squareRoot(), 1e-24)
    }
    return vectors.map { row in vectors.map { String(format: "%7.4f", cosine(row, $0)) }.joined(separator: " ") + "\n" }.joined()
  }

  struct Report: Encodable {
    var index: Int
    var tokens: Int
    var embedding: [Float]
  }
}

/// `--pooling`, for commands that make vectors.
struct PoolingOption: ParsableArguments {
  @Option(
    name: .customLong("pooling"),
    help: ArgumentHelp(
      "Make vectors of the model's states: mean, cls (the first token's) or last (default: as the model's files say).", valueName: "kind"))
  var kind: Kind?

  enum Kind: String, ExpressibleByArgument, CaseIterable {
    case mean, cls, last
  }

  var pooling: Pooling? {
    switch kind {
    case nil: nil
    case .mean: Pooling(.mean)
    case .cls: Pooling(.first)
    case .last: Pooling(.last)
    }
  }
}
