// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

// The automaton: what may follow after a byte, and whether anything may follow at all.
//
// Bytes that no expression tells apart form a class, and a state has one entry per class.

extension ExpressionTable {
  /// The state after `byte`; ``nothing`` if no text of the language begins so.
  @inline(__always)
  mutating func next(_ id: ID, _ byte: UInt8) -> ID {
    let start = rowStarts[Int(id)]
    if start >= 0 {
      let known = rows[Int(start) + Int(classOf[Int(byte)])]
      if known >= 0 { return known }
    }
    return computeNext(id, byte)
  }

  /// Makes the whole row of the state: bytes that none of the sets at the beginning tells apart lead to the same state.
  private mutating func computeNext(_ id: ID, _ byte: UInt8) -> ID {
    if rows.count * 4 > maximumRowByteCount { isExhausted = true }
    if isExhausted { return Self.nothing }
    isDeriving = true
    defer { isDeriving = false }
    let sets = setsAtBeginning(of: id)
    var groups: [(signature: UInt64, extra: [Bool], next: ID)] = []
    var row = [ID](repeating: Self.nothing, count: representatives.count)
    for (number, byte) in representatives.enumerated() {
      var signature: UInt64 = 0
      var extra: [Bool] = []
      for (index, set) in sets.enumerated() {
        let isInside = byteSets[Int(set)].contains(byte)
        if index < 64 { signature |= (isInside ? 1 : 0) << UInt64(index) } else { extra.append(isInside) }
      }
      if let known = groups.firstIndex(where: { $0.signature == signature && $0.extra == extra }) {
        row[number] = groups[known].next
        continue
      }
      advanceStamp()
      var next = derivative(id, byte)
      if nodes[Int(next)].mayBeEmpty && !isAlive(next) { next = Self.nothing }
      if isExhausted { return Self.nothing }
      groups.append((signature, extra, next))
      row[number] = next
    }
    rowStarts[Int(id)] = Int32(rows.count)
    rows.append(contentsOf: row)
    return row[Int(classOf[Int(byte)])]
  }

  private mutating func advanceStamp() {
    if stamp == .max {
      stamp = 0
      for index in stamps.indices { stamps[index] = 0 }
    }
    stamp += 1
  }

  /// The sets of bytes, and the digits, of which the derivatives of `id` depend.
  private mutating func setsAtBeginning(of id: ID) -> [Int32] {
    advanceStamp()
    var sets: [Int32] = []
    var pending = [id]
    while let id = pending.popLast() {
      if stamps[Int(id)] == stamp { continue }
      stamps[Int(id)] = stamp
      let node = nodes[Int(id)]
      switch node.kind {
      case .nothing, .empty: break
      case .bytes: sets.append(node.a)
      case .multiple: sets.append(contentsOf: digitSets)
      case .sequence:
        pending.append(node.a)
        if isNullable(node.a) { pending.append(node.b) }
      case .choice, .all: pending.append(contentsOf: parts(of: node))
      case .not, .repeat: pending.append(node.a)
      }
    }
    return sets
  }

  /// Divides the classes that `set` cuts through. The rows of all states are forgotten where there are any.
  mutating func refineClasses(by set: ByteSet) {
    guard representatives.count < 256 else { return }
    var isCut = [Bool](repeating: false, count: representatives.count)
    for byte in 0..<256 where !set.contains(UInt8(byte)) { isCut[Int(classOf[byte])] = true }
    var divided = [Int: UInt8]()
    for byte in 0..<256 where set.contains(UInt8(byte)) {
      let old = Int(classOf[byte])
      guard isCut[old] else { continue }
      if divided[old] == nil {
        divided[old] = UInt8(representatives.count)
        representatives.append(UInt8(byte))
      }
      classOf[byte] = divided[old]!
    }
    guard !divided.isEmpty else { return }
    // The old class keeps what is outside the set.
    for old in divided.keys { representatives[old] = UInt8(classOf.firstIndex(of: UInt8(old))!) }
    if rows.isEmpty { return }
    rows = []
    for index in rowStarts.indices { rowStarts[index] = -1 }
  }

  private mutating func derivative(_ id: ID, _ byte: UInt8) -> ID {
    let node = nodes[Int(id)]
    switch node.kind {
    case .nothing, .empty: return Self.nothing
    case .bytes: return byteSets[Int(node.a)].contains(byte) ? Self.empty : Self.nothing
    case .multiple:
      guard byte >= UInt8(ascii: "0") && byte <= UInt8(ascii: "9") else { return Self.nothing }
      return multiple(of: node.a, remainder: Int32((Int(node.b) * 10 + Int(byte - UInt8(ascii: "0"))) % Int(node.a)))
    default: break
    }
    if stamps[Int(id)] == stamp { return stampedValues[Int(id)] }
    numSteps += 1
    if numSteps > maximumSteps { isExhausted = true }
    if isExhausted { return Self.nothing }
    let result: ID
    switch node.kind {
    case .sequence:
      // Along the sequence as far as parts may be empty; a loop, for sequences are long.
      var (first, rest) = (node.a, node.b)
      var choices: [ID] = []
      while true {
        let head = derivative(first, byte)
        if head != Self.nothing { choices.append(sequence(head, rest)) }
        guard isNullable(first) else { break }
        let next = nodes[Int(rest)]
        guard next.kind == .sequence else {
          let tail = derivative(rest, byte)
          if tail != Self.nothing { choices.append(tail) }
          break
        }
        (first, rest) = (next.a, next.b)
      }
      result = choices.count == 1 ? choices[0] : choice(choices)
    case .choice:
      var choices: [ID] = []
      for index in Int(node.a)..<Int(node.a + node.b) {
        let part = derivative(parts[index], byte)
        if part != Self.nothing { choices.append(part) }
      }
      result = choices.count == 1 ? choices[0] : choice(choices)
    case .all:
      var members: [ID] = []
      for index in Int(node.a)..<Int(node.a + node.b) {
        let part = derivative(parts[index], byte)
        members.append(part)
        if part == Self.nothing { break }
      }
      result = members.last == Self.nothing ? Self.nothing : all(members)
    case .not: result = not(derivative(node.a, byte))
    case .repeat:
      let head = derivative(node.a, byte)
      if head == Self.nothing {
        result = Self.nothing
      } else {
        let rest = self.repeat(
          node.a, max(0, Int(node.b) - 1), node.c == Self.unlimited ? nil : Int(node.c) - 1)
        result = sequence(head, rest)
      }
    default: result = Self.nothing
    }
    stamps[Int(id)] = stamp
    stampedValues[Int(id)] = result
    return result
  }

  // MARK: Emptiness

  /// Whether any text at all matches.
  mutating func isAlive(_ id: ID) -> Bool {
    if id == Self.nothing { return false }
    let node = nodes[Int(id)]
    if node.isNullable || !node.mayBeEmpty { return true }
    if aliveness[Int(id)] != 0 { return aliveness[Int(id)] == 1 }
    let result: Bool
    switch node.kind {
    case .sequence:
      // A loop, for sequences are long; and what is found out holds for every end of the sequence.
      var ends: [ID] = []
      var rest = id
      var isPossible = true
      while isPossible && nodes[Int(rest)].kind == .sequence && nodes[Int(rest)].mayBeEmpty && aliveness[Int(rest)] == 0 {
        ends.append(rest)
        isPossible = isAlive(nodes[Int(rest)].a)
        rest = nodes[Int(rest)].b
      }
      result = isPossible && isAlive(rest)
      if !isExhausted {
        for end in ends { aliveness[Int(end)] = result ? 1 : 2 }
      }
    case .choice: result = (Int(node.a)..<Int(node.a + node.b)).contains { isAlive(parts[$0]) }
    case .repeat: result = node.b == 0 || isAlive(node.a)
    case .all, .not: return search(id)
    default: result = true
    }
    if !isExhausted { aliveness[Int(id)] = result ? 1 : 2 }
    return result
  }

  /// Looks for an end from `id` on, depth first and without recursion. All states on the way to an end have one; where none is found, no state that
  /// was seen has.
  private mutating func search(_ start: ID) -> Bool {
    let wasDeriving = isDeriving
    isDeriving = true
    defer { isDeriving = wasDeriving }
    var path: [(state: ID, nextClass: Int)] = [(start, 0)]
    var seen: Set<ID> = [start]
    while let (state, nextClass) = path.last {
      guard nextClass < representatives.count else {
        path.removeLast()
        continue
      }
      path[path.count - 1].nextClass += 1
      if isExhausted { return false }
      let byte = representatives[nextClass]
      let known = rowStarts[Int(state)] < 0 ? -1 : rows[Int(rowStarts[Int(state)]) + nextClass]
      let next: ID
      if known >= 0 {
        next = known
      } else {
        advanceStamp()
        next = derivative(state, byte)
      }
      if next == Self.nothing || aliveness[Int(next)] == 2 { continue }
      let node = nodes[Int(next)]
      var found = node.isNullable || aliveness[Int(next)] == 1 || !node.mayBeEmpty
      if !found && node.kind != .all && node.kind != .not { found = isAlive(next) }
      if found {
        for (state, _) in path { aliveness[Int(state)] = 1 }
        return true
      }
      if (node.kind == .all || node.kind == .not) && seen.insert(next).inserted { path.append((next, 0)) }
    }
    for state in seen { aliveness[Int(state)] = 2 }
    return false
  }

  /// The bytes with which a text of the language may begin.
  mutating func firstBytes(_ id: ID) -> ByteSet {
    var alive = [Bool](repeating: false, count: representatives.count)
    for (number, byte) in representatives.enumerated() { alive[number] = next(id, byte) != Self.nothing }
    var result = ByteSet()
    for byte in 0..<256 where alive[Int(classOf[byte])] { result.insert(UInt8(byte)) }
    return result
  }
}
