// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

import Foundation
import MartletCore
import MartletFormats
import MartletTestSupport
import Testing

#if os(Linux)
@Suite struct ReleasedPageTests {
  private static let rows = 512, columns = 4096, rowBytes = 4 * columns

  private func write(to path: TemporaryPath) throws -> [UInt8] {
    var random = SeededGenerator(seed: 4)
    let words = (0..<Self.rows * Self.columns / 2).map { _ in UInt64.random(in: .min ... .max, using: &random) }
    let values = words.withUnsafeBytes { [UInt8]($0) }
    var writer = GGUFWriter()
    writer.add("general.architecture", .string("none"))
    writer.addTensor("weight", type: GGUFTensorType(.f32), shape: [Self.rows, Self.columns], bytes: values)
    try writer.write(toPath: path.string)
    return values
  }

  @Test func `rows that are named leave memory, the others stay, and all can be read again`() throws {
    let path = try TemporaryPath(), values = try write(to: path)
    let weight = try GGUFFile(path: path.string).weight("weight")
    let address = try #require(weight.bytes.baseAddress), byteCount = values.count
    #expect(weight.bytes.elementsEqual(values))
    #expect(try residentByteCount(ofFileMapAt: address) >= byteCount)
    // 2 MiB from the middle. Where the system maps files by pages of 2 MiB it takes out the whole of the two in which they begin and end.
    weight.releasePages(ofRows: 100..<228)
    let resident = try residentByteCount(ofFileMapAt: address), left = byteCount - 128 * Self.rowBytes
    #expect(resident >= left - (2 << 20) && resident <= left + (1 << 17), "\(resident) bytes, \(left) of them of rows that were not named")
    weight.releasePages(ofRows: 0..<Self.rows)
    #expect(try residentByteCount(ofFileMapAt: address) <= 1 << 17)
    #expect(weight.bytes.elementsEqual(values))
  }

  @Test func `a file in memory has nothing to be read again from, and keeps its bytes`() throws {
    let path = try TemporaryPath(), values = try write(to: path)
    let weight = try GGUFFile(bytes: [UInt8](Data(contentsOf: URL(fileURLWithPath: path.string)))).weight("weight")
    weight.releasePages(ofRows: 0..<Self.rows)
    #expect(weight.bytes.elementsEqual(values))
  }
}
#endif
