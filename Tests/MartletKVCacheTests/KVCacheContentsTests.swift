// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

// What is stored in any layout reads back in logical order.

import MartletCPU
import MartletCore
import MartletKVCache
import Testing

/// Where elements lie, spelled out again without `KVLayout`'s strides.
enum LayoutKind: CaseIterable {
  case nhd, hnd, packed

  func layout(_ type: DataType, _ page: Int, _ heads: Int, _ dim: Int, _ valueDim: Int) -> KVLayout {
    switch self {
    case .nhd: .nhd(dataType: type, pageSize: page, numKVHeads: heads, headDim: dim, valueHeadDim: valueDim)
    case .hnd: .hnd(dataType: type, pageSize: page, numKVHeads: heads, headDim: dim, valueHeadDim: valueDim)
    case .packed: .packed(dataType: type, pageSize: page, numKVHeads: heads, headDim: dim, valueHeadDim: valueDim)
    }
  }

  func key(_ t: Int, _ h: Int, _ d: Int, page: Int, heads: Int, dims: Int, group g: Int) -> Int {
    switch self {
    case .nhd: (t * heads + h) * dims + d
    case .hnd: (h * page + t) * dims + d
    case .packed: h * page * dims + d / g * page * g + t * g + d % g
    }
  }

  func value(_ t: Int, _ h: Int, _ d: Int, page: Int, heads: Int, dims: Int, group g: Int) -> Int {
    switch self {
    case .nhd, .hnd: key(t, h, d, page: page, heads: heads, dims: dims, group: g)
    case .packed: h * page * dims + t / g * dims * g + d * g + t % g
    }
  }
}

@Suite("What the key/value cache stores")
struct KVCacheContentsTests {
  @Test(
    "reads back in logical order from every layout and type", arguments: LayoutKind.allCases, [DataType.f32, .f16, .bf16, .f8e4m3, .i8])
  func roundTrip(kind: LayoutKind, type: DataType) throws {
    let (page, heads, dim, valueDim) = (8, 3, 16, 12)
    let device = try CPUDevice(threads: 1)
    let manager = try KVCacheManager(
      layers: [KVLayerSpec(layout: kind.layout(type, page, heads, dim, valueDim), window: 12)],
      config: KVCacheConfig(pageSize: .tokens(page)), maxSequenceLength: 64, maxSequences: 2, on: device)
    #expect(manager.addSequence(1) && manager.addSequence(2))
    #expect(manager.extend(2, to: 20) && manager.extend(1, to: 29))
    // Small integers are exact in every type; e4m3 has them up to 16.
    func element(_ position: Int, _ head: Int, _ dim: Int, isKey: Bool) -> Float {
      Float((position * 5 + head * 3 + dim + (isKey ? 0 : 7)) % (type == .f8e4m3 ? 17 : 97))
    }
    // int8 has a scale for each token and head, e4m3 one for keys and one for values.
    let scales = type == .f8e4m3 ? KVScales(key: 0.5, value: 4) : KVScales()
    func scale(_ position: Int, _ head: Int, isKey: Bool) -> Float {
      if type == .i8 { return Float(position % 5 + head + (isKey ? 1 : 3)) / 4 }
      return isKey ? scales.key : scales.value
    }
    func stored(_ position: Int, _ head: Int, _ dim: Int, isKey: Bool) -> Float {
      element(position, head, dim, isKey: isKey) * scale(position, head, isKey: isKey)
    }
    let table = withUnsafeTemporaryAllocation(of: Int32.self, capacity: 8) { row in
      manager.writePageTable(1, length: 29, pool: 0, into: row)
      return Array(row)
    }
    let pageElements = manager.layout(layer: 0).pageByteCount / type.byteCount
    let g = 4 / type.byteCount
    func write(_ element: Int, _ value: Float) {
      switch type {
      case .f32: manager.pages(layer: 0).unsafeHostPointer(to: Float.self)![element] = value
      case .f16: manager.pages(layer: 0).unsafeHostPointer(to: UInt16.self)![element] = value.halfBits
      case .bf16: manager.pages(layer: 0).unsafeHostPointer(to: UInt16.self)![element] = BFloat16(value).bitPattern
      case .f8e4m3: manager.pages(layer: 0).unsafeHostPointer(to: UInt8.self)![element] = Float8E4M3(saturating: value).bitPattern
      case .i8: manager.pages(layer: 0).unsafeHostPointer(to: Int8.self)![element] = Int8(value)
      case .i32: Issue.record("no cache of i32")
      }
    }
    // Behind the elements, [head][token], first the keys'.
    func writeScale(_ start: Int, _ token: Int, _ head: Int, isKey: Bool, _ value: Float) {
      let bytes = UnsafeMutableRawBufferPointer(manager.pages(layer: 0).unsafeHostPointer(to: Int8.self)!)
      let index = (isKey ? 0 : heads * page) + head * page + token
      bytes.storeBytes(of: value, toByteOffset: start + page * heads * (dim + valueDim) + 4 * index, as: Float.self)
    }
    for position in 0..<29 {
      let start = Int(table[position / page]) * pageElements
      let token = position % page
      for head in 0..<heads {
        if type == .i8 {
          for isKey in [true, false] { writeScale(start, token, head, isKey: isKey, scale(position, head, isKey: isKey)) }
        }
        for d in 0..<dim {
          write(start + kind.key(token, head, d, page: page, heads: heads, dims: dim, group: g), element(position, head, d, isKey: true))
        }
        for d in 0..<valueDim {
          write(
            start + page * heads * dim + kind.value(token, head, d, page: page, heads: heads, dims: valueDim, group: g),
            element(position, head, d, isKey: false))
        }
      }
    }
    manager.computed(1, upTo: 29)
    let contents = try manager.read(layer: 0, request: 1, scales: scales, on: device.makeQueue())
    // Position 29 sees keys from 18 on, so pages 0 and 1 went back.
    #expect(contents.positions == 16..<29)
    var expectedKeys: [Float] = []
    var expectedValues: [Float] = []
    for position in 16..<29 {
      for head in 0..<heads {
        for d in 0..<dim { expectedKeys.append(stored(position, head, d, isKey: true)) }
        for d in 0..<valueDim { expectedValues.append(stored(position, head, d, isKey: false)) }
      }
    }
    #expect(contents.keys == expectedKeys)
    #expect(contents.values == expectedValues)
  }
}
