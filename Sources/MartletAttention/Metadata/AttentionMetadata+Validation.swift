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
    for sequence in 0..<numSeqs {
      guard seqLens[sequence] >= 1 else {
        throw .invalidStep("sequence \(sequence) has \(seqLens[sequence]) new tokens; it needs at least 1")
      }
      guard seqLensKV[sequence] >= 0 else {
        throw .invalidStep("sequence \(sequence) has \(seqLensKV[sequence]) new key/value tokens; they cannot be less than none")
      }
    }
    guard numTokens <= maxNumTokens else {
      throw .invalidStep("the step has \(numTokens) tokens, more than maxNumTokens = \(maxNumTokens)")
    }
    guard numNewKVTokens <= maxNumKVTokens else {
      throw .invalidStep("the step has \(numNewKVTokens) new key/value tokens, more than maxNumKVTokens = \(maxNumKVTokens)")
    }
    guard promptLens.isEmpty || promptLens.count == numSeqs else {
      throw .invalidStep("\(promptLens.count) prompt lengths for \(numSeqs) sequences")
    }
    guard customMasks.isEmpty || customMasks.count == numSeqs else {
      throw .invalidStep("\(customMasks.count) custom masks for \(numSeqs) sequences")
    }
    if usesCache { try validateCache() }
    for sequence in 0..<numSeqs where !isDummy(sequence) {
      let keyLength = numCachedTokens(of: sequence) + Int(seqLensKV[sequence])
      guard keyLength > 0 else {
        throw .invalidStep("sequence \(sequence) has no keys to attend to; its encoder's come with its first step")
      }
      guard keyLength <= setup.context.maxSequenceLength else {
        throw .invalidStep(
          "sequence \(sequence) reaches \(keyLength) tokens, more than maxSequenceLength = \(setup.context.maxSequenceLength)")
      }
      if let mask = customMask(of: sequence) { try validate(mask, of: sequence, keyLength: keyLength) }
    }
    if let onlyMask, onlyMask != .causal, onlyMask != .custom { try validateUse(of: onlyMask) }
    try validatePositions()
  }

  private func validate(_ mask: CustomAttentionMask, of sequence: Int, keyLength: Int) throws(AttentionError) {
    guard mask.queryLength == Int(seqLens[sequence]) && mask.keyLength == keyLength else {
      throw .invalidStep(
        "the mask of sequence \(sequence) is \(mask.queryLength) × \(mask.keyLength); its step is \(seqLens[sequence]) × \(keyLength)")
    }
    if mask.looksAhead && isChunk(sequence) {
      throw .invalidStep(
        "sequence \(sequence) reads \(keyLength) of \(promptLens[sequence]) prompt tokens under bits that look ahead; "
          + "such a prompt is never chunked: give it whole")
    }
  }

  /// Whether layers may use this mask in the step: asked at each forward, because the mask is the forward's.
  func validateUse(of mask: AttentionMask) throws(AttentionError) {
    switch mask {
    case .causal:
      if isCross { throw .invalidStep("cross attention has no causal order; use the full mask, or custom bits") }
    case .full, .bidirectional:
      if isCross && mask == .bidirectional {
        throw .invalidStep("cross attention has no positions beside each other; use the full mask, or custom bits")
      }
      for sequence in 0..<numContexts where isChunk(sequence) {
        throw .invalidStep(
          "sequence \(sequence) reads a chunk of \(seqLens[sequence]) of \(promptLens[sequence]) prompt tokens under the \(mask) mask; "
            + "such a prompt is never chunked: give it whole")
      }
    case .custom:
      if !isCross { return }
      for sequence in 0..<numSeqs where !isDummy(sequence) && customMask(of: sequence) == nil {
        throw .invalidStep("sequence \(sequence) has no mask bits, and cross attention has no causal order to fall back to")
      }
    }
  }

  /// Whether the pages are there of all keys that queries of the layer see. Those behind a sliding window went back: causal queries do not see
  /// them, but others may.
  func validatePages(of layer: AttentionLayerSpec, under mask: AttentionMask) throws(AttentionError) {
    guard let window = layer.window, mask != .causal, mask != .bidirectional, usesCache, let manager = kvCacheManager else { return }
    let table = pageTables[manager.pool(ofLayer: position(ofLayer: layer.layerIndex))].host
    for sequence in 0..<numSeqs where !isDummy(sequence) {
      let bits = customMask(of: sequence)
      if mask == .custom && bits == nil { continue }  // causal
      let length = Int(kvLens[sequence])
      for entry in 0..<(length + manager.pageSize - 1) / manager.pageSize where table[sequence * pageTableWidth + entry] < 0 {
        let keys = entry * manager.pageSize..<min((entry + 1) * manager.pageSize, length)
        if mask == .custom, let bits, !bits.shows(keys) { continue }
        throw .invalidStep(
          "request \(requestIDs[sequence]) looks at keys \(keys.lowerBound)…\(keys.upperBound - 1), which went back behind the window of "
            + "\(window) of layer \(layer.layerIndex); give such a request whole, or bits within the window")
      }
    }
  }

  /// Whether the sequence is a context that leaves some of its prompt to later steps. In cross attention no: keys are another prompt's.
  private func isChunk(_ sequence: Int) -> Bool {
    !isCross && sequence < numContexts && !promptLens.isEmpty
      && numCachedTokens(of: sequence) + Int(seqLens[sequence]) < promptLens[sequence]
  }

  private func validateCache() throws(AttentionError) {
    guard let manager = kvCacheManager else { return }
    guard requestIDs.count == numSeqs, kvCacheParams.numCachedTokensPerSeq.count == numSeqs else {
      throw .invalidStep(
        "\(requestIDs.count) request ids and \(kvCacheParams.numCachedTokensPerSeq.count) cached lengths for \(numSeqs) sequences")
    }
    idsOfStep.removeAll(keepingCapacity: true)
    for sequence in 0..<numSeqs where !isDummy(sequence) {
      let id = requestIDs[sequence]
      guard idsOfStep.insert(id).inserted else { throw .invalidStep("request \(id) is in the step twice") }
      let cached = kvCacheParams.numCachedTokensPerSeq[sequence]
      guard manager.contains(id) else { throw .invalidStep("request \(id) is not in the key/value cache; add it before the step") }
      guard cached >= manager.computedLength(id) else {
        throw .invalidStep("request \(id) says \(cached) cached tokens, and \(manager.computedLength(id)) were computed")
      }
      let needed = cached + Int(seqLensKV[sequence]) + kvCacheParams.numExtraKVTokens
      guard manager.length(id) >= needed else {
        throw .invalidStep(
          "request \(id) has pages for \(manager.length(id)) tokens, and this step needs \(needed); extend it before the step")
      }
    }
  }

  /// Positions index the rotation tables, so those that the host can see are checked.
  private func validatePositions() throws(AttentionError) {
    guard let positionIDs else {
      if needsPositionIDs {
        throw .invalidStep("cross attention with rotary positions needs positionIDs: its queries have no cache positions")
      }
      return
    }
    guard positionIDs.dataType == .i32, positionIDs.count >= numTokens else {
      throw .invalidStep("positionIDs are \(positionIDs.shape) \(positionIDs.dataType); the step needs \(numTokens) of i32")
    }
    guard let positions = positionIDs.unsafeHostPointer(to: Int32.self) else { return }
    let most = setup.context.maxSequenceLength
    // Time, height and width, or one for all.
    for row in 0..<(positionIDs.hasAxes(tokens: numTokens) ? 3 : 1) {
      for token in 0..<numTokens {
        let position = Int(positions[row * positionIDs.shape[positionIDs.shape.rank - 1] + token])
        if !(0..<most).contains(position) { throw .invalidStep("token \(token) has position \(position), outside 0..<\(most)") }
      }
    }
  }
}
