// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

import CMartletLibc

/// A date and a time of day, for `strftime_now`. Handed in: a rendering keeps no clock.
public struct LocalTime: Sendable, Hashable, LosslessStringConvertible {
  /// 1…9999.
  public var year: Int
  /// 1…12.
  public var month: Int
  /// Of the month, from 1.
  public var day: Int
  /// 0…23.
  public var hour: Int
  /// 0…59.
  public var minute: Int
  /// 0…60.
  public var second: Int

  /// - Parameters:
  ///   - year: 1…9999.
  ///   - month: 1…12.
  ///   - day: 1…31.
  ///   - hour: 0…23.
  ///   - minute: 0…59.
  ///   - second: 0…60.
  /// - Returns: nil if there is no such date.
  public init?(year: Int, month: Int, day: Int, hour: Int = 0, minute: Int = 0, second: Int = 0) {
    guard (1...9999).contains(year), (1...12).contains(month), (1...LocalTime.days(year, month)).contains(day), (0...23).contains(hour),
      (0...59).contains(minute), (0...60).contains(second)
    else { return nil }
    (self.year, self.month, self.day, self.hour, self.minute, self.second) = (year, month, day, hour, minute, second)
  }

  /// From "2026-11-29T12:34:56"; the time of day may be left out. nil if it is no date.
  ///
  /// A fraction of a second and a zone may follow, as in "2026-11-29T12:34:56.789+01:00", and change nothing: the clock shows what is written.
  public init?(_ text: String) {
    let parts = text.split(separator: "T", omittingEmptySubsequences: false)
    func numbers(_ text: Substring, _ separator: Character, _ counts: [Int]) -> [Int]? {
      let parts = text.split(separator: separator, omittingEmptySubsequences: false)
      guard parts.map(\.utf8.count) == counts else { return nil }
      let numbers = parts.compactMap { part in part.utf8.allSatisfy { (0x30...0x39).contains($0) } ? Int(part) : nil }
      return numbers.count == counts.count ? numbers : nil
    }
    guard (1...2).contains(parts.count), let date = numbers(parts[0], "-", [4, 2, 2]) else { return nil }
    guard parts.count == 2 else {
      self.init(year: date[0], month: date[1], day: date[2])
      return
    }
    // hh:mm:ss, and what may follow.
    var rest = parts[1].dropFirst(8)
    guard let time = numbers(parts[1].prefix(8), ":", [2, 2, 2]) else { return nil }
    if rest.first == "." || rest.first == "," {
      let digits = rest.dropFirst().prefix { $0.isASCII && $0.isNumber }
      guard !digits.isEmpty else { return nil }
      rest = rest[digits.endIndex...]
    }
    if rest.first == "+" || rest.first == "-" {
      guard let offset = numbers(rest.dropFirst(), ":", [2, 2]), offset[0] < 24, offset[1] < 60 else { return nil }
    } else if !rest.isEmpty && rest != "Z" {
      return nil
    }
    self.init(year: date[0], month: date[1], day: date[2], hour: time[0], minute: time[1], second: time[2])
  }

  /// "2026-11-29T12:34:56", which ``init(_:)`` reads.
  public var description: String {
    func padded(_ number: Int, _ count: Int) -> String {
      let digits = String(number)
      return String(repeating: "0", count: max(0, count - digits.utf8.count)) + digits
    }
    return "\(padded(year, 4))-\(padded(month, 2))-\(padded(day, 2))T\(padded(hour, 2)):\(padded(minute, 2)):\(padded(second, 2))"
  }

  /// Midnight, 1 January 1970.
  public static let epoch = LocalTime(year: 1970, month: 1, day: 1)!

  private static func days(_ year: Int, _ month: Int) -> Int {
    switch month {
    case 2: year % 4 == 0 && (year % 100 != 0 || year % 400 == 0) ? 29 : 28
    case 4, 6, 9, 11: 30
    default: 31
    }
  }

  /// C's `strftime`, in the C locale.
  func formatted(_ format: String) throws(TemplateError) -> String {
    if format.utf8.contains(0) { throw .value("embedded null character") }
    var time = tm()
    time.tm_year = Int32(year - 1900)
    time.tm_mon = Int32(month - 1)
    time.tm_mday = Int32(day)
    time.tm_hour = Int32(hour)
    time.tm_min = Int32(minute)
    time.tm_sec = Int32(second)
    let yearDay = (1..<month).reduce(day - 1) { $0 + LocalTime.days(year, $1) }
    time.tm_yday = Int32(yearDay)
    let before = year - 1
    // 1 January of year 1 was a Monday.
    time.tm_wday = Int32((before * 365 + before / 4 - before / 100 + before / 400 + yearDay + 1) % 7)
    time.tm_isdst = -1
    // Python's own, which C lacks: microseconds.
    let format = format.split(separator: "%f", omittingEmptySubsequences: false).joined(separator: "000000")
    // The mark tells an empty result from one that does not fit, as one of `%999999d` would not.
    let marked = format + "."
    for capacity in [marked.utf8.count + 256, 8 * marked.utf8.count + 4096] {
      var buffer = [CChar](repeating: 0, count: capacity)
      let count = strftime(&buffer, capacity, marked, &time)
      if count > 0 { return String(decoding: buffer.prefix(count - 1).map { UInt8(bitPattern: $0) }, as: UTF8.self) }
    }
    throw TemplateError(.limit, "strftime_now writes too much for a format of \(format.utf8.count) bytes")
  }
}

/// A string such as "2026-11-29T12:34:56".
extension LocalTime: Codable {
  public init(from decoder: any Decoder) throws {
    let container = try decoder.singleValueContainer()
    let text = try container.decode(String.self)
    guard let time = LocalTime(text) else {
      throw DecodingError.dataCorruptedError(in: container, debugDescription: "\"\(text)\" is no date such as 2026-11-29T12:34:56")
    }
    self = time
  }

  public func encode(to encoder: any Encoder) throws {
    var container = encoder.singleValueContainer()
    try container.encode(description)
  }
}
