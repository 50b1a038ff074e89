// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

/// Why a verification could not begin, or not go on.
public struct VerificationError: Error, Sendable, Hashable, CustomStringConvertible {
  /// What is wrong, for programs.
  public struct Code: RawRepresentable, Sendable, Hashable {
    public let rawValue: String
    public init(rawValue: String) { self.rawValue = rawValue }

    /// The journal's file cannot be read or written.
    public static let journalUnusable = Code(rawValue: "journalUnusable")
    /// The journal is that of another verification.
    public static let journalMismatch = Code(rawValue: "journalMismatch")
    /// The program cannot be started.
    public static let notStarted = Code(rawValue: "notStarted")
  }

  public let code: Code
  public let description: String

  public init(_ code: Code, _ description: String) {
    self.code = code
    self.description = description
  }
}
