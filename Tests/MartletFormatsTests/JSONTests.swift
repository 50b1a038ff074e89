// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

import Foundation
import MartletFormats
import MartletTestSupport
import Testing

@Suite("JSON")
struct JSONTests {
  private func parse(_ text: String) throws(JSONError) -> JSONValue { try JSONValue(parsing: Array(text.utf8)) }

  private func error(_ bytes: [UInt8]) -> JSONError? {
    do { _ = try JSONValue(parsing: bytes) } catch { return error }
    return nil
  }

  private func error(_ text: String) -> JSONError? { error(Array(text.utf8)) }

  @Test("values of every kind are read, and members keep the text's order")
  func values() throws {
    let value = try parse(
      #" { "z": [1, -2.5e3, 0], "a": {"inner": null}, "s": "x\"\\\/\b\f\n\r\té\u0041\ud83d\ude00", "t": true, "f": false, "": [] } "#)
    #expect(value.members.map { $0.key.string! } == ["z", "a", "s", "t", "f", ""])
    #expect(value["z"]!.elements.map(\.double) == [1, -2500, 0])
    #expect(value["z"]!.elements.map(\.integer) == [1, nil, 0])
    #expect(value["a"]!["inner"]!.isNull)
    #expect(value["s"]!.string == "x\"\\/\u{8}\u{C}\n\r\té\u{41}😀")
    #expect(value["t"]!.bool == true && value["f"]!.bool == false)
    #expect(value[""]!.kind == .array && value[""]!.count == 0)
    #expect(value["missing"] == nil && value["z"]!["z"] == nil)
    #expect(value.count == 6 && value["z"]!.count == 3)
    // Another kind than what was asked for is nil, never a guess.
    #expect(value["z"]!.string == nil && value["s"]!.integer == nil && value["t"]!.double == nil && value["a"]!.bool == nil)
    #expect(try parse("7").integer == 7)
    #expect(try parse("\"only\"").string == "only")
  }

  @Test("a number keeps every digit until it is asked for as a type, and what does not fit is nil")
  func numbers() throws {
    #expect(try parse("9223372036854775807").integer == .max)
    #expect(try parse("9223372036854775808").integer == nil)
    #expect(try parse("9007199254740993").integer == 9_007_199_254_740_993)  // not a double
    #expect(try parse("1e999").double == nil)
    #expect(try parse("1e-999").double == 0)
    #expect(try parse("1e-05").double == 1e-05)
    #expect(try parse("1.0").integer == nil)
    let long = String(repeating: "9", count: 100_000)
    #expect(try parse(long).integer == nil)
    #expect(try parse(long).double == nil)
    #expect(try parse(long).numberText == long)
  }

  @Test("keys are compared by bytes: composed and decomposed letters are two keys")
  func canonicalEquivalence() throws {
    let value = try parse("{\"\u{E9}\": 1, \"e\u{301}\": 2}")
    #expect(value.count == 2)
    #expect(value["\u{E9}"]!.integer == 1)
    #expect(value["e\u{301}"]!.integer == 2)
  }

  @Test("a key that an object has twice is refused, also when an escape hides it")
  func duplicates() {
    #expect(error(#"{"a": 1, "b": 2, "a": 3}"#)?.description.contains("the key \"a\" twice") == true)
    #expect(error(#"{"x": {"a": 1, "\u0061": 3}}"#)?.description.contains("the key \"a\" twice") == true)
    #expect(error(#"{"a": {"a": {"a": 1}}, "b": [{"a": 1}, {"a": 1}]}"#) == nil)
  }

  @Test(
    "what is not JSON is refused",
    arguments: [
      "", " ", "[", "]", "{", "}", "[1,]", "[,1]", "[1 2]", "{\"a\"}", "{\"a\":}", "{\"a\":1,}", "{a:1}", "{1:1}", "{\"a\":1 \"b\":2}",
      "[}", "{]",
      "[1}", "{\"a\":1]", "tru", "True", "nul", "NaN", "Infinity", "-Infinity", "01", "-", "+1", ".5", "1.", "1e", "1e+", "0x1", "--1",
      "\"",
      "\"a", "\"\\", "\"\\x\"", "\"\\u12\"", "\"\\u12g4\"", "\"\\ud800\"", "\"\\ud800\\n\"", "\"\\ud800\\u0041\"", "\"\\udc00\"",
      "\"\u{1}\"",
      "\"\n\"", "1 2", "{} {}", "// x\n1", "/* */ 1", "\u{FEFF}1", "'a'", "[1]]", "\u{A0}1",
    ])
  func malformed(_ text: String) {
    #expect(error(text) != nil, "accepted \(text)")
  }

  @Test(
    "bytes that are not UTF-8 are refused where they stand",
    arguments: [[0xFF], [0xC0, 0x80], [0xED, 0xA0, 0x80], [0xF5, 0x80, 0x80, 0x80]] as [[UInt8]])
  func invalidUTF8(_ bytes: [UInt8]) {
    #expect(error(Array("\"ab".utf8) + bytes + Array("\"".utf8)) == .malformed(offset: 3, problem: "the text is not valid UTF-8 here"))
  }

  @Test("nesting ends at the limit, however long the text goes on")
  func nesting() throws {
    let limit = JSONValue.maximumDepth
    func nested(_ depth: Int) -> String { String(repeating: "[", count: depth) + String(repeating: "]", count: depth) }
    #expect(try parse(nested(limit)).count == 1)
    #expect(error(nested(limit + 1)) == .malformed(offset: limit, problem: "arrays and objects nest more than \(limit) deep"))
    #expect(error(String(repeating: "[", count: 5_000_000)) != nil)
    #expect(error(String(repeating: "{\"a\":", count: 2_000_000)) != nil)
  }

  @Test("time grows with the bytes: many members, many elements, one long string", arguments: [1, 4])
  func size(_ factor: Int) throws {
    let count = factor * 50_000
    let object = try parse("{" + (0..<count).map { "\"key \($0)\": \($0)" }.joined(separator: ",") + "}")
    var sum = 0
    for (key, value) in object.members { sum += value.integer! - (key.withStringBytes { $0.count > 4 }! ? 0 : 1) }
    #expect(sum == count * (count - 1) / 2)
    #expect(try parse("[" + String(repeating: "[],", count: count) + "0]").count == count + 1)
    #expect(try parse("\"" + String(repeating: "\\n", count: count) + "\"").string!.utf8.count == count)
  }

  /// The truth is Foundation's reader, for texts that both accept.
  @Test("random documents read as Foundation reads them")
  func random() throws {
    var generator = SeededGenerator(seed: 7)
    for _ in 0..<200 {
      let text = randomText(depth: 0, &generator)
      let ours = try parse(text)
      let theirs = try JSONSerialization.jsonObject(with: Data(text.utf8), options: [.fragmentsAllowed])
      #expect(matches(ours, theirs), "\(text)")
    }
  }

  @Test("a document with a byte changed, dropped or cut short ends in a document or an error, never in a trap")
  func mutations() throws(JSONError) {
    var generator = SeededGenerator(seed: 8)
    for _ in 0..<300 {
      var bytes = Array(randomText(depth: 0, &generator).utf8)
      for _ in 0..<Int.random(in: 1...4, using: &generator) {
        let place = Int.random(in: 0..<bytes.count, using: &generator)
        switch Int.random(in: 0..<3, using: &generator) {
        case 0: bytes[place] = UInt8.random(in: 0...255, using: &generator)
        case 1: bytes.insert(Array("[]{},:\"\\0e-".utf8).randomElement(using: &generator)!, at: place)
        default: bytes.removeSubrange(place...)
        }
        if bytes.isEmpty { break }
      }
      do {
        walk(try JSONValue(parsing: bytes))
      } catch {
        guard error.code == .malformed, let offset = error.offset else { throw error }
        #expect(offset >= 0 && offset <= bytes.count)
      }
    }
  }

  private func randomText(depth: Int, _ generator: inout SeededGenerator) -> String {
    let space = ["", " ", "\n\t"].randomElement(using: &generator)!
    switch Int.random(in: 0..<(depth < 4 ? 8 : 6), using: &generator) {
    case 0: return space + "null"
    case 1: return ["true", "false"].randomElement(using: &generator)! + space
    case 2: return "\(Int.random(in: -1_000_000...1_000_000, using: &generator))"
    case 3: return "\(Double(Int.random(in: -1000...1000, using: &generator)) / 64)"
    case 4: return #""é\n\u20ac\ud83d\ude00/\"""#
    case 5: return "\"\(Int.random(in: 0...99, using: &generator))\""
    case 6:
      let parts = (0..<Int.random(in: 0...4, using: &generator)).map { _ in randomText(depth: depth + 1, &generator) }
      return space + "[" + parts.joined(separator: ",") + space + "]"
    default:
      let parts = (0..<Int.random(in: 0...4, using: &generator)).map { "\"k\($0)\"\(space):" + randomText(depth: depth + 1, &generator) }
      return "{" + space + parts.joined(separator: " ,") + "}"
    }
  }

  /// Reads everything in a value.
  private func walk(_ value: JSONValue) {
    _ = (value.string, value.integer, value.double, value.bool, value.description)
    for element in value.elements { walk(element) }
    for (key, member) in value.members {
      #expect(key.kind == .string)
      walk(member)
    }
  }

  private func matches(_ value: JSONValue, _ truth: Any) -> Bool {
    switch value.kind {
    case .null: return truth is NSNull
    case .bool: return truth as? Bool == value.bool
    case .number: return (truth as? NSNumber)?.doubleValue == value.double
    case .string: return truth as? String == value.string
    case .array:
      let elements = Array(value.elements)
      guard let truth = truth as? [Any], truth.count == elements.count else { return false }
      return zip(elements, truth).allSatisfy { matches($0, $1) }
    case .object:
      let members = Array(value.members)
      guard let truth = truth as? [String: Any], truth.count == members.count else { return false }
      return members.allSatisfy { key, value in truth[key.string!].map { matches(value, $0) } ?? false }
    }
  }
}
