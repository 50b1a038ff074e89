// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

import Foundation
public import MartletTemplates

extension LocalTime {
  /// The time where this process runs.
  public static var now: LocalTime {
    let parts = Calendar(identifier: .gregorian).dateComponents([.year, .month, .day, .hour, .minute, .second], from: Date())
    return LocalTime(
      year: parts.year ?? 1970, month: parts.month ?? 1, day: parts.day ?? 1, hour: parts.hour ?? 0, minute: parts.minute ?? 0,
      second: parts.second ?? 0) ?? .epoch
  }
}
