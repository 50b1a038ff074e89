// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

public import MartletCore

/// A model in GGUF, whole: one file, or all parts of a model that was split.
///
/// The first part has the metadata of the model; tensors lie in any part. Parts lie in one folder and are named as `gguf-split` and the gguf
/// package name them, `name-00001-of-00003.gguf`; each says which it is (`split.no`), how many there are (`split.count`) and how many tensors
/// all have together (`split.tensors.count`). All of that is checked, so that a model never runs without a part.
///
/// ```swift
/// let model = try GGUFCheckpoint(path: "model-00001-of-00003.gguf")
/// let layers = try model.first.integer("llama.block_count")
/// let up = try model.weight("blk.0.ffn_up.weight", rows: 1536, columns: 576)
/// ```
public final class GGUFCheckpoint: Sendable {
  /// The files, in their order; one where nothing was split.
  public let parts: [GGUFFile]
  /// The tensors of all files.
  public let tensors: [GGUFTensor]
  private let partIndices: [String: Int]

  /// The file with the metadata.
  public var first: GGUFFile { parts[0] }
  /// Bytes of all files.
  public var byteCount: Int { parts.reduce(0) { $0 + $1.byteCount } }

  static let countKey = "split.count", numberKey = "split.no", tensorCountKey = "split.tensors.count"
  /// Five digits in a file's name.
  static let mostParts = 99_999

  /// Opens the file at `path` and, where it is the first part of a model, the others beside it.
  public convenience init(path: String) throws(GGUFError) {
    let first = try GGUFFile(path: path)
    guard let count = try Self.partCount(first) else {
      try self.init([first])
      return
    }
    let number = try first.integer(numberKey: 0)
    guard let names = PartNames(path: path), names.count == count, names.number == number + 1 else {
      throw .malformedParts(
        path: path,
        problem: "is part \(number + 1) of \(count) of a model, but not named so (…-\(PartNames.digits(number + 1))-of-"
          + "\(PartNames.digits(count)).gguf); give the parts their names again, or join them with gguf-split --merge")
    }
    guard number == 0 else { throw .laterPart(path: path, first: names.path(ofPart: 1)) }
    var parts = [first]
    for number in 1..<count {
      let path = names.path(ofPart: number + 1)
      guard FileBytes.exists(path) else { throw .missingPart(path: path, part: number + 1, count: count) }
      do throws(GGUFError) {
        let part = try GGUFFile(path: path)
        let found = (try part.integer(numberKey: number), try part.integer(Self.countKey))
        guard found == (number, count) else {
          throw .malformedParts(path: path, problem: "says that it is part \(found.0 + 1) of \(found.1); fetch it again")
        }
        parts.append(part)
      } catch {
        throw .inPart(path: path, error: error)
      }
    }
    try self.init(parts)
  }

  /// A model that is one file, open already.
  /// - Throws: ``GGUFError/Code/lonePart`` for a part of a model.
  public convenience init(_ file: GGUFFile) throws(GGUFError) {
    if let count = try Self.partCount(file) { throw .lonePart(part: try file.integer(numberKey: 0) + 1, count: count) }
    try self.init([file])
  }

  private init(_ parts: [GGUFFile]) throws(GGUFError) {
    self.parts = parts
    tensors = parts.flatMap(\.tensors)
    var indices = [String: Int](minimumCapacity: tensors.count)
    for (index, part) in parts.enumerated() {
      for tensor in part.tensors where indices.updateValue(index, forKey: tensor.name) != nil {
        throw .malformedParts(
          path: part.path ?? "", problem: "has the tensor \"\(tensor.name)\", which another part has, too; split the model again")
      }
    }
    partIndices = indices
    if parts.count > 1, let stated = try parts[0].integer(ifPresent: Self.tensorCountKey), stated != tensors.count {
      throw .malformedParts(
        path: parts[0].path ?? "",
        problem:
          "says that all parts have \(stated) tensors, and they have \(tensors.count): they are of different models; fetch them again")
    }
  }

  /// The number of parts; nil for a whole model.
  private static func partCount(_ file: GGUFFile) throws(GGUFError) -> Int? {
    guard let count = try file.integer(ifPresent: countKey), count > 1 else { return nil }
    guard count <= mostParts else {
      throw .malformed(field: "metadata \"\(countKey)\"", problem: "is \(count), more than the \(mostParts) parts that names can count")
    }
    return count
  }

  /// The tensor of that name; nil without one.
  public func tensor(_ name: String) -> GGUFTensor? { partIndices[name].flatMap { parts[$0].tensor(name) } }

  /// The matrix `name` as it lies in its file: a view, no copy, that keeps the file.
  ///
  /// - Parameters rows, columns: what the model needs; another shape is an error. nil accepts any.
  public func weight(_ name: String, rows: Int? = nil, columns: Int? = nil) throws(GGUFError) -> Weight {
    // Factors may lie in another part.
    try [part(of: name).bareWeight(name, rows: rows, columns: columns)].multiplied(byFactorsOf: name, in: factorsPart(of: name))[0]
  }

  /// The matrices of the tensor `name`, which has three dims: views in order, no copies.
  ///
  /// - Parameters count, rows, columns: what the model needs; another shape is an error.
  public func weights(_ name: String, count: Int, rows: Int, columns: Int) throws(GGUFError) -> [Weight] {
    try part(of: name).bareWeights(name, count: count, rows: rows, columns: columns)
      .multiplied(byFactorsOf: name, in: factorsPart(of: name))
  }

  /// The values of a small tensor, widened exactly to float32.
  ///
  /// - Parameter count: how many the model needs; another number is an error. nil accepts any.
  public func floats(_ name: String, count: Int? = nil) throws(GGUFError) -> [Float] { try part(of: name).floats(name, count: count) }

  private func factorsPart(of name: String) -> GGUFFile? { partIndices[GGUFTensor.factors(of: name)].map { parts[$0] } }

  private func part(of tensor: String) throws(GGUFError) -> GGUFFile {
    guard let index = partIndices[tensor] else { throw .missingTensor(tensor, hint: "") }
    return parts[index]
  }
}

extension GGUFFile {
  /// `split.no`, counted from 0: what the file is in a model of several.
  /// - Parameter fallback: where the file does not say.
  fileprivate func integer(numberKey fallback: Int) throws(GGUFError) -> Int {
    let number = try integer(ifPresent: GGUFCheckpoint.numberKey) ?? fallback
    guard (0..<GGUFCheckpoint.mostParts).contains(number) else {
      throw .malformed(field: "metadata \"\(GGUFCheckpoint.numberKey)\"", problem: "is \(number), which no part has")
    }
    return number
  }
}

/// The names of a model's parts: `prefix-00002-of-00005.gguf`.
struct PartNames: Equatable {
  /// What is before the numbers, with the folder.
  let prefix: String
  /// Of the part that has the path, counted from 1.
  let number: Int
  let count: Int

  /// nil for a path that is no part's.
  init?(path: String) {
    let bytes = Array(path.utf8)
    // "-00001-of-00003.gguf"
    guard bytes.count > 20, case let tail = bytes.suffix(20), let number = Self.number(tail.dropFirst().prefix(5)),
      let count = Self.number(tail.dropFirst(10).prefix(5)),
      tail.elementsEqual("-\(Self.digits(number))-of-\(Self.digits(count)).gguf".utf8), (1...max(count, 1)).contains(number)
    else { return nil }
    prefix = String(decoding: bytes.dropLast(20), as: UTF8.self)
    self.number = number
    self.count = count
  }

  func path(ofPart number: Int) -> String { "\(prefix)-\(Self.digits(number))-of-\(Self.digits(count)).gguf" }

  /// Five digits.
  static func digits(_ number: Int) -> String { String(repeating: "0", count: max(5 - "\(number)".utf8.count, 0)) + "\(number)" }

  private static func number(_ digits: some Collection<UInt8>) -> Int? {
    digits.allSatisfy { $0 >= 0x30 && $0 <= 0x39 } ? digits.reduce(0) { 10 * $0 + Int($1 - 0x30) } : nil
  }
}
