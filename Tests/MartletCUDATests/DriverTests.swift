// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

import CMartletCUDAStandIn
import MartletCUDA
import MartletCore
import Testing

@Suite("The driver")
struct DriverTests {
  @Test("tells which GPUs there are")
  func properties() throws {
    let driver = try StandIn.driver()
    #expect(driver.deviceCount == 3 && driver.version == 13000)
    let first = try driver.properties(of: 0)
    #expect(first.name == "cuda:0" && first.title == "Stand-in 9.0" && first.architecture == CUDAArchitecture(major: 9, minor: 0))
    #expect(first.byteCount == 1 << 30 && first.sharedByteCountOfBlock == 227 << 10 && first.multiprocessorCount == 4)
    let error = #expect(throws: DeviceError.self) { try driver.properties(of: 3) }
    #expect(error?.code == .cudaUnavailable)
    #expect(error?.description == "there is no GPU cuda:3: there are 3 GPUs, cuda:0 to cuda:2")
    #expect(throws: DeviceError.self) { try driver.properties(of: -1) }
  }

  @Test("that is not there, too old, or sees no GPU is told in a sentence with the way out")
  func unavailable() throws {
    let old = #expect(throws: DeviceError.self) { try CUDADriver(procAddress: nil) }
    #expect(old?.code == .cudaUnavailable && old?.description.contains("install that or a newer one") ?? false)

    martlet_stand_in_fail("cuInit", 100)
    let blind = #expect(throws: DeviceError.self) { try StandIn.driver() }
    #expect(blind?.code == .cudaUnavailable)
    #expect(
      blind?.description
        == "device cuda: cuInit failed with CUDA_ERROR_NO_DEVICE (100, no CUDA-capable device is detected); no GPU is visible: look at "
        + "`nvidia-smi` and at CUDA_VISIBLE_DEVICES")

    martlet_stand_in_fail("cuGetProcAddress_v2", 500)
    let incomplete = #expect(throws: DeviceError.self) { try StandIn.driver() }
    #expect(incomplete?.description.contains("has no cuInit; install version 525 or newer") ?? false, "\(String(describing: incomplete))")
  }

  @Test("of this machine is found, or its absence told in one sentence")
  func ofThisMachine() {
    do { #expect(try CUDADevice.descriptions().count > 0) } catch {
      #expect(error.code == .cudaUnavailable)
      #expect(!error.description.contains("\n"))
    }
  }

  @Test("gives and takes memory, which is zeroed")
  func memory() throws {
    let device = try StandIn.device(ordinal: 0)
    let free = device.availableByteCount
    do {
      let tensor = try device.makeTensor(Shape(3, 5), .f32)
      #expect(tensor.buffer.hostAddress == nil && tensor.address % 256 == 0)
      #expect(try device.values(tensor) == [Float](repeating: 0, count: 15))
      // Other tests may take some at the same time.
      #expect(device.availableByteCount < free)
      let host = try device.makeHostBuffer(of: Int32.self, count: 7)
      #expect((0..<7).allSatisfy { host[$0] == 0 })
    }
    let empty = try device.makeBuffer(byteCount: 0)
    #expect(empty.byteCount == 0)
  }

  @Test("is older than the kernels: a GPU without what they need is refused")
  func oldGPU() {
    let error = #expect(throws: DeviceError.self) { try StandIn.device(ordinal: 2) }
    #expect(error?.code == .cudaUnavailable)
    #expect(
      error?.description
        == "cuda:2 (Stand-in 7.5) has compute capability 7.5, and the kernels need 8.0 or more; choose another GPU, or run on the CPU")
  }

  @Test("refuses machine code that is none, and a module without the kernel")
  func images() throws {
    let error = #expect(throws: DeviceError.self) {
      try CUDADevice(StandIn.context()) { (_) throws(DeviceError) in Array("PTX".utf8) + [0] }
    }
    #expect(error?.code == .cudaFailed)
    #expect(error?.description.contains("cuModuleLoadData failed with CUDA_ERROR_INVALID_IMAGE (200)") ?? false)
    #expect(error?.description.contains("remove them from their folder") ?? false)
    martlet_stand_in_fail("cuModuleGetFunction", 500)
    let missing = #expect(throws: DeviceError.self) { try StandIn.device() }
    #expect(missing?.description.contains("cuModuleGetFunction failed with CUDA_ERROR_NOT_FOUND (500)") ?? false)
  }
}

/// On cuda:1, which one test at a time has for itself.
@Suite("A GPU that fails", .serialized)
struct FailureTests {
  @Test("for want of memory tells how much was asked for and is there")
  func outOfMemory() throws {
    let device = try StandIn.device(ordinal: 1), free = device.availableByteCount
    let error = #expect(throws: DeviceError.self) { try device.makeBuffer(byteCount: 1 << 30) }
    #expect(error?.code == .outOfMemory && error?.requestedByteCount == 1 << 30 && error?.availableByteCount == free)
    martlet_stand_in_fail("cuMemAllocHost", 2)
    let pinned = #expect(throws: DeviceError.self) { try device.makeHostBuffer(of: Float.self, count: 100) }
    #expect(pinned?.code == .outOfMemory && pinned?.description.contains("400 bytes of pinned host memory") ?? false)
  }

  @Test("makes a queue that says so")
  func queue() throws {
    let device = try StandIn.device(ordinal: 1)
    martlet_stand_in_fail("cuStreamCreate", 2)
    let queue = device.makeQueue()
    let tensor = try device.tensor([1, 2, 3], Shape(3))
    queue.copy(tensor.prefix(1), to: tensor.rows(1..<2))
    let error = #expect(throws: DeviceError.self) { try queue.finish() }
    #expect(error?.description.contains("cuStreamCreate failed with CUDA_ERROR_OUT_OF_MEMORY (2)") ?? false)
    #expect(try device.values(tensor) == [1, 2, 3], "a queue that failed does nothing more")
  }

  @Test("in a call keeps its first failure and does nothing after it")
  func call() throws {
    let device = try StandIn.device(ordinal: 1), queue = device.makeQueue()
    let tensor = try device.tensor([1, 2, 3], Shape(1, 3))
    martlet_stand_in_fail("cuLaunchKernel", 1)
    device.tensorKernels.scale(tensor, by: 2, softCap: nil, on: queue)
    device.tensorKernels.scale(tensor, by: 2, softCap: nil, on: queue)
    for _ in 0..<2 {
      let error = #expect(throws: DeviceError.self) { try queue.finish() }
      #expect(error?.description.contains("cuLaunchKernel failed with CUDA_ERROR_INVALID_VALUE (1)") ?? false)
    }
    #expect(try device.values(tensor) == [1, 2, 3])
  }

  @Test("in a kernel is told when it is waited for, and the GPU is lost")
  func kernel() throws {
    let device = try StandIn.device(ordinal: 1), queue = device.makeQueue()
    // A tensor whose memory was given back before the kernel ran.
    let gone = Tensor(
      DeviceBuffer(address: try device.makeBuffer(byteCount: 64).address, byteCount: 64, hostAddress: nil) {}, shape: Shape(1, 16),
      dataType: .f32)
    device.tensorKernels.scale(gone, by: 2, softCap: nil, on: queue)
    let error = #expect(throws: DeviceError.self) { try queue.finish() }
    #expect(error?.code == .cudaFailed)
    #expect(
      error?.description.contains("cuStreamSynchronize failed with CUDA_ERROR_LAUNCH_FAILED (719") ?? false, "\(String(describing: error))")
    #expect(error?.description.contains("start it again") ?? false)
    #expect(throws: DeviceError.self) { try device.makeBuffer(byteCount: 4) }
  }

  @Test("ends a process that waits without looking, before it reads what is not there")
  func wait() async throws {
    let result = await #expect(processExitsWith: .failure, observing: [\.standardErrorContent]) {
      let device = try StandIn.device(), queue = device.makeQueue()
      let tensor = try device.tensor([1, 2, 3], Shape(1, 3))
      martlet_stand_in_fail("cuLaunchKernel", 1)
      device.tensorKernels.scale(tensor, by: 2, softCap: nil, on: queue)
      queue.wait()
    }
    let words = String(decoding: try #require(result).standardErrorContent, as: UTF8.self)
    #expect(words.contains("device cuda:0: cuLaunchKernel failed"), "\(words)")
  }

  @Test("for want of a kernel names what it has none for")
  func missingKernel() throws {
    let device = try StandIn.device(ordinal: 1), queue = device.makeQueue()
    let plan = try ExpertPlan(maxRows: 2, numExperts: 4, numUsed: 2, on: device)
    let values = try device.makeTensor(Shape(4, 8), .f32)
    device.tensorKernels.combineExperts(values, plan: plan, output: try device.makeTensor(Shape(2, 8), .f32), on: queue)
    let error = #expect(throws: DeviceError.self) { try queue.finish() }
    #expect(error?.code == .missingKernel)
    #expect(
      error?.description == "device cuda:1: the sum of experts (combineExperts) has no CUDA kernel yet; run this model on the CPU")
  }
}
