// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

import MartletCore

/// A model source whose attention heads have further dims that are always 0, for heads of a size that attention does not take.
///
/// Small encoders have heads of 26 dims, say, where attention's kernels take multiples of 8. A dim whose query, key and value are 0 changes no
/// score and no sum: rows of zeros stand behind each head's in the matrices of queries, keys and values, and columns of zeros in that of the output.
struct PaddedHeads: ModelSource {
  let source: any ModelSource
  /// Heads of queries, and of keys and values.
  let numHeads: Int
  let numKVHeads: Int
  /// Dims of a head in the files, and here.
  let dim: Int
  let paddedDim: Int

  /// What dims of heads are a multiple of.
  static let multiple = 8

  static func paddedDim(_ dim: Int) -> Int { (dim + multiple - 1) / multiple * multiple }

  func weight(_ name: String, rows: Int?, columns: Int?) throws -> Weight {
    if let heads = heads(of: name, "weight") {
      let weight = try source.weight(name, rows: heads * dim, columns: columns)
      guard weight.isContiguous else { throw apart(name, weight) }
      return weight.paddingRows(heads: heads, dim: dim, to: paddedDim)
    }
    guard name.hasPrefix("blk."), name.hasSuffix(".attn_output.weight") else {
      return try source.weight(name, rows: rows, columns: columns)
    }
    let weight = try source.weight(name, rows: rows, columns: numHeads * dim)
    guard weight.isContiguous else { throw apart(name, weight) }
    guard let padded = weight.paddingColumns(heads: numHeads, dim: dim, to: paddedDim) else {
      throw source.invalid(
        name, weight.format.rawValue, "heads of \(dim) dims do not divide into its blocks; take weights in F32, F16 or BF16")
    }
    return padded
  }

  private func apart(_ name: String, _ weight: Weight) -> ModelError {
    source.invalid(
      name, weight.format.rawValue, "heads of \(dim) dims are padded, which is not done with scales apart; take weights in F32, F16 or BF16"
    )
  }

  func floats(_ name: String, count: Int?) throws -> [Float] {
    guard let heads = heads(of: name, "bias") else { return try source.floats(name, count: count) }
    let values = try source.floats(name, count: heads * dim)
    return (0..<heads).flatMap { values[$0 * dim..<($0 + 1) * dim] + [Float](repeating: 0, count: paddedDim - dim) }
  }

  /// The heads of a tensor that makes queries, keys or values; nil of another.
  private func heads(of name: String, _ kind: String) -> Int? {
    guard name.hasPrefix("blk.") else { return nil }
    if name.hasSuffix(".attn_q.\(kind)") { return numHeads }
    return name.hasSuffix(".attn_k.\(kind)") || name.hasSuffix(".attn_v.\(kind)") ? numKVHeads : nil
  }

  // MARK: As the source has it

  func string(ifPresent key: String) throws -> String? { try source.string(ifPresent: key) }
  func integer(ifPresent key: String) throws -> Int? { try source.integer(ifPresent: key) }
  func float(ifPresent key: String) throws -> Float? { try source.float(ifPresent: key) }
  func bool(ifPresent key: String) throws -> Bool? { try source.bool(ifPresent: key) }
  func isList(_ key: String) -> Bool { source.isList(key) }
  func floatList(ifPresent key: String) throws -> [Float]? { try source.floatList(ifPresent: key) }
  func boolList(ifPresent key: String) throws -> [Bool]? { try source.boolList(ifPresent: key) }
  func integerList(ifPresent key: String) throws -> [Int]? { try source.integerList(ifPresent: key) }
  func spelling(of name: String) -> String { source.spelling(of: name) }
  var ignoredSettings: [String] { source.ignoredSettings }
  func missingKey(_ key: String) -> any Error { source.missingKey(key) }
  var modelTensors: [ModelTensor] { source.modelTensors }
  func weights(_ name: String, count: Int, rows: Int, columns: Int) throws -> [Weight] {
    try source.weights(name, count: count, rows: rows, columns: columns)
  }
}

/// Bytes that begin as zeros, for weights that no file has.
private final class OwnBytes {
  let bytes: UnsafeMutableRawBufferPointer

  init(count: Int) {
    bytes = .allocate(byteCount: count, alignment: 64)
    bytes.initializeMemory(as: UInt8.self, repeating: 0)
  }

  deinit { bytes.deallocate() }
}

extension Weight {
  /// Rows of zeros behind the `dim` rows of each head. (Zeros are zeros in every format.)
  fileprivate func paddingRows(heads: Int, dim: Int, to paddedDim: Int) -> Weight {
    let size = format.byteCount(ofRow: columns)
    let own = OwnBytes(count: heads * paddedDim * size)
    for head in 0..<heads {
      UnsafeMutableRawBufferPointer(rebasing: own.bytes[head * paddedDim * size..<(head * paddedDim + dim) * size])
        .copyMemory(from: UnsafeRawBufferPointer(rebasing: bytes[head * dim * size..<(head + 1) * dim * size]))
    }
    return Weight(
      name: name, format: format, rows: heads * paddedDim, columns: columns, bytes: UnsafeRawBufferPointer(own.bytes), owner: own)
  }

  /// Columns of zeros behind the `dim` columns of each head; nil in a format whose blocks the heads do not divide into.
  fileprivate func paddingColumns(heads: Int, dim: Int, to paddedDim: Int) -> Weight? {
    guard format == .f32 || format == .f16 || format == .bf16 else { return nil }
    let size = format.byteCount(ofRow: 1), width = heads * paddedDim
    let own = OwnBytes(count: rows * width * size)
    for row in 0..<rows {
      for head in 0..<heads {
        let target = (row * width + head * paddedDim) * size, start = (row * columns + head * dim) * size
        UnsafeMutableRawBufferPointer(rebasing: own.bytes[target..<target + dim * size])
          .copyMemory(from: UnsafeRawBufferPointer(rebasing: bytes[start..<start + dim * size]))
      }
    }
    return Weight(name: name, format: format, rows: rows, columns: width, bytes: UnsafeRawBufferPointer(own.bytes), owner: own)
  }
}
