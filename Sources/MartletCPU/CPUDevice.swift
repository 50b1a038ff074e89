// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

import CMartletKernels
import CMartletLibc
public import MartletCore

/// The processor as a device: memory is the process's own, kernels run at once on the threads of one ``WorkerPool``.
///
/// The instruction set is chosen when the device is made and never again; two devices with different ones can live side by side.
public final class CPUDevice: Device {
  public let instructionSet: InstructionSet
  package let pool: WorkerPool
  private let codedInputs = CPUCodedInputs()
  private let secondCacheByteCount: Int
  private let weightMemory: CPUWeightMemory

  /// Every variant in this program, best first, those that this machine cannot run included.
  public static var instructionSets: [InstructionSet] { InstructionSet.all }

  /// - Parameters:
  ///   - instructionSet: the name of one of ``instructionSets``; nil takes the best that this machine runs.
  ///   - threads: how many threads compute, the caller's included; nil takes ``CPULimits/processorCount``.
  ///   - placement: where the threads run. Where that is by node, each node's memory holds the weights that its threads read: a share of every matrix's rows.
  /// - Throws: ``DeviceError/Code/unknownInstructionSet`` for a name that does not exist or that this machine cannot run,
  ///   ``DeviceError/Code/invalidThreadCount`` for a number outside 1…4096, ``DeviceError/Code/threadsUnavailable`` where the system refuses a thread,
  ///   ``DeviceError/Code/placementUnavailable`` where it refuses a thread its place, ``DeviceError/Code/outOfMemory`` for the threads' scratch.
  public convenience init(
    instructionSet name: String? = nil, threads: Int? = nil, placement: WorkerPlacement = .automatic
  ) throws(DeviceError) {
    try self.init(instructionSet: name, threads: threads, placement: placement, observer: nil)
  }

  /// The same, with an observer of its worker pool.
  package init(
    instructionSet name: String? = nil, threads: Int? = nil, placement: WorkerPlacement = .automatic, observer: (any WorkerPoolObserver)?
  ) throws(DeviceError) {
    let runnable = InstructionSet.all.filter(\.isSupported)
    let chosen = name.map { name in runnable.first { $0.name == name } } ?? runnable.first(where: \.isChosenByItself)
    guard let chosen else {
      throw .unknownInstructionSet(name: name ?? "", available: runnable.filter(\.isChosenByItself).map(\.name))
    }
    instructionSet = chosen
    let limits = CPULimits()
    pool = try WorkerPool(threadCount: threads ?? limits.processorCount, placement: placement, observer: observer)
    weightMemory = CPUWeightMemory(nodeCount: pool.homes?.nodes.count ?? 1)
    secondCacheByteCount = limits.secondCacheByteCount
  }

  public var name: String { "cpu" }
  public var summary: String {
    "\(instructionSet.name) (\(instructionSet.description)), \(pool.threadCount) thread\(pool.threadCount == 1 ? "" : "s")"
      + (pool.homes.map { " on nodes \($0.nodes.map { String($0.number) }.joined(separator: ", "))" } ?? "")
  }
  public var availableByteCount: Int { CPULimits().availableByteCount }
  public var workerCount: Int { pool.threadCount }

  public var tensorKernels: any TensorKernels {
    CPUTensorKernels(instructionSet: instructionSet, pool: pool, codedInputs: codedInputs, secondCacheByteCount: secondCacheByteCount)
  }
  public var attentionKernels: any AttentionKernels { CPUAttentionKernels(instructionSet: instructionSet, pool: pool) }

  public func makeBuffer(byteCount: Int) throws(DeviceError) -> DeviceBuffer {
    let memory = try CPUMemory.allocate(byteCount: byteCount)
    let start = memory.baseAddress
    return DeviceBuffer(address: UInt(bitPattern: start), byteCount: byteCount, hostAddress: start) { memory.free() }
  }

  public func makeHostBuffer<Element>(of type: Element.Type, count: Int) throws(DeviceError) -> HostBuffer<Element> {
    let memory = try CPUMemory.allocate(byteCount: count * MemoryLayout<Element>.stride)
    let start = memory.baseAddress.bindMemory(to: Element.self, capacity: count)
    return HostBuffer(adopting: UnsafeMutableBufferPointer(start: start, count: count)) { memory.free() }
  }

  public func makeQueue() -> any DeviceQueue { CPUQueue() }

  /// Tiles multiply bfloat16; bytes every instruction set multiplies.
  public var activations: [Activations] {
    instructionSet.table.pointee.product.rows_of_a_digit_tile > 0 ? [.exact, .bf16, .int8] : [.exact, .int8]
  }

  public func prepare(_ parts: [Weight], activations: Activations) throws(DeviceError) -> any PreparedWeight {
    guard self.activations.contains(activations) else {
      throw .unsupportedActivations(device: name, requested: activations, available: self.activations)
    }
    let weight = try CPUPreparedWeight(
      parts, activations: activations, in: weightMemory, instructionSet: instructionSet, pool: pool)
    if weight.readsCodedInputs {
      let coding = InputCoding.largest(for: activations, instructionSet)
      codedInputs.expect(slabBytesOfRow: weight.slabCount * coding.slabByteCount)
    }
    return weight
  }

  public func populate(_ tensor: Tensor) {
    guard let start = tensor.buffer.hostAddress else { fatalError("a tensor at \(tensor.address) of another device was given to the CPU") }
    CPUMemory.populate(start + tensor.byteOffset, byteCount: tensor.byteCount, on: pool)
  }

  public func reserve(productRows: Int) throws(DeviceError) { try codedInputs.reserve(rows: productRows, on: pool) }

  public func preparedByteCount(_ format: WeightFormat, rows: Int, columns: Int) -> Int {
    CPUPreparedWeight.byteCount(format, rows: rows, columns: columns)
  }

  /// An outside backend finds the ``WorkerPool`` and the ``InstructionSet`` here.
  public func service<Service>(_ type: Service.Type) -> Service? {
    if let pool = pool as? Service { return pool }
    return instructionSet as? Service
  }
}

/// The CPU's queue: every call has finished when it returns, so that order is the order of calls and there is nothing to wait for.
public final class CPUQueue: DeviceQueue {
  public init() {}

  public func copy<Element>(_ source: HostBuffer<Element>, count: Int, to destination: Tensor) {
    enforce(count >= 0 && count <= source.count, "a copy of \(count) elements from a host buffer of \(source.count)")
    let target = destination.unsafeCPUPointer(Element.self)
    enforce(count <= target.count, "a copy of \(count) elements to a tensor of \(target.count)")
    guard count > 0 else { return }
    target.baseAddress!.update(from: source.unsafeStorage.baseAddress!, count: count)
  }

  public func copy<Element>(_ source: Tensor, to destination: HostBuffer<Element>) {
    let elements = source.unsafeCPUPointer(Element.self)
    enforce(
      elements.count <= destination.count, "a copy of \(elements.count) elements to a host buffer of \(destination.count)")
    guard elements.count > 0 else { return }
    destination.unsafeStorage.baseAddress!.update(from: elements.baseAddress!, count: elements.count)
  }

  public func copy(_ source: Tensor, to destination: Tensor) {
    enforce(source.dataType == destination.dataType, "a copy of \(source.dataType) elements to a tensor of \(destination.dataType)")
    enforce(source.count <= destination.count, "a copy of \(source.count) elements to a tensor of \(destination.count)")
    guard let from = source.buffer.hostAddress, let to = destination.buffer.hostAddress else {
      fatalError("a copy between \(source.address) and \(destination.address), of which the CPU cannot reach both")
    }
    let distance = (from + source.byteOffset) - (to + destination.byteOffset)
    enforce(abs(distance) >= source.byteCount, "a copy of \(source.byteCount) bytes to a place \(abs(distance)) bytes from them")
    memcpy(to + destination.byteOffset, from + source.byteOffset, source.byteCount)
  }

  public func wait() {}
}

extension Tensor {
  /// The elements as this process sees them.
  /// - Precondition: `Element` is as wide as the tensor's type, and the tensor is one of the CPU's.
  func unsafeCPUPointer<Element: BitwiseCopyable>(_ type: Element.Type) -> UnsafeMutableBufferPointer<Element> {
    guard let pointer = unsafeHostPointer(to: type) else {
      fatalError("a tensor at \(address) of another device was given to the CPU")
    }
    return pointer
  }
}
