// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

/// What characters stand for that are in Unicode for compatibility only: `½` for `1⁄2`, `ﬁ` for `fi`.
///
/// This is the step that NFKC and NFKD have before NFC and NFD. The standard library has no function for it, and Foundation may not be imported on
/// this floor, so the module keeps the table.
struct CompatibilityForms: Sendable {
  /// The table of this build, read once.
  static let shared = CompatibilityForms(table)

  /// How many times as long as a character its form can be, in UTF-8: U+FDFA is a phrase of 18 characters.
  static let mostGrowth = 11

  private var forms: [Unicode.Scalar: [UInt8]] = [:]

  /// - Parameter table: Entries as ``table`` has them.
  init(_ table: String) {
    forms.reserveCapacity(4096)
    var next: UInt32 = 0
    for entry in table.split(whereSeparator: \.isWhitespace) {
      var form = entry
      if let equals = entry.firstIndex(of: "=") {
        next = Self.number(entry[..<equals])
        form = entry[entry.index(after: equals)...]
      }
      var count: UInt32 = 1
      if let star = form.firstIndex(of: "*") {
        count = Self.number(form[form.index(after: star)...])
        form = form[..<star]
      }
      let scalars = form.split(separator: ",").map(Self.number)
      // Entries for characters in a row have one character each.
      for offset in 0..<count {
        forms[Unicode.Scalar(next + offset)!] = scalars.flatMap { Array(UTF8.encode(Unicode.Scalar($0 + offset)!)!) }
      }
      next += count
    }
  }

  /// The UTF-8 of what a character stands for; nil if it stands for itself.
  subscript(_ scalar: Unicode.Scalar) -> [UInt8]? { scalar.isASCII ? nil : forms[scalar] }

  private static func number(_ hexadecimal: some StringProtocol) -> UInt32 { UInt32(hexadecimal, radix: 16)! }
}
