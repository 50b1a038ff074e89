// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

import MartletAttention
import MartletCore

/// The input tensors of one layer and the host memory that they are filled from.
struct LayerInput {
  private let spec: AttentionLayerSpec
  private let form: ConformanceCase.Input
  /// q, k and v (of latents none, an empty tensor), or one fused tensor.
  private let tensors: [Tensor]
  private let hosts: [HostBuffer<Float>]

  init(_ spec: AttentionLayerSpec, _ form: ConformanceCase.Input, maxNumTokens: Int, on device: any Device) throws {
    self.spec = spec
    self.form = form
    let widths = form == .fused ? [spec.fusedWidth] : [spec.queryWidth, spec.keyWidth, spec.valueWidth]
    tensors = try widths.map { try device.makeTensor(Shape(maxNumTokens, $0), .f32) }
    hosts = try widths.map { try device.makeHostBuffer(of: Float.self, count: maxNumTokens * $0) }
  }

  var inputs: AttentionInputs {
    if form == .fused { return AttentionInputs(fusedQKV: tensors[0]) }
    if spec.mla != nil { return AttentionInputs(q: tensors[0], latents: tensors[1]) }
    return AttentionInputs(q: tensors[0], k: tensors[1], v: tensors[2])
  }

  /// The query tensor of separate inputs.
  var queries: Tensor { tensors[0] }

  /// Lays out the step's tokens; the rest keeps what an earlier step left there.
  /// - Returns: query tokens.
  func fill(
    _ pieces: [(rows: RequestRows, firstQuery: Int, firstKey: Int, piece: AttentionHarness.Piece)], on queue: any DeviceQueue
  ) -> Int {
    var (queries, keys) = (0, 0)
    for (rows, firstQuery, firstKey, piece) in pieces {
      switch form {
      case .fused:
        enforce(piece.keyCount == piece.newTokens, "a fused input of \(piece.newTokens) queries and \(piece.keyCount) keys")
        for token in 0..<piece.newTokens {
          let start = (queries + token) * spec.fusedWidth
          copy(rows.q, firstQuery + token, 1, spec.queryWidth, to: hosts[0], at: start)
          copy(rows.k, firstKey + token, 1, spec.keyWidth, to: hosts[0], at: start + spec.queryWidth)
          copy(rows.v, firstKey + token, 1, spec.valueWidth, to: hosts[0], at: start + spec.queryWidth + spec.keyWidth)
        }
      case .separate:
        copy(rows.q, firstQuery, piece.newTokens, spec.queryWidth, to: hosts[0], at: queries * spec.queryWidth)
        copy(rows.k, firstKey, piece.keyCount, spec.keyWidth, to: hosts[1], at: keys * spec.keyWidth)
        copy(rows.v, firstKey, piece.keyCount, spec.valueWidth, to: hosts[2], at: keys * spec.valueWidth)
      }
      queries += piece.newTokens
      keys += piece.keyCount
    }
    let counts = form == .fused ? [queries * spec.fusedWidth] : [queries * spec.queryWidth, keys * spec.keyWidth, keys * spec.valueWidth]
    for (index, count) in counts.enumerated() where count > 0 { queue.copy(hosts[index], count: count, to: tensors[index]) }
    return queries
  }

  private func copy(_ source: [Float], _ row: Int, _ rows: Int, _ width: Int, to target: HostBuffer<Float>, at start: Int) {
    source.withUnsafeBufferPointer {
      enforce((row + rows) * width <= $0.count, "rows \(row)..<\(row + rows) of \($0.count / width)")
      guard rows > 0 else { return }
      (target.unsafeStorage.baseAddress! + start).update(from: $0.baseAddress! + row * width, count: rows * width)
    }
  }
}

/// The output tensors of one layer and the host memory that they are read into.
struct LayerOutput {
  let values: Tensor
  let logSumExp: Tensor
  private let spec: AttentionLayerSpec
  private let floats: HostBuffer<Float>
  private let codes: HostBuffer<UInt8>
  private let sums: HostBuffer<Float>

  init(_ spec: AttentionLayerSpec, maxNumTokens: Int, on device: any Device) throws {
    let isFP8 = spec.quantConfig?.fp8Output ?? false
    self.spec = spec
    values = try device.makeTensor(Shape(maxNumTokens, spec.outputWidth), isFP8 ? .f8e4m3 : .f32)
    logSumExp = try device.makeTensor(Shape(maxNumTokens, spec.numHeads), .f32)
    floats = try device.makeHostBuffer(of: Float.self, count: isFP8 ? 1 : maxNumTokens * spec.outputWidth)
    codes = try device.makeHostBuffer(of: UInt8.self, count: isFP8 ? maxNumTokens * spec.outputWidth : 1)
    sums = try device.makeHostBuffer(of: Float.self, count: maxNumTokens * spec.numHeads)
  }

  /// Fills both tensors with NaN.
  func poison(on queue: any DeviceQueue) {
    if values.dataType == .f32 {
      floats.unsafeStorage.update(repeating: .nan)
      queue.copy(floats, count: values.count, to: values)
    } else {
      codes.unsafeStorage.update(repeating: 0xFF)
      queue.copy(codes, count: values.count, to: values)
    }
    sums.unsafeStorage.update(repeating: .nan)
    queue.copy(sums, count: logSumExp.count, to: logSumExp)
  }

  /// How many of the tokens that were read last have more in their rows than NaN.
  func writtenRows(_ tokens: Range<Int>) -> Int {
    tokens.count { token in
      let outputs = token * spec.outputWidth..<(token + 1) * spec.outputWidth
      let isUntouched =
        values.dataType == .f32 ? floats.unsafeStorage[outputs].allSatisfy(\.isNaN) : codes.unsafeStorage[outputs].allSatisfy { $0 == 0xFF }
      return !isUntouched || !sums.unsafeStorage[token * spec.numHeads..<(token + 1) * spec.numHeads].allSatisfy(\.isNaN)
    }
  }

  func read(_ count: Int, on queue: any DeviceQueue) {
    if values.dataType == .f32 { queue.copy(values.prefix(count), to: floats) } else { queue.copy(values.prefix(count), to: codes) }
    queue.copy(logSumExp.prefix(count), to: sums)
    queue.wait()
  }

  func append(_ tokens: Range<Int>, to rows: inout AttentionHarness.Rows) {
    let range = tokens.lowerBound * spec.outputWidth..<tokens.upperBound * spec.outputWidth
    if values.dataType == .f32 {
      rows.values += UnsafeBufferPointer(rebasing: floats.unsafeStorage[range])
    } else {
      rows.codes += UnsafeBufferPointer(rebasing: codes.unsafeStorage[range])
    }
    rows.logSumExp += UnsafeBufferPointer(
      rebasing: sums.unsafeStorage[tokens.lowerBound * spec.numHeads..<tokens.upperBound * spec.numHeads])
  }
}
