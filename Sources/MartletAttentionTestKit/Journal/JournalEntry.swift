// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

/// A result as a line of fields: a word, numbers, and words for people.
struct JournalEntry: Equatable {
  var kind: String
  var numbers: [UInt64]
  var words: [String]

  init(kind: String, numbers: [UInt64] = [], words: [String] = []) {
    self.kind = kind
    self.numbers = numbers
    self.words = words
  }

  /// The fields behind the part's name; nil where they are none.
  init?(_ fields: ArraySlice<String>) {
    var fields = fields
    guard let kind = fields.popFirst(), let count = fields.popFirst().flatMap({ Int($0) }), (0...fields.count).contains(count) else {
      return nil
    }
    let numbers = fields.prefix(count).compactMap { UInt64($0, radix: 16) }
    guard numbers.count == count else { return nil }
    self.init(kind: kind, numbers: numbers, words: Array(fields.dropFirst(count)))
  }

  var fields: [String] { [kind, "\(numbers.count)"] + numbers.map { String($0, radix: 16) } + words }

  /// Fields with tabs between them, and whatever would break the line spelled out.
  static func line(_ fields: [String]) -> String {
    fields.map { field in
      var text = ""
      for scalar in field.unicodeScalars {
        switch scalar {
        case "\\": text += "\\\\"
        case "\t": text += "\\t"
        case "\n": text += "\\n"
        case "\r": text += "\\r"
        default: text.unicodeScalars.append(scalar)
        }
      }
      return text
    }.joined(separator: "\t") + "\n"
  }

  /// The fields of a line.
  static func fields(_ line: Substring) -> [String] {
    line.split(separator: "\t", omittingEmptySubsequences: false).map { field in
      var text = ""
      var isSpelled = false
      for scalar in field.unicodeScalars {
        if isSpelled {
          let plain: Unicode.Scalar =
            switch scalar {
            case "t": "\t"
            case "n": "\n"
            case "r": "\r"
            default: scalar
            }
          text.unicodeScalars.append(plain)
          isSpelled = false
        } else if scalar == "\\" {
          isSpelled = true
        } else {
          text.unicodeScalars.append(scalar)
        }
      }
      return text
    }
  }
}

// MARK: - Results

extension ConformanceResult.Verdict {
  var kind: String {
    switch self {
    case .passed: "passed"
    case .refused: "refused"
    case .failed: "failed"
    }
  }
  var words: [String] {
    switch self {
    case .passed: []
    case .refused(let words), .failed(let words): words
    }
  }

  init?(_ entry: JournalEntry) {
    switch entry.kind {
    case "passed": self = .passed
    case "refused": self = .refused(entry.words)
    case "failed": self = .failed(entry.words)
    default: return nil
    }
  }
}

extension ConformanceResult {
  var entry: JournalEntry {
    JournalEntry(
      kind: verdict.kind,
      numbers: [largestError, largestLogSumExpError, largestStoredError].map(\.bitPattern) + [UInt64(differingCodes), UInt64(codes)],
      words: verdict.words)
  }

  init?(_ example: ConformanceCase, _ entry: JournalEntry, tolerance: Double) {
    guard let verdict = Verdict(entry), entry.numbers.count == 5 else { return nil }
    self.init(example, verdict, tolerance: tolerance)
    largestError = Double(bitPattern: entry.numbers[0])
    largestLogSumExpError = Double(bitPattern: entry.numbers[1])
    largestStoredError = Double(bitPattern: entry.numbers[2])
    differingCodes = Int(truncatingIfNeeded: entry.numbers[3])
    codes = Int(truncatingIfNeeded: entry.numbers[4])
  }
}

extension LawResult {
  var entry: JournalEntry {
    JournalEntry(
      kind: refusal == nil ? "asked" : "refused", numbers: [UInt64(comparisons)], words: [law] + (refusal.map { [$0] } ?? []) + problems)
  }

  init?(_ setting: LawSetting, _ entry: JournalEntry) {
    var words = entry.words[...]
    guard let law = words.popFirst(), entry.numbers.count == 1 else { return nil }
    self.init(law, setting)
    comparisons = Int(truncatingIfNeeded: entry.numbers[0])
    if entry.kind == "refused" { refusal = words.popFirst() }
    problems = Array(words)
  }
}

extension ScenarioResult {
  var entry: JournalEntry {
    JournalEntry(
      kind: verdict.kind, numbers: [largestError.bitPattern, UInt64(rowsCompared), UInt64(rows)], words: verdict.words)
  }

  /// - Parameter empty: what the scenario's results have in common.
  init?(_ empty: ScenarioResult, _ entry: JournalEntry) {
    guard let verdict = ConformanceResult.Verdict(entry), entry.numbers.count == 3 else { return nil }
    self = empty
    self.verdict = verdict
    largestError = Double(bitPattern: entry.numbers[0])
    rowsCompared = Int(truncatingIfNeeded: entry.numbers[1])
    rows = Int(truncatingIfNeeded: entry.numbers[2])
  }
}
