// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

// What Python's strings can do. Every part that is given back remembers where its bytes came from.

extension Text {
  /// The place of `part` in bytes, from `start` on.
  func firstIndex(of part: Text, from start: Int = 0) -> Int? {
    guard let lead = part.bytes.first else { return start <= count ? start : nil }
    let (size, limit) = (part.count, count - part.count)
    if size > 16 { return places(of: part, from: start, limit: 1).first }
    var index = start
    return bytes.withUnsafeBufferPointer { bytes in
      part.bytes.withUnsafeBufferPointer { part in
        while index <= limit {
          if bytes[index] == lead {
            var offset = 1
            while offset < size, bytes[index + offset] == part[offset] { offset += 1 }
            if offset == size { return index }
          }
          index += 1
        }
        return nil
      }
    }
  }

  func lastIndex(of part: Text) -> Int? { part.isEmpty ? count : places(of: part, fromRight: true, limit: 1).first }

  /// Where `part` stands, without overlap, from `start` on or from the right. Linear, by Knuth, Morris and Pratt, so that no text makes it slow.
  private func places(of part: Text, from start: Int = 0, fromRight: Bool = false, limit: Int) -> [Int] {
    let wanted = fromRight ? [UInt8](part.bytes.reversed()) : part.bytes
    // For each beginning of `wanted`, how much of it is a shorter beginning too.
    var borders = [0]
    borders.reserveCapacity(wanted.count)
    var matched = 0
    for place in wanted.indices.dropFirst() {
      while matched > 0, wanted[place] != wanted[matched] { matched = borders[matched - 1] }
      if wanted[place] == wanted[matched] { matched += 1 }
      borders.append(matched)
    }
    var places: [Int] = []
    matched = 0
    for place in start..<max(start, count) {
      if places.count == limit { break }
      let index = fromRight ? count - 1 - place : place
      while matched > 0, bytes[index] != wanted[matched] { matched = borders[matched - 1] }
      if bytes[index] == wanted[matched] { matched += 1 }
      if matched == wanted.count {
        places.append(fromRight ? index : index + 1 - matched)
        matched = 0
      }
    }
    return places
  }

  func hasPrefix(_ prefix: Text) -> Bool { bytes.starts(with: prefix.bytes) }
  func hasSuffix(_ suffix: Text) -> Bool { count >= suffix.count && bytes.suffix(suffix.count).elementsEqual(suffix.bytes) }

  /// Without what `set` has at the ends; without white space where it is nil.
  func stripped(_ set: Text?, left: Bool = true, right: Bool = true) -> Text {
    let scalars = set.map { Set($0.scalars) }
    func isTaken(_ scalar: Unicode.Scalar) -> Bool { scalars?.contains(scalar) ?? scalar.isPythonSpace }
    var (start, end) = (0, count)
    while left, start < end {
      let (scalar, next) = scalar(at: start)
      guard isTaken(scalar) else { break }
      start = next
    }
    while right, end > start {
      let (scalar, previous) = scalar(before: end)
      guard isTaken(scalar) else { break }
      end = previous
    }
    return self[start..<end]
  }

  /// Parts between separators. `limit` counts cuts.
  func split(_ separator: Text, limit: Int) -> [Text] {
    var parts: [Text] = []
    var start = 0
    while limit < 0 || parts.count < limit, let place = firstIndex(of: separator, from: start) {
      parts.append(self[start..<place])
      start = place + separator.count
    }
    parts.append(self[start..<count])
    return parts
  }

  func splitFromRight(_ separator: Text, limit: Int) -> [Text] {
    var parts: [Text] = []
    var end = count
    for place in places(of: separator, fromRight: true, limit: limit) {
      parts.append(self[(place + separator.count)..<end])
      end = place
    }
    parts.append(self[0..<end])
    return parts.reversed()
  }

  /// Parts between runs of white space, none of them empty.
  func splitAtSpace(limit: Int, fromRight: Bool = false) -> [Text] {
    var words: [Range<Int>] = []
    var start: Int?
    var index = 0
    while index < count {
      let (scalar, end) = scalar(at: index)
      if scalar.isPythonSpace {
        if let begin = start { words.append(begin..<index) }
        start = nil
      } else if start == nil {
        start = index
      }
      index = end
    }
    if let start { words.append(start..<count) }
    guard limit >= 0, words.count > limit else { return words.map { self[$0] } }
    // The last part keeps its inner and outer white space, but for the end that is next to a cut.
    if fromRight {
      let rest = words[words.count - limit - 1]
      return [self[0..<rest.upperBound]] + words.suffix(limit).map { self[$0] }
    }
    return words.prefix(limit).map { self[$0] } + [self[words[limit].lowerBound..<count]]
  }

  func lines(keepsEnds: Bool) -> [Text] {
    var lines: [Text] = []
    var (start, index) = (0, 0)
    while index < count {
      let (scalar, end) = scalar(at: index)
      var next = end
      switch scalar.value {
      case 0x0D:
        if end < count, bytes[end] == 0x0A { next = end + 1 }
      case 0x0A...0x0C, 0x1C...0x1E, 0x85, 0x2028, 0x2029: break
      default:
        index = end
        continue
      }
      lines.append(self[start..<(keepsEnds ? next : index)])
      (start, index) = (next, next)
    }
    if start < count { lines.append(self[start..<count]) }
    return lines
  }

  func replacing(_ old: Text, with new: Text, limit: Int = -1) -> Text {
    var result = Text()
    var (start, replaced) = (0, 0)
    if old.isEmpty {
      // Before every code point, and at the end.
      let starts = scalarStarts
      for index in starts.indices {
        if limit < 0 || replaced < limit {
          result.append(new)
          replaced += 1
        }
        if index + 1 < starts.count { result.append(self[starts[index]..<starts[index + 1]]) }
      }
      return result.asMarkup(isMarkup)
    }
    while limit < 0 || replaced < limit, let place = firstIndex(of: old, from: start) {
      result.append(self[start..<place])
      result.append(new)
      start = place + old.count
      replaced += 1
    }
    if replaced == 0 { return self }
    result.append(self[start..<count])
    return result.asMarkup(isMarkup)
  }

  static func joined(_ parts: [Text], separator: Text) -> Text {
    var result = Text()
    for (index, part) in parts.enumerated() {
      if index > 0 { result.append(separator) }
      result.append(part)
    }
    return result
  }

  // MARK: Case

  var uppercased: Text {
    mapScalars { scalar, _ in
      if scalar.value < 0x80 { return ("a"..."z").contains(scalar) ? String(Unicode.Scalar(scalar.value - 32)!) : nil }
      return scalar.properties.uppercaseMapping
    }
  }

  var lowercased: Text { mapScalars { scalar, index in lowered(scalar, index) } }

  /// A capital sigma that ends a word has a form of its own.
  private func lowered(_ scalar: Unicode.Scalar, _ index: Int) -> String? {
    if scalar.value < 0x80 { return ("A"..."Z").contains(scalar) ? String(Unicode.Scalar(scalar.value + 32)!) : nil }
    if scalar.value == 0x3A3, endsWord(at: index) { return "\u{3C2}" }
    return scalar.properties.lowercaseMapping
  }

  private func endsWord(at index: Int) -> Bool {
    var position = index
    var isAfterLetter = false
    while position > 0 {
      let (scalar, start) = scalar(before: position)
      position = start
      if scalar.properties.isCaseIgnorable { continue }
      isAfterLetter = scalar.properties.isCased
      break
    }
    guard isAfterLetter else { return false }
    position = scalar(at: index).end
    while position < count {
      let (scalar, end) = scalar(at: position)
      position = end
      if scalar.properties.isCaseIgnorable { continue }
      return !scalar.properties.isCased
    }
    return true
  }

  /// Python's `capitalize`: the first letter a title, all others small.
  var capitalized: Text {
    mapScalars { scalar, index in index == 0 ? scalar.properties.titlecaseMapping : lowered(scalar, index) }
  }

  /// Python's `title`: a letter after what is none is a title.
  var titlecased: Text {
    var isAfterLetter = false
    return mapScalars { scalar, index in
      defer { isAfterLetter = scalar.properties.isCased }
      return isAfterLetter ? lowered(scalar, index) : scalar.properties.titlecaseMapping
    }
  }

  var caseSwapped: Text {
    mapScalars { scalar, index in
      if scalar.properties.isUppercase { return lowered(scalar, index) }
      return scalar.properties.isLowercase ? scalar.properties.uppercaseMapping : nil
    }
  }

  /// For comparisons that ignore case: small letters of the capital ones, so that "ß" is "ss".
  var caseFolded: Text {
    isASCII ? lowercased : mapScalars { scalar, _ in scalar.properties.uppercaseMapping.lowercased() }
  }

  // MARK: Width

  func padded(to width: Int, left: Bool, right: Bool, with fill: Text = " ") -> Text {
    let length = scalarCount
    guard width > length else { return self }
    let missing = width - length
    // Python gives the odd one to the left where the width is odd.
    let before = left && right ? missing / 2 + (missing & width & 1) : left ? missing : 0
    var result = fill.repeated(before)
    result.append(self)
    if right { result.append(fill.repeated(missing - before)) }
    return result.asMarkup(isMarkup)
  }
}
