// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

import MartletCore
import Testing

/// A broken contract ends the process with its sentence, in the build that users run: `precondition` would end it without a word.
@Suite struct ContractTests {
  @Test func `a broken contract says its sentence on standard error`() async throws {
    let result = await #expect(processExitsWith: .failure, observing: [\.standardErrorContent]) {
      enforce(CommandLine.arguments.isEmpty, "\(3) rows where at most \(2) fit")
    }
    let error = String(decoding: try #require(result).standardErrorContent, as: UTF8.self)
    #expect(error.contains("3 rows where at most 2 fit") && error.contains("ContractTests.swift"), "\(error)")
  }

  @Test func `so does one of the public interface, with its numbers`() async throws {
    let result = await #expect(processExitsWith: .failure, observing: [\.standardErrorContent]) { _ = Shape(2, 3)[2] }
    let error = String(decoding: try #require(result).standardErrorContent, as: UTF8.self)
    #expect(error.contains("axis 2 of a shape of rank 2"), "\(error)")
  }

  @Test func `a contract that holds costs no sentence`() {
    var sentences = 0
    func sentence() -> String {
      sentences += 1
      return ""
    }
    enforce(!CommandLine.arguments.isEmpty, sentence())
    #expect(sentences == 0)
  }
}
