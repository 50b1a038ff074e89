// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

import MartletCore

/// The pages of a step that has no cache: float32, filled by one layer after the other, forgotten after the step.
///
/// They let a step without a cache run through the same kernels, and so the same arithmetic, as one with a cache. A request's pages follow
/// each other.
struct StepPages {
  /// Each layer's layout, by its position in the setup.
  private let layouts: [KVLayout]
  private let pageCount: Int
  /// The width of the page table where a graph has fixed it.
  private let fixedWidth: Int?
  /// Every layer's pages in turn, as wide as the widest.
  private let storage: Tensor
  private let table: StepTable
  private var tableView: Tensor

  /// Allocates for the greatest step.
  init(_ layouts: [KVLayout], _ setup: AttentionMetadata.Setup) throws {
    let pageSize = layouts.first?.pageSize ?? 1
    enforce(layouts.allSatisfy { $0.pageSize == pageSize && $0.dataType == .f32 }, "a step's own pages are of one size, in f32")
    let device = setup.context.device
    self.layouts = layouts
    // Each request can leave its last page unfilled.
    pageCount = (setup.maxNumKVTokens + setup.maxNumRequests * (pageSize - 1)) / pageSize
    storage = try device.makeTensor(Shape(pageCount * (layouts.map(\.pageByteCount).max() ?? 0) / 4), .f32)
    let width = (min(setup.context.maxSequenceLength, setup.maxNumKVTokens) + pageSize - 1) / pageSize
    fixedWidth = setup.isCUDAGraph ? width : nil
    table = try StepTable(count: setup.maxNumRequests * width, on: device)
    tableView = table.device.prefix(0).reshaped(Shape(0, 1))
  }

  /// Deals the pages out to the step's requests.
  mutating func deal(kvLens: HostBuffer<Int32>, numRequests: Int, on queue: any DeviceQueue) {
    let pageSize = layouts.first?.pageSize ?? 1
    var width = 1
    for request in 0..<numRequests { width = max(width, (Int(kvLens[request]) + pageSize - 1) / pageSize) }
    if let fixedWidth { width = fixedWidth }
    var page: Int32 = 0
    for request in 0..<numRequests {
      let used = (Int(kvLens[request]) + pageSize - 1) / pageSize
      for entry in 0..<width {
        table.host[request * width + entry] = entry < used ? page : -1
        if entry < used { page += 1 }
      }
    }
    tableView = table.upload(numRequests * width, on: queue).reshaped(Shape(numRequests, width))
  }

  /// The pages as the layer at this position sees them, until the next layer writes its own.
  func cache(ofLayerAt position: Int) -> PagedKV {
    let layout = layouts[position]
    let elements = layout.pageByteCount / 4
    return PagedKV(
      layout: layout, pages: storage.prefix(pageCount * elements).reshaped(Shape(pageCount, elements)), pageTable: tableView)
  }
}
