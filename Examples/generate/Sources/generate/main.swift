// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

// Text from a model, in one batch and as it comes: swift run -c release generate [PROMPT [FOLDER]]
//
// The default model is fetched into FOLDER (default: models) on first use.

import Martlet

let arguments = CommandLine.arguments.dropFirst()
let prompt = arguments.first ?? "The capital of France is"
let store = ModelStore(directory: arguments.dropFirst().first ?? "models")
let model = KnownModel.default.name

let path = try await store.path(of: model)
let llm = try LLM(model: path)

// Both are submitted before either is read, so they run side by side.
let plain = try llm.generate(.text(prompt), sampling: SamplingParams(maxTokens: 24))
let bold = try llm.generate(.text(prompt), sampling: SamplingParams(temperature: 0.9, topP: 0.95, seed: 7, maxTokens: 24))

for (name, generation) in [("greedy", plain), ("temperature 0.9", bold)] {
  print("\(name): \(prompt)", terminator: "")
  for try await chunk in generation { print(chunk.text, terminator: "") }
  print()
}

let scores = try await llm.score(try llm.tokenIDs(of: .text("\(prompt) Paris")))
print("log-probability of \"Paris\" after it: \(scores.last ?? 0)")
await llm.shutdown()
