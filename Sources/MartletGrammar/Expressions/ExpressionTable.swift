// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

/// Regular expressions over bytes, each of which is there once: equal expressions have equal numbers.
///
/// An expression is also a state of the automaton that recognises it. The state after a byte is the *derivative*: the expression of what may
/// still follow (Brzozowski, "Derivatives of regular expressions", 1964). Derivatives make intersections and complements as easy as
/// alternatives, and since expressions are brought into one form when they are made, there are finitely many of them.
///
/// States are made as they are met. No expression but ``nothing`` is built that is plainly empty; of those with a complement or an intersection
/// inside, `isAlive` finds it out.
struct ExpressionTable: Sendable {
  typealias ID = Int32

  enum Kind: UInt8 { case nothing, empty, bytes, sequence, choice, all, not, `repeat`, multiple }

  struct Node {
    var kind: Kind
    /// Whether the empty text matches.
    var isNullable: Bool
    /// Whether an intersection or a complement is inside, so that the language may be empty although the expression is not ``nothing``.
    var mayBeEmpty: Bool
    /// `bytes`: of the set. `sequence`: the first part. `choice`, `all`: where the parts begin in `parts`. `not`, `repeat`: the part.
    /// `multiple`: the modulus.
    var a: Int32
    /// `sequence`: the second part. `choice`, `all`: the number of parts. `repeat`: at least so often. `multiple`: the remainder so far.
    var b: Int32
    /// `repeat`: at most so often, `unlimited` for no bound.
    var c: Int32
  }

  /// Matches no text.
  static var nothing: ID { 0 }
  /// Matches the empty text.
  static var empty: ID { 1 }
  /// Matches every text.
  static var everything: ID { 2 }
  static var unlimited: Int32 { .max }

  private(set) var nodes: [Node] = []
  private(set) var parts: [ID] = []
  private(set) var byteSets: [ByteSet] = []
  /// Of each digit alone, where there is a `multiple`.
  private(set) var digitSets: [Int32] = []
  private var setNumbers: [ByteSet: Int32] = [:]
  private var slots = [ID](repeating: -1, count: 1024)

  // The automaton's side: see ExpressionTable+Derivatives.
  var classOf = [UInt8](repeating: 0, count: 256)
  /// A byte of each class.
  var representatives: [UInt8] = [0]
  /// Whether derivatives are being made: these tell no more bytes apart than the sets that they are made of.
  var isDeriving = false
  /// Of each expression: where its row begins in `rows`, or -1.
  var rowStarts: [Int32] = []
  /// The derivative by each class of bytes, or -1 where it was not asked for.
  var rows: [ID] = []
  var aliveness: [UInt8] = []
  var stamps: [UInt32] = []
  var stampedValues: [ID] = []
  var stamp: UInt32 = 0
  var numSteps = 0

  /// Bounds; where one is met, `isExhausted` is set and what is made from then on is ``nothing``.
  var maximumCount: Int
  var maximumSteps: Int
  var maximumRowByteCount = Int.max
  var isExhausted = false

  init(maximumCount: Int, maximumSteps: Int) {
    self.maximumCount = maximumCount
    self.maximumSteps = maximumSteps
    _ = intern(Node(kind: .nothing, isNullable: false, mayBeEmpty: false, a: 0, b: 0, c: 0))
    _ = intern(Node(kind: .empty, isNullable: true, mayBeEmpty: false, a: 0, b: 0, c: 0))
    _ = intern(Node(kind: .not, isNullable: true, mayBeEmpty: false, a: 0, b: 0, c: 0))
  }

  @inline(__always)
  func isNullable(_ id: ID) -> Bool { nodes[Int(id)].isNullable }

  var byteCount: Int {
    nodes.count * (MemoryLayout<Node>.stride + 17) + slots.count * 4 + parts.count * 4 + rows.count * 4 + byteSets.count * 96
  }

  func parts(of node: Node) -> ArraySlice<ID> { parts[Int(node.a)..<Int(node.a + node.b)] }

  // MARK: Making expressions

  mutating func bytes(_ set: ByteSet) -> ID {
    if set.isEmpty { return Self.nothing }
    let number: Int32
    if let known = setNumbers[set] {
      number = known
    } else {
      number = Int32(byteSets.count)
      byteSets.append(set)
      setNumbers[set] = number
      if !isDeriving { refineClasses(by: set) }
    }
    return intern(Node(kind: .bytes, isNullable: false, mayBeEmpty: false, a: number, b: 0, c: 0))
  }

  mutating func byte(_ byte: UInt8) -> ID { bytes(ByteSet(byte)) }

  /// The text itself, and `rest` after it.
  mutating func literal(_ text: some BidirectionalCollection<UInt8>, then rest: ID = empty) -> ID {
    var result = rest
    for byte in text.reversed() { result = sequence(self.byte(byte), result) }
    return result
  }

  mutating func sequence(_ first: ID, _ second: ID) -> ID {
    if first == Self.nothing || second == Self.nothing { return Self.nothing }
    if first == Self.empty { return second }
    if second == Self.empty { return first }
    guard nodes[Int(first)].kind == .sequence else { return link(first, second) }
    // Sequences lean to the right; without recursion, for a text may be long.
    var heads: [ID] = []
    var tail = first
    while nodes[Int(tail)].kind == .sequence {
      heads.append(nodes[Int(tail)].a)
      tail = nodes[Int(tail)].b
    }
    var result = link(tail, second)
    for head in heads.reversed() { result = link(head, result) }
    return result
  }

  mutating func sequence(_ list: [ID]) -> ID { list.reversed().reduce(Self.empty) { sequence($1, $0) } }

  private mutating func link(_ first: ID, _ second: ID) -> ID {
    if second == Self.nothing { return Self.nothing }
    let (a, b) = (nodes[Int(first)], nodes[Int(second)])
    return intern(
      Node(
        kind: .sequence, isNullable: a.isNullable && b.isNullable, mayBeEmpty: a.mayBeEmpty || b.mayBeEmpty, a: first, b: second, c: 0))
  }

  mutating func choice(_ a: ID, _ b: ID) -> ID {
    if a == b || b == Self.nothing { return a }
    if a == Self.nothing { return b }
    return choice([a, b])
  }

  mutating func choice(_ list: [ID]) -> ID {
    var set = ByteSet()
    var members: [ID] = []
    members.reserveCapacity(list.count)
    func collect(_ id: ID, _ table: borrowing ExpressionTable) {
      let node = table.nodes[Int(id)]
      switch node.kind {
      case .nothing: break
      case .bytes: set = set.union(table.byteSets[Int(node.a)])
      case .choice: for part in table.parts(of: node) { collect(part, table) }
      default: members.append(id)
      }
    }
    for id in list { collect(id, self) }
    numSteps += members.count / 4
    if !set.isEmpty { members.append(bytes(set)) }
    members.sort()
    removeRepeats(&members)
    if members.isEmpty { return Self.nothing }
    if members.count == 1 { return members[0] }
    if members.contains(Self.everything) { return Self.everything }
    if members.first == Self.empty, members.dropFirst().contains(where: { isNullable($0) }) { members.removeFirst() }
    if members.count == 1 { return members[0] }
    return internList(.choice, members, isNullable: members.contains { isNullable($0) })
  }

  /// What every one of the list matches.
  mutating func all(_ list: [ID]) -> ID {
    var set: ByteSet?
    var members: [ID] = []
    var isNothing = false
    func collect(_ id: ID, _ table: borrowing ExpressionTable) {
      let node = table.nodes[Int(id)]
      switch node.kind {
      case .nothing: isNothing = true
      case .bytes: set = set?.intersection(table.byteSets[Int(node.a)]) ?? table.byteSets[Int(node.a)]
      case .all: for part in table.parts(of: node) { collect(part, table) }
      default: if id != Self.everything { members.append(id) }
      }
    }
    for id in list { collect(id, self) }
    numSteps += members.count / 4
    if isNothing { return Self.nothing }
    if let set { members.append(bytes(set)) }
    members.sort()
    removeRepeats(&members)
    if members.isEmpty { return Self.everything }
    if members.count == 1 { return members[0] }
    if members[0] == Self.nothing { return Self.nothing }
    if members[0] == Self.empty { return members.allSatisfy { isNullable($0) } ? Self.empty : Self.nothing }
    return internList(.all, members, isNullable: members.allSatisfy { isNullable($0) })
  }

  mutating func not(_ id: ID) -> ID {
    let node = nodes[Int(id)]
    if node.kind == .not { return node.a }
    return intern(Node(kind: .not, isNullable: !node.isNullable, mayBeEmpty: true, a: id, b: 0, c: 0))
  }

  mutating func optional(_ id: ID) -> ID { choice(Self.empty, id) }

  mutating func `repeat`(_ id: ID, _ minimum: Int = 0, _ maximum: Int? = nil) -> ID {
    `repeat`(id, Int32(clamping: minimum), maximum.map { Int32(clamping: $0) } ?? Self.unlimited)
  }

  private mutating func `repeat`(_ id: ID, _ minimum: Int32, _ maximum: Int32) -> ID {
    if maximum == 0 || id == Self.empty { return Self.empty }
    let node = nodes[Int(id)]
    let minimum = node.isNullable ? 0 : minimum
    if id == Self.nothing { return minimum == 0 ? Self.empty : Self.nothing }
    if id == Self.everything { return id }
    if minimum == 1 && maximum == 1 { return id }
    if minimum == 0 && maximum == 1 { return optional(id) }
    if node.kind == .repeat && node.b == 0 && node.c == Self.unlimited && maximum == Self.unlimited { return id }
    return intern(
      Node(kind: .repeat, isNullable: minimum == 0, mayBeEmpty: node.mayBeEmpty, a: id, b: minimum, c: maximum))
  }

  /// Digits that make, behind digits with the remainder `remainder`, a multiple of `modulus`: `[0-9]*`, read as one decimal number.
  mutating func multiple(of modulus: Int32, remainder: Int32 = 0) -> ID {
    if digitSets.isEmpty {
      for digit in UInt8(ascii: "0")...UInt8(ascii: "9") { digitSets.append(nodes[Int(byte(digit))].a) }
    }
    return intern(Node(kind: .multiple, isNullable: remainder == 0, mayBeEmpty: false, a: modulus, b: remainder, c: 0))
  }

  /// Any of the texts, with common beginnings shared, so that a byte decides between branches without looking at all texts.
  mutating func anyLiteral(_ texts: [[UInt8]]) -> ID {
    let sorted = texts.sorted { $0.lexicographicallyPrecedes($1) }
    return branch(sorted[...], depth: 0)
  }

  private mutating func branch(_ texts: ArraySlice<[UInt8]>, depth: Int) -> ID {
    guard let first = texts.first, let last = texts.last else { return Self.nothing }
    // What all have in common is stepped over at once: recursion is as deep as there are branches on a way, not bytes.
    var common = depth
    while common < first.count && common < last.count && first[common] == last[common] { common += 1 }
    var choices: [ID] = []
    var rest = texts
    while let text = rest.first, text.count == common {
      choices = [Self.empty]
      rest = rest.dropFirst()
    }
    while let text = rest.first {
      let byte = text[common]
      var end = rest.startIndex
      while end < rest.endIndex && rest[end][common] == byte { end += 1 }
      let inner = rest[rest.startIndex..<end]
      choices.append(inner.count == 1 ? literal(text[common...]) : sequence(self.byte(byte), branch(inner, depth: common + 1)))
      rest = rest[end...]
    }
    return literal(first[depth..<common], then: choice(choices))
  }

  // MARK: Each once

  private func removeRepeats(_ members: inout [ID]) {
    guard members.count > 1 else { return }
    var kept = 1
    for index in 1..<members.count where members[index] != members[kept - 1] {
      members[kept] = members[index]
      kept += 1
    }
    members.removeSubrange(kept...)
  }

  private static func mix(_ hash: UInt64, _ value: Int32) -> UInt64 {
    (hash ^ UInt64(UInt32(bitPattern: value))) &* 0x9E37_79B9_7F4A_7C15 ^ hash >> 29
  }

  private func hash(_ node: Node) -> UInt64 {
    var hash = Self.mix(UInt64(node.kind.rawValue) &* 0xD6E8_FEB8_6659_FD93, node.c)
    if node.kind == .choice || node.kind == .all {
      for part in parts(of: node) { hash = Self.mix(hash, part) }
    } else {
      hash = Self.mix(Self.mix(hash, node.a), node.b)
    }
    return hash ^ hash >> 32
  }

  private mutating func internList(_ kind: Kind, _ members: [ID], isNullable: Bool) -> ID {
    let start = parts.count
    parts.append(contentsOf: members)
    let mayBeEmpty = kind == .all || members.contains { nodes[Int($0)].mayBeEmpty }
    let count = nodes.count
    let id = intern(Node(kind: kind, isNullable: isNullable, mayBeEmpty: mayBeEmpty, a: Int32(start), b: Int32(members.count), c: 0))
    if nodes.count == count { parts.removeSubrange(start...) }
    return id
  }

  private func isSame(_ a: Node, _ b: Node) -> Bool {
    guard a.kind == b.kind && a.b == b.b && a.c == b.c else { return false }
    if a.kind == .choice || a.kind == .all { return parts(of: a).elementsEqual(parts(of: b)) }
    return a.a == b.a
  }

  private mutating func intern(_ node: Node) -> ID {
    var slot = Int(truncatingIfNeeded: hash(node)) & (slots.count - 1)
    while slots[slot] >= 0 {
      if isSame(nodes[Int(slots[slot])], node) { return slots[slot] }
      slot = (slot + 1) & (slots.count - 1)
    }
    guard nodes.count < maximumCount else {
      isExhausted = true
      return Self.nothing
    }
    let id = ID(nodes.count)
    nodes.append(node)
    rowStarts.append(-1)
    aliveness.append(0)
    stamps.append(0)
    stampedValues.append(0)
    slots[slot] = id
    if nodes.count * 2 > slots.count { grow() }
    return id
  }

  private mutating func grow() {
    slots = [ID](repeating: -1, count: slots.count * 2)
    for id in nodes.indices {
      var slot = Int(truncatingIfNeeded: hash(nodes[id])) & (slots.count - 1)
      while slots[slot] >= 0 { slot = (slot + 1) & (slots.count - 1) }
      slots[slot] = ID(id)
    }
  }
}
