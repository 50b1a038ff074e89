// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

import CMartletKernels
import Foundation
import MartletCPU
import MartletCore
import Testing

@Suite struct `The CPU device` {
  @Test func `takes the best instruction set that the machine runs, never the model`() throws {
    let device = try CPUDevice(threads: 1)
    let best = try #require(CPUDevice.instructionSets.first { $0.isSupported && $0.name != "bf16-model" })
    #expect(device.instructionSet.name == best.name)
    #expect(device.summary.contains(best.name))
  }

  @Test func `lists the portable instruction set on every machine`() throws {
    #expect(runnableInstructionSets.contains("portable"))
    #expect(runnableInstructionSets.contains("bf16-model"))
    let names = CPUDevice.instructionSets.map(\.name)
    #expect(Set(names).count == names.count)
  }

  @Test(arguments: runnableInstructionSets) func `takes the instruction set it is told`(name: String) throws {
    #expect(try CPUDevice(instructionSet: name, threads: 1).instructionSet.name == name)
  }

  @Test func `names what there is, but not the model, when asked for an instruction set that there is not`() {
    let offered = runnableInstructionSets.filter { $0 != "bf16-model" }
    let unsupported = CPUDevice.instructionSets.filter { !$0.isSupported }.map(\.name)
    for name in ["sse9", ""] + unsupported {
      #expect(throws: DeviceError.unknownInstructionSet(name: name, available: offered)) {
        try CPUDevice(instructionSet: name, threads: 1)
      }
    }
  }

  @Test(arguments: runnableInstructionSets) func `has exact products first, and refuses those that it has not`(name: String) throws {
    let device = try CPUDevice(instructionSet: name, threads: 1)
    #expect(device.activations.first == .exact && (name != "portable" || device.activations == [.exact, .int8]))
    var random = SeededGenerator(seed: 12)
    let weight = TestWeight.random(.q8_0, rows: 4, columns: 64, using: &random)
    for activations in Activations.allCases where !device.activations.contains(activations) {
      weight.withWeight { weight in
        let error = DeviceError.unsupportedActivations(device: "cpu", requested: activations, available: device.activations)
        #expect(throws: error) { _ = try device.prepare([weight], activations: activations) }
      }
    }
  }

  @Test(arguments: [-1, 0, 4097, .max]) func `refuses a number of threads that no machine is asked for`(count: Int) {
    #expect(throws: DeviceError.invalidThreadCount(device: "cpu", requested: count, most: 4096)) { try CPUDevice(threads: count) }
  }

  @Test(arguments: [0, 1, 63, 4096, (2 << 20) - 1, 2 << 20, (2 << 20) + 1, 5_000_000])
  func `hands out zeroed, aligned memory`(byteCount: Int) throws {
    let device = try CPUDevice(threads: 1)
    // Twice, with the first one dirtied and freed, so that recycled memory would show.
    for _ in 0..<2 {
      let buffer = try device.makeBuffer(byteCount: byteCount)
      #expect(buffer.byteCount == byteCount)
      #expect(buffer.address % 64 == 0)
      let bytes = UnsafeMutableRawBufferPointer(start: buffer.hostAddress, count: byteCount)
      #expect(bytes.allSatisfy { $0 == 0 })
      memset(bytes.baseAddress!, 0xA5, byteCount)
    }
  }

  @Test func `maps large memory at a huge page's boundary`() throws {
    let buffer = try CPUDevice(threads: 1).makeBuffer(byteCount: 3 << 20)
    #expect(buffer.address % (2 << 20) == 0)
  }

  @Test func `refuses memory that the machine does not have, with both sizes`() throws {
    let device = try CPUDevice(threads: 1)
    let wanted = 1 << 50
    let error = try #require(throws: DeviceError.self) { try device.makeBuffer(byteCount: wanted) }
    let available = try #require(error.availableByteCount)
    #expect(error == .outOfMemory(device: "cpu", requested: wanted, available: available))
    #expect(available > 0 && available < wanted)
    #expect(throws: DeviceError.self) { try device.makeHostBuffer(of: Int32.self, count: wanted / 4) }
  }

  @Test func `copies in order between host buffers and tensors`() throws {
    let device = try CPUDevice(threads: 1)
    let queue = device.makeQueue()
    let source = try device.makeHostBuffer(of: Int32.self, count: 5)
    for index in 0..<5 { source[index] = Int32(10 + index) }
    let tensor = try device.tensor([Int32](repeating: -1, count: 5), Shape(5), .i32)
    queue.copy(source, count: 3, to: tensor)
    let result = try device.makeHostBuffer(of: Int32.self, count: 6)
    queue.copy(tensor, to: result)
    queue.wait()
    #expect((0..<6).map { result[$0] } == [10, 11, 12, -1, -1, 0])
  }

  @Test func `copies a tensor to another of its type, and no further`() throws {
    let device = try CPUDevice(threads: 1)
    let queue = device.makeQueue()
    let tensor = try device.tensor((0..<12).map(Int32.init), Shape(4, 3), .i32)
    queue.copy(tensor.rows(1..<2), to: tensor.rows(3..<4))
    queue.copy(tensor.rows(3..<4), to: tensor.rows(0..<2))
    queue.wait()
    #expect(Array(tensor.unsafeHostPointer(to: Int32.self)!) == [3, 4, 5, 3, 4, 5, 6, 7, 8, 3, 4, 5])
  }

  @Test func `offers its worker pool and instruction set to outside backends`() throws {
    let device = try CPUDevice(instructionSet: "portable", threads: 2)
    #expect(device.service(WorkerPool.self)?.threadCount == 2)
    #expect(device.service(InstructionSet.self)?.name == "portable")
    #expect(device.service(CPUQueue.self) == nil)
  }
}

/// `proc` and `sys` of an imagined machine.
private struct ImaginedMachine: ~Copyable {
  let root = NSTemporaryDirectory() + "martlet-limits-\(UUID().uuidString)"
  var limits: CPULimits { CPULimits(root: root) }

  init(_ files: [String: String]) throws {
    for (path, text) in files {
      let file = root + path
      try FileManager.default.createDirectory(atPath: (file as NSString).deletingLastPathComponent, withIntermediateDirectories: true)
      try text.write(toFile: file, atomically: false, encoding: .utf8)
    }
  }

  deinit { try? FileManager.default.removeItem(atPath: root) }
}

@Suite struct `The host's limits` {
  @Test func `are the machine's own where there is no control group`() throws {
    let machine = try ImaginedMachine(["/proc/meminfo": "MemTotal:  1000 kB\nMemFree: 1 kB\nMemAvailable:   600 kB\n"])
    #expect(machine.limits.processorQuota == nil)
    #expect(machine.limits.processorCount == Int(martlet_affinity_count()))
    #expect(machine.limits.availableByteCount == 600 << 10)
  }

  @Test func `know the second cache, or take it for a small one`() throws {
    let path = "/sys/devices/system/cpu/cpu0/cache/index2/size"
    #expect(try ImaginedMachine([path: "2048K\n"]).limits.secondCacheByteCount == 2 << 20)
    for text in ["", "0K", "large", "-1K"] { #expect(try ImaginedMachine([path: text]).limits.secondCacheByteCount == 512 << 10) }
    #expect(try ImaginedMachine([:]).limits.secondCacheByteCount == 512 << 10)
  }

  @Test func `follow the tightest group of version 2`() throws {
    let machine = try ImaginedMachine([
      "/proc/meminfo": "MemAvailable: 8000000 kB\n",
      "/proc/self/cgroup": "0::/pods/a b\n",
      "/sys/fs/cgroup/pods/cpu.max": "250000 100000\n",
      "/sys/fs/cgroup/pods/a b/cpu.max": "max 100000\n",
      "/sys/fs/cgroup/pods/memory.max": "max\n",
      "/sys/fs/cgroup/pods/memory.current": "5000\n",
      "/sys/fs/cgroup/pods/a b/memory.max": "1000000\n",
      "/sys/fs/cgroup/pods/a b/memory.current": "400000\n",
      "/sys/fs/cgroup/pods/a b/memory.stat": "anon 100\nactive_file 7\ninactive_file 50000\n",
    ])
    #expect(machine.limits.processorQuota == 2.5)
    #expect(machine.limits.processorCount == min(3, Int(martlet_affinity_count())))
    #expect(machine.limits.availableByteCount == 650_000)
  }

  @Test func `follow the groups of version 1, also where the path is the host's`() throws {
    let machine = try ImaginedMachine([
      "/proc/meminfo": "MemAvailable: 8000000 kB\n",
      "/proc/self/cgroup": "5:memory:/docker/0123\n4:cpu,cpuacct:/docker/0123\n1:name=systemd:/\n",
      "/sys/fs/cgroup/cpu/cpu.cfs_quota_us": "50000\n",
      "/sys/fs/cgroup/cpu/cpu.cfs_period_us": "100000\n",
      "/sys/fs/cgroup/memory/memory.limit_in_bytes": "2000000\n",
      "/sys/fs/cgroup/memory/memory.usage_in_bytes": "2100000\n",
      "/sys/fs/cgroup/memory/memory.stat": "inactive_file 1\ntotal_inactive_file 300000\n",
    ])
    #expect(machine.limits.processorQuota == 0.5)
    #expect(machine.limits.processorCount == 1)
    #expect(machine.limits.availableByteCount == 200_000)
  }

  @Test func `have no quota where version 1 says minus one`() throws {
    let machine = try ImaginedMachine([
      "/proc/self/cgroup": "4:cpu:/\n", "/sys/fs/cgroup/cpu/cpu.cfs_quota_us": "-1\n", "/sys/fs/cgroup/cpu/cpu.cfs_period_us": "100000\n",
    ])
    #expect(machine.limits.processorQuota == nil)
  }
}
