// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

import Foundation
import MartletTemplates
import MartletTestSupport
import Testing

/// A program from anywhere can neither hang nor fill the memory, nor end the process: what goes too far is an error that says where.
@Suite struct LimitsTests {
  private func failure(_ program: String, _ variables: JSON.Object = JSON.Object(), _ limits: TemplateLimits = TemplateLimits())
    -> TemplateError?
  {
    do throws(TemplateError) {
      _ = try Template(program, limits: limits).render(variables)
      return nil
    } catch {
      return error
    }
  }

  /// In a thread with a small stack, as servers' threads may have.
  private func onSmallStack<Result: Sendable>(_ body: @escaping @Sendable () -> Result) async -> Result {
    await withCheckedContinuation { continuation in
      let thread = Thread { continuation.resume(returning: body()) }
      thread.stackSize = 512 << 10
      thread.start()
    }
  }

  // MARK: Bounds

  @Test func `a program of too many bytes is refused before it is read`() throws {
    let limits = TemplateLimits(maximumSourceByteCount: 5)
    #expect(failure("12345", JSON.Object(), limits) == nil)
    let error = try #require(failure("123456", JSON.Object(), limits))
    #expect(error.code == .limit && error.line == 0 && "\(error)".contains("6 bytes"))
  }

  @Test func `steps are bounded, and the error says where they ended`() throws {
    let error = try #require(
      failure("a\n  {% for i in range(1000) %}{{ i }}{% endfor %}", JSON.Object(), TemplateLimits(maximumSteps: 1000)))
    #expect(error.code == .limit && error.line == 2 && error.column > 1)
  }

  @Test func `what is written is bounded`() throws {
    let limits = TemplateLimits(maximumOutputByteCount: 10)
    #expect(failure("{{ 'a' * 10 }}", JSON.Object(), limits) == nil)
    let error = try #require(failure("\n{{ 'a' * 11 }}", JSON.Object(), limits))
    #expect(error.code == .limit && error.line == 2 && error.column == 1)
    #expect(failure("{% for i in range(11) %}a{% endfor %}", JSON.Object(), limits)?.code == .limit)
  }

  @Test func `a range is bounded as in Jinja's sandbox`() throws {
    #expect(failure("{{ range(100000)|length }}") == nil)
    let error = try #require(failure("{{ range(100001)|length }}"))
    #expect(error.code == .limit && error.line == 1 && error.column > 1)
    #expect(failure("{{ range(10**9) }}")?.code == .limit)
    #expect(failure("{{ range(-9223372036854775807, 9223372036854775807) }}")?.code == .limit)
    #expect(failure("{{ range(6)|length }}", JSON.Object(), TemplateLimits(maximumRangeCount: 5))?.code == .limit)
  }

  // MARK: Nesting

  /// Programs that go deep in one way each, around a number of repetitions.
  private static let deep: [(name: String, program: @Sendable (Int) -> String)] = [
    ("parentheses", { "{{ " + String(repeating: "(", count: $0) + "1" + String(repeating: ")", count: $0) + " }}" }),
    ("lists", { "{{ " + String(repeating: "[", count: $0) + String(repeating: "]", count: $0) + " }}" }),
    ("dictionaries", { "{{ " + String(repeating: "{1:", count: $0) + "1" + String(repeating: "}", count: $0) + " }}" }),
    ("not", { "{{ " + String(repeating: "not ", count: $0) + "1 }}" }),
    ("minus", { "{{ " + String(repeating: "-", count: $0) + "1 }}" }),
    ("attributes", { "{{ a" + String(repeating: ".a", count: $0) + " }}" }),
    ("items", { "{{ a" + String(repeating: "[0]", count: $0) + " }}" }),
    ("items of items", { "{{ " + String(repeating: "a[", count: $0) + "0" + String(repeating: "]", count: $0) + " }}" }),
    ("calls", { "{{ a" + String(repeating: "()", count: $0) + " }}" }),
    ("calls of calls", { "{{ " + String(repeating: "dict(a=", count: $0) + "1" + String(repeating: ")", count: $0) + " }}" }),
    ("filters", { "{{ a" + String(repeating: "|list", count: $0) + " }}" }),
    ("filters of filters", { "{{ " + String(repeating: "1|default(", count: $0) + "1" + String(repeating: ")", count: $0) + " }}" }),
    ("tests", { "{{ " + String(repeating: "1 is eq(", count: $0) + "1" + String(repeating: ")", count: $0) + " }}" }),
    ("conditions", { "{{ " + String(repeating: "1 if 0 else ", count: $0) + "1 }}" }),
    ("if", { String(repeating: "{% if 1 %}", count: $0) + String(repeating: "{% endif %}", count: $0) }),
    ("for", { String(repeating: "{% for a in [1] %}", count: $0) + String(repeating: "{% endfor %}", count: $0) }),
    ("with", { String(repeating: "{% with %}", count: $0) + String(repeating: "{% endwith %}", count: $0) }),
    ("set", { String(repeating: "{% set a %}", count: $0) + String(repeating: "{% endset %}", count: $0) }),
    ("filter blocks", { String(repeating: "{% filter trim %}", count: $0) + String(repeating: "{% endfilter %}", count: $0) }),
    ("macros", { String(repeating: "{% macro a() %}", count: $0) + String(repeating: "{% endmacro %}", count: $0) }),
    ("generation", { String(repeating: "{% generation %}", count: $0) + String(repeating: "{% endgeneration %}", count: $0) }),
    ("targets", { "{% set " + String(repeating: "(", count: $0) + "a" + String(repeating: ")", count: $0) + " = 1 %}" }),
  ]

  @Test(arguments: deep.indices) func `what nests without an end is refused on a small stack, and what nests as far as allowed runs`(
    index: Int
  ) async throws {
    let (name, program) = Self.deep[index]
    let outcomes = await onSmallStack { () -> [TemplateError.Code?] in
      [10, 25, 36, 37, 38, 39, 40, 76, 77, 78, 79, 80, 100, 20_000].map { (count) -> TemplateError.Code? in
        let limits = TemplateLimits(maximumSourceByteCount: 16 << 20)
        do throws(TemplateError) {
          _ = try Template(program(count), limits: limits).render(JSON.Object([("a", JSON.object(JSON.Object([("a", 1)])))]))
          return nil
        } catch {
          return error.code
        }
      }
    }
    let (shallow, endless) = (outcomes[0], outcomes[outcomes.count - 1])
    #expect(shallow != TemplateError.Code.limit && shallow != TemplateError.Code.syntax, "\(name) do not nest 10 deep: \(outcomes)")
    #expect(endless == TemplateError.Code.limit, "\(name) nest 20000 deep")
  }

  /// Values and calls that go deep while the program runs, one in the other.
  private static let deepRuns = [
    "{% macro m(n) %}{{ m(n + 1) }}{% endmacro %}{{ m(0) }}",
    "{% macro m(n) %}{% for i in [1] %}{% if 1 %}{{ '' ~ (m(n + 1)|upper) }}{% endif %}{% endfor %}{% endmacro %}{{ m(0) }}",
    "{% macro m() %}{{ caller() }}{% endmacro %}{% macro r() %}{% call m() %}{{ r() }}{% endcall %}{% endmacro %}{{ r() }}",
    "{% macro m() %}{{ [1]|map('string')|list|join(m()) }}{% endmacro %}{{ m() }}",
    "{% for a in [[[]]] recursive %}{{ loop([[a]]) }}{% endfor %}",
    "{% set ns = namespace(l=[]) %}{% for i in range(100000) %}{% set ns.l = [ns.l] %}{% endfor %}",
    "{% set ns = namespace(l={}) %}{% for i in range(100000) %}{% set ns.l = {'a': ns.l} %}{% endfor %}",
    "{% set ns = namespace(l=[1]) %}{% for i in range(100000) %}{% set ns.l = ns.l|map('string') %}{% endfor %}{{ ns.l|list }}",
    "{% set ns = namespace(l=[1]) %}{% for i in range(100000) %}{% set ns.l = ns.l|select %}{% endfor %}{{ ns.l|list }}",
    "{% set ns = namespace(f='a'.upper) %}{% for i in range(100000) %}{% set ns.f = [ns.f].index %}{% endfor %}",
    "{% set ns = namespace(f=1) %}{% for i in range(100000) %}{% set ns.f = cycler(ns.f).next %}{% endfor %}",
    "{% set ns = namespace() %}{% set ns.a = ns %}{{ ns }}",
    "{% set ns = namespace() %}{% set ns.a = [[[[[[[[[[ns]]]]]]]]]] %}{{ ns }}",
    """
    {% set ns = namespace(m=none) %}{% macro first() %}{% endmacro %}{% set ns.m = first %}
    {% macro make(before) %}{% macro inner(x) %}{% macro again(y) %}{{ before }}{% endmacro %}{% set ns.m = again %}{% endmacro %}{{ inner(1) }}{% endmacro %}
    {% for i in range(100000) %}{{ make(ns.m) }}{% endfor %}{{ 'a' * 10**12 }}
    """,
    """
    {% set ns = namespace() %}{% macro m() %}{% macro n() %}{% set ns.f = ns.g %}{% endmacro %}{{ n() }}{% endmacro %}
    {% set ns.g = m %}{% for i in range(100000) %}{{ ns.g() }}{% endfor %}{{ 'a' * 10**12 }}
    """,
    "{% set ns = namespace(l=[]) %}{% for i in range(90) %}{% set ns.l = [ns.l, ns.l] %}{% endfor %}{{ ns.l }}",
    "{% set ns = namespace(l=[]) %}{% for i in range(90) %}{% set ns.l = [ns.l, ns.l] %}{% endfor %}{{ ns.l|tojson }}",
    """
    {% set ns = namespace(a=[], b=[]) %}{% for i in range(90) %}{% set ns.a = [ns.a, ns.a] %}{% set ns.b = [ns.b, ns.b] %}{% endfor %}
    {{ ns.a == ns.b }}
    """,
    """
    {% set ns = namespace(a=(), b=()) %}{% for i in range(90) %}{% set ns.a = (ns.a, ns.a) %}{% set ns.b = (ns.b, ns.b) %}{% endfor %}
    {{ ns.a in [ns.b] }}
    """,
    """
    {% set ns = namespace(a=(), b=()) %}{% for i in range(90) %}{% set ns.a = (ns.a, ns.a) %}{% set ns.b = (ns.b, ns.b) %}{% endfor %}
    {{ {ns.a: 1}[ns.b] }}
    """,
    """
    {% set ns = namespace(a=(), b=()) %}{% for i in range(90) %}{% set ns.a = (ns.a, ns.a) %}{% set ns.b = (ns.b, ns.b) %}{% endfor %}
    {{ [ns.a, ns.b]|unique|list|length }}{{ [ns.a].index(ns.b) }}
    """,
  ]

  @Test(arguments: deepRuns) func `values and calls that nest without an end are refused on a small stack`(program: String) async throws {
    let code = await onSmallStack { () -> TemplateError.Code? in
      do throws(TemplateError) {
        _ = try Template(program, limits: TemplateLimits(maximumSteps: 2_000_000)).render(JSON.Object())
        return nil
      } catch {
        return error.code
      }
    }
    #expect(code == .limit, "\(program)")
  }

  @Test func `values from outside that nest too deep are refused`() async throws {
    let code = await onSmallStack { () -> TemplateError.Code? in
      var value: JSON = 1
      for _ in 0..<300 { value = [value] }
      do throws(TemplateError) {
        _ = try Template("{{ a }}").render(JSON.Object([("a", value)]))
        return nil
      } catch {
        return error.code
      }
    }
    #expect(code == .limit)
  }

  // MARK: Time and memory

  /// Short programs that ask for more than there is; each must be refused, and soon.
  private static let greedy = [
    "{{ 'a' * 10**12 }}", "{{ [1] * 10**12 }}", "{{ 'ab' * 9223372036854775807 }}", "{{ 10 ** (10 ** 10) }}", "{{ (10 ** 4000) ** 2 }}",
    "{% set ns = namespace(s='a') %}{% for i in range(100) %}{% set ns.s = ns.s + ns.s %}{% endfor %}",
    "{% set ns = namespace(s='a') %}{% for i in range(100) %}{% set ns.s = ns.s ~ ns.s %}{% endfor %}",
    "{% set ns = namespace(s='a') %}{% for i in range(100) %}{% set ns.s = ns.s|replace('a', 'aa') %}{% endfor %}",
    "{% set ns = namespace(l=[1]) %}{% for i in range(100) %}{% set ns.l = ns.l + ns.l %}{% endfor %}",
    "{% set s = 'a' * 1000000 %}{{ s|replace('', s) }}", "{% set s = 'a' * 1000000 %}{{ s|replace('a', s) }}",
    "{% set s = 'a' * 1000000 %}{% for i in range(100000) %}{% set t = s + 'b' %}{% endfor %}",
    "{% set s = 'a' * 1000000 %}{% for i in range(100000) %}{% set t = s[-1] %}{% endfor %}",
    "{% set s = 'a' * 1000000 %}{% for i in range(100000) %}{% set t = s[0:2] %}{% endfor %}",
    "{% set s = 'a' * 1000000 %}{% for i in range(100000) %}{% set t = s|length %}{% endfor %}",
    "{% set s = 'a' * 1000000 %}{% for i in range(100000) %}{% set t = s.isalpha() %}{% endfor %}",
    "{% set s = 'a' * 1000000 %}{% for i in range(100000) %}{% set t = s is lower %}{% endfor %}",
    "{% set s = 'a' * 1000000 %}{% set d = {s: 1} %}{% for i in range(100000) %}{% set t = d[s] %}{% endfor %}",
    "{% set s = 'a' * 1000000 %}{% for i in range(100000) %}{% set t = 'a' in s %}{% endfor %}",
    "{% set s = 'a' * 1000000 %}{% set p = 'a' * 500000 + 'b' %}{% for i in range(1000) %}{% set t = p in s %}{% endfor %}",
    "{% set l = range(1000)|list %}{% for a in l %}{% for b in l %}{% for c in l %}{% endfor %}{% endfor %}{% endfor %}",
    "{% set l = range(100000)|list %}{% for a in l %}{% set t = -1 in l %}{% endfor %}",
    "{{ '%999999999d' % 1 }}", "{{ '%*d' % (999999999, 1) }}", "{{ '{:999999999}'.format(1) }}", "{{ '%.999999999f' % 1.0 }}",
    "{{ '%.1001f' % 1.0 }}", "{{ 'a'.ljust(10**12) }}", "{{ 'a'|center(10**12) }}", "{{ 'a'|indent(10**12, true) }}",
    "{{ 'a'.zfill(10**12) }}", "{{ ('a\\n' * 10000)|indent(100000) }}", "{{ '\\t'.expandtabs(2000000000) }}",
    "{{ [1, 2]|tojson(indent=10**9) }}", "{{ strftime_now('%9999999999d') }}", "{{ strftime_now('%999999d') }}",
    "{{ [1]|batch(10**12, 'x')|list }}", "{{ [1]|slice(10**12)|list }}", "{{ '9' * 5000 + '' }}{{ ('9' * 5000)|int }}",
    "{% set l = range(50000)|list %}{{ l|tojson(separators=('a' * 100000, ':'))|length }}",
    "{% set s = '<!--' * 100000 + '-->' * 100000 %}{% for i in range(1000) %}{{ s|striptags }}{% endfor %}",
  ]

  @Test(arguments: greedy) func `what asks for too much is refused in seconds, with its place`(program: String) throws {
    var error: TemplateError?
    let duration = processorTime { error = failure(program, JSON.Object(), TemplateLimits(maximumSteps: 2_000_000)) }
    let code = try #require(error, "\(program) renders").code
    #expect([.limit, .value].contains(code), "\(program): \(error!)")
    #expect(error!.line == 1 && error!.column >= 1)
    // A bound that is far off what any of them takes, and far below what they would without one.
    #expect(duration < .seconds(60), "\(program) takes \(duration)")
  }

  @Test func `texts of a megabyte are read in linear time, whatever they are`() throws {
    let count = 1 << 20
    let programs = [
      String(repeating: "{{", count: count / 2), String(repeating: "{{ a }}", count: count / 7),
      String(repeating: "{# a #}", count: count / 7),
      String(repeating: "{% raw %}", count: count / 9), String(repeating: "a\n", count: count / 2),
      "{{ '" + String(repeating: "a", count: count - 8),
      "{{ [" + String(repeating: "1,", count: count / 2 - 8) + "] }}", "{{ 1" + String(repeating: "0", count: count - 8) + " }}",
      "{{ a" + String(repeating: "+a", count: count / 2 - 8) + " }}",
      "{{ \"" + String(repeating: "\\N{BULLET}", count: count / 10 - 1) + "\" }}",
      "{{ f(" + (0..<50_000).map { "a\($0)=1" }.joined(separator: ",") + ") }}",
      "{% macro f(" + (0..<50_000).map { "a\($0)" }.joined(separator: ",") + ") %}{% endmacro %}",
      "{{ " + String(repeating: "(a) if b else c, ", count: count / 20) + " }}",
      "{% set " + String(repeating: "a,", count: count / 2 - 20) + " = 1 %}",
    ]
    for program in programs {
      let duration = processorTime { _ = failure(program) }
      #expect(duration < .seconds(60), "\(program.prefix(40))… takes \(duration)")
    }
  }

  @Test func `a long conversation costs as many steps a message as a short one`() throws {
    let program = """
      {% set ns = namespace(all='') %}
      {%- for m in messages %}{% set ns.all = m.role ~ ': ' ~ m.content|trim %}{{ ns.all }}
      {% for part in ns.all.split(' ') %}{{ part|upper }}{% endfor %}{% endfor -%}
      """
    func messages(_ count: Int) -> JSON.Object {
      let message: JSON = ["role": "user", "content": .string(" " + String(repeating: "word ", count: 40))]
      return JSON.Object([("messages", .array(Array(repeating: message, count: count)))])
    }
    func fits(_ count: Int, _ steps: Int) -> Bool {
      failure(program, messages(count), TemplateLimits(maximumSteps: steps, stepsPerInputByte: 0)) == nil
    }
    var steps = 1
    while !fits(20, steps) { steps += steps / 4 + 1 }
    #expect(fits(2000, steps * 100 + steps))
  }

  @Test func `megabytes of conversation may be gone through and copied many times`() throws {
    // Each message is copied, searched and written by a macro, as templates do that look for thoughts and calls in it.
    let program = """
      {%- macro say(m) -%}
        {%- set text = m.content|trim -%}
        {%- if '</think>' in text -%}{%- set text = text.split('</think>')[-1] -%}{%- endif -%}
        {{- '<' ~ m.role ~ '>' ~ text|replace('<tool>', '')|trim ~ '</' ~ m.role ~ '>' -}}
      {%- endmacro -%}
      {%- set ns = namespace(all='') -%}
      {%- for m in messages -%}
        {%- set said = say(m) -%}{%- set upper = said.upper() -%}{%- set parts = said.split(' ') -%}{{- parts|join(' ') -}}
      {%- endfor -%}
      """
    let message: JSON = ["role": "user", "content": .string(String(repeating: "word ", count: 20_000))]
    let few = JSON.Object([("messages", .array([message]))])
    let many = JSON.Object([("messages", .array(Array(repeating: message, count: 300)))])
    let text = try Template(program).render(many).text
    #expect(text.utf8.count > 29_000_000)
    // Nothing but what is handed in allows for it.
    #expect(failure(program, few, TemplateLimits(maximumSteps: 1000)) == nil)
    #expect(failure(program, few, TemplateLimits(maximumSteps: 1000, stepsPerInputByte: 0))?.code == .limit)
    #expect(failure(program, few, TemplateLimits(maximumOutputByteCount: 10)) == nil)
    #expect(failure(program, few, TemplateLimits(maximumOutputByteCount: 10, outputBytesPerInputByte: 0))?.code == .limit)
  }

  @Test func `what is handed in allows for no more than its bytes`() throws {
    let program = "{% for i in range(100000) %}{{ a }}{{ b.c }}{% endfor %}"
    let values = ["a": "12345", "b": ["c": [1, nil, true, 2.5, "12"]]] as JSON.Object
    let byteCount = 13 + 8 + 1 + 8 + 4 * 8 + 10
    let error = try #require(failure(program, values, TemplateLimits(maximumSteps: 1000, stepsPerInputByte: 3)))
    #expect(error.code == .limit && error.message.contains("\(1000 + 3 * byteCount) steps"))
    let writing = TemplateLimits(maximumOutputByteCount: 1000, outputBytesPerInputByte: 3)
    #expect(failure(program, values, writing)?.message.contains("\(1000 + 3 * byteCount) bytes") == true)
    // What the program does not speak of is not looked at.
    let other = JSON.Object([("x", .string(String(repeating: "x", count: 1 << 20)))])
    let counting = "{% for i in range(100000) %}{{ i }}{% endfor %}"
    #expect(failure(counting, other, TemplateLimits(maximumSteps: 1000))?.message.contains("1000 steps") == true)
    #expect(failure("{{ a }}", values, TemplateLimits(maximumSteps: .max, maximumOutputByteCount: .max)) == nil)
    #expect(failure("{{ a }}", values, TemplateLimits(stepsPerInputByte: .max, outputBytesPerInputByte: .max)) == nil)
  }

  /// Found by the fuzzer.
  @Test func `what can be no character's name is not looked for`() throws {
    let programs = ["{{ '\\N{\u{FFFF}}' }}", "{{ '\\N{}' }}", "{{ '\\N' }}", "{{ '\\N{BULLET\u{0}}' }}"]
    let one = processorTime { #expect(failure("{{ '\\N{NO SUCH NAME}' }}")?.code == .syntax) }
    let all = processorTime {
      for _ in 0..<10 { for program in programs { #expect(failure(program)?.code == .syntax) } }
    }
    // 40 of them take less than the one that is looked for among all characters.
    #expect(all < one, "\(all), one search \(one)")
  }

  @Test func `a loop over much that asks for its length takes linear time`() throws {
    func duration(_ count: Int) throws -> Duration {
      let template = try Template("{% for i in range(\(count)) %}{{ loop.length - loop.revindex }}{% endfor %}")
      return try processorTime { _ = try template.render(JSON.Object()) }
    }
    let short = try (0..<3).map { _ in try duration(5_000) }.min()!
    let long = try duration(100_000)
    // 20 in linear time, with room for a busy machine; 200 and more where each round moves what is left.
    #expect(long < short * 100, "\(short) for 5000, \(long) for 100000")
  }

  // MARK: Where errors are

  @Test(arguments: [
    // Over the list itself, over a part of it, by a macro, inside another loop, with a filter that fails.
    ("{% for m in messages %}{{ raise_exception('no') if m.role == 'b' }}{% endfor %}", "messages[1]"),
    ("{% for m in messages[1:] %}{{ m.role + 1 }}{% endfor %}", "messages[1]"),
    ("{% for m in messages|reverse %}{{ m.role.nothing.at_all }}{% endfor %}", "messages[2]"),
    ("{% set messages = messages[2:] %}{% for m in messages %}{{ 1 + m.role }}{% endfor %}", "messages[2]"),
    (
      "{% macro w(m) %}{{ raise_exception('no') }}{% endmacro %}{% for m in messages %}{% if loop.last %}{{ w(m) }}{% endif %}{% endfor %}",
      "messages[2]"
    ),
    ("{% for m in messages %}{% for x in range(2) %}{{ raise_exception('no') }}{% endfor %}{% endfor %}", "messages[0]"),
    ("{% for m in messages %}{% for t in tools %}{{ raise_exception('no') }}{% endfor %}{% endfor %}", "tools[0]"),
    ("{% for m in messages %}{% endfor %}{{ raise_exception('no') }}", nil),
    ("{% for m in [{}] %}{{ raise_exception('no') }}{% endfor %}", nil),
  ]) func `an error says which of the messages a loop was at`(program: String, element: String?) throws {
    let values: JSON.Object = ["messages": [["role": "a"], ["role": "b"], ["role": "c"]], "tools": [["name": "f"]]]
    let error = try #require(failure(program, values))
    #expect(error.element == element)
    #expect("\(error)".contains("of the template") && "\(error)".contains("at messages") == (element?.hasPrefix("messages") ?? false))
  }

  // MARK: Nothing stays behind

  @Test func `what holds itself is given back`() throws {
    let programs = [
      "{% set ns = namespace() %}{% set ns.a = [ns, x] %}",
      "{% set ns = namespace(x=x) %}{% macro m() %}{{ ns }}{% endmacro %}{% set ns.m = m %}",
      "{% for i in x recursive %}{% set l = loop %}{% macro m() %}{{ l }}{% endmacro %}{% endfor %}",
      "{% set c = cycler(x, 1) %}{% set j = joiner(x) %}{{ c.next() is none }}",
      "{% set ns = namespace() %}{% set ns.g = x|map('default', ns) %}",
      "{% macro m() %}{{ caller() }}{% endmacro %}{% call m() %}{% macro n() %}{{ n }}{{ x }}{% endmacro %}{% endcall %}",
      "{% set ns = namespace() %}{% for i in x if ns %}{% set ns.l = loop %}{% endfor %}",
    ]
    for program in programs {
      for fails in [false, true] {
        let template = try Template(program + (fails ? "{{ missing.x }}" : ""))
        let before = residentKilobytes()
        let text = String(repeating: "x", count: 1 << 20)
        for _ in 0..<200 { _ = try? template.render(JSON.Object([("x", JSON.array([.string(text)]))])) }
        let grown = residentKilobytes() - before
        // One text that stayed each time would be 200 MB.
        #expect(grown < 100 << 10, "\(program): \(grown) KiB more")
      }
    }
  }

  private func residentKilobytes() -> Int {
    let status = (try? String(contentsOfFile: "/proc/self/statm", encoding: .utf8)) ?? ""
    return (status.split(separator: " ").dropFirst().first.flatMap { Int($0) } ?? 0) * 4
  }
}
