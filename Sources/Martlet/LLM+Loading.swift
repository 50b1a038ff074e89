// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

extension LLM {
  /// Loads a model on a thread of its own: the caller's is free meanwhile, and no task waits for a processor because of it.
  ///
  /// - Parameters:
  ///   - path: as ``init(model:configuration:progress:)`` has it.
  ///   - configuration: where and how the model runs.
  ///   - progress: told, on the loading thread, the share of the model that is loaded, 0…1.
  /// - Throws: what the initialiser throws; `CancellationError` where the surrounding task is cancelled, within the time of one tensor, and
  ///   nothing is left of what was loaded.
  public static func load(
    model path: String, configuration: EngineConfiguration = EngineConfiguration(), progress: (@Sendable (Double) -> Void)? = nil
  ) async throws -> LLM {
    try await load(configuration, progress) { try ModelFiles(path: path) }
  }

  /// The same from files that are open already.
  public static func load(
    files: ModelFiles, configuration: EngineConfiguration = EngineConfiguration(), progress: (@Sendable (Double) -> Void)? = nil
  ) async throws -> LLM {
    try await load(configuration, progress) { files }
  }

  private static func load(
    _ configuration: EngineConfiguration, _ progress: (@Sendable (Double) -> Void)?, _ open: @escaping @Sendable () throws -> ModelFiles
  ) async throws -> LLM {
    let isCancelled = Guarded(false)
    return try await withTaskCancellationHandler {
      try await withCheckedThrowingContinuation { continuation in
        do {
          try LoopThread.run {
            continuation.resume(
              with: Result {
                try LLM(open(), configuration) { share in
                  if isCancelled.withLock({ $0 }) { throw CancellationError() }
                  progress?(share)
                }
              })
          }
        } catch {
          continuation.resume(throwing: error)
        }
      }
    } onCancel: {
      isCancelled.withLock { $0 = true }
    }
  }
}
