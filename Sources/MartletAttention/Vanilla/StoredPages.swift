// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

import MartletCore

/// The keys or the values of a layout, with each dim's offset worked out once.
struct StoredPlane {
  let plane: KVLayout.Plane
  /// Bytes from the start of a page.
  let byteOffset: Int
  /// Bytes from the start of a page to the scales of int8 elements; 0 where there are none.
  let scalesByteOffset: Int
  /// What e4m3 elements were divided by.
  let scale: Float
  /// Elements from a head's first dim to each.
  let dimOffsets: [Int]

  init(keysOf layout: KVLayout, _ scales: KVScales) {
    plane = layout.keys
    byteOffset = 0
    scalesByteOffset = layout.scales?.keysByteOffset ?? 0
    scale = scales.key
    dimOffsets = (0..<layout.headDim).map { layout.keys.offset(token: 0, head: 0, dim: $0) }
  }

  init(valuesOf layout: KVLayout, _ scales: KVScales) {
    plane = layout.values
    byteOffset = layout.valuesByteOffset
    scalesByteOffset = layout.scales?.valuesByteOffset ?? 0
    scale = scales.value
    dimOffsets = (0..<layout.valueHeadDim).map { layout.values.offset(token: 0, head: 0, dim: $0) }
  }
}

/// Both planes of a layout.
struct StoredPlanes {
  let layout: KVLayout
  let keys: StoredPlane
  let values: StoredPlane

  init(_ layout: KVLayout, _ scales: KVScales) {
    self.layout = layout
    keys = StoredPlane(keysOf: layout, scales)
    values = StoredPlane(valuesOf: layout, scales)
  }
}

/// One request's pages in host memory, addressed by cache position: any layout, any page size.
struct StoredPages {
  let planes: StoredPlanes
  private let layout: KVLayout
  private let base: UnsafeMutableRawPointer
  private let table: UnsafeMutableBufferPointer<Int32>

  init(_ cache: PagedKV, _ planes: StoredPlanes, sequence: Int) {
    guard let base = cache.pages.buffer.hostAddress, let table = cache.pageTable.unsafeHostPointer(to: Int32.self) else {
      fatalError("the host cannot reach the key/value cache")
    }
    let width = cache.pageTable.shape[1]
    self.planes = planes
    layout = cache.layout
    self.base = base + cache.pages.byteOffset
    self.table = UnsafeMutableBufferPointer(rebasing: table[sequence * width..<(sequence + 1) * width])
  }

  /// Whether the page of a cache position is there: not if it went back behind a window.
  func hasPage(of position: Int) -> Bool { table[position / layout.pageSize] >= 0 }

  /// Rounds or quantises one head to the cache's type, to nearest even, and stores it.
  func store(_ source: UnsafePointer<Float>, _ plane: StoredPlane, position: Int, head: Int) {
    switch layout.dataType {
    case .f32: store(source, plane, position, head) { (x: Float) in x }
    case .f16: store(source, plane, position, head) { (x: Float) in x.halfBits }
    case .bf16: store(source, plane, position, head) { (x: Float) in BFloat16(x).bitPattern }
    case .f8e4m3:
      let inverse = 1 / plane.scale
      store(source, plane, position, head) { (x: Float) in Float8E4M3(saturating: x * inverse).bitPattern }
    case .i8:
      let block = Int8Block(source, count: plane.dimOffsets.count)
      scale(plane, position, head).pointee = block.scale
      store(source, plane, position, head, block.code)
    case .i32: fatalError("keys and values are not stored as \(layout.dataType)")
    }
  }

  /// Reads one head as stored into every `stride`th element of `destination`.
  func load(_ plane: StoredPlane, position: Int, head: Int, to destination: UnsafeMutablePointer<Float>, stride: Int) {
    switch layout.dataType {
    case .f32: load(plane, position, head, destination, stride) { (x: Float) in x }
    case .f16: load(plane, position, head, destination, stride) { (x: UInt16) in Float(halfBits: x) }
    case .bf16: load(plane, position, head, destination, stride) { (x: UInt16) in Float(BFloat16(bitPattern: x)) }
    case .f8e4m3: load(plane, position, head, destination, stride) { (x: UInt8) in Float(Float8E4M3(bitPattern: x)) * plane.scale }
    case .i8:
      let scale = scale(plane, position, head).pointee
      load(plane, position, head, destination, stride) { (x: Int8) in Float(x) * scale }
    case .i32: fatalError("keys and values are not stored as \(layout.dataType)")
    }
  }

  @inline(__always)
  private func store<Element>(
    _ source: UnsafePointer<Float>, _ plane: StoredPlane, _ position: Int, _ head: Int, _ encode: (Float) -> Element
  ) {
    let elements = address(plane, position, head).assumingMemoryBound(to: Element.self)
    for dim in plane.dimOffsets.indices { elements[plane.dimOffsets[dim]] = encode(source[dim]) }
  }

  @inline(__always)
  private func load<Element>(
    _ plane: StoredPlane, _ position: Int, _ head: Int, _ destination: UnsafeMutablePointer<Float>, _ stride: Int,
    _ decode: (Element) -> Float
  ) {
    let elements = address(plane, position, head).assumingMemoryBound(to: Element.self)
    for dim in plane.dimOffsets.indices { destination[dim * stride] = decode(elements[plane.dimOffsets[dim]]) }
  }

  /// Where the head of the token at a cache position begins.
  private func address(_ plane: StoredPlane, _ position: Int, _ head: Int) -> UnsafeMutableRawPointer {
    let element = plane.plane.offset(token: position % layout.pageSize, head: head, dim: 0)
    return page(position) + plane.byteOffset + element * layout.dataType.byteCount
  }

  /// Where the int8 scale of a token's head lies.
  private func scale(_ plane: StoredPlane, _ position: Int, _ head: Int) -> UnsafeMutablePointer<Float> {
    guard let scales = layout.scales else { fatalError("a layout of \(layout.dataType) without scales") }
    return (page(position) + plane.scalesByteOffset).assumingMemoryBound(to: Float.self)
      + scales.offset(token: position % layout.pageSize, head: head)
  }

  private func page(_ position: Int) -> UnsafeMutableRawPointer {
    let page = Int(table[position / layout.pageSize])
    enforce(page >= 0, "cache position \(position) was returned from behind a window, and a query asks for it")
    return base + page * layout.pageByteCount
  }
}
