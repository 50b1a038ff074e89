// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

public import MartletCore

/// How a tensor of a file is coded: every type that GGUF numbers, more than a build can read.
public struct GGUFTensorType: Sendable, Hashable, CustomStringConvertible {
  /// The number in the file.
  public let code: UInt32

  public init(code: UInt32) { self.code = code }

  /// - Precondition: a format that GGUF numbers; e4m3 is not among them.
  public init(_ format: WeightFormat) {
    guard let row = Self.table.first(where: { $0.value.name == format.rawValue }) else {
      fatalError("GGUF has no number for \(format.rawValue)")
    }
    code = row.key
  }

  /// The formats that this build reads from GGUF files.
  public static var readableFormats: [WeightFormat] {
    WeightFormat.allCases.filter { format in table.contains { $0.value.name == format.rawValue } }
  }

  /// "Q4_K"; "type 99" if the number is unknown.
  public var name: String { Self.table[code]?.name ?? "type \(code)" }
  public var description: String { name }

  /// The format in which this build can read it; nil if it cannot.
  public var weightFormat: WeightFormat? { WeightFormat(rawValue: name) }

  /// Values and bytes of a block; nil if the number is unknown.
  var block: (valueCount: Int, byteCount: Int)? { Self.table[code].map { ($0.valueCount, $0.byteCount) } }

  private typealias Row = (name: String, valueCount: Int, byteCount: Int)

  /// Numbers, names and block sizes of the format's public description (`GGMLQuantizationType`, `GGML_QUANT_SIZES`).
  /// The gaps are types that were withdrawn.
  private static let table: [UInt32: Row] = [
    0: ("F32", 1, 4), 1: ("F16", 1, 2), 2: ("Q4_0", 32, 18), 3: ("Q4_1", 32, 20), 6: ("Q5_0", 32, 22), 7: ("Q5_1", 32, 24),
    8: ("Q8_0", 32, 34), 10: ("Q2_K", 256, 84), 11: ("Q3_K", 256, 110), 12: ("Q4_K", 256, 144), 13: ("Q5_K", 256, 176),
    14: ("Q6_K", 256, 210), 15: ("Q8_K", 256, 292), 16: ("IQ2_XXS", 256, 66), 17: ("IQ2_XS", 256, 74), 18: ("IQ3_XXS", 256, 98),
    19: ("IQ1_S", 256, 50), 20: ("IQ4_NL", 32, 18), 21: ("IQ3_S", 256, 110), 22: ("IQ2_S", 256, 82), 23: ("IQ4_XS", 256, 136),
    24: ("I8", 1, 1), 25: ("I16", 1, 2), 26: ("I32", 1, 4), 27: ("I64", 1, 8), 28: ("F64", 1, 8), 29: ("IQ1_M", 256, 56),
    30: ("BF16", 1, 2), 34: ("TQ1_0", 256, 54), 35: ("TQ2_0", 256, 66), 39: ("MXFP4", 32, 17), 40: ("NVFP4", 64, 36),
    41: ("Q1_0", 128, 18),
  ]
}

/// One tensor of a file: what it is and where it lies.
public struct GGUFTensor: Sendable, Hashable {
  public let name: String
  public let type: GGUFTensorType
  /// Sizes as the file has them: innermost first, 1 to 4 of them, none zero.
  public let dims: [Int]
  /// Where its bytes begin in the file.
  public let offset: Int
  /// Its bytes; nil if the type is unknown, so that its size is.
  public let byteCount: Int?

  /// Sizes outermost first, as the rest of the library writes shapes.
  public var shape: [Int] { dims.reversed() }
  /// The number of values. Never overflows: checked when the file was opened.
  public var count: Int { dims.reduce(1, *) }
}
