// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

import MartletFormats

/// The text of a schema, and what its references refer to. Nothing outside of the text is ever fetched.
struct SchemaDocument {
  let root: JSONValue
  /// Whether keywords beside `$ref` count for nothing, as up to draft 7.
  let referencesStandAlone: Bool
  /// By absolute or made-up address: the pointer of the schema that has it as `$id`.
  private var resources: [String: String] = ["": ""]
  /// The addresses by pointer, for what is inside of each.
  private var bases: [String: String] = ["": ""]
  /// By address and "#" and name.
  private var anchors: [String: String] = [:]

  init(_ root: JSONValue) {
    self.root = root
    let dialect = root["$schema"]?.string ?? ""
    referencesStandAlone = ["draft-03", "draft-04", "draft-06", "draft-07"].contains { dialect.contains($0) }
    collect(root, pointer: "", base: "", isSchema: true)
  }

  private mutating func collect(_ value: JSONValue, pointer: String, base: String, isSchema: Bool) {
    var base = base
    if value.kind == .object {
      let hasReference = referencesStandAlone && value["$ref"]?.kind == .string
      if isSchema, !hasReference, let id = value["$id"]?.string ?? (referencesStandAlone ? value["id"]?.string : nil) {
        if id.hasPrefix("#") {
          anchors[base + id] = pointer
        } else {
          base = Self.resolve(Self.split(id).address, base)
          resources[base] = pointer
          bases[pointer] = base
        }
      }
      for keyword in ["$anchor", "$dynamicAnchor"] {
        if isSchema, let name = value[keyword]?.string { anchors[base + "#" + name] = pointer }
      }
      for (key, member) in value.members {
        let name = key.string!
        // Within these, and at the names of properties, nothing is a keyword.
        if isSchema && ["enum", "const", "default", "examples"].contains(name) { continue }
        let isNames =
          isSchema && ["properties", "patternProperties", "$defs", "definitions", "dependentSchemas", "dependencies"].contains(name)
        collect(member, pointer: pointer + "/" + Self.escape(name), base: base, isSchema: !isNames)
      }
    } else if value.kind == .array {
      for (index, element) in value.elements.enumerated() {
        collect(element, pointer: "\(pointer)/\(index)", base: base, isSchema: isSchema)
      }
    }
  }

  /// The pointer of the schema that `reference` in the schema at `pointer` names; nil if it is not in the text.
  func target(of reference: String, at pointer: String) -> String? {
    var place = pointer
    while bases[place] == nil { place = String(place.utf8[..<(place.utf8.lastIndex(of: UInt8(ascii: "/")) ?? place.startIndex)]) ?? "" }
    let (address, fragment) = Self.split(reference)
    let absolute = address.isEmpty ? bases[place]! : Self.resolve(address, bases[place]!)
    let decoded = Self.percentDecoded(fragment)
    if decoded.isEmpty { return resources[absolute] }
    guard decoded.hasPrefix("/") else { return anchors[absolute + "#" + decoded] }
    return resources[absolute].map { $0 + decoded }
  }

  func value(at pointer: String) -> JSONValue? {
    var value = root
    for part in pointer.utf8.split(separator: UInt8(ascii: "/"), omittingEmptySubsequences: false).dropFirst() {
      let name = Self.unescape(part)
      let next: JSONValue? =
        switch value.kind {
        case .object: value[name]
        case .array:
          Int(name).flatMap { index in index >= 0 && index < value.count ? value.elements.dropFirst(index).first { _ in true } : nil }
        default: nil
        }
      guard let next else { return nil }
      value = next
    }
    return value
  }

  // Byte by byte: characters that look alike are different keys.

  static func escape(_ name: String) -> String {
    var bytes: [UInt8] = []
    for byte in name.utf8 {
      switch byte {
      case UInt8(ascii: "~"): bytes += Array("~0".utf8)
      case UInt8(ascii: "/"): bytes += Array("~1".utf8)
      default: bytes.append(byte)
      }
    }
    return String(decoding: bytes, as: UTF8.self)
  }

  private static func unescape(_ part: Substring.UTF8View) -> String {
    var bytes: [UInt8] = []
    var rest = part[...]
    while let byte = rest.popFirst() {
      guard byte == UInt8(ascii: "~"), let next = rest.first, next == UInt8(ascii: "0") || next == UInt8(ascii: "1") else {
        bytes.append(byte)
        continue
      }
      bytes.append(next == UInt8(ascii: "0") ? byte : UInt8(ascii: "/"))
      rest = rest.dropFirst()
    }
    return String(decoding: bytes, as: UTF8.self)
  }

  // MARK: Addresses (RFC 3986, section 5, as far as schemas have it)

  private static func split(_ reference: String) -> (address: String, fragment: String) {
    guard let hash = reference.firstIndex(of: "#") else { return (reference, "") }
    return (String(reference[..<hash]), String(reference[reference.index(after: hash)...]))
  }

  private static func resolve(_ address: String, _ base: String) -> String {
    if address.isEmpty { return base }
    if address.prefix(while: { $0 != "/" && $0 != "?" }).contains(":") || base.isEmpty { return address }
    let afterScheme = base.firstRange(of: "://")?.upperBound ?? base.startIndex
    if address.hasPrefix("/") {
      return String(base[..<(base[afterScheme...].firstIndex(of: "/") ?? base.endIndex)]) + address
    }
    guard let slash = base[afterScheme...].lastIndex(of: "/") else { return base + "/" + address }
    return String(base[...slash]) + address
  }

  private static func percentDecoded(_ text: String) -> String {
    var bytes: [UInt8] = []
    var rest = Array(text.utf8)[...]
    while let byte = rest.popFirst() {
      if byte == UInt8(ascii: "%"), let value = UInt8(String(decoding: rest.prefix(2), as: UTF8.self), radix: 16) {
        bytes.append(value)
        rest = rest.dropFirst(2)
      } else {
        bytes.append(byte)
      }
    }
    return String(decoding: bytes, as: UTF8.self)
  }
}
