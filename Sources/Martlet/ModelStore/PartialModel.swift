// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

// What an unfinished pull leaves for the next one: the beginning of the model's file, up to the end of a part, and a record of these parts.
//
// The rule: a part is recorded only once it is in the file and on the disk. So whatever lies behind the last recorded part is the half of
// one whose pull died, and is cut off; and a recorded part that no longer hashes to what was recorded ends what can be kept.

import Foundation

/// A model's file that is growing part by part. Its owner holds the store's lock.
struct PartialModel {
  /// The growing file.
  let path: String
  private let model: KnownModel
  private let recordPath: String
  private(set) var parts: [RecordedPart] = []

  /// A part as it lies in the file.
  struct RecordedPart: Codable {
    var package: String
    var version: String
    var file: String
    var byteCount: Int
    var sha256: String

    init(_ part: KnownModel.Part, byteCount: Int, sha256: String) {
      (package, version, file) = (part.package, part.version, part.file)
      self.byteCount = byteCount
      self.sha256 = sha256
    }
  }

  private struct Record: Codable {
    /// Of the whole model, so that parts of another file of the same name are not taken for this one's.
    var sha256: String
    var parts: [RecordedPart]
  }

  /// Reads what is recorded; nothing is hashed or changed.
  init(of model: KnownModel, in folder: String) {
    self.model = model
    path = folder + "/" + model.name + ".gguf"
    recordPath = folder + "/" + model.name + ".json"
    guard let data = FileManager.default.contents(atPath: recordPath), let record = try? JSONDecoder().decode(Record.self, from: data),
      record.sha256 == model.sha256, let fileByteCount = ModelStore.byteCount(ofFile: path)
    else { return }
    let limit = min(fileByteCount, model.byteCount)
    for (recorded, part) in zip(record.parts, model.parts) {
      guard (recorded.package, recorded.version, recorded.file) == (part.package, part.version, part.file),
        recorded.byteCount > 0, recorded.byteCount <= limit - byteCount
      else { break }
      parts.append(recorded)
    }
  }

  /// Of the recorded parts.
  var byteCount: Int { parts.reduce(0) { $0 + $1.byteCount } }

  /// Makes the file as long as its first `count` parts, and forgets the others.
  mutating func keepParts(_ count: Int) throws {
    parts.removeLast(max(0, parts.count - count))
    try writeRecord()
    if !FileManager.default.fileExists(atPath: path) { try Data().write(to: URL(fileURLWithPath: path)) }
    let file = try FileHandle(forWritingTo: URL(fileURLWithPath: path))
    try file.truncate(atOffset: UInt64(byteCount))
    try file.close()
  }

  /// Notes that the next part is in the file and on the disk.
  mutating func record(_ part: RecordedPart) throws {
    parts.append(part)
    try writeRecord()
  }

  /// Removes file and record, and their folder when it is empty.
  func remove() {
    for path in [path, recordPath] { try? FileManager.default.removeItem(atPath: path) }
    rmdir((path as NSString).deletingLastPathComponent)
  }

  /// The record before or the record after, never half of one: it is written beside the old one and renamed.
  private func writeRecord() throws {
    try JSONEncoder().encode(Record(sha256: model.sha256, parts: parts)).write(to: URL(fileURLWithPath: recordPath), options: .atomic)
  }
}
