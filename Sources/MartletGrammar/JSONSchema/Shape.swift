// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

/// The values that a schema allows, sorted by type: what schemas mean, freed from how they say it.
///
/// Alternatives of a type are united where one description can hold them; arrays and objects are lists of alternatives. Shapes can be intersected, united,
/// and, mostly, complemented. What is inside of arrays and objects is named by terms, which become shapes only when they are needed: schemas may be
/// recursive.
struct Shape {
  var allowsNull = false
  var allowsTrue = false
  var allowsFalse = false
  /// nil: no number.
  var numbers: NumberSet?
  /// nil: no string.
  var strings: StringSet?
  var arrays: [ArrayShape] = []
  var objects: [ObjectShape] = []
  /// Whether there may be strings although `strings` has none, because sets were intersected that are partial.
  var mayHaveStrings = false
}

/// What must hold for a value: the schemas, literals and complements that are atoms of one conjunction. Equal conjunctions have equal numbers.
struct Term: Hashable {
  let number: Int
  /// Holds for every value.
  static var always: Term { Term(number: 0) }
  /// Holds for none.
  static var never: Term { Term(number: 1) }
}

/// One of the things of which terms are made.
enum Atom: Hashable {
  case never
  /// A schema, by its number among those that were met.
  case schema(Int)
  /// The value at this pointer (UTF-8) of the schema's text.
  case literal([UInt8])
  case not(Term)
}

/// Strings: some by themselves, and all that an expression matches.
///
/// The expression is over a string's characters as JSON writes them, without the quotes, in all ways in which they can be written.
struct StringSet {
  var literals: [[UInt8]] = []
  var expression: ExpressionTable.ID = ExpressionTable.nothing
  /// Whether strings are left out that the schema allows: then what is left out is not known, and there is no complement.
  var isPartial = false
}

struct ArrayShape {
  /// Of the first elements.
  var prefix: [Term] = []
  /// Of all others.
  var rest = Term.always
  var minimum = 0
  var maximum: Int?
  var contains: [Contains] = []
  var isUnique = false
  /// Where the array is described, for messages.
  var pointer = ""

  struct Contains {
    var term: Term
    var minimum: Int
    var maximum: Int?
  }
}

struct ObjectShape {
  struct Property {
    /// UTF-8.
    var key: [UInt8]
    var term: Term
    /// Whether `properties` names it: what is only required comes behind all that are named.
    var isNamed = true
  }

  /// Keys of one kind that are not among the properties; kinds do not overlap.
  struct KeyClass {
    var keys: ExpressionTable.ID
    var term: Term
  }

  /// In the order in which they are written.
  var properties: [Property] = []
  /// All of them are among the properties.
  var required: Set<[UInt8]> = []
  var classes: [KeyClass]
  var minimum = 0
  var maximum: Int?
  /// Where the object is described, for messages.
  var pointer = ""
}
