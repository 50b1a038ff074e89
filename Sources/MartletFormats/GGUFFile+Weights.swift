// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

public import MartletCore

extension GGUFFile {
  /// The matrix `name` as it lies in the file: a view, no copy, that keeps the file. NVFP4 is with the factor that the file has beside it.
  ///
  /// - Parameters rows, columns: what the model needs; another shape is an error. nil accepts any.
  public func weight(_ name: String, rows: Int? = nil, columns: Int? = nil) throws(GGUFError) -> Weight {
    try [bareWeight(name, rows: rows, columns: columns)].multiplied(
      byFactorsOf: name, in: tensor(GGUFTensor.factors(of: name)) == nil ? nil : self)[0]
  }

  /// The matrices of the tensor `name`, which has three dims: views in order, no copies. Each of NVFP4 is with its factor.
  ///
  /// - Parameters count, rows, columns: what the model needs; another shape is an error.
  public func weights(_ name: String, count: Int, rows: Int, columns: Int) throws(GGUFError) -> [Weight] {
    try bareWeights(name, count: count, rows: rows, columns: columns)
      .multiplied(byFactorsOf: name, in: tensor(GGUFTensor.factors(of: name)) == nil ? nil : self)
  }

  func bareWeight(_ name: String, rows: Int?, columns: Int?) throws(GGUFError) -> Weight {
    let tensor = try requiredTensor(name)
    guard let format = tensor.type.weightFormat, let byteCount = tensor.byteCount else {
      throw .unreadableFormat(tensor: name, format: tensor.type.name, readable: GGUFTensorType.readableFormats.map(\.rawValue))
    }
    guard tensor.dims.count >= 2, tensor.dims.dropFirst(2).allSatisfy({ $0 == 1 }),
      rows.map({ $0 == tensor.dims[1] }) ?? true, columns.map({ $0 == tensor.dims[0] }) ?? true
    else {
      func text(_ size: Int?) -> String { size.map(String.init) ?? "any" }
      let expected = rows == nil && columns == nil ? "a matrix" : "[\(text(rows)), \(text(columns))]"
      throw .wrongShape(tensor: name, found: tensor.shape, expected: expected)
    }
    let bytes = UnsafeRawBufferPointer(rebasing: file.bytes[tensor.offset..<tensor.offset + byteCount])
    return Weight(name: name, format: format, rows: tensor.dims[1], columns: tensor.dims[0], bytes: bytes, owner: file)
  }

  func bareWeights(_ name: String, count: Int, rows: Int, columns: Int) throws(GGUFError) -> [Weight] {
    let tensor = try requiredTensor(name)
    guard let format = tensor.type.weightFormat, let byteCount = tensor.byteCount else {
      throw .unreadableFormat(tensor: name, format: tensor.type.name, readable: GGUFTensorType.readableFormats.map(\.rawValue))
    }
    guard tensor.dims.count >= 3, Array(tensor.dims.prefix(3)) == [columns, rows, count], tensor.dims.dropFirst(3).allSatisfy({ $0 == 1 })
    else {
      throw .wrongShape(tensor: name, found: tensor.shape, expected: "[\(count), \(rows), \(columns)]")
    }
    let bytes = UnsafeRawBufferPointer(rebasing: file.bytes[tensor.offset..<tensor.offset + byteCount])
    return Weight(name: name, format: format, rows: count * rows, columns: columns, bytes: bytes, owner: file).split(into: count)
  }

  /// The values of a small tensor that is kept as floats, such as a norm's or a bias: F32, F16 or BF16, widened exactly.
  ///
  /// - Parameter count: how many the model needs; another number is an error. nil accepts any.
  public func floats(_ name: String, count: Int? = nil) throws(GGUFError) -> [Float] {
    let tensor = try requiredTensor(name)
    guard count.map({ $0 == tensor.count }) ?? true else {
      throw .wrongShape(tensor: name, found: tensor.shape, expected: "\(count!) values")
    }
    guard let format = tensor.type.weightFormat,
      let values = format.widened(UnsafeRawBufferPointer(rebasing: file.bytes[tensor.offset...]), count: tensor.count)
    else { throw .unreadableFormat(tensor: name, format: tensor.type.name, readable: ["F32", "F16", "BF16"]) }
    return values
  }

  private func requiredTensor(_ name: String) throws(GGUFError) -> GGUFTensor {
    if let tensor = tensor(name) { return tensor }
    guard let parts = value(GGUFCheckpoint.countKey)?.integer, parts > 1 else { throw .missingTensor(name, hint: "") }
    let part = value(GGUFCheckpoint.numberKey)?.integer.map { "part \($0 &+ 1)" } ?? "one part"
    throw .missingTensor(name, hint: "it is \(part) of a model split into \(parts) files; a GGUFCheckpoint opens all of them")
  }
}

// MARK: - Factors of NVFP4

extension GGUFTensor {
  /// The tensor that has the factors of NVFP4's matrices, one for each: `blk.0.attn_q.scale` beside `blk.0.attn_q.weight`.
  static func factors(of name: String) -> String {
    (name.hasSuffix(weightSuffix) ? String(name.dropLast(weightSuffix.count)) : name) + ".scale"
  }
  private static let weightSuffix = ".weight"

  /// The matrices that a tensor belongs to by its name, if they are of NVFP4: their factors, or what activations would be divided by, if they were
  /// quantised.
  package static func companionsMatrix(of name: String) -> String? {
    for suffix in [".scale", ".input_scale"] where name.hasSuffix(suffix) { return name.dropLast(suffix.count) + weightSuffix }
    return nil
  }
}

extension [Weight] {
  /// The matrices of a tensor with their factors, which `file` has; nil: there are none.
  func multiplied(byFactorsOf name: String, in file: GGUFFile?) throws(GGUFError) -> [Weight] {
    guard let file, first?.format == .nvfp4 else { return self }
    let factors = try file.floats(GGUFTensor.factors(of: name), count: count)
    return zip(self, factors).map { $0.multiplied(by: $1) }
  }
}
