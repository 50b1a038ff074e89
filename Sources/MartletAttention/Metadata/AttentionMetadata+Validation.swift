// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

import MartletCore
import MartletKVCache

extension AttentionMetadata {
  /// Whether the step's fields agree with each other, with the limits and with the cache.
  func validateStep() throws(AttentionError) {
    guard numSeqs > 0 else { throw .invalidStep("the step has no sequences") }
    guard numContexts >= 0 && numContexts <= numSeqs else {
      throw .invalidStep("\(numContexts) contexts among \(numSeqs) sequences")
    }
    for sequence in 0..<numSeqs where seqLens[sequence] < 1 {
      throw .invalidStep("sequence \(sequence) has \(seqLens[sequence]) new tokens; it needs at least 1")
    }
    guard numTokens <= maxNumTokens else {
      throw .invalidStep("the step has \(numTokens) tokens, more than maxNumTokens = \(maxNumTokens)")
    }
    guard promptLens.isEmpty || promptLens.count == numSeqs else {
      throw .invalidStep("\(promptLens.count) prompt lengths for \(numSeqs) sequences")
    }
    guard customMasks.isEmpty || customMasks.count == numSeqs else {
      throw .invalidStep("\(customMasks.count) custom masks for \(numSeqs) sequences")
    }
    if usesCache { try validateCache() }
    for sequence in 0..<numSeqs {
      let keyLength = numCachedTokens(of: sequence) + Int(seqLens[sequence])
      guard keyLength <= setup.context.maxSequenceLength else {
        throw .invalidStep(
          "sequence \(sequence) reaches \(keyLength) tokens, more than maxSequenceLength = \(setup.context.maxSequenceLength)")
      }
      if let mask = customMask(of: sequence), mask.queryLength != Int(seqLens[sequence]) || mask.keyLength != keyLength {
        throw .invalidStep(
          "the mask of sequence \(sequence) is \(mask.queryLength) × \(mask.keyLength); its step is \(seqLens[sequence]) × \(keyLength)")
      }
    }
    try validatePositions()
  }

  private func validateCache() throws(AttentionError) {
    guard let manager = kvCacheManager else { return }
    guard requestIDs.count == numSeqs, kvCacheParams.numCachedTokensPerSeq.count == numSeqs else {
      throw .invalidStep(
        "\(requestIDs.count) request ids and \(kvCacheParams.numCachedTokensPerSeq.count) cached lengths for \(numSeqs) sequences")
    }
    for sequence in 0..<numSeqs {
      let id = requestIDs[sequence]
      let cached = kvCacheParams.numCachedTokensPerSeq[sequence]
      guard manager.contains(id) else { throw .invalidStep("request \(id) is not in the key/value cache; add it before the step") }
      guard cached >= manager.computedLength(id) else {
        throw .invalidStep("request \(id) says \(cached) cached tokens, and \(manager.computedLength(id)) were computed")
      }
      let needed = cached + Int(seqLens[sequence]) + kvCacheParams.numExtraKVTokens
      guard manager.length(id) >= needed else {
        throw .invalidStep(
          "request \(id) has pages for \(manager.length(id)) tokens, and this step needs \(needed); extend it before the step")
      }
    }
  }

  /// Positions index the rotation tables, so those that the host can see are checked.
  private func validatePositions() throws(AttentionError) {
    guard let positionIDs else { return }
    guard positionIDs.dataType == .i32, positionIDs.count >= numTokens else {
      throw .invalidStep("positionIDs are \(positionIDs.shape) \(positionIDs.dataType); the step needs \(numTokens) of i32")
    }
    guard let positions = positionIDs.unsafeHostPointer(to: Int32.self) else { return }
    for token in 0..<numTokens where positions[token] < 0 || Int(positions[token]) >= setup.context.maxSequenceLength {
      throw .invalidStep("token \(token) has position \(positions[token]), outside 0..<\(setup.context.maxSequenceLength)")
    }
  }
}
