// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

import CMartletKernels

/// Who is told of the runs of a ``WorkerPool`` and of their tasks, by the threads that do them: how a benchmark sees who works and who waits.
///
/// A pool without an observer asks nobody: its workers call kernels' functions directly. Calls come in the order ``runBegins(taskCount:part:)``, each
/// worker's tasks, ``runEnds()``; what workers did in theirs is visible in `runEnds`.
package protocol WorkerPoolObserver: Sendable {
  /// On the caller's thread, before the first task.
  func runBegins(taskCount: Int, part: WorkerPool.RunPart)
  /// On the worker's thread; worker 0 is the caller.
  func taskBegins(worker: Int)
  func taskEnds(worker: Int)
  /// On the caller's thread, when every task has ended.
  func runEnds()
}

extension WorkerPool {
  /// Which of a kernel's runs one is.
  package enum RunPart: String, Sendable, Hashable, CaseIterable {
    /// What the kernel is there for.
    case main
    /// Inputs are brought into the codes that a product reads, or coded ones to where they are read.
    case coding
  }
}

/// The call of a function that is observed: the arguments of ``runObserved``.
struct ObservedCall {
  var observer: any WorkerPoolObserver
  var function: martlet_task_function
  var arguments: UnsafeRawPointer
}

/// A task of the call that it is handed, with the observer told before and after.
let runObserved: martlet_task_function = { arguments, task, worker, scratch in
  let call = arguments!.assumingMemoryBound(to: ObservedCall.self)
  call.pointee.observer.taskBegins(worker: Int(worker))
  call.pointee.function(call.pointee.arguments, task, worker, scratch)
  call.pointee.observer.taskEnds(worker: Int(worker))
}
