// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

// Machines with several memories, most of them made up: what is written of them, whose work is whose, and that no bit depends on it.

import CMartletKernels
import Foundation
import MartletCPU
import MartletCore
import Synchronization
import Testing

/// `sys` of an imagined machine, as it is read.
private func topology(_ files: [String: String], usable: [Int]) throws -> NUMATopology {
  let root = NSTemporaryDirectory() + "martlet-nodes-\(UUID().uuidString)"
  defer { try? FileManager.default.removeItem(atPath: root) }
  for (name, text) in files {
    let file = root + "/sys/devices/system/node/" + name
    try FileManager.default.createDirectory(atPath: (file as NSString).deletingLastPathComponent, withIntermediateDirectories: true)
    try text.write(toFile: file, atomically: false, encoding: .utf8)
  }
  return NUMATopology(root: root, usable: usable)
}

private func node(_ number: Int, _ processors: some Sequence<Int>) -> NUMATopology.Node {
  NUMATopology.Node(number: number, processors: Array(processors))
}

/// A machine of so many equal nodes.
private func nodes(_ count: Int, processors: Int) -> NUMATopology {
  NUMATopology(nodes: (0..<count).map { node($0, $0 * processors..<($0 + 1) * processors) })
}

/// This machine, said to have so many nodes: all of them have all of its processors, so that threads can be placed on any.
private func imaginedNodes(_ count: Int) -> NUMATopology {
  let processors = NUMATopology().nodes.flatMap(\.processors)
  return NUMATopology(nodes: (0..<count).map { node($0, processors) })
}

@Suite struct `The nodes of a machine` {
  @Test func `are those that the system names, with the processors that may be used`() throws {
    let files = ["online": "0-1\n", "node0/cpulist": "0-3,8-11\n", "node1/cpulist": "4-7,12-15\n"]
    #expect(
      try topology(files, usable: Array(0..<16)).nodes == [node(0, [0, 1, 2, 3, 8, 9, 10, 11]), node(1, [4, 5, 6, 7, 12, 13, 14, 15])])
    // A container with a quarter of the machine, and one with a node of it.
    #expect(try topology(files, usable: [3, 4, 9, 12]).nodes == [node(0, [3, 9]), node(1, [4, 12])])
    #expect(try topology(files, usable: [4, 5]).nodes == [node(1, [4, 5])])
  }

  @Test func `have numbers with gaps, and memory without processors is none`() throws {
    let files = ["online": "0,2,8-9\n", "node0/cpulist": "0-1\n", "node2/cpulist": "\n", "node8/cpulist": "2\n"]
    #expect(try topology(files, usable: [0, 1, 2]).nodes == [node(0, [0, 1]), node(8, [2])])
  }

  @Test(arguments: [
    [:], ["online": ""], ["online": "0\n"], ["online": "0\n", "node0/cpulist": "0-2\n"], ["online": "x,1-,-,4-2\n", "node1/cpulist": "0"],
    ["online": "0-99999999999\n", "node0/cpulist": "0-99999999999999999999999\n"],
  ]) func `are one where there are no nodes, or nothing that can be read`(files: [String: String]) throws {
    #expect(try topology(files, usable: [0, 1, 2]).nodes == [node(0, [0, 1, 2])])
  }

  @Test func `are found here, too`() {
    let nodes = NUMATopology().nodes
    #expect(nodes.flatMap(\.processors).count == Int(martlet_affinity_count()))
  }
}

@Suite struct `Workers at home` {
  @Test func `are as many on each node as its share of the processors`() throws {
    func firstWorkers(_ topology: NUMATopology, _ threads: Int) -> [Int]? {
      WorkerHomes(.nodes(topology), threadCount: threads)?.firstWorkers
    }
    #expect(firstWorkers(nodes(2, processors: 32), 64) == [0, 32, 64])
    #expect(firstWorkers(nodes(4, processors: 32), 128) == [0, 32, 64, 96, 128])
    #expect(firstWorkers(nodes(4, processors: 8), 6) == [0, 2, 3, 5, 6])
    #expect(firstWorkers(NUMATopology(nodes: [node(0, 0..<4), node(1, 4..<16)]), 8) == [0, 2, 8])
    // Of more nodes than workers some stay empty.
    let homes = try #require(WorkerHomes(.nodes(nodes(4, processors: 8)), threadCount: 2))
    #expect(homes.firstWorkers == [0, 1, 2] && homes.nodes.count == 2)
    #expect((0..<2).map { homes.node(ofWorker: $0) } == [0, 1])
  }

  @Test func `are not asked for where that is free, or where there is one`() {
    #expect(WorkerHomes(.free, threadCount: 8) == nil)
    #expect(WorkerHomes(.automatic, threadCount: 1) == nil)
    #expect((WorkerHomes(.automatic, threadCount: 8) == nil) == (NUMATopology().nodes.count == 1))
  }

  @Test func `share what there is in whole bunches`() throws {
    let homes = try #require(WorkerHomes(.nodes(nodes(4, processors: 8)), threadCount: 32))
    #expect(homes.cuts(of: 256, bunch: 8) == [0, 64, 128, 192, 256])
    #expect(homes.cuts(of: 8016, bunch: 8) == [0, 2008, 4008, 6016, 8016])
    for count in 0...100 {
      let cuts = homes.cuts(of: count, bunch: 8)
      #expect(cuts.first == 0 && cuts.last == count && cuts == cuts.sorted() && cuts.dropLast().allSatisfy { $0 % 8 == 0 || $0 == count })
    }
  }

  /// The shapes of Llama 3.1 8B, as prepared weights cut them and as plans deal them; workers claim as those of a pool do and are all as fast.
  @Test(arguments: [2, 4], [1, 32, 512]) func `read nearly all weights from their own memory`(nodeCount: Int, tokens: Int) throws {
    for threads in [nodeCount * 8, 64, 128] {
      let homes = try #require(WorkerHomes(.nodes(nodes(nodeCount, processors: threads / nodeCount)), threadCount: threads))
      for rows in [[4096, 1024, 1024], [4096], [14336, 14336], [128_256]] {
        let cuts = rows.map { homes.cuts(of: $0 / 16, bunch: 8) }
        let firstGroups = (0...nodeCount).map { node in cuts.reduce(0) { $0 + $1[node] } }
        for coding in InputCoding.allCases {
          let machine = CPUProductMachine(
            threadCount: threads, fewRows: 8, rowsOfATile: 12, rowsOfADigitTile: 16, secondCacheByteCount: 2 << 20,
            scratchByteCount: 5 << 18)
          let plan = CPUProductPlan(
            tokens: tokens, groupCount: firstGroups.last!, bytesPerGroup: 37_888, slabCount: 16, coding: coding, on: machine)
          let share = localShare(of: plan, firstGroups: firstGroups, homes: homes)
          #expect(share >= 0.95, "\(rows) rows, \(coding), \(threads) workers: \(share) of the bytes are local")
        }
      }
    }
  }

  /// The share of the bytes of weights that workers find in their own node's memory. All bytes are dealt out: the tasks are counted.
  private func localShare(of plan: CPUProductPlan, firstGroups: [Int], homes: WorkerHomes) -> Double {
    let groups = firstGroups.last!, nodeCount = homes.nodes.count, threads = homes.firstWorkers.last!
    let tasks = TaskHomes(firstUnits: firstGroups, unitsPerChunk: plan.groupsPerTask)
    #expect(plan.taskCount % tasks.chunkCount == 0)
    let firstChunks = (0...nodeCount).map { UInt32(tasks.firstChunk($0)) }
    var next = [UInt32](repeating: 0, count: nodeCount), claimed = Set<UInt32>(), local = 0, all = 0
    var ends = [Double](repeating: 0, count: threads), busy = Set(0..<threads)
    firstChunks.withUnsafeBufferPointer { firstChunks in
      let shares = TaskShares(firstChunks: firstChunks.baseAddress!, rounds: UInt32(plan.taskCount / tasks.chunkCount))
      while let worker = busy.min(by: { (ends[$0], $0) < (ends[$1], $1) }) {
        let home = homes.node(ofWorker: worker)
        var task: UInt32?
        for step in 0..<nodeCount where task == nil {
          let owner = (home + step) % nodeCount
          task = shares.task(next[owner], ofNode: owner, nodeCount: nodeCount)
          next[owner] += 1
        }
        guard let task else {
          busy.remove(worker)
          continue
        }
        #expect(claimed.insert(task).inserted, "task \(task) is claimed twice")
        let first = Int(task) % tasks.chunkCount * plan.groupsPerTask, end = min(first + plan.groupsPerTask, groups)
        ends[worker] += Double(end - first)
        all += end - first
        local += (first..<end).count { firstGroups[home] <= $0 && $0 < firstGroups[home + 1] }
      }
    }
    #expect(claimed.count == plan.taskCount)
    return Double(local) / Double(all)
  }

  @Test(arguments: [1, 2, 3, 5], [1, 2, 3, 9]) func `do every task exactly once, whosever it is`(nodeCount: Int, threads: Int) throws {
    let pool = try WorkerPool(threadCount: threads, placement: .nodes(imaginedNodes(nodeCount)))
    let homes = try #require(pool.homes)
    for units in [0, 1, 7, 64, 1000] {
      for (unitsPerChunk, rounds) in [(1, 1), (3, 1), (4, 5), (2000, 2)] {
        let tasks = TaskHomes(firstUnits: homes.cuts(of: units, bunch: 1), unitsPerChunk: unitsPerChunk)
        let count = tasks.chunkCount * rounds
        let done = Mutex([Int](repeating: 0, count: count))
        let body: @Sendable (Int) -> Void = { task in done.withLock { $0[task] += 1 } }
        for _ in 0..<5 {
          pool.run(
            taskCount: count, homes: tasks,
            function: { arguments, task, _, _ in arguments!.assumingMemoryBound(to: (@Sendable (Int) -> Void).self).pointee(Int(task)) },
            with: body)
        }
        #expect(done.withLock { $0 } == [Int](repeating: 5, count: count), "\(units) units by \(unitsPerChunk), \(rounds) rounds")
      }
    }
  }

  @Test func `touch their memory first, and nobody else`() throws {
    let pool = try WorkerPool(threadCount: 6, placement: .nodes(imaginedNodes(3)))
    let homes = try #require(pool.homes)
    let names = (0..<homes.nodes.count).map { node in
      Set((homes.firstWorkers[node]..<homes.firstWorkers[node + 1]).filter { $0 > 0 }.map { "martlet-\($0)" })
    }
    let caller = martlet_thread_id()
    for _ in 0..<200 {
      let firstTasks = [0, 4, 4, 9]
      let wrong = Mutex<[Int]>([])
      pool.runAtHome(firstTasks: firstTasks) { task in
        let node = task < 4 ? 0 : 2
        let name = (try? String(contentsOfFile: "/proc/thread-self/comm", encoding: .utf8))?.trimmingCharacters(in: .whitespacesAndNewlines)
        // The caller is a worker of the first node.
        let isRight = names[node].contains(name ?? "") || (node == 0 && martlet_thread_id() == caller)
        if !isRight { wrong.withLock { $0.append(task) } }
      }
      #expect(wrong.withLock { $0 } == [])
    }
    pool.runAtHome(firstTasks: [0, 0, 0, 0]) { _ in Issue.record("there is no task") }
  }

  /// Where threads may run is the kernel's to say: the pool's own stay where they were put, and the caller's is as it was.
  @Test func `run on their node's processors, and leave the caller where it was`() throws {
    let processors = NUMATopology().nodes.flatMap(\.processors)
    let before = NUMATopology()
    let pool = try WorkerPool(threadCount: 4, placement: .nodes(NUMATopology(nodes: [node(0, processors), node(1, [processors.last!])])))
    let homes = try #require(pool.homes), firstOfSecond = homes.firstWorkers[1]
    let allowed = Mutex([Int: [Int]]())
    pool.runAtHome(firstTasks: [0, 1, 5]) { task in
      if task > 0 { allowed.withLock { $0[task] = NUMATopology().nodes.flatMap(\.processors) } }
    }
    #expect(
      firstOfSecond < 4
        && allowed.withLock { $0 } == [1: [processors.last!], 2: [processors.last!], 3: [processors.last!], 4: [processors.last!]])
    #expect(NUMATopology() == before)
  }

  @Test func `are refused on processors that the machine has not`() throws {
    let error = try #require(throws: DeviceError.self) {
      try WorkerPool(threadCount: 2, placement: .nodes(NUMATopology(nodes: [node(0, [0]), node(7, [16_000])])))
    }
    #expect(error.code == .placementUnavailable && error.description.contains("node 7"))
  }

  /// Weights whose rows lie in five memories, in pieces of 8 groups, some of them empty: the values and the products are those of one memory.
  @Test(arguments: WeightFormat.allCases) func `change no bit`(format: WeightFormat) throws {
    var random = SeededGenerator(seed: 40)
    let columns = 512, tokens = 40
    let alone = try CPUDevice(threads: 1), device = try CPUDevice(threads: 7, placement: .nodes(imaginedNodes(5)))
    #expect(device.summary.contains("on nodes 0, 1, 2, 3, 4") && !alone.summary.contains("node"))
    let a = TestWeight.random(format, rows: 16 * 70 + 3, columns: columns, using: &random)
    let b = TestWeight.random(.q8_0, rows: 16 * 9, columns: columns, using: &random)
    let c = TestWeight.random(format, rows: 5, columns: columns, using: &random)
    let input = random.activations(tokens * columns)
    func results(_ device: CPUDevice) throws -> [[Float]] {
      let weight = try a.withWeight { a in try b.withWeight { b in try c.withWeight { c in try device.prepare([a, b, c]) } } }
      #expect(weight.byteCount == [a, b, c].reduce(0) { $0 + device.preparedByteCount($1.format, rows: $1.rows, columns: columns) })
      return try [device.dequantised(weight), device.product(input, weight), device.product(Array(input[..<columns]), weight)]
    }
    #expect(try results(device) == results(alone))
  }
}
