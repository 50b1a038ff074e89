// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

import MartletCore
import Testing

/// A layout and where its formula, written out from the documentation, puts an element.
private struct Case: CustomTestStringConvertible, Sendable {
  typealias Formula = @Sendable (_ token: Int, _ head: Int, _ dim: Int) -> Int
  var name: String
  var layout: KVLayout
  var keys: Formula
  var values: Formula

  var testDescription: String {
    "\(name) \(layout.dataType), \(layout.pageSize) tokens, \(layout.numKVHeads) heads, \(layout.headDim) and \(layout.valueHeadDim) dims"
  }

  /// (element type, tokens, heads, key dims, value dims)
  private static let sizes: [(DataType, Int, Int, Int, Int)] = [
    (.f32, 1, 1, 1, 1), (.bf16, 16, 3, 64, 64), (.f16, 32, 2, 64, 48), (.f32, 4, 5, 8, 6), (.bf16, 2, 1, 2, 7),
    (.f8e4m3, 16, 3, 64, 48), (.i8, 4, 2, 8, 6),
  ]

  static let all: [Case] =
    sizes.flatMap { dataType, pageSize, heads, dims, valueDims in
      let g = 4 / dataType.byteCount
      return [
        Case(
          name: "NHD",
          layout: .nhd(dataType: dataType, pageSize: pageSize, numKVHeads: heads, headDim: dims, valueHeadDim: valueDims),
          keys: { ($0 * heads + $1) * dims + $2 }, values: { ($0 * heads + $1) * valueDims + $2 }),
        Case(
          name: "HND",
          layout: .hnd(dataType: dataType, pageSize: pageSize, numKVHeads: heads, headDim: dims, valueHeadDim: valueDims),
          keys: { ($1 * pageSize + $0) * dims + $2 }, values: { ($1 * pageSize + $0) * valueDims + $2 }),
        Case(
          name: "packed",
          layout: .packed(dataType: dataType, pageSize: pageSize, numKVHeads: heads, headDim: dims, valueHeadDim: valueDims),
          keys: { (($1 * (dims / g) + $2 / g) * pageSize + $0) * g + $2 % g },
          values: { (($1 * (pageSize / g) + $0 / g) * valueDims + $2) * g + $0 % g }),
      ]
    }
}

@Suite struct `A key/value layout` {
  @Test(arguments: Case.all) private func `puts every element where its formula says, one to a place`(_ test: Case) {
    let layout = test.layout
    for (plane, formula, dims) in [(layout.keys, test.keys, layout.headDim), (layout.values, test.values, layout.valueHeadDim)] {
      var taken = [Bool](repeating: false, count: layout.pageSize * layout.numKVHeads * dims)
      for token in 0..<layout.pageSize {
        for head in 0..<layout.numKVHeads {
          for dim in 0..<dims {
            let offset = plane.offset(token: token, head: head, dim: dim)
            #expect(offset == formula(token, head, dim), "token \(token), head \(head), dim \(dim)")
            if taken.indices.contains(offset) {
              #expect(!taken[offset], "place \(offset) is taken")
              taken[offset] = true
            }
          }
        }
      }
      #expect(taken.allSatisfy { $0 }, "no place is left over")
    }
  }

  @Test(arguments: Case.all) private func `puts the values after the keys, then scales, and ends with the page`(_ test: Case) {
    let layout = test.layout, tokens = layout.pageSize * layout.numKVHeads
    #expect(layout.valuesByteOffset == tokens * layout.headDim * layout.dataType.byteCount)
    let elements = layout.valuesByteOffset + tokens * layout.valueHeadDim * layout.dataType.byteCount
    if let scales = layout.scales {
      #expect(layout.dataType == .i8 && scales.keysByteOffset >= elements && scales.keysByteOffset % 4 == 0)
      #expect(scales.valuesByteOffset == scales.keysByteOffset + 4 * tokens)
      #expect(layout.pageByteCount == scales.valuesByteOffset + 4 * tokens)
      let places = (0..<layout.numKVHeads).flatMap { head in (0..<layout.pageSize).map { scales.offset(token: $0, head: head) } }
      #expect(places.sorted() == Array(0..<tokens), "each token and head has a scale of its own")
    } else {
      #expect(layout.dataType != .i8 && layout.pageByteCount == elements)
    }
    #expect(test.name != "packed" || layout.isPacked)
  }

  @Test func `is packed only where elements are grouped as the dot product reads them`() {
    let packed = KVLayout.packed(dataType: .bf16, pageSize: 16, numKVHeads: 3, headDim: 64, valueHeadDim: 64)
    #expect(packed.isPacked)
    #expect(!KVLayout.nhd(dataType: .bf16, pageSize: 16, numKVHeads: 3, headDim: 64, valueHeadDim: 64).isPacked)
    #expect(!KVLayout.hnd(dataType: .bf16, pageSize: 16, numKVHeads: 3, headDim: 64, valueHeadDim: 64).isPacked)
  }

  @Test func `stops the program where a packed page cannot be grouped`() async {
    await #expect(processExitsWith: .failure) {
      _ = KVLayout.packed(dataType: .bf16, pageSize: 16, numKVHeads: 1, headDim: 63, valueHeadDim: 64)
    }
    await #expect(processExitsWith: .failure) {
      _ = KVLayout.packed(dataType: .f16, pageSize: 15, numKVHeads: 1, headDim: 64, valueHeadDim: 64)
    }
  }
}
