// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

import Foundation
import MartletFormats
import MartletTemplates
import Testing

/// What a differential search over random programs found, with jinja2's outputs.
@Suite struct FoundTests {
  @Test(arguments: [
    // A jump out of a block that is being captured drops what it has written.
    ("{% for x in [1,2,3] %}{% set q %}a{% if x == 2 %}{% continue %}{% endif %}b{% endset %}{{ x }}{{ q }};{% endfor %}", "1ab;3ab;"),
    ("{% for x in [1,2,3] %}{% filter upper %}a{% if x == 2 %}{% break %}{% endif %}b{% endfilter %}{{ x }};{% endfor %}", "AB1;"),
    ("{% for x in [1,2] %}{% set q | upper %}{% filter lower %}{% break %}{% endfilter %}{% endset %}{{ x }}{% endfor %}.", "."),
    ("{{ 'abcabc'.count('a', 1) }}{{ 'aaa'.count('', 1, 2) }}{{ 'a'.count('', 5) }}", "120"),
    ("{{ [1,2]|slice(2, 'F')|list }}", "[[1, 'F'], [2, 'F']]"),
    ("{{ 7 // 1e-5 }} {{ 1.0 // 0.1 }} {{ -7.5 // 2 }} {{ 0.0 // -3 }}", "699999.0 9.0 -4.0 -0.0"),
    ("{% macro m() %}{{ kwargs.k }}{% endmacro %}{% call m(k=1) %}z{% endcall %}", "1"),
    ("{{ 'ab'|safe|list }}", "['a', 'b']"),
    ("{{ 'a b c '.split(none, 1) }}{{ 'a b c '.rsplit(none, 1) }}{{ ' '.split(none, 0) }}", "['a', 'b c ']['a b', 'c'][]"),
    ("{{ 3 in range(0, 9, 3) }}{{ 4 in range(0, 9, 3) }}{{ 9 in range(0, 9, 3) }}{{ 2 in range(5, 0, -1) }}", "TrueFalseFalseTrue"),
  ]) func `programs that once went wrong write what jinja2 writes`(program: String, text: String) throws {
    #expect(try Template(program).render(JSON.Object()).text == text)
  }

  /// Numbers at the ends of 64 bits are a program's to choose: none of them may end the process, and what jinja2 makes of them is made here.
  @Test func `the least and the greatest numbers are what jinja2 makes of them, or a bound that is told, in every place`() throws {
    let path = try #require(Bundle.module.path(forResource: "extremes", ofType: "json", inDirectory: "Fixtures"))
    let cases = try #require(try JSONValue(path: path)["cases"]).elements
    var counts = (same: 0, raised: 0, bounded: 0)
    for example in cases {
      let program = try #require(example["program"]?.string)
      let outcome: Result<String, TemplateError>
      do throws(TemplateError) {
        outcome = .success(try Template(program, limits: TemplateLimits(maximumSteps: 100_000)).render(JSON.Object()).text)
      } catch { outcome = .failure(error) }
      switch (outcome, example["output"]?.string) {
      case (.success(let text), let wanted?):
        #expect(text == wanted, "\(program)")
        counts.same += 1
      case (.failure, nil): counts.raised += 1
      // Jinja may take as long and as much as it likes.
      case (.failure(let error), .some):
        #expect(error.code == .limit, "\(program): \(error)")
        counts.bounded += 1
      // Where Python takes too much, a cheaper way to the same may be found here.
      case (.success(let text), nil):
        #expect(example["error"]?.string == "TooMuch", "\(program) is \(text), and raises \(example["error"]?.string ?? "") in jinja2")
      }
    }
    #expect(counts.same > 400 && counts.raised > 70 && counts.bounded < 20, "\(counts)")
  }
}
