// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

/// Who is told when an engine's steps begin and end, on the engine's thread and while it waits: how a benchmark knows which kernels are which
/// step's.
package protocol StepObserver: Sendable {
  func stepBegins()
  /// Around the choice of each request's next token.
  func samplingBegins()
  func samplingEnds()
  /// - Parameters:
  ///   - contexts: requests whose prompts it read.
  ///   - generations: requests that it computed the last token of.
  ///   - tokens: of all together.
  func stepEnds(contexts: Int, generations: Int, tokens: Int)
}
