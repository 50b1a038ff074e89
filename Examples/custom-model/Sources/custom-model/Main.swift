// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

// custom-model DIRECTORY TOKEN…: what a model of an architecture from outside writes behind a prompt of these tokens.

import Martlet
import MartletModels

@main
struct CustomModel {
  static func main() async throws {
    let arguments = CommandLine.arguments.dropFirst()
    let prompt = arguments.dropFirst().compactMap { Int($0) }
    guard let directory = arguments.first, !prompt.isEmpty else {
      print("usage: custom-model DIRECTORY TOKEN…")
      return
    }
    let llm = try LLM(model: directory, configuration: EngineConfiguration(models: .builtIn.adding(Ernie.self)))
    let output = try await llm.generate(.tokenIDs(prompt), sampling: SamplingParams(temperature: 0, maxTokens: 8, ignoresEndTokens: true))
      .output()
    print("tokens:", output.tokenIDs.map(String.init).joined(separator: " "))
  }
}
