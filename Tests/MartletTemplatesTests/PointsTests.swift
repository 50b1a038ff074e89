// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

import MartletTemplates
import Testing

/// Byte for byte what jinja2 writes in transformers' environment, and an error where it raises one.
@Suite struct PointsTests {
  /// The hour of the recording.
  private static let clock = LocalTime("2026-11-29T12:34:56")!

  /// Programs that jinja2 renders and that are refused here, never rendered otherwise.
  private static let refused: [String: String] = {
    let folded = "Jinja computes what is constant when it compiles, and takes its own errors for undefined there"
    let needless = "a filter that no prompt needs"
    let brackets = 50
    return [
      "{{ \(String(repeating: "(", count: brackets))1\(String(repeating: ")", count: brackets)) }}": "deeper than a small stack allows",
      "[{{ none[1:] }}]": folded, "{{ [1][1.0:] }}": folded, "{{ [1]['a':] }}": folded, "{{ {'a': 1}[1:] }}": folded,
      "{% autoescape true %}{{ '<' }}{% endautoescape %}": "a prompt is no HTML",
      "{{ [7]|random }}": "a prompt does not depend on chance",
      "{{ 'aé'.encode('utf-8')|length }}": "there are no bytes that are not text",
      "{{ 'aaa bbb ccc ddd'|wordwrap(7) }}|{{ 'aaaaaaaaaa'|wordwrap(4) }}|{{ 'a b\\nc d'|wordwrap(3) }}|"
        + "{{ 'aaaaaa'|wordwrap(4, false) }}":
        needless,
      "{{ 1000|filesizeformat }}{{ 1|filesizeformat }}{{ 1024|filesizeformat(true) }}{{ 123456789|filesizeformat }}": needless,
      "{{ {'b': 1, 'a': [1, 'x']}|pprint }}": needless, "{{ {'a': '<', 'b': none, 'c': 1}|xmlattr }}": needless,
    ]
  }()

  /// What an error of Python's or Jinja's is called here. Where Python finds an undefined value to be of a wrong type, its name is told instead.
  private static let codes: [String: Set<TemplateError.Code>] = [
    "TemplateError": [.raised], "UndefinedError": [.undefined], "SecurityError": [.security], "TypeError": [.type, .undefined],
    "ValueError": [.value],
    "TemplateSyntaxError": [.syntax],
  ]

  private func outcome(_ example: Points.Case) -> Result<String, TemplateError> {
    do throws(TemplateError) {
      return .success(try Template(example.program).render(example.variables, now: Self.clock).text)
    } catch {
      return .failure(error)
    }
  }

  @Test(arguments: Points.numbers) func `what jinja2 writes is written to the byte, and what it raises is an error`(point: Int) {
    for example in Points.recorded.cases where example.point == point {
      let outcome = outcome(example)
      switch (outcome, example.output) {
      case (.success(let text), let wanted?):
        #expect(Array(text.utf8) == Array(wanted.utf8), "\(example.name): \(example.program)")
      case (.success(let text), nil):
        Issue.record("\(example.name): \(example.program) gives \(text.debugDescription), jinja2 raises \(example.error ?? "")")
      case (.failure(let error), .some):
        #expect(Self.refused[example.program] != nil, "\(example.name): \(example.program) is refused: \(error)")
        #expect(!error.message.isEmpty && error.line == 1 && error.column >= 1)
      case (.failure(let error), nil):
        if let codes = Self.codes[example.error ?? ""] {
          #expect(
            codes.contains(error.code),
            "\(example.name): \(example.program) is \(example.error!) to jinja2, here \(error.code.rawValue): \(error)")
        }
        if error.code == .raised { #expect(error.message == example.message, "\(example.name): \(example.program)") }
      }
    }
  }

  @Test func `every exception is one of the recorded cases, and holds`() {
    for (program, reason) in Self.refused {
      let example = Points.recorded.cases.first { $0.program == program }
      #expect(example?.output != nil, "\(program) (\(reason)) is not among the recorded cases")
      if let example { #expect(throws: TemplateError.self, "\(program) renders now") { try outcome(example).get() } }
    }
  }

  @Test(arguments: Points.recorded.syntaxErrors.indices) func `what jinja2 does not compile is not compiled, and the place is told`(
    index: Int
  ) {
    let example = Points.recorded.syntaxErrors[index]
    #expect(
      performing: { _ = try Template(example.program) },
      throws: { error in
        guard let error = error as? TemplateError else { return false }
        return error.code == .syntax && error.line >= 1 && error.column >= 1
      })
  }
}
