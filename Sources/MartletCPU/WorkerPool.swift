// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

package import CMartletKernels
import CMartletLibc
public import MartletCore
import Synchronization

/// Threads that wait for work and share out the tasks of one kernel at a time: fork, claim, join.
///
/// `run` calls a closure once for each task number, on the caller's thread (worker 0) and on the pool's own, and returns when all
/// have finished; everything they wrote is then visible to the caller. Which worker gets which task is open: tasks must not care. On a machine with
/// several memories the pool may keep its threads near them (``WorkerPlacement``); a task then goes first to those who are near to what it reads. A worker that finds no work spins for some tens of microseconds, about the time between two kernels of a step,
/// and then sleeps.
///
/// `run` may be called from several threads: a lock makes them take turns. It must not be called from a task.
///
/// Not for work that blocks, nor for many unrelated small jobs: it is one loop's helper.
///
/// `@unchecked Sendable`: the shared words are atomic; the job is written by the one caller that holds the lock, while the gate is shut
/// and nobody is inside.
public final class WorkerPool: @unchecked Sendable {
  /// Threads that compute, the caller's included.
  public let threadCount: Int
  /// Bytes of each worker's scratch memory, 64-byte aligned. Its contents do not survive a task.
  public let scratchByteCount: Int

  /// Where the workers are at home; nil where that is one place.
  package let homes: WorkerHomes?

  /// Told of every run; nil of a pool that nobody watches.
  private let observer: (any WorkerPoolObserver)?
  private let turn = Mutex(())
  /// The thread inside `run`, 0 when there is none: to catch a task that calls it.
  private let owner = Atomic<UInt>(0)
  private let memory: CPUMemory
  /// One for each worker, worker 0 included.
  private let workers: UnsafeMutableBufferPointer<Worker>
  /// The pool's own threads; worker i + 1 is thread i.
  private var threads: [UInt] = []

  /// Starts `threadCount − 1` threads.
  /// - Parameters:
  ///   - scratchByteCount: what attention needs, which is the most, unless told.
  ///   - placement: where the threads run.
  /// - Throws: ``DeviceError/Code/invalidThreadCount`` outside 1…4096, ``DeviceError/Code/threadsUnavailable``,
  ///   ``DeviceError/Code/placementUnavailable`` or ``DeviceError/Code/outOfMemory``.
  public convenience init(threadCount: Int, scratchByteCount: Int = 5 << 18, placement: WorkerPlacement = .free) throws(DeviceError) {
    try self.init(threadCount: threadCount, scratchByteCount: scratchByteCount, placement: placement, observer: nil)
  }

  /// The same, watched.
  package init(
    threadCount: Int, scratchByteCount: Int = 5 << 18, placement: WorkerPlacement = .free, observer: (any WorkerPoolObserver)?
  ) throws(DeviceError) {
    guard (1...4096).contains(threadCount) else { throw .invalidThreadCount(device: "cpu", requested: threadCount, most: 4096) }
    enforce(scratchByteCount >= 0, "scratch memory of \(scratchByteCount) bytes")
    self.threadCount = threadCount
    self.scratchByteCount = scratchByteCount
    self.observer = observer
    homes = WorkerHomes(placement, threadCount: threadCount)
    let nodeCount = homes?.nodes.count ?? 1, sharedByteCount = SharedWords.byteCount(nodeCount: nodeCount)
    let scratchStride = (scratchByteCount + 63) / 64 * 64
    memory = try CPUMemory.allocate(byteCount: sharedByteCount + scratchStride * threadCount)
    let shared = SharedWords(at: memory.baseAddress, nodeCount: nodeCount)
    let scratch = memory.baseAddress + sharedByteCount
    workers = .allocate(capacity: threadCount)
    for index in 0..<threadCount {
      workers.initializeElement(
        at: index,
        to: Worker(
          index: Int32(index), node: homes?.node(ofWorker: index) ?? 0, scratch: scratch + index * scratchStride, shared: shared))
    }
    threads.reserveCapacity(threadCount - 1)
    for index in 1..<threadCount {
      var thread: UInt = 0
      let failure = martlet_thread_start(&thread, workerMain, workers.baseAddress! + index)
      // From here on a throw runs `deinit`, which stops the threads that did start.
      guard failure == 0 else {
        throw .threadsUnavailable(device: "cpu", requested: threadCount, reason: String(cString: strerror(failure)))
      }
      threads.append(thread)
      try pin(thread, worker: index)
    }
  }

  /// Has a worker's thread run where the worker is at home.
  private func pin(_ thread: UInt, worker: Int) throws(DeviceError) {
    guard let homes else { return }
    let node = homes.nodes[homes.node(ofWorker: worker)], failure = ProcessorMask(node.processors).pin(thread)
    guard failure == 0 else {
      throw .placementUnavailable(device: "cpu", node: node.number, reason: String(cString: strerror(failure)))
    }
  }

  /// Has the calling thread run near the memory that ``run(taskCount:_:)`` takes its tasks' for: who calls that for the rest of its life asks for it once.
  /// Does nothing where the workers are at home in one place.
  /// - Throws: ``DeviceError/Code/placementUnavailable``.
  public func pinCallingThread() throws(DeviceError) { try pin(UInt(martlet_thread_id()), worker: 0) }

  deinit {
    let shared = workers[0].shared
    shared.stop.pointee.store(1, ordering: .relaxed)
    shared.announce(atMost: .max)
    for thread in threads { martlet_thread_join(thread) }
    workers.deallocate()
    memory.free()
  }

  /// Calls `body` for every task in `0..<taskCount`, with the worker that has it and that worker's scratch memory.
  ///
  /// One task, or a pool of one thread, runs on the caller without a word to anyone.
  /// - Precondition: at most 2³⁰ tasks; not called from a task of this pool.
  public func run(
    taskCount: Int, _ body: @Sendable (_ task: Int, _ worker: Int, _ scratch: UnsafeMutableRawBufferPointer) -> Void
  ) {
    // All tasks have finished, and nobody has the closure, when `run` returns.
    withoutActuallyEscaping(body) { body in
      run(
        taskCount: taskCount,
        function: { arguments, task, worker, scratch in
          let call = arguments!.assumingMemoryBound(to: ClosureCall.self)
          let memory = UnsafeMutableRawBufferPointer(start: scratch, count: call.pointee.scratchByteCount)
          call.pointee.body(Int(task), Int(worker), memory)
        }, with: ClosureCall(body: body, scratchByteCount: scratchByteCount))
    }
  }

  /// Calls `body` for every task by a worker of the node whose it is, and no other: for memory that belongs where it is first touched.
  ///
  /// The calling thread runs on the first node meanwhile, if the system lets it.
  /// - Parameter firstTasks: where the tasks of each node of ``homes`` begin, and behind them their number.
  /// - Precondition: not called from a task of this pool.
  package func runAtHome(firstTasks: [Int], _ body: @Sendable (_ task: Int) -> Void) {
    guard let homes else { return run(taskCount: firstTasks.last!) { task, _, _ in body(task) } }
    enforce(firstTasks.count == homes.nodes.count + 1, "tasks for \(firstTasks.count - 1) nodes, of \(homes.nodes.count)")
    let mask = ProcessorMask.ofThisThread, thread = UInt(martlet_thread_id())
    _ = ProcessorMask(homes.nodes[0].processors).pin(thread)
    defer { _ = mask.pin(thread) }
    withoutActuallyEscaping(body) { body in
      withUnsafePointer(to: body) {
        run(
          taskCount: firstTasks.last!, homes: TaskHomes(firstUnits: firstTasks, unitsPerChunk: 1), staysAtHome: true,
          function: { arguments, task, _, _ in
            arguments!.assumingMemoryBound(to: (@Sendable (Int) -> Void).self).pointee(Int(task))
          }, arguments: $0)
      }
    }
  }

  /// The same with a kernel: calls `function(arguments, task, worker, scratch)`. It allocates nothing.
  /// - Parameters:
  ///   - part: which of its kernel's runs it is, for an observer.
  ///   - homes: whose the tasks are, of a pool with ``homes``; nil: everybody's. Workers who have done their node's go on with those of others.
  package func run(
    taskCount: Int, part: RunPart = .main, homes: TaskHomes? = nil, function: martlet_task_function, arguments: UnsafeRawPointer
  ) {
    run(taskCount: taskCount, part: part, homes: homes, staysAtHome: false, function: function, arguments: arguments)
  }

  /// - Parameter staysAtHome: whether workers leave the tasks of other nodes to these.
  private func run(
    taskCount: Int, part: RunPart = .main, homes: TaskHomes?, staysAtHome: Bool, function: martlet_task_function,
    arguments: UnsafeRawPointer
  ) {
    enforce((0...1 << 30).contains(taskCount), "a run has 0 to \(1 << 30) tasks, not \(taskCount)")
    let caller = UInt(martlet_thread_id())
    enforce(
      owner.load(ordering: .relaxed) != caller && !threads.contains(caller), "WorkerPool.run was called from a task of the same pool")
    turn.withLock { _ in
      // The lock orders runs already; acquire and release say it again to the thread sanitizer, which does not see into `Mutex`.
      enforce(owner.exchange(caller, ordering: .acquiring) == 0, "two runs of one WorkerPool at a time")
      if let observer {
        observer.runBegins(taskCount: taskCount, part: part)
        withUnsafePointer(to: ObservedCall(observer: observer, function: function, arguments: arguments)) {
          share(taskCount, homes, staysAtHome, runObserved, $0)
        }
        observer.runEnds()
      } else {
        share(taskCount, homes, staysAtHome, function, arguments)
      }
      owner.store(0, ordering: .releasing)
    }
  }

  /// Runs the tasks on this thread and the pool's, or on this one alone where no other has anything to do.
  private func share(
    _ taskCount: Int, _ homes: TaskHomes?, _ staysAtHome: Bool, _ function: martlet_task_function, _ arguments: UnsafeRawPointer
  ) {
    if threadCount == 1 || (taskCount <= 1 && !staysAtHome) {
      for task in 0..<taskCount { function(arguments, Int32(task), 0, workers[0].scratch) }
    } else {
      let shared = workers[0].shared
      shared.open(
        WorkerJob(
          function: function, arguments: arguments, taskCount: UInt32(taskCount), shares: shared.shares(of: taskCount, homes),
          staysAtHome: staysAtHome))
      workers[0].claimTasks()
      if staysAtHome { shared.awaitClaims() }
      shared.shut()
    }
  }

  /// ``run(taskCount:part:homes:function:arguments:)`` with the arguments by value.
  package func run<Arguments>(
    taskCount: Int, part: RunPart = .main, homes: TaskHomes? = nil, function: martlet_task_function, with arguments: Arguments
  ) {
    withUnsafePointer(to: arguments) { run(taskCount: taskCount, part: part, homes: homes, function: function, arguments: $0) }
  }
}

/// What the tasks of ``WorkerPool/run(taskCount:_:)`` are handed.
private struct ClosureCall {
  var body: @Sendable (Int, Int, UnsafeMutableRawBufferPointer) -> Void
  var scratchByteCount: Int
}

/// A call of ``WorkerPool/run(taskCount:part:homes:function:arguments:)``.
private struct WorkerJob {
  var function: martlet_task_function
  var arguments: UnsafeRawPointer
  var taskCount: UInt32
  /// Whose the tasks are; nil: everybody's, and all are counted as the first node's.
  var shares: TaskShares?
  var staysAtHome: Bool
}

/// The words that a pool's threads share.
///
/// A run opens the gate, moves the epoch on and wakes sleepers; workers that see the new epoch enter through the gate, claim tasks until
/// there are none and leave; the caller does the same, shuts the gate and waits until nobody is inside. A worker that comes too late finds
/// the gate shut and waits for the next epoch, so that the caller never waits for a thread that the system has not scheduled yet.
private struct SharedWords {
  /// Counts the runs; idle workers sleep on it.
  let epoch: UnsafeMutablePointer<Atomic<UInt32>>
  /// ``isOpen``, ``callerSleeps`` and, in the low bits, the workers inside; the caller sleeps on it.
  let gate: UnsafeMutablePointer<Atomic<UInt32>>
  /// Workers asleep, or about to be.
  let sleepers: UnsafeMutablePointer<Atomic<UInt32>>
  /// Not 0 when the workers are to end.
  let stop: UnsafeMutablePointer<Atomic<UInt32>>
  /// Written while the gate is shut and nobody is inside.
  let job: UnsafeMutablePointer<WorkerJob>
  let nodeCount: Int
  /// For each node the next of its tasks that nobody has claimed, ``spacing`` bytes apart.
  private let nextTasks: UnsafeMutableRawPointer
  /// Where the job's ``TaskShares`` are, written as the job is: nodes + 1 numbers.
  private let firstChunks: UnsafeMutablePointer<UInt32>

  static let isOpen: UInt32 = 1 << 31
  static let callerSleeps: UInt32 = 1 << 30

  /// How often an idle thread looks before it sleeps. A pause takes 40 to 140 cycles, so this is 15 to 50 µs.
  private static let spinCount = 1000

  /// Two cache lines for each word, because processors fetch lines in pairs.
  private static let spacing = 128
  static func byteCount(nodeCount: Int) -> Int { (5 + nodeCount) * spacing + ((nodeCount + 1) * 4 + spacing - 1) / spacing * spacing }

  /// Sets up the words in zeroed memory.
  init(at memory: UnsafeMutableRawPointer, nodeCount: Int) {
    func word(_ index: Int) -> UnsafeMutablePointer<Atomic<UInt32>> {
      let pointer = (memory + index * Self.spacing).bindMemory(to: Atomic<UInt32>.self, capacity: 1)
      pointer.initialize(to: Atomic(0))
      return pointer
    }
    epoch = word(0)
    gate = word(1)
    sleepers = word(2)
    stop = word(3)
    job = (memory + 4 * Self.spacing).bindMemory(to: WorkerJob.self, capacity: 1)
    self.nodeCount = nodeCount
    nextTasks = memory + 5 * Self.spacing
    for node in 0..<nodeCount { _ = word(5 + node) }
    firstChunks = (memory + (5 + nodeCount) * Self.spacing).bindMemory(to: UInt32.self, capacity: nodeCount + 1)
  }

  /// The next task of a node that nobody has claimed, counted within its own.
  func nextTask(_ node: Int) -> UnsafeMutablePointer<Atomic<UInt32>> {
    (nextTasks + node * Self.spacing).assumingMemoryBound(to: Atomic<UInt32>.self)
  }

  /// The caller's, before it opens the gate: whose the tasks of a job are. Nil where they are everybody's.
  func shares(of taskCount: Int, _ homes: TaskHomes?) -> TaskShares? {
    guard let homes, nodeCount > 1 else { return nil }
    enforce(
      homes.firstUnits.count == nodeCount + 1 && taskCount % max(homes.chunkCount, 1) == 0,
      "\(taskCount) tasks of \(homes.chunkCount) chunks for \(homes.firstUnits.count - 1) nodes, of \(nodeCount)")
    for node in 0...nodeCount { firstChunks[node] = UInt32(homes.firstChunk(node)) }
    return TaskShares(firstChunks: firstChunks, rounds: UInt32(taskCount / max(homes.chunkCount, 1)))
  }

  /// The caller's, while the gate is open: waits until every node's tasks are claimed.
  func awaitClaims() {
    guard let shares = job.pointee.shares else { return }
    for node in 0..<nodeCount {
      while shares.task(nextTask(node).pointee.load(ordering: .relaxed), ofNode: node, nodeCount: nodeCount) != nil { martlet_yield() }
    }
  }

  /// The caller's: publishes a job and calls the workers.
  func open(_ newJob: WorkerJob) {
    job.initialize(to: newJob)
    for node in 0..<nodeCount { nextTask(node).pointee.store(0, ordering: .relaxed) }
    // Releases the job to whoever enters.
    gate.pointee.store(Self.isOpen, ordering: .releasing)
    announce(atMost: newJob.staysAtHome ? .max : newJob.taskCount - 1)
  }

  /// Moves the epoch on and wakes at most `count` of the workers that sleep.
  ///
  /// Both sides are sequentially consistent, as in Dekker's algorithm: either this thread sees the worker among the sleepers, or the
  /// worker's futex call sees the new epoch and returns at once.
  func announce(atMost count: UInt32) {
    epoch.pointee.wrappingAdd(1, ordering: .sequentiallyConsistent)
    let sleeping = sleepers.pointee.load(ordering: .sequentiallyConsistent)
    if sleeping > 0 { epoch.wake(min(count, sleeping)) }
  }

  /// The caller's: lets nobody in any more and waits until all have left. What they wrote is then visible here.
  func shut() {
    var inside = gate.pointee.bitwiseAnd(~Self.isOpen, ordering: .acquiring).newValue
    var spins = 0
    while inside != 0 {
      if spins < Self.spinCount {
        spins += 1
        martlet_pause()
      } else {
        let word = gate.pointee.bitwiseOr(Self.callerSleeps, ordering: .acquiring).newValue
        if word != Self.callerSleeps { gate.sleep(while: word) }
      }
      inside = gate.pointee.load(ordering: .acquiring) & ~Self.callerSleeps
    }
  }

  /// A worker's: false when the gate is shut. What the caller wrote before it opened the gate is then visible here.
  func enter() -> Bool {
    var word = gate.pointee.load(ordering: .relaxed)
    while word & Self.isOpen != 0 {
      let (entered, current) = gate.pointee.weakCompareExchange(
        expected: word, desired: word + 1, successOrdering: .acquiring, failureOrdering: .relaxed)
      if entered { return true }
      word = current
    }
    return false
  }

  /// A worker's: gives what it wrote to the caller, and wakes it if this was the last one and it sleeps.
  func leave() {
    if gate.pointee.wrappingSubtract(1, ordering: .releasing).newValue == Self.callerSleeps { gate.wake(1) }
  }

  /// A worker's: returns the epoch when it is no longer `seen`.
  func awaitEpoch(after seen: UInt32) -> UInt32 {
    for _ in 0..<Self.spinCount {
      let current = epoch.pointee.load(ordering: .acquiring)
      if current != seen { return current }
      martlet_pause()
    }
    while true {
      sleepers.pointee.wrappingAdd(1, ordering: .sequentiallyConsistent)
      epoch.sleep(while: seen)
      sleepers.pointee.wrappingSubtract(1, ordering: .relaxed)
      let current = epoch.pointee.load(ordering: .acquiring)
      if current != seen { return current }
    }
  }
}

extension UnsafeMutablePointer where Pointee == Atomic<UInt32> {
  /// The futex is the atomic's own four bytes.
  private var futex: UnsafePointer<UInt32> { UnsafeRawPointer(self).assumingMemoryBound(to: UInt32.self) }

  /// Sleeps unless the word no longer holds `value`; may return early.
  fileprivate func sleep(while value: UInt32) { martlet_futex_wait(futex, value) }

  /// Wakes at most `count` sleepers.
  fileprivate func wake(_ count: UInt32) { martlet_futex_wake(futex, Int32(clamping: count)) }
}

/// What one thread of a pool needs to know.
private struct Worker {
  let index: Int32
  /// The place among the nodes of where it is at home.
  let node: Int
  let scratch: UnsafeMutableRawPointer
  let shared: SharedWords

  /// Claims tasks of the open job until there are none: those of its own node first.
  func claimTasks() {
    let job = shared.job.pointee
    guard let shares = job.shares else {
      let next = shared.nextTask(0)
      while true {
        let task = next.pointee.wrappingAdd(1, ordering: .relaxed).oldValue
        guard task < job.taskCount else { return }
        job.function(job.arguments, Int32(task), index, scratch)
      }
    }
    let nodeCount = shared.nodeCount
    for step in 0..<(job.staysAtHome ? 1 : nodeCount) {
      let owner = (node + step) % nodeCount, next = shared.nextTask(owner)
      while let task = shares.task(next.pointee.wrappingAdd(1, ordering: .relaxed).oldValue, ofNode: owner, nodeCount: nodeCount) {
        job.function(job.arguments, Int32(task), index, scratch)
      }
    }
  }
}

/// The life of a pool's thread. `context` is its ``Worker``, which outlives it.
private func workerMain(_ context: UnsafeMutableRawPointer?) -> UnsafeMutableRawPointer? {
  let worker = context!.assumingMemoryBound(to: Worker.self).pointee
  let shared = worker.shared
  martlet_block_signals()
  martlet_set_thread_name("martlet-\(worker.index)")
  var epoch: UInt32 = 0
  while true {
    epoch = shared.awaitEpoch(after: epoch)
    if shared.stop.pointee.load(ordering: .relaxed) != 0 { return nil }
    guard shared.enter() else { continue }
    worker.claimTasks()
    shared.leave()
  }
}
