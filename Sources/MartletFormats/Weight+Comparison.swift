// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

import CMartletLibc
public import MartletCore

extension Weight {
  /// Whether both matrices have the same format, shape and bytes, and so the same values. Reads both up to the first difference. A matrix that does not lie
  /// row behind row is not compared: false.
  public func hasSameBytes(as other: Weight) -> Bool {
    guard isContiguous, other.isContiguous, format == other.format, rows == other.rows, columns == other.columns,
      bytes.count == other.bytes.count
    else { return false }
    guard let mine = bytes.baseAddress, let others = other.bytes.baseAddress else { return bytes.isEmpty }
    return memcmp(mine, others, bytes.count) == 0
  }
}
