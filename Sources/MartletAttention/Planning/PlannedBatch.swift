// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

public import MartletCore

/// What a planner must know of a step, in host memory.
public struct PlannedBatch: Sendable {
  /// The pages of a step's requests: what a planner compares to find chunks that requests share.
  public struct Pages: Sendable {
    /// `[numRequests, width]`, as in ``PagedKV/pageTable``.
    public var table: HostBuffer<Int32>
    public var width: Int
    /// Tokens in a page.
    public var pageSize: Int

    public init(table: HostBuffer<Int32>, width: Int, pageSize: Int) {
      self.table = table
      self.width = width
      self.pageSize = pageSize
    }
  }

  /// Requests, dummies included.
  public var numRequests: Int
  /// The first of them: those that a key may leave out (``AttentionPlanKey/unattendedContextLength``).
  public var numContexts: Int
  /// `numRequests + 1` entries: where each request's queries begin.
  public var queryIndptr: HostBuffer<Int32>
  /// `numRequests` entries, after the step's append; a request of no keys is skipped.
  public var kvLens: HostBuffer<Int32>
  /// `numRequests` entries, −1 for a request without custom mask bits; nil where nobody has any.
  public var maskOffsets: HostBuffer<Int32>?
  /// Present where shared chunks are to be found.
  public var pages: Pages?

  public init(
    numRequests: Int, numContexts: Int = 0, queryIndptr: HostBuffer<Int32>, kvLens: HostBuffer<Int32>,
    maskOffsets: HostBuffer<Int32>? = nil, pages: Pages? = nil
  ) {
    self.numRequests = numRequests
    self.numContexts = numContexts
    self.queryIndptr = queryIndptr
    self.kvLens = kvLens
    self.maskOffsets = maskOffsets
    self.pages = pages
  }

  func queryCount(_ request: Int) -> Int { Int(queryIndptr[request + 1] - queryIndptr[request]) }
  func keyLength(_ request: Int) -> Int { Int(kvLens[request]) }
  /// Whether a key has nothing to plan for a request: a dummy, or a context that it leaves out.
  func isLeftOut(_ request: Int, of key: AttentionPlanKey) -> Bool {
    keyLength(request) == 0 || request < numContexts && key.unattendedContextLength.map { queryCount(request) >= $0 } ?? false
  }
  func hasBits(_ request: Int) -> Bool { maskOffsets.map { $0[request] >= 0 } ?? false }
}
