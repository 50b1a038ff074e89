// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

/// A command cannot do what it was asked: one sentence that names the thing and the way out.
struct CommandError: Error, CustomStringConvertible {
  var description: String

  init(_ description: String) { self.description = description }
}
