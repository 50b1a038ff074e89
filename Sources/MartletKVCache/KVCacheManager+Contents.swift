// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

public import MartletCore

/// What one layer stores of one sequence, in logical order, whatever its layout.
public struct KVContents: Sendable, Hashable {
  /// The cache positions that are held: those before were returned from behind a window.
  public let positions: Range<Int>
  /// Key/value heads.
  public let numKVHeads: Int
  /// Dims of a key head.
  public let headDim: Int
  /// Dims of a value head.
  public let valueHeadDim: Int
  /// `[positions.count][numKVHeads][headDim]`.
  public let keys: [Float]
  /// `[positions.count][numKVHeads][valueHeadDim]`.
  public let values: [Float]
}

extension KVCacheManager {
  /// Reads back what the layer stores of a sequence: for tests and tools, not for steps.
  ///
  /// int8 values come multiplied by their scales, e4m3 ones by `scales`, which only the layer knows.
  /// Waits for `queue`. The sequence's whole length is read, written or not.
  /// - Throws: `DeviceError` where the host memory for one page is not available.
  public func read(
    layer: Int, request id: Int, scales: KVScales = KVScales(), on queue: any DeviceQueue
  ) throws(DeviceError) -> KVContents {
    let layout = layers[layer].layout
    let pool = pools[poolOfLayer[layer]]
    let slot = slot(of: id)
    let first = min(pool.firstEntry[slot] * pageSize, lengths[slot])
    var keys: [Float] = []
    var values: [Float] = []
    let reader = try PageReader(layout, scales, pages: storage[layer], device: device, queue: queue)
    var position = first
    while position < lengths[slot] {
      let entry = position / pageSize
      reader.load(page: Int(pool.table[slot * pool.maxPagesPerSequence + entry]))
      while position < min(lengths[slot], (entry + 1) * pageSize) {
        let token = position % pageSize
        for head in 0..<layout.numKVHeads {
          for dim in 0..<layout.headDim { keys.append(reader.key(token, head, dim)) }
          for dim in 0..<layout.valueHeadDim { values.append(reader.value(token, head, dim)) }
        }
        position += 1
      }
    }
    return KVContents(
      positions: first..<lengths[slot], numKVHeads: layout.numKVHeads, headDim: layout.headDim, valueHeadDim: layout.valueHeadDim,
      keys: keys, values: values)
  }
}

/// One page in host memory, read as floats.
private struct PageReader {
  let layout: KVLayout
  let scales: KVScales
  let pages: Tensor
  let queue: any DeviceQueue
  let bytes: HostBuffer<UInt8>

  init(_ layout: KVLayout, _ scales: KVScales, pages: Tensor, device: any Device, queue: any DeviceQueue) throws(DeviceError) {
    self.layout = layout
    self.scales = scales
    self.pages = pages
    self.queue = queue
    bytes = try device.makeHostBuffer(of: UInt8.self, count: layout.pageByteCount)
  }

  func load(page: Int) {
    let row = pages.rows(page..<page + 1)
    queue.copy(Tensor(row.buffer, byteOffset: row.byteOffset, shape: Shape(row.byteCount), dataType: .i8), to: bytes)
    queue.wait()
  }

  func key(_ token: Int, _ head: Int, _ dim: Int) -> Float {
    element(layout.keys.offset(token: token, head: head, dim: dim), scales.key, layout.scales?.keysByteOffset, token, head)
  }

  func value(_ token: Int, _ head: Int, _ dim: Int) -> Float {
    element(
      layout.valuesByteOffset / layout.dataType.byteCount + layout.values.offset(token: token, head: head, dim: dim), scales.value,
      layout.scales?.valuesByteOffset, token, head)
  }

  private func element(_ index: Int, _ scale: Float, _ scalesByteOffset: Int?, _ token: Int, _ head: Int) -> Float {
    let page = UnsafeRawBufferPointer(bytes.unsafeStorage)
    func load<Element: BitwiseCopyable>(_ type: Element.Type) -> Element {
      page.loadUnaligned(fromByteOffset: index * layout.dataType.byteCount, as: type)
    }
    switch layout.dataType {
    case .f32: return load(Float.self)
    case .f16: return Float(halfBits: load(UInt16.self))
    case .bf16: return Float(BFloat16(bitPattern: load(UInt16.self)))
    case .f8e4m3: return Float(Float8E4M3(bitPattern: load(UInt8.self))) * scale
    case .i8:
      guard let scalesByteOffset, let scales = layout.scales else { fatalError("a layout of int8 without scales") }
      let offset = scalesByteOffset + 4 * scales.offset(token: token, head: head)
      return Float(load(Int8.self)) * page.loadUnaligned(fromByteOffset: offset, as: Float.self)
    case .i32: fatalError("keys and values are not stored as \(layout.dataType)")
    }
  }
}
