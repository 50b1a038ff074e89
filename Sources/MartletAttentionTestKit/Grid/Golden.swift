// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

import MartletAttention

/// The float64 truth of one scenario: what every query's attention is, and what the cache gives back.
public struct Golden: Sendable {
  /// One request's truth.
  public struct Request: Sendable {
    /// Which queries were computed, ascending.
    public var queries: [Int]
    /// `[queries.count][numHeads][valueHeadDim]`.
    public var values: [Double]
    /// `[queries.count][numHeads]`, base 2.
    public var logSumExp: [Double]
    /// `[keys][numKVHeads][headDim]`.
    public var storedKeys: [Double]
    /// `[keys][numKVHeads][valueHeadDim]`.
    public var storedValues: [Double]
  }

  /// By id.
  public let requests: [Int: Request]

  init(requests: [Int: Request]) { self.requests = requests }

  /// - Parameters:
  ///   - rounding: of queries; nil = as the scenario's layer says.
  ///   - isWanted: which queries are computed; all where nil.
  public init(_ scenario: ConformanceScenario, rounding: QueryRounding? = nil, isWanted: ((_ id: Int, _ query: Int) -> Bool)? = nil) {
    var layer = scenario.layer
    if let rounding { layer.queryRounding = rounding }
    let spec = layer.spec
    var requests: [Int: Request] = [:]
    for (id, rows) in scenario.requests {
      let reference = ReferenceAttention(layer, rows, keepsExactKeys: !scenario.usesCache)
      var request = Request(
        queries: [], values: [], logSumExp: [], storedKeys: reference.storedKeys, storedValues: reference.storedValues)
      var queries = 0
      var keys = 0
      for piece in scenario.steps.joined() where piece.id == id {
        keys += piece.keyCount
        for query in queries..<queries + piece.newTokens where isWanted?(id, query) ?? true {
          let row = request.queries.count
          request.queries.append(query)
          request.values += repeatElement(0, count: spec.outputWidth)
          request.logSumExp += repeatElement(0, count: spec.numHeads)
          request.values.withUnsafeMutableBufferPointer { values in
            request.logSumExp.withUnsafeMutableBufferPointer { sums in
              reference.attend(
                query: query, visible: scenario.visible(id, query: query, keys: keys),
                output: values.baseAddress! + row * spec.outputWidth, logSumExp: sums.baseAddress! + row * spec.numHeads)
            }
          }
        }
        queries += piece.newTokens
      }
      requests[id] = request
    }
    self.requests = requests
  }
}
