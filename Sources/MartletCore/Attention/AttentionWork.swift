// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

/// Who computes what in one attention call: tasks that a planner made, claimed by a device's workers in any order.
///
/// The plan never decides the arithmetic. The key/value axis is cut at absolute positions into chunks of ``chunkSize`` tokens, each
/// made of tiles of ``tileSize``; a row's chunk states are folded in ascending order by one merge function, whether one task visited
/// all chunks or each had its own. Chunks that the mask hides entirely from a row block are left out by the planner.
public struct AttentionWork: Sendable {
  /// Tokens in a chunk: a constant of the house, because another value is another arithmetic.
  public static let chunkSize = 512
  /// Tokens in a tile.
  public static let tileSize = 64

  /// int32 `[numTasks, 8]`, each row an ``AttentionTask``.
  public var tasks: Tensor
  public var numTasks: Int
  /// int32 `[numSegments, 8]`, each row an ``AttentionSegment``: the rows of tasks that gather several requests.
  public var segments: Tensor
  public var numSegments: Int
  /// int32 `[numMerges, 4]`, each row an ``AttentionMerge``.
  public var merges: Tensor
  public var numMerges: Int
  /// float32 `[slots · rows of a slot, valueHeadDim + 2]` scratch for chunk states (m, d, unnormalised o): `slotRows` rows to a slot.
  public var states: Tensor
  /// int32 `[numMerges]`, zero before and after each call: how many tasks of a merge have finished.
  public var finished: Tensor

  public init(
    tasks: Tensor, numTasks: Int, segments: Tensor, numSegments: Int = 0, merges: Tensor, numMerges: Int, states: Tensor, finished: Tensor
  ) {
    self.tasks = tasks
    self.numTasks = numTasks
    self.segments = segments
    self.numSegments = numSegments
    self.merges = merges
    self.numMerges = numMerges
    self.states = states
    self.finished = finished
  }
}

/// A block of query rows of one key/value head against a run of chunks.
///
/// The rows of a request and key/value head are its (token, head of the group) pairs, token-major: row = token·groupSize + head.
///
/// A *cascade* task (``merge`` is ``cascade``) takes rows of several requests against one chunk whose pages they share, so that the chunk is
/// read once for all: its rows are those of ``AttentionSegment``s, `stateRow` many from `firstRow` on, every one of which sees the whole
/// chunk; `request` is the one whose page table is read, `rowCount` the sum of the segments'.
public struct AttentionTask: Sendable, BitwiseCopyable, Hashable {
  /// The most rows in a task.
  public static let maxRows = 96
  /// ``merge`` of a task that visits all chunks of its rows and writes the output itself.
  public static let whole: Int32 = -1
  /// ``merge`` of a task whose rows are segments.
  public static let cascade: Int32 = -2

  /// Within the batch.
  public var request: Int32
  public var kvHead: Int32
  public var firstRow: Int32
  /// 1…``maxRows``.
  public var rowCount: Int32
  public var firstChunk: Int32
  /// One past the last.
  public var endChunk: Int32
  /// The merge this task belongs to, or ``whole``, or ``cascade``.
  public var merge: Int32
  /// The first row of `states` for this task's state; one chunk state per task when `merge` ≥ 0, so `endChunk == firstChunk + 1`.
  public var stateRow: Int32

  public init(
    request: Int32, kvHead: Int32, firstRow: Int32, rowCount: Int32, firstChunk: Int32, endChunk: Int32, merge: Int32 = whole,
    stateRow: Int32 = 0
  ) {
    self.request = request
    self.kvHead = kvHead
    self.firstRow = firstRow
    self.rowCount = rowCount
    self.firstChunk = firstChunk
    self.endChunk = endChunk
    self.merge = merge
    self.stateRow = stateRow
  }
}

/// Some rows of one request in a cascade task, with the merge that their states belong to.
public struct AttentionSegment: Sendable, BitwiseCopyable, Hashable {
  /// Within the batch.
  public var request: Int32
  public var firstRow: Int32
  public var rowCount: Int32
  public var merge: Int32
  /// The first row of `states` for this segment's state of the task's chunk.
  public var stateRow: Int32
  public var reserved0: Int32 = 0
  public var reserved1: Int32 = 0
  public var reserved2: Int32 = 0

  public init(request: Int32, firstRow: Int32, rowCount: Int32, merge: Int32, stateRow: Int32) {
    self.request = request
    self.firstRow = firstRow
    self.rowCount = rowCount
    self.merge = merge
    self.stateRow = stateRow
  }
}

/// Chunk states of one row block that fold into its output: the last task to finish folds them, in ascending order of chunks.
public struct AttentionMerge: Sendable, BitwiseCopyable, Hashable {
  /// The first row in `states`; chunk c of the merge lies `c·rowCount` rows further.
  public var stateRow: Int32
  /// Chunks of this merge; each has one task, or a segment of one.
  public var chunkCount: Int32
  public var rowCount: Int32
  public var reserved: Int32 = 0

  public init(stateRow: Int32, chunkCount: Int32, rowCount: Int32) {
    self.stateRow = stateRow
    self.chunkCount = chunkCount
    self.rowCount = rowCount
  }
}
