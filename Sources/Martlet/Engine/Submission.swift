// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

package import MartletGrammar

/// What a token of a given sequence was worth to the model.
package struct TokenScore: Sendable, Hashable {
  /// log p(token | those before), in nats.
  package var logprob: Float
  /// The token that the model thought most probable at its place.
  package var best: Int
}

/// A request on its way into the loop.
package struct Submission: Sendable {
  package enum Purpose: Sendable {
    case generation(SamplingParams, ChunkChannel)
    case scoring(CheckedContinuation<[TokenScore], any Error>)
    /// The text's place in its call.
    case embedding(EmbeddingReply, Int)
  }

  var id: Int
  var prompt: [Int32]
  var positions: TokenPositions?
  /// The most tokens, prompt and answer.
  var maxLength: Int
  /// When, on the engine's clock.
  var submitted: Duration
  var purpose: Purpose
  var options: RequestOptions
  /// What ``SamplingParams/form`` was compiled to.
  var constraint: GrammarConstraint?
  /// What log lines call it.
  var name: String

  package init(
    id: Int, prompt: [Int32], positions: TokenPositions? = nil, maxLength: Int, submitted: Duration, purpose: Purpose,
    options: RequestOptions = RequestOptions(), constraint: GrammarConstraint? = nil, name: String = ""
  ) {
    self.id = id
    self.prompt = prompt
    self.positions = positions
    self.maxLength = maxLength
    self.submitted = submitted
    self.purpose = purpose
    self.options = options
    self.constraint = constraint
    self.name = name
  }

  func fail(_ error: any Error) {
    switch purpose {
    case .generation(_, let channel): channel.fail(error)
    case .scoring(let continuation): continuation.resume(throwing: error)
    case .embedding(let reply, _): reply.fail(error)
    }
  }
}
