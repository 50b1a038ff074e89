// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

import ArgumentParser
import Dispatch
import Foundation

/// Runs `body` so that an interrupt (Ctrl-C) or a request to end cancels it: downloads keep only what is whole, generations free their pages.
///
/// A second interrupt ends the process at once.
func interruptible<Result: Sendable>(_ body: @escaping @Sendable () async throws -> Result) async throws -> Result {
  let task = Task { try await body() }
  let sources = [SIGINT, SIGTERM].map { number in
    signal(number, SIG_IGN)
    let source = DispatchSource.makeSignalSource(signal: number, queue: .global())
    source.setEventHandler {
      task.cancel()
      signal(number, SIG_DFL)
    }
    source.resume()
    return source
  }
  // What comes after ends the process as usual.
  defer {
    for source in sources { source.cancel() }
    for number in [SIGINT, SIGTERM] { signal(number, SIG_DFL) }
  }
  do {
    return try await task.value
  } catch is CancellationError {
    throw ExitCode(130)
  }
}
