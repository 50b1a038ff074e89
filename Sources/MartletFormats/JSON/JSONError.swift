// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

/// Why a JSON text cannot be used.
public enum JSONError: Error, Hashable {
  /// The file could not be opened or mapped; `reason` is the system's.
  case cannotOpen(path: String, reason: String)
  /// What stands at byte `offset` is not what JSON (RFC 8259) or this reader's limits allow there.
  case malformed(offset: Int, problem: String)
}

extension JSONError: CustomStringConvertible {
  public var description: String {
    switch self {
    case .cannotOpen(let path, let reason): "JSON: cannot open \"\(path)\": \(reason)"
    case .malformed(let offset, let problem): "JSON: byte \(offset): \(problem); the text is damaged or was written wrongly: fetch it again"
    }
  }
}
