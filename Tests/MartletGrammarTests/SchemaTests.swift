// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

import MartletGrammar
import Testing

@Suite struct SchemaTests {
  struct Example: Sendable {
    var schema: String
    var texts: [String]
    var others: [String]
  }

  static let examples: [Example] = [
    Example(
      schema:
        #"{"type":"object","properties":{"name":{"type":"string","maxLength":3},"age":{"type":"integer","minimum":5,"maximum":120}},"required":["name"],"additionalProperties":false}"#,
      texts: [#"{"name":"abc"}"#, #"{"name":"\u0041\ud83d\ude00é","age":5}"#, #"{"name":"\"\\\n","age":120}"#],
      others: [
        #"{"name":"abcd"}"#, #"{"name":"","age":4}"#, #"{"name":"","age":121}"#, #"{"age":50}"#, "{}", #"{"name":"","x":1}"#,
        #"{"age":5,"name":""}"#,
        #"{"name":"\ud83d"}"#, #"{"name": ""}"#, "{\"name\":\"\n\"}",
      ]),
    Example(
      schema: "true", texts: [#"{"a":[1,-2.5e3,null,{"b":{}}],"c":"\n"}"#, "[]", "-0", "\"\u{7F}\""],
      others: ["[", "01", "[1,]", "", "1.", "nul", "{\"a\"}", "[1}"]),
    // Bounds, exactly.
    Example(
      schema: #"{"type":"number","minimum":-1.5,"exclusiveMaximum":10.25}"#, texts: ["-1.5", "-1.50", "-1.49", "0", "10.2499", "9", "0.0"],
      others: ["-1.51", "10.25", "10.250", "10.3", "11", "-2", "-0"]),
    Example(
      schema: #"{"type":"integer","exclusiveMinimum":-10,"maximum":99}"#, texts: ["-9", "0", "99", "10"],
      others: ["-10", "100", "-11", "1.0", "1e1"]),
    Example(schema: #"{"type":"number","minimum":0}"#, texts: ["0", "1e-5", "3.25E+10"], others: ["-1e-5", "-1"]),
    Example(
      schema: #"{"type":"number","exclusiveMinimum":0.05,"maximum":0.5}"#, texts: ["0.051", "0.5", "0.500", "0.0500001", "0.1"],
      others: ["0.05", "0.050", "0.51", "0.04", "1", "0"]),
    Example(schema: #"{"type":"integer","multipleOf":7}"#, texts: ["0", "7", "-14", "777"], others: ["1", "-13", "778"]),
    Example(
      schema: #"{"multipleOf":0.25,"type":"number","minimum":1}"#, texts: ["1", "1.25", "2.50", "3.750"], others: ["1.1", "0.75", "1.255"]),
    Example(schema: #"{"type":"integer","minimum":5,"exclusiveMinimum":true}"#, texts: ["6"], others: ["5"]),
    // Values.
    Example(
      schema: #"{"enum":["a\"b",1,2.50,null,[1,{"x":[]}],true]}"#,
      texts: [#""a\"b""#, "1", "2.50", "2.5", "null", #"[1,{"x":[]}]"#, "true"], others: ["false", "2", "[1]", #""a""#]),
    Example(schema: #"{"type":["integer","null"],"enum":[1,"x",null]}"#, texts: ["1", "null"], others: ["\"x\""]),
    Example(
      schema: #"{"type":"string","not":{"enum":["a","bc"]}}"#, texts: ["\"b\"", "\"ab\"", "\"\""],
      others: ["\"a\"", #""\u0061""#, "\"bc\"", #""b\u0063""#]),
    Example(schema: #"{"type":"integer","not":{"const":5},"minimum":4,"maximum":6}"#, texts: ["4", "6"], others: ["5"]),
    Example(schema: #"{"not":{"type":["string","object","array"]}}"#, texts: ["1", "null", "false", "1.5"], others: ["\"\"", "{}", "[]"]),
    // Strings.
    Example(
      schema: #"{"type":"string","pattern":"ab","minLength":4}"#, texts: [#""xaby""#, #""\u0061b\/\n""#], others: [#""ab""#, #""axby""#]),
    Example(
      schema: #"{"type":"string","allOf":[{"pattern":"^a"},{"pattern":"z$"},{"maxLength":3}]}"#, texts: [#""az""#, #""abz""#],
      others: [#""abbz""#, #""za""#]),
    Example(
      schema: #"{"type":"string","format":"date"}"#, texts: [#""2024-02-29""#, #""2023-12-31""#],
      others: [#""2023-02-29""#, #""2023-13-01""#, #""2023-04-31""#]),
    Example(
      schema: #"{"type":"string","format":"date-time"}"#, texts: [#""2024-01-02T03:04:05.678+01:30""#, #""1990-12-31T23:59:60Z""#],
      others: [#""2024-01-02""#, #""2024-01-02T24:00:00Z""#]),
    Example(
      schema: #"{"type":"string","format":"ipv6"}"#, texts: [#""::1""#, #""1:2:3:4:5:6:7:8""#, #""::ffff:1.2.3.4""#],
      others: [#""1:2:3""#, #""::1::""#, #""12345::""#]),
    Example(schema: #"{"type":"string","format":"email"}"#, texts: [#""me@example.com""#], others: [#""me""#, #""@x""#, #""a@b@c""#]),
    Example(
      schema: #"{"type":"string","format":"uuid"}"#, texts: [#""2eb8aa08-aa98-11ea-b4aa-73b441d16380""#],
      others: [#""2eb8aa08aa9811eab4aa73b441d16380""#]),
    Example(
      schema: #"{"type":"string","format":"uri"}"#, texts: [#""https://me@example.com:80/a/b?c=d#e""#, #""urn:x:y""#],
      others: [#""/a""#, #""http://[::1""#]),
    Example(
      schema: #"{"type":"string","format":"duration"}"#, texts: [#""P1Y2M3DT4H5M6S""#, #""P3W""#, #""PT36H""#],
      others: [#""P""#, #""P1D2H""#, #""1Y""#]),
    // Arrays.
    Example(
      schema: #"{"type":"array","items":{"type":"boolean"},"minItems":2,"maxItems":3}"#, texts: ["[true,false]", "[true,true,true]"],
      others: ["[true]", "[]", "[true,true,true,true]", "[1,true]"]),
    Example(
      schema: #"{"type":"array","prefixItems":[{"const":1},{"const":2}],"items":false,"minItems":1}"#, texts: ["[1]", "[1,2]"],
      others: ["[]", "[2]", "[1,2,3]"]),
    Example(
      schema: #"{"type":"array","items":[{"const":1}],"additionalItems":{"const":0}}"#, texts: ["[]", "[1]", "[1,0,0]"],
      others: ["[0]", "[1,1]"]),
    Example(
      schema: #"{"type":"array","items":{"type":"integer"},"contains":{"const":7}}"#, texts: ["[7]", "[1,7,2]"],
      others: ["[]", "[1]", "[\"7\"]"]),
    Example(
      schema: #"{"type":"array","items":{"enum":[1,2]},"contains":{"const":1},"minContains":2,"maxContains":2,"maxItems":4}"#,
      texts: ["[1,1]", "[1,2,1,2]"], others: ["[1]", "[1,1,1]", "[1,2,2,2,1]"]),
    Example(
      schema: #"{"type":"array","items":{"enum":["a","b","c"]},"uniqueItems":true}"#,
      texts: ["[]", #"["b"]"#, #"["b","a"]"#, #"["c","a","b"]"#],
      others: [#"["a","a"]"#, #"["a","b","a"]"#, #"["a""b"]"#, #"[,"a"]"#]),
    Example(
      schema: #"{"type":"array","items":{"enum":[1,2]},"contains":{"const":1},"minContains":0,"maxContains":1}"#,
      texts: ["[]", "[1]", "[2,2]", "[2,1,2]"], others: ["[1,1]", "[1,2,1]", "[22]", "[21]"]),
    // Objects.
    Example(
      schema: #"{"type":"object","patternProperties":{"^x":{"type":"integer"},"y$":{"maximum":5}},"additionalProperties":{"type":"null"}}"#,
      texts: [#"{"x":9,"y":"s"}"#, #"{"xy":5}"#, #"{"other":null}"#],
      others: [#"{"x":"s"}"#, #"{"xy":6}"#, #"{"\u0078y":6}"#, #"{"other":1}"#]),
    Example(
      schema: #"{"type":"object","properties":{"a":{"const":1}},"required":["b"]}"#, texts: [#"{"b":0}"#, #"{"a":1,"b":null,"c":[]}"#],
      others: [#"{"a":1}"#, #"{"b":1,"a":2}"#, #"{"b":1,"\u0061":2}"#]),
    Example(schema: #"{"type":"object","propertyNames":{"maxLength":2}}"#, texts: [#"{"ab":1}"#, "{}"], others: [#"{"abc":1}"#]),
    Example(
      schema: #"{"type":"object","properties":{"a":{},"b":{},"c":{}},"additionalProperties":false,"minProperties":2,"maxProperties":2}"#,
      texts: [#"{"a":1,"c":1}"#, #"{"b":1,"c":1}"#], others: ["{}", #"{"a":1}"#, #"{"a":1,"b":1,"c":1}"#]),
    Example(schema: #"{"type":"object","minProperties":1}"#, texts: [#"{"a":1}"#, #"{"a":1,"b":2}"#], others: ["{}"]),
    // Of keys that the schema does not name one counts, for they may repeat.
    Example(
      schema: #"{"type":"object","properties":{"c":{}},"minProperties":2}"#, texts: [#"{"c":1,"a":1}"#, #"{"c":1,"a":1,"b":2}"#],
      others: ["{}", #"{"c":1}"#, #"{"a":1}"#, #"{"a":1,"a":1}"#]),
    Example(
      schema:
        #"{"type":"object","properties":{"a":{"type":"null"},"b":{"type":"null"}},"dependentRequired":{"a":["b"]},"additionalProperties":false}"#,
      texts: ["{}", #"{"b":null}"#, #"{"a":null,"b":null}"#], others: [#"{"a":null}"#]),
    Example(
      schema:
        #"{"type":"object","properties":{"a":{"const":1},"b":{"type":"integer"}},"dependentSchemas":{"a":{"properties":{"b":{"minimum":9}}}}}"#,
      texts: [#"{"b":1}"#, #"{"a":1,"b":9}"#], others: [#"{"a":1,"b":8}"#]),
    // Combinations.
    Example(
      schema: #"{"anyOf":[{"type":"string","maxLength":1},{"type":"integer"}],"minimum":3}"#, texts: [#""a""#, "3"],
      others: [#""ab""#, "2", "null"]),
    Example(schema: #"{"oneOf":[{"type":"integer"},{"type":"number","minimum":10}]}"#, texts: ["9", "10.5"], others: ["10", "9.5"]),
    Example(
      schema:
        #"{"oneOf":[{"type":"object","properties":{"k":{"const":"a"},"v":{"type":"integer"}},"required":["k","v"]},{"type":"object","properties":{"k":{"const":"b"},"v":{"type":"null"}},"required":["k","v"]}]}"#,
      texts: [#"{"k":"a","v":1}"#, #"{"k":"b","v":null}"#], others: [#"{"k":"a","v":null}"#, #"{"k":"b","v":1}"#]),
    Example(
      schema:
        #"{"type":"object","properties":{"a":{"type":"null"},"b":{"type":"null"}},"oneOf":[{"required":["a"]},{"required":["b"]}],"additionalProperties":false}"#,
      texts: [#"{"a":null}"#, #"{"b":null}"#], others: ["{}", #"{"a":null,"b":null}"#]),
    Example(
      schema:
        #"{"type":"object","properties":{"t":{"enum":["x","y"]},"v":{"type":"integer"}},"required":["t","v"],"if":{"properties":{"t":{"const":"x"}}},"then":{"properties":{"v":{"maximum":1}}},"else":{"properties":{"v":{"minimum":5}}}}"#,
      texts: [#"{"t":"x","v":1}"#, #"{"t":"y","v":5}"#], others: [#"{"t":"x","v":5}"#, #"{"t":"y","v":1}"#]),
    Example(
      schema:
        ##"{"$ref":"#/$defs/tree","$defs":{"tree":{"type":"object","properties":{"v":{"type":"integer"},"c":{"type":"array","items":{"$ref":"#/$defs/tree"}}},"required":["v"],"additionalProperties":false}}}"##,
      texts: [#"{"v":1,"c":[{"v":2},{"v":3,"c":[]}]}"#], others: [#"{"v":1,"c":[{}]}"#]),
    Example(
      schema:
        ##"{"$id":"http://x.y/root.json","$ref":"item.json#/$defs/a%25b","$defs":{"i":{"$id":"item.json","$defs":{"a%b":{"const":1}}}}}"##,
      texts: ["1"], others: ["2"]),
    Example(
      schema:
        ##"{"$schema":"http://json-schema.org/draft-07/schema#","definitions":{"s":{"type":"string"}},"properties":{"a":{"$ref":"#/definitions/s","maxLength":1}},"additionalProperties":false,"type":"object"}"##,
      texts: [#"{"a":"long"}"#], others: [#"{"a":1}"#]),
    // A key that looks like another is another: é as one character, and as two.
    Example(
      schema:
        "{\"type\":\"object\",\"properties\":{\"\u{E9}\":{\"const\":1},\"e\u{301}\":{\"const\":2}},\"required\":[\"\u{E9}\",\"e\u{301}\"]}",
      texts: ["{\"\u{E9}\":1,\"e\u{301}\":2}"], others: ["{\"\u{E9}\":1,\"e\u{301}\":1}", "{\"\u{E9}\":2,\"e\u{301}\":2}"]),
  ]

  @Test(arguments: examples) func `a schema has its values and no others`(example: Example) throws {
    let grammar = try CompiledGrammar(jsonSchema: example.schema)
    for text in example.texts { #expect(try accepts(grammar, text), "\(text) by \(example.schema)") }
    for text in example.others { #expect(try !accepts(grammar, text), "\(text) by \(example.schema)") }
  }

  @Test(arguments: [
    (#"{"properties":{"a":{"type":"string","pattern":"(a)\\1"}}}"#, "#/properties/a/pattern"),
    (#"{"properties":{"a":{"$ref":"http://elsewhere/schema"}}}"#, "#/properties/a/$ref"),
    (##"{"items":{"$dynamicRef":"#x"}}"##, "#/items/$dynamicRef"),
    (#"{"type":"array","uniqueItems":true}"#, "#/uniqueItems"),
    (#"{"type":"string","format":"unheard-of"}"#, "#/format"),
    (#"{"type":"number","multipleOf":0.3}"#, "#/multipleOf"),
    (#"{"oneOf":[{"type":"array","uniqueItems":true,"items":{"type":"string"}},{"type":"array"}]}"#, "#/oneOf"),
    (#"{"type":"object","minProperties":3}"#, "#/minProperties"),
    (#"{"allOf":[{"properties":{}}],"unevaluatedProperties":false}"#, "#/unevaluatedProperties"),
    (##"{"properties":{"a":{"$ref":"#/properties/a"}}}"##, "#/properties/a"),
  ]) func `what cannot be held is refused with a pointer`(schema: String, pointer: String) {
    let error = #expect(throws: GrammarError.self) { try CompiledGrammar(jsonSchema: schema) }
    #expect(error?.code == .unsupported)
    #expect(error?.place == pointer)
  }

  @Test(arguments: [
    #"{"type":"strin"}"#, #"{"minLength":-1}"#, #"{"enum":5}"#, #"{"properties":[]}"#, #"{"items":5}"#, #"{"minimum":"1"}"#, "5", "{",
    #"{"required":[1]}"#,
    #"{"pattern":"("}"#, #"{"anyOf":[]}"#,
  ]) func `what is no schema is a syntax error`(schema: String) {
    let error = #expect(throws: GrammarError.self) { try CompiledGrammar(jsonSchema: schema) }
    #expect(error?.code == .syntax)
  }

  @Test(arguments: [
    "false", #"{"type":"integer","minimum":5,"maximum":4}"#, #"{"type":"object","properties":{"a":false},"required":["a"]}"#,
    ##"{"type":"array","minItems":1,"items":{"$ref":"#"}}"##,
  ])
  func `a schema without a value is refused`(schema: String) {
    let error = #expect(throws: GrammarError.self) { try CompiledGrammar(jsonSchema: schema) }
    #expect(error?.code == .unsatisfiable)
  }

  @Test func `annotations are listed, and only they are not held`() throws {
    let grammar = try CompiledGrammar(jsonSchema: #"{"title":"t","properties":{"a":{"x-own":1,"default":2,"type":"integer"}}}"#)
    #expect(grammar.annotations == ["#/properties/a/default", "#/properties/a/x-own", "#/title"])
  }

  @Test func `white space may be flexible within a bound`() throws {
    var options = JSONSchemaOptions()
    options.whitespace = .flexible(maximum: 3)
    let grammar = try CompiledGrammar(jsonSchema: #"{"properties":{"a":{"type":"array"}},"type":"object"}"#, options: options)
    for text in ["{\n  \"a\" : [ 1 ,\t2 ] }", "{\"a\":[1,2]}", "{ }"] { #expect(try accepts(grammar, text)) }
    for text in ["{    \"a\":[]}", " {}", "{\"a \":1}x"] { #expect(try !accepts(grammar, text)) }
  }

  @Test func `a format that is not held may be an annotation`() throws {
    var options = JSONSchemaOptions()
    options.unknownFormats = .annotate
    let grammar = try CompiledGrammar(jsonSchema: #"{"type":"string","format":"unheard-of"}"#, options: options)
    #expect(try accepts(grammar, "\"anything\""))
    #expect(grammar.annotations == ["#/format"])
  }

  @Test func `the cache keeps what was used last`() throws {
    let cache = GrammarCache(vocabulary: Vocabularies.bytes, byteLimit: 1)
    let first = try cache.constraint(for: .regex("a"))
    #expect(try cache.constraint(for: .regex("a")) === first)
    _ = try cache.constraint(for: .gbnf("root ::= \"a\""))
    #expect(cache.count == 1)
    #expect(try cache.constraint(for: .regex("a")) !== first)
    #expect(throws: GrammarError.self) { try cache.constraint(for: .jsonSchema("{")) }
  }
}
