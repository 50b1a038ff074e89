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
  /// Waits for `queue`. The sequence's whole length is read, written or not.
  /// - Throws: `DeviceError` where the host memory for one page is not to be had.
  public func read(layer: Int, request id: Int, on queue: any DeviceQueue) throws -> KVContents {
    let layout = layers[layer].layout
    let pool = pools[poolOfLayer[layer]]
    let slot = slot(of: id)
    let first = min(pool.firstEntry[slot] * pageSize, lengths[slot])
    var keys: [Float] = []
    var values: [Float] = []
    let reader = try PageReader(layout, pages: storage[layer], device: device, queue: queue)
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
  let pages: Tensor
  let queue: any DeviceQueue
  /// The page's elements: 32-bit ones and 16-bit ones have a buffer each, of which one is used.
  let wide: HostBuffer<Float>
  let narrow: HostBuffer<UInt16>

  init(_ layout: KVLayout, pages: Tensor, device: any Device, queue: any DeviceQueue) throws {
    self.layout = layout
    self.pages = pages
    self.queue = queue
    let elements = layout.pageByteCount / layout.dataType.byteCount
    wide = try device.makeHostBuffer(of: Float.self, count: layout.dataType == .f32 ? elements : 1)
    narrow = try device.makeHostBuffer(of: UInt16.self, count: layout.dataType == .f32 ? 1 : elements)
  }

  func load(page: Int) {
    let tensor = pages.rows(page..<page + 1)
    if layout.dataType == .f32 { queue.copy(tensor, to: wide) } else { queue.copy(tensor, to: narrow) }
    queue.wait()
  }

  func key(_ token: Int, _ head: Int, _ dim: Int) -> Float { element(layout.keys.offset(token: token, head: head, dim: dim)) }

  func value(_ token: Int, _ head: Int, _ dim: Int) -> Float {
    element(layout.valuesByteOffset / layout.dataType.byteCount + layout.values.offset(token: token, head: head, dim: dim))
  }

  private func element(_ index: Int) -> Float {
    switch layout.dataType {
    case .f32: wide[index]
    case .f16: Float(halfBits: narrow[index])
    case .bf16: Float(BFloat16(bitPattern: narrow[index]))
    case .f8e4m3, .i8, .i32: preconditionFailure("keys and values are not stored as \(layout.dataType)")
    }
  }
}
