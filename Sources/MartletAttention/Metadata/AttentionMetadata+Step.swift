// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

// A step is set and read here; it is prepared in AttentionMetadata.swift.

import MartletCore

// MARK: - Setting a step

extension AttentionMetadata {
  /// The id of requests that only fill a captured batch. Other requests have ids from 0 on.
  public static let dummyRequestID = -1

  /// Empties the step, keeping all memory.
  public final func removeAllRequests() {
    numSeqs = 0
    requestIDs.removeAll(keepingCapacity: true)
    promptLens.removeAll(keepingCapacity: true)
    kvCacheParams.numCachedTokensPerSeq.removeAll(keepingCapacity: true)
    customMasks.removeAll(keepingCapacity: true)
    positionIDs = nil
    numContexts = 0
  }

  /// Appends a sequence to the step: contexts first.
  /// - Parameters:
  ///   - newTokens: its query tokens in this step.
  ///   - newKVTokens: the tokens whose keys and values it appends; nil = `newTokens`. Another number, which may be 0, in cross attention only.
  ///   - cachedTokens: its tokens that are in the cache before this step.
  ///   - promptLength: its request's full prompt length.
  /// - Precondition: there is room; no generation was added before a context.
  public final func addRequest(
    _ id: Int, newTokens: Int, newKVTokens: Int? = nil, cachedTokens: Int, promptLength: Int, isContext: Bool
  ) {
    enforce(numSeqs < maxNumRequests, "a batch of more than \(maxNumRequests) requests")
    enforce(!isContext || numContexts == numSeqs, "the context of request \(id) comes after a generation; contexts come first")
    enforce(
      isCross || newKVTokens ?? newTokens == newTokens,
      "request \(id) has \(newTokens) queries and \(newKVTokens ?? 0) keys; they differ in cross attention only")
    seqLens[numSeqs] = Int32(newTokens)
    if isCross { seqLensKV[numSeqs] = Int32(newKVTokens ?? newTokens) }
    numSeqs += 1
    requestIDs.append(id)
    promptLens.append(promptLength)
    kvCacheParams.numCachedTokensPerSeq.append(cachedTokens)
    if isContext { numContexts += 1 } else { countTokens() }
  }

  /// Fills the step with dummies up to the batch size that a graph was captured with.
  ///
  /// A dummy has as many query tokens as each request of the batch (`Setup.queriesPerRequest`), no keys and no pages. Kernels and planner
  /// skip it, and its output rows are not written. Call it after the last `addRequest` and after the custom masks are set.
  public final func addDummyRequests(upTo batchSize: Int) {
    while numSeqs < batchSize {
      addRequest(
        Self.dummyRequestID, newTokens: setup.queriesPerRequest, newKVTokens: isCross ? 0 : nil, cachedTokens: 0, promptLength: 0,
        isContext: false)
      if !customMasks.isEmpty { customMasks.append(nil) }
    }
  }

  /// Sets the new query tokens of every sequence; in cross attention the new key/value tokens become 0.
  /// - Precondition: at most ``maxNumRequests``.
  public final func setSeqLens(_ lengths: some Collection<Int>) {
    enforce(lengths.count <= maxNumRequests, "\(lengths.count) requests in a batch of at most \(maxNumRequests)")
    for (index, length) in lengths.enumerated() {
      seqLens[index] = Int32(length)
      if isCross { seqLensKV[index] = 0 }
    }
    numSeqs = lengths.count
    countTokens()
  }

  /// Sets the new key/value tokens of every sequence of a cross metadata, after ``setSeqLens(_:)``.
  /// - Precondition: attention is cross; as many as there are sequences.
  public final func setSeqLensKV(_ lengths: some Collection<Int>) {
    enforce(isCross, "key/value tokens of their own are for cross attention")
    enforce(lengths.count == numSeqs, "\(lengths.count) numbers of key/value tokens for \(numSeqs) sequences")
    for (index, length) in lengths.enumerated() { seqLensKV[index] = Int32(length) }
    countTokens()
  }

  /// What follows from ``seqLens``, ``seqLensKV`` and ``numContexts``, once they agree.
  final func countTokens() {
    numTokens = 0
    numCtxTokens = 0
    numNewKVTokens = 0
    for sequence in 0..<numSeqs {
      numTokens += Int(seqLens[sequence])
      numNewKVTokens += Int(seqLensKV[sequence])
      if sequence < numContexts { numCtxTokens += Int(seqLens[sequence]) }
    }
    numGenerations = max(0, numSeqs - numContexts)
  }
}

// MARK: - Reading a step

extension AttentionMetadata {
  /// New query tokens of the contexts.
  public final var contextLens: [Int] { (0..<min(numContexts, numSeqs)).map { Int(seqLens[$0]) } }

  /// Whether the step reads and writes the key/value cache.
  public final var usesCache: Bool { kvCacheManager != nil && kvCacheParams.useCache }

  /// Tokens of a sequence that are in the cache before this step.
  public final func numCachedTokens(of sequence: Int) -> Int {
    usesCache ? kvCacheParams.numCachedTokensPerSeq[sequence] : 0
  }

  /// Whether the layer appends the sequence's keys and leaves its queries' attention to somebody else
  /// (``AttentionLayerSpec/unattendedContextLength``).
  public final func isUnattended(_ sequence: Int, in layer: AttentionLayerSpec) -> Bool {
    guard let length = layer.unattendedContextLength, usesCache, sequence < numContexts else { return false }
    return seqLens[sequence] >= length
  }

  /// Whether the sequence only fills a captured batch.
  public final func isDummy(_ sequence: Int) -> Bool { sequence < requestIDs.count && requestIDs[sequence] == Self.dummyRequestID }

  /// The mask bits of a sequence, where it has any.
  public final func customMask(of sequence: Int) -> CustomAttentionMask? { customMasks.isEmpty ? nil : customMasks[sequence] }
}
