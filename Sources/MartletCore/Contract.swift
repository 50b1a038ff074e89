// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

// A broken contract says its sentence before it ends the process, in every build. The standard library's `precondition` traps without a word
// where the compiler optimises, `fatalError` does not.

/// Ends the process with `message` on standard error where `condition` does not hold, in release builds too.
///
/// For what only a mistake in the calling code can break. What a caller can get wrong by its input throws an error instead.
@inlinable @inline(__always)
package func enforce(
  _ condition: @autoclosure () -> Bool, _ message: @autoclosure () -> String, file: StaticString = #fileID, line: UInt = #line
) {
  if !condition() { fatalError(message(), file: file, line: line) }
}
