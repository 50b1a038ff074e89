// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

/// The values of `format` that are held, as regular expressions: they match only what its specification allows, if not always all of it.
enum StringFormats {
  /// The formats of which not every string is matched: leap seconds in all time zones, quoted names, long rows of labels.
  static var partial: Set<String> { ["time", "date-time", "email", "hostname"] }

  /// nil for a format that is not held.
  static func pattern(_ name: String) -> String? {
    switch name {
    case "date": "^\(date)$"
    case "time": "^\(time)$"
    case "date-time": "^\(date)[Tt]\(time)$"
    case "duration": "^P(?:\\d+W|\(durationDate)(?:T\(durationTime))?|T\(durationTime))$"
    case "email": "^\(atom)(?:\\.\(atom))*@\(host)$"
    case "hostname": "^\(host)$"
    case "ipv4": "^\(ipv4)$"
    case "ipv6": "^\(ipv6)$"
    case "uuid": "^[0-9A-Fa-f]{8}-[0-9A-Fa-f]{4}-[0-9A-Fa-f]{4}-[0-9A-Fa-f]{4}-[0-9A-Fa-f]{12}$"
    case "uri": "^[A-Za-z][A-Za-z0-9+.-]*:\(hierarchy("(?:\(segment)(?:/\(pathCharacter)*)*)?"))\(query)$"
    case "uri-reference":
      "^(?:[A-Za-z][A-Za-z0-9+.-]*:\(hierarchy("(?:\(segment)(?:/\(pathCharacter)*)*)?"))|\(hierarchy("(?:\(firstSegment)(?:/\(pathCharacter)*)*)?")))\(query)$"
    case "json-pointer": "^(?:/(?:[^~/]|~[01])*)*$"
    default: nil
    }
  }

  /// RFC 3339: the days that months have, and leap years.
  private static var date: String {
    let leapYear = "(?:\\d\\d(?:0[48]|[2468][048]|[13579][26])|(?:[02468][048]|[13579][26])00)"
    return
      "(?:\\d{4}-(?:(?:0[13578]|1[02])-(?:0[1-9]|[12]\\d|3[01])|(?:0[469]|11)-(?:0[1-9]|[12]\\d|30)|02-(?:0[1-9]|1\\d|2[0-8]))|\(leapYear)-02-29)"
  }

  /// RFC 3339; a leap second only in universal time.
  private static var time: String {
    let fraction = "(?:\\.\\d+)?"
    let offset = "(?:[Zz]|[+-](?:[01]\\d|2[0-3]):[0-5]\\d)"
    return "(?:(?:[01]\\d|2[0-3]):[0-5]\\d:[0-5]\\d\(fraction)\(offset)|23:59:60\(fraction)(?:[Zz]|[+-]00:00))"
  }

  /// RFC 3339, appendix A.
  private static var durationDate: String { "(?:\\d+Y(?:\\d+M(?:\\d+D)?)?|\\d+M(?:\\d+D)?|\\d+D)" }
  private static var durationTime: String { "(?:\\d+H(?:\\d+M(?:\\d+S)?)?|\\d+M(?:\\d+S)?|\\d+S)" }

  private static var atom: String { "[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]+" }

  /// RFC 1123: labels of up to 63 characters, 253 in all. What the bounds allow beyond these two forms is left out, and so are hyphens in a row: not every
  /// label with two is one in Punycode.
  private static var host: String {
    let long = "[A-Za-z0-9](?:-?[A-Za-z0-9]){0,30}"
    let short = "[A-Za-z0-9](?:-?[A-Za-z0-9]){0,14}"
    return "(?:\(long)(?:\\.\(long)){0,3}|\(short)(?:\\.\(short)){0,7})"
  }

  private static var ipv4: String { "(?:\(octet)\\.){3}\(octet)" }
  private static var octet: String { "(?:25[0-5]|2[0-4]\\d|1\\d\\d|[1-9]?\\d)" }

  /// RFC 3986, appendix A.
  private static var ipv6: String {
    let group = "[0-9A-Fa-f]{1,4}"
    let last = "(?:\(group):\(group)|\(ipv4))"
    var forms = ["(?:\(group):){6}\(last)", "::(?:\(group):){5}\(last)"]
    for count in 0...4 { forms.append("(?:(?:\(group):){0,\(count)}\(group))?::(?:\(group):){\(4 - count)}\(last)") }
    forms.append("(?:(?:\(group):){0,5}\(group))?::\(group)")
    forms.append("(?:(?:\(group):){0,6}\(group))?::")
    return "(?:\(forms.joined(separator: "|")))"
  }

  private static var pathCharacter: String { "(?:[A-Za-z0-9._~!$&'()*+,;=:@-]|%[0-9A-Fa-f]{2})" }
  private static var segment: String { "\(pathCharacter)+" }
  /// Without a colon: what stands before one would be a scheme.
  private static var firstSegment: String { "(?:[A-Za-z0-9._~!$&'()*+,;=@-]|%[0-9A-Fa-f]{2})+" }
  private static var query: String { "(?:\\?(?:\(pathCharacter)|[/?])*)?(?:#(?:\(pathCharacter)|[/?])*)?" }

  private static func hierarchy(_ rootless: String) -> String {
    let user = "(?:(?:[A-Za-z0-9._~!$&'()*+,;=:-]|%[0-9A-Fa-f]{2})*@)?"
    let host = "(?:\\[(?:\(ipv6)|[Vv][0-9A-Fa-f]+\\.[A-Za-z0-9._~!$&'()*+,;=:-]+)\\]|(?:[A-Za-z0-9._~!$&'()*+,;=-]|%[0-9A-Fa-f]{2})*)"
    return "(?://\(user)\(host)(?::\\d*)?(?:/\(pathCharacter)*)*|/(?:\(segment)(?:/\(pathCharacter)*)*)?|\(rootless))"
  }
}
