// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

import Foundation
import MartletFormats
import MartletTemplates
import Testing

/// What jinja2 made of small programs, recorded by `Fixtures/make_points.py`.
struct Points {
  struct Case: Sendable {
    var point: Int
    var name: String
    var program: String
    var variables: JSON.Object
    /// nil where jinja2 raised an error.
    var output: String?
    var error: String?
    var message: String?
  }

  var cases: [Case]
  var syntaxErrors: [Case]

  static let recorded: Points = {
    let path = Bundle.module.path(forResource: "points", ofType: "json", inDirectory: "Fixtures")!
    do {
      let root = try JSONValue(path: path)
      return Points(cases: root["cases"]!.elements.map(Case.init), syntaxErrors: root["syntaxErrors"]!.elements.map(Case.init))
    } catch { fatalError("\(path): \(error)") }
  }()

  /// The numbers of the points, 0 for what belongs to none.
  static let numbers = Set(recorded.cases.map(\.point)).sorted()
}

extension Points.Case {
  fileprivate init(_ value: JSONValue) {
    point = value["point"].flatMap { Int($0.numberText ?? "") } ?? 0
    name = value["name"]!.string!
    program = value["program"]!.string!
    variables = value["variables"].flatMap { JSON($0).object } ?? JSON.Object()
    output = value["output"]?.string
    error = value["error"]?.string
    message = value["message"]?.string
  }
}
