// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

public import MartletFormats

extension CompiledGrammar {
  /// The form of JSON texts that are valid by a JSON Schema of 2020-12, or of draft 4 to 7 where `$schema` says so; older spellings of keywords are read
  /// everywhere.
  ///
  /// A keyword is held or the schema is refused with ``GrammarError/Code/unsupported`` and a pointer to the keyword: nothing is ignored, except what the
  /// specification itself calls an annotation, which ``annotations`` lists. Every text of the form is valid. Not every valid value has a text of the form,
  /// for there is one order of keys (as `properties` names them, then required ones, then others) and, unless the options say
  /// otherwise, no white space; numbers that are bounded, multiples or negated have no exponent, except beside the bound 0; and of the keys that the
  /// schema does not name, which may repeat, one counts towards `minProperties`.
  public init(
    jsonSchema: String, options: JSONSchemaOptions = JSONSchemaOptions(), limits: GrammarLimits = GrammarLimits()
  ) throws(GrammarError) {
    try limits.check(source: jsonSchema)
    let value: JSONValue
    do { value = try JSONValue(parsing: Array(jsonSchema.utf8)) } catch {
      throw GrammarError(.syntax, "the schema is no JSON: \(error.description)")
    }
    try self.init(jsonSchema: value, options: options, limits: limits)
  }

  /// The same of a schema that is parsed.
  public init(
    jsonSchema: JSONValue, options: JSONSchemaOptions = JSONSchemaOptions(), limits: GrammarLimits = GrammarLimits()
  ) throws(GrammarError) {
    var compiler = SchemaCompiler(jsonSchema, options, limits)
    self = try compiler.compile()
  }

  /// The form of any JSON value.
  public static func json(
    options: JSONSchemaOptions = JSONSchemaOptions(), limits: GrammarLimits = GrammarLimits()
  ) throws(GrammarError) -> CompiledGrammar {
    try CompiledGrammar(jsonSchema: "true", options: options, limits: limits)
  }
}
