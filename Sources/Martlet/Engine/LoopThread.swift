// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

import CMartletLibc

/// A thread of its own for a body that computes for as long as it likes; Swift's cooperative threads are not for that.
package enum LoopThread {
  private final class Start {
    let body: () -> Void
    init(_ body: @escaping () -> Void) { self.body = body }
  }

  /// Runs `body` on a new, detached thread.
  /// - Throws: ``LLMError/Code/stopped`` where the system refuses one.
  package static func run(_ body: sending @escaping () -> Void) throws(LLMError) {
    let start = Unmanaged.passRetained(Start(body))
    var thread: UInt = 0
    let failure = martlet_thread_start(
      &thread,
      { argument in
        let argument: UnsafeMutableRawPointer? = argument
        Unmanaged<Start>.fromOpaque(argument!).takeRetainedValue().body()
        return nil
      }, start.toOpaque())
    if failure != 0 {
      start.release()
      throw .stopped("the system refuses a thread: \(String(cString: strerror(failure)))")
    }
    martlet_thread_detach(thread)
  }
}
