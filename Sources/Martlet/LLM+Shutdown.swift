// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

extension LLM {
  /// Whether the engine takes requests.
  public enum State: Sendable, Hashable {
    case running
    /// It takes no more, and finishes what it has.
    case shuttingDown
    /// Its thread has ended: by the failure that the error names, or, with none, after a shutdown.
    case ended(LLMError?)
  }

  public var state: State { inbox.engineState }
  /// Whether ``state`` is ``State/running``.
  public var isRunning: Bool { state == .running }

  /// Takes no more requests, finishes those that were submitted, and returns when the engine's thread has ended.
  ///
  /// - Parameter gracePeriod: how long requests have to finish, by ``EngineConfiguration/clock``. Those that have not finished then, or when the
  ///   surrounding task is cancelled, fail before the next step with ``LLMError/Code/stopped``. nil gives them all the time they need.
  public func shutdown(gracePeriod: Duration? = nil) async {
    inbox.close()
    await withTaskCancellationHandler {
      await withTaskGroup(of: Void.self) { group in
        if let gracePeriod {
          group.addTask { [inbox, clock] in
            // A sleep that is cut short means that the engine has ended, or that nobody waits for it any more.
            try? await clock.sleep(for: gracePeriod)
            inbox.stop()
          }
        }
        await inbox.waitForEnd()
        group.cancelAll()
      }
    } onCancel: {
      inbox.stop()
    }
  }

  /// Returns when the engine has ended: what a service of swift-service-lifecycle does, whose protocol this satisfies as it stands
  /// (`extension LLM: @retroactive Service {}`). Where the surrounding task is cancelled, requests that have not finished fail before the next step.
  ///
  /// - Throws: ``LLMError`` where a failure ended the engine, and not a shutdown.
  public func run() async throws {
    await withTaskCancellationHandler {
      await inbox.waitForEnd()
    } onCancel: {
      inbox.stop()
    }
    if case .ended(let failure?) = state { throw failure }
  }
}
