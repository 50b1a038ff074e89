// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

public import MartletCore
public import MartletFormats

/// What a model is read from: metadata and weights under GGUF's names, whatever file they lie in.
///
/// An architecture is written once, in these names. A `GGUFCheckpoint` and a `GGUFFile` have them themselves; a ``TranslatedCheckpoint`` gives a
/// Hugging Face directory's by the architecture's translation tables. Metadata that has another type than what is asked for is an error, never nil.
public protocol ModelSource: Sendable {
  /// A string; nil without the key.
  func string(ifPresent key: String) throws -> String?
  /// An integer; nil without the key.
  func integer(ifPresent key: String) throws -> Int?
  /// A floating-point number; nil without the key.
  func float(ifPresent key: String) throws -> Float?
  /// A Boolean; nil without the key.
  func bool(ifPresent key: String) throws -> Bool?
  /// Whether the value of a key is a list; false without the key.
  func isList(_ key: String) -> Bool
  /// A list of floating-point numbers; nil without the key.
  func floatList(ifPresent key: String) throws -> [Float]?
  /// A list of Booleans, or of zeros and ones; nil without the key.
  func boolList(ifPresent key: String) throws -> [Bool]?
  /// A list of integers; nil without the key. By default there is none.
  func integerList(ifPresent key: String) throws -> [Int]?

  /// How the file itself spells a key or a tensor's name: for messages.
  func spelling(of name: String) -> String
  /// Settings that were passed over, because they look as if they changed nothing: for a log. Empty by default.
  var ignoredSettings: [String] { get }
  /// What is thrown for a key that is needed and missing.
  func missingKey(_ key: String) -> any Error

  /// All tensors.
  var modelTensors: [ModelTensor] { get }
  /// A matrix as it lies in its file.
  /// - Parameters rows, columns: what the model needs; another shape is an error. nil accepts any.
  func weight(_ name: String, rows: Int?, columns: Int?) throws -> Weight
  /// The matrices of a tensor with three dims, in order, each as it lies in its file.
  /// - Parameters count, rows, columns: what the model needs; another shape is an error.
  func weights(_ name: String, count: Int, rows: Int, columns: Int) throws -> [Weight]
  /// The values of a small tensor, widened exactly to float32 (Gemma's norms of a directory: 1 added).
  /// - Parameter count: how many the model needs; another number is an error. nil accepts any.
  func floats(_ name: String, count: Int?) throws -> [Float]
}

/// One tensor of a model source.
public struct ModelTensor: Sendable, Hashable {
  public let name: String
  /// Sizes, outermost first.
  public let shape: [Int]
  /// The name of its format, more than a build can read.
  public let formatName: String
  /// nil where this build cannot read it.
  public let format: WeightFormat?
  /// Its bytes in the file; nil where the format is unknown, so that its size is.
  public let byteCount: Int?

  public init(name: String, shape: [Int], formatName: String, format: WeightFormat?, byteCount: Int?) {
    self.name = name
    self.shape = shape
    self.formatName = formatName
    self.format = format
    self.byteCount = byteCount
  }
}

extension ModelSource {
  public func integerList(ifPresent key: String) throws -> [Int]? { nil }
  public var ignoredSettings: [String] { [] }
}

extension ModelSource {
  /// A string that must be there.
  public func string(_ key: String) throws -> String { try required(key, string(ifPresent: key)) }
  /// An integer that must be there.
  public func integer(_ key: String) throws -> Int { try required(key, integer(ifPresent: key)) }
  /// A number that must be there.
  public func float(_ key: String) throws -> Float { try required(key, float(ifPresent: key)) }

  private func required<T>(_ key: String, _ value: T?) throws -> T {
    guard let value else { throw missingKey(key) }
    return value
  }

  /// Whether the output matrix is the embedding: there is none, or it holds the same bytes once more. Then one copy in memory serves both.
  package func sharesEmbedding() throws -> Bool {
    guard modelTensors.contains(where: { $0.name == "output.weight" }) else { return true }
    let embedding = try weight("token_embd.weight", rows: nil, columns: nil)
    return try weight("output.weight", rows: nil, columns: nil).hasSameBytes(as: embedding)
  }

  /// The error for a value that contradicts itself, others, or what this build computes; it spells the key as the file does.
  public func invalid(_ key: String, _ value: Any, _ reason: String) -> ModelError {
    .invalid(key: spelling(of: key), value: "\(value)", reason: reason)
  }
}

extension GGUFCheckpoint: ModelSource {
  public func string(ifPresent key: String) throws -> String? { try first.string(ifPresent: key) }
  /// An integer; nil without the key. The files say how many they are; the checkpoint is all of them, and does not.
  public func integer(ifPresent key: String) throws -> Int? { key == partCountKey ? nil : try first.integer(ifPresent: key) }
  public func float(ifPresent key: String) throws -> Float? { try first.float(ifPresent: key) }
  public func bool(ifPresent key: String) throws -> Bool? { try first.bool(ifPresent: key) }
  public func isList(_ key: String) -> Bool { first.isList(key) }
  public func floatList(ifPresent key: String) throws -> [Float]? { try first.floatList(ifPresent: key) }
  public func boolList(ifPresent key: String) throws -> [Bool]? { try first.boolList(ifPresent: key) }
  public func integerList(ifPresent key: String) throws -> [Int]? { try first.integerList(ifPresent: key) }
  public func spelling(of name: String) -> String { name }
  public func missingKey(_ key: String) -> any Error { first.missingKey(key) }
  public var modelTensors: [ModelTensor] { [ModelTensor](tensors) { tensor($0) } }
}

/// Where a file says that it is one part of a model.
let partCountKey = "split.count"

extension [ModelTensor] {
  /// The tensors of a file without those that belong to others: factors of NVFP4, which its matrices bring, and scales of activations, which stay as they
  /// are.
  fileprivate init(_ tensors: [GGUFTensor], named: (String) -> GGUFTensor?) {
    self = tensors.compactMap { tensor in
      let matrix = GGUFTensor.companionsMatrix(of: tensor.name).flatMap(named)
      return matrix?.type.weightFormat == .nvfp4 ? nil : ModelTensor(tensor)
    }
  }
}

extension ModelTensor {
  fileprivate init(_ tensor: GGUFTensor) {
    self.init(
      name: tensor.name, shape: tensor.shape, formatName: tensor.type.name, format: tensor.type.weightFormat, byteCount: tensor.byteCount)
  }
}

extension GGUFFile: ModelSource {
  public func isList(_ key: String) -> Bool {
    if case .array = value(key) { return true }
    return false
  }

  public func floatList(ifPresent key: String) throws -> [Float]? {
    guard let array = try array(ifPresent: key) else { return nil }
    guard let floats = array.floats() else {
      throw GGUFError.wrongType(key: key, found: "array of \(array.elementType)", expected: "an array of floating-point numbers")
    }
    return floats
  }

  public func integerList(ifPresent key: String) throws -> [Int]? {
    guard let array = try array(ifPresent: key) else { return nil }
    guard let integers = array.integers() else {
      throw GGUFError.wrongType(key: key, found: "array of \(array.elementType)", expected: "an array of integers")
    }
    return integers
  }

  public func boolList(ifPresent key: String) throws -> [Bool]? {
    guard let array = try array(ifPresent: key) else { return nil }
    if let integers = array.integers(), integers.allSatisfy({ $0 == 0 || $0 == 1 }) { return integers.map { $0 == 1 } }
    guard let bools = array.bools() else {
      throw GGUFError.wrongType(key: key, found: "array of \(array.elementType)", expected: "an array of bools")
    }
    return bools
  }

  public func spelling(of name: String) -> String { name }
  public func missingKey(_ key: String) -> any Error { GGUFError.missingKey(key) }

  public var modelTensors: [ModelTensor] { [ModelTensor](tensors) { tensor($0) } }
}
