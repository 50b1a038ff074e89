// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

import MartletTemplates
import Testing

/// As Python's `datetime.fromisoformat` reads a time and `strftime` then writes it.
@Suite struct LocalTimeTests {
  private let time = LocalTime(year: 2026, month: 2, day: 28, hour: 7, minute: 8, second: 9)!

  @Test(arguments: ["", ".5", ".999999", ",25", "Z", "+01:00", "-11:30", ".123Z", ".123456+14:00", "+23:59"])
  func `a fraction and a zone change nothing`(tail: String) {
    #expect(LocalTime("2026-02-28T07:08:09" + tail) == time)
  }

  @Test(arguments: [".", "Z.5", "+", "+1", "+25:00", "+01:60", "ZZ", " UTC", ".5.5", "-01:00:00:00", "\u{661}"])
  func `what is no fraction and no zone is refused`(tail: String) {
    #expect(LocalTime("2026-02-28T07:08:09" + tail) == nil)
  }

  @Test(arguments: [
    "2026-02-29", "2026-02-28Z", "2026-02-28T", "2026-02-28T07:08", "2026-02-28T07:08Z", "2026-02-28T24:00:00", "26-02-28", "",
  ])
  func `what is no time is refused`(text: String) {
    #expect(LocalTime(text) == nil)
    #expect(LocalTime("2026-02-28") == LocalTime(year: 2026, month: 2, day: 28))
  }
}
