// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

/// What a GPU can run: its compute capability.
package struct CUDAArchitecture: Sendable, Hashable, CustomStringConvertible {
  package let major: Int
  package let minor: Int

  package init(major: Int, minor: Int) {
    self.major = major
    self.minor = minor
  }

  /// "9.0".
  package var description: String { "\(major).\(minor)" }

  /// The oldest that the kernels are written for: it has `mma.sync` with bfloat16, and `cp.async`.
  package static let oldest = CUDAArchitecture(major: 8, minor: 0)

  /// The targets whose machine code this GPU runs, best first: its own with what only it has (sm_90a), its own, and older ones of the same major
  /// version. Machine code of an `a` target runs on no other GPU; that of another runs on later minor versions.
  package var targets: [String] {
    let own = major >= 9 ? ["sm_\(major)\(minor)a"] : []
    return own + (0...max(minor, 0)).reversed().map { "sm_\(major)\($0)" }
  }

  /// The best target that a compiler has for this GPU; nil where it has none.
  /// - Parameter known: the compute capabilities that it lists, 10 · major + minor.
  package func target(known: [Int]) -> String? {
    targets.first { target in
      let number = target.dropFirst(3).prefix { $0 != "a" }
      return Int(number).map(known.contains) ?? false
    }
  }
}
