// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

// Random schemas, and what the Python package jsonschema says of instances; Fixtures/make_truth.py records it.

import Foundation
import MartletFormats
import MartletGrammar
import MartletTestSupport
import Testing

@Suite struct RecordedTruthTests {
  private static func cases() throws -> [JSONValue] {
    let path = try #require(Bundle.module.path(forResource: "truth", ofType: "json", inDirectory: "Fixtures"))
    return Array(try #require(try JSONValue(path: path)["cases"]).elements)
  }

  @Test func `valid instances are accepted and others are not`() throws {
    var numAccepted = 0
    var numRefused = 0
    for example in try Self.cases() {
      let schema = try #require(example["schema"])
      let grammar: CompiledGrammar
      // Python writes whole numbers that it computed as "3.0".
      var options = JSONSchemaOptions()
      options.integersMayHaveZeroFraction = true
      do { grammar = try CompiledGrammar(jsonSchema: schema, options: options) } catch {
        #expect(error.code == .unsupported, "\(error)")
        numRefused += 1
        continue
      }
      for instance in example["instances"]!.elements {
        let text = instance["text"]!.string!
        let isValid = instance["valid"]!.bool!
        #expect(try accepts(grammar, text) == isValid, "\(text) in \(written(schema))")
        numAccepted += isValid ? 1 : 0
      }
    }
    #expect(numAccepted > 800)
    #expect(numRefused < 6)
  }

  @Test func `random answers end in instances that are valid`() throws {
    let (vocabulary, tokens, end) = Vocabularies.mixed()
    var generator = SeededGenerator(seed: 77)
    var numEnded = 0
    for example in try Self.cases() {
      let schema = try #require(example["schema"])
      guard let grammar = try? CompiledGrammar(jsonSchema: schema) else { continue }
      let constraint = GrammarConstraint(grammar, vocabulary: vocabulary)
      for _ in 0..<8 {
        guard let bytes = try walk(constraint, tokens, end: end, limit: 400, using: &generator) else { continue }
        let text = String(decoding: bytes, as: UTF8.self)
        let instance: JSONValue
        do { instance = try JSONValue(parsing: bytes) } catch {
          // Keys that the schema does not name may repeat, which this reader refuses and no grammar can prevent.
          #expect(error.reason.hasSuffix("twice"), "\(text): \(error)")
          continue
        }
        #expect(isValid(instance, schema), "\(text) by \(written(schema))")
        numEnded += 1
      }
    }
    #expect(numEnded > 500)
  }
}

/// A schema for a message.
func written(_ value: JSONValue) -> String {
  switch value.kind {
  case .array: "[" + value.elements.map(written).joined(separator: ",") + "]"
  case .object: "{" + value.members.map { "\($0.key):\(written($0.value))" }.joined(separator: ",") + "}"
  default: "\(value)"
  }
}
