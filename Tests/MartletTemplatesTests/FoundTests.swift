// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

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

  /// Numbers at the ends of 64 bits are a program's to choose, and none of them may end the process.
  @Test func `the least and the greatest numbers are answers or errors in every place`() throws {
    let numbers = ["-9223372036854775808", "9223372036854775807", "-1", "0"]
    let programs = [
      "'-1'.zfill(N)", "'a'.center(N)", "'a'.ljust(N)", "'a'.rjust(N)", "'a b'.split(none, N)", "'a b'.rsplit(none, N)",
      "'a-b'.split('-', N)",
      "'a-b'.rsplit('-', N)", "'abc'.find('b', N)", "'abc'.find('b', N, M)", "'abc'.count('b', N, M)", "'abc'.startswith('a', N, M)",
      "'abc'.replace('b', 'c', N)", "'a\\tb'.expandtabs(N)", "'abcdefgh'|truncate(N, leeway=M)", "'abcdefgh'|truncate(N, true, '')",
      "'a'|center(N)", "'a'|indent(N)", "'a'|replace('a', 'b', N)", "2.5|round(N)", "25|round(N)", "2.5|round(N, 'ceil')",
      "[1, 2]|batch(N)|list",
      "[1, 2]|batch(N, 0)|list", "[1, 2]|slice(N)|list", "[1, 2][N:M]", "[1, 2][N:M:N]", "[1, 2][::N]", "'abc'[N:M]", "'abc'[::N]",
      "'abc'[N]",
      "[1, 2][N]", "range(N)", "range(N, M)", "range(N, M, M)", "range(0, N, M)|list", "range(0, 9)[N:M]", "range(0, 9)[::N]",
      "range(0, 9)[N]",
      "N in range(0, -5, -1)", "N in range(0, 5)", "N + M", "N - M", "N * M", "N // M", "N % M", "N / M", "-N", "N|abs", "N == M",
      "N < M + 0.5",
      "'%d' % N", "'%*d' % (N, 1)", "'%.*f' % (N, 1)", "'{:N}'.format(1)", "'a' * N", "[1] * N", "N|int", "N|float",
      "[1, 2].index(2, N, M)",
      "[1]|tojson(indent=N)", "(1, 2)|sum(start=N)", "cycler(1, 2)", "N.bit_length()", "N ** 3", "3 ** N", "2.5 ** N",
    ]
    for program in programs {
      for n in numbers {
        for m in numbers {
          let source = String(program.map { $0 == "N" ? n : $0 == "M" ? m : String($0) }.joined())
          let limits = TemplateLimits(maximumSteps: 100_000)
          _ = try? Template("{{ \(source) }}", limits: limits).render(JSON.Object())
        }
      }
    }
    #expect(programs.count > 60)
  }
}
