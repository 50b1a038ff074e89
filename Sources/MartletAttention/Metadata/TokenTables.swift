// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

import MartletCore

/// The tables of a step's packed tokens: where each request's begin, whose each is and at which position.
final class TokenTables {
  /// `[r + 1]`.
  let indptr: StepTable
  /// `[n]`.
  let requests: StepTable
  /// `[n]`.
  let positions: StepTable
  private var count = 0

  init(requests requestCount: Int, tokens: Int, on device: any Device) throws {
    indptr = try StepTable(count: requestCount + 1, on: device)
    requests = try StepTable(count: tokens, on: device)
    positions = try StepTable(count: tokens, on: device)
  }

  func begin() {
    count = 0
    indptr.host[0] = 0
  }

  /// Appends the tokens of the next request.
  /// - Parameter first: the position of its first token; nil for a dummy, whose tokens are all at 0.
  func append(_ request: Int, count new: Int, at first: Int?) {
    enforce(count + new <= requests.host.count, "\(count + new) tokens in tables of \(requests.host.count)")
    let requests = requests.host.unsafeStorage
    let positions = positions.host.unsafeStorage
    for offset in 0..<new {
      requests[count + offset] = Int32(request)
      positions[count + offset] = first.map { Int32($0 + offset) } ?? 0
    }
    count += new
    indptr.host[request + 1] = Int32(count)
  }

  func upload(requests requestCount: Int, tokens: Int, kvLens: Tensor, positionIDs: Tensor?, on queue: any DeviceQueue) -> RaggedQueries {
    let positions = positions.upload(tokens, on: queue)
    return RaggedQueries(
      numRequests: requestCount, numTokens: tokens, queryIndptr: indptr.upload(requestCount + 1, on: queue), kvLens: kvLens,
      tokenRequests: requests.upload(tokens, on: queue), tokenPositions: positions,
      positionIDs: positionIDs.map { $0.hasAxes(tokens: tokens) ? $0 : $0.reshaped(Shape($0.count)).prefix(tokens) } ?? positions)
  }

  /// The view before the first step.
  func emptyView(kvLens: Tensor) -> RaggedQueries {
    RaggedQueries(
      numRequests: 0, numTokens: 0, queryIndptr: indptr.device.prefix(1), kvLens: kvLens.prefix(0),
      tokenRequests: requests.device.prefix(0),
      tokenPositions: positions.device.prefix(0), positionIDs: positions.device.prefix(0))
  }
}

extension Tensor {
  /// Whether positions of so many tokens are those of three axes, a row each.
  func hasAxes(tokens: Int) -> Bool { shape.rank == 2 && shape[0] == 3 && shape[1] >= tokens }
}
