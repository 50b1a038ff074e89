// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

package import CMartletKernels

/// One variant of the CPU kernels: the same functions, compiled for one set of processor instructions.
///
/// Results are bit-identical on every machine that runs the same variant; two variants agree within rounding.
///
/// `@unchecked Sendable`: the table is a constant of the program.
public struct InstructionSet: @unchecked Sendable, CustomStringConvertible {
  package let table: UnsafePointer<martlet_kernel_table>

  /// What ``CPUDevice/init(instructionSet:threads:)`` takes: "avx512amx", "avx512bf16", "avx512", "avx2", "neon", "portable"; for tests "bf16-model".
  public var name: String { String(cString: table.pointee.name) }
  /// For people.
  public var description: String { String(cString: table.pointee.description) }
  /// Whether this processor and operating system can run it.
  public var isSupported: Bool { martlet_kernel_table_is_supported(table) }
  /// Whether a device takes it without being told, and errors offer it: not the model, which is slow C in the arithmetic of another
  /// variant, there for tests.
  public var isChosenByItself: Bool { isSupported && name != Self.model }

  /// The variant that exists for tests.
  private static let model = "bf16-model"

  /// The variants in this program, best first.
  public static var all: [InstructionSet] {
    var count: Int32 = 0
    let tables = martlet_kernel_tables(&count)!
    return (0..<Int(count)).map { InstructionSet(table: tables[$0]!) }
  }
}
