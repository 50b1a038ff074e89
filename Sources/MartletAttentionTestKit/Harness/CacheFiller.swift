// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

import MartletCore
import MartletKVCache

/// Writes keys and values into pages from outside, element by element as the layout says: so a long prefix costs no attention, and a layout
/// is read by a backend that did not write it.
struct CacheFiller {
  let manager: KVCacheManager
  let device: any Device
  let queue: any DeviceQueue

  /// Writes the first `count` positions of a sequence, which has pages for them.
  /// - Parameters:
  ///   - keys: `[position][head][dim]`, as the cache gives them back.
  ///   - values: the same.
  /// - Precondition: the layer's type is not int8, whose scales are made from what is stored.
  func fill(layer: Int, _ id: Int, count: Int, keys: [Double], values: [Double], scales: KVScales) throws {
    let layout = manager.layout(layer: layer)
    enforce(layout.dataType != .i8, "int8 pages are filled by a backend")
    let table = try device.makeHostBuffer(of: Int32.self, count: manager.maxPagesPerSequence)
    manager.writePageTable(id, length: count, pool: manager.pool(ofLayer: layer), into: table.unsafeStorage)
    let image = try device.makeHostBuffer(of: UInt8.self, count: layout.pageByteCount)
    let pages = manager.pages(layer: layer)
    let raw = Tensor(
      pages.buffer, byteOffset: pages.byteOffset, shape: Shape(pages.shape[0], layout.pageByteCount), dataType: .i8)
    for entry in 0..<(count + layout.pageSize - 1) / layout.pageSize where table[entry] >= 0 {
      // What lies behind the last token of a page is zero, as the contract of append says.
      image.unsafeStorage.update(repeating: 0)
      for position in entry * layout.pageSize..<min(count, (entry + 1) * layout.pageSize) {
        let token = position % layout.pageSize
        for head in 0..<layout.numKVHeads {
          let row = position * layout.numKVHeads + head
          for dim in 0..<layout.headDim {
            write(
              keys[row * layout.headDim + dim], scales.key, layout.dataType, to: image, byte: 0,
              layout.keys.offset(token: token, head: head, dim: dim))
          }
          for dim in 0..<layout.valueHeadDim where !layout.valuesAreKeys {
            write(
              values[row * layout.valueHeadDim + dim], scales.value, layout.dataType, to: image, byte: layout.valuesByteOffset,
              layout.values.offset(token: token, head: head, dim: dim))
          }
        }
      }
      let page = Int(table[entry])
      queue.copy(image, count: layout.pageByteCount, to: raw.rows(page..<page + 1))
    }
    queue.wait()
  }

  /// The values are the type's own, so nothing is rounded here.
  private func write(_ value: Double, _ scale: Float, _ type: DataType, to image: HostBuffer<UInt8>, byte: Int, _ element: Int) {
    let start = image.unsafeStorage.baseAddress! + byte + element * type.byteCount
    let target = UnsafeMutableRawPointer(start)
    switch type {
    case .f32: target.storeBytes(of: Float(value), as: Float.self)
    case .f16: target.storeBytes(of: Float(value).halfBits, as: UInt16.self)
    case .bf16: target.storeBytes(of: BFloat16(Float(value)).bitPattern, as: UInt16.self)
    case .f8e4m3: target.storeBytes(of: Float8E4M3(saturating: Float(value / Double(scale))).bitPattern, as: UInt8.self)
    case .i8, .i32: fatalError("pages of \(type)")
    }
  }
}
