// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

import Foundation

/// What a line beginning with a slash asks of the program, not of the model.
enum ChatCommand: String, CaseIterable {
  case `continue`, retry, set, system, clear, reset, save, load, help, exit

  private var usage: (command: String, effect: String, text: Text) {
    switch self {
    case .continue: ("/continue", "goes on with an answer that was cut or stopped", .none)
    case .retry: ("/retry", "drops the last answer and asks for another, or asks a loaded question that has none", .none)
    case .set:
      ("/set NAME VALUE", "changes a setting, such as temperature 0.8, or a variable of the template; alone it lists them", .optional)
    case .system: ("/system TEXT", "sets the system message; with no text there is none", .optional)
    case .clear: ("/clear", "forgets the conversation, but for the system message", .none)
    case .reset: ("/reset", "the same", .none)
    case .save: ("/save FILE", "writes the messages to a file, as a JSON array", .needed)
    case .load: ("/load FILE", "goes on with the messages of such a file", .needed)
    case .help: ("/help", "lists the commands", .none)
    case .exit: ("/exit", "ends the chat", .none)
    }
  }

  private enum Text { case none, optional, needed }

  static var list: String {
    "Commands:\n" + allCases.map { "  \($0.usage.command)  \($0.usage.effect)." }.joined(separator: "\n")
  }

  /// What a person said.
  enum Line {
    case nothing
    case question(String)
    case command(ChatCommand, text: String)
    case refused(String)

    /// A slash and letters alone are a command, right or wrong; `/etc/passwd` and `// a comment` begin questions, and so does all that stands
    /// between `"""` and `"""`.
    init(_ text: String) {
      if case .closed(let inside) = TextBlock(text) {
        self = inside.allSatisfy(\.isWhitespace) ? .nothing : .question(inside)
        return
      }
      let line = text.trimmingCharacters(in: .whitespacesAndNewlines)
      let word = line.prefix { !$0.isWhitespace }
      let name = word.dropFirst()
      guard line.first == "/", !name.isEmpty, name.allSatisfy({ $0.isLetter || $0 == "-" || $0 == "_" }) else {
        self = line.isEmpty ? .nothing : .question(text)
        return
      }
      guard let command = ChatCommand(rawValue: String(name)) else {
        self = .refused("There is no command \(word), and it was not taken as a question.\n\(ChatCommand.list)")
        return
      }
      let text = line.dropFirst(word.count).trimmingCharacters(in: .whitespacesAndNewlines)
      let usage = command.usage
      switch (usage.text, text.isEmpty) {
      case (.none, false): self = .refused("\(word) takes no text: \(usage.command) \(usage.effect).")
      case (.needed, true): self = .refused("\(word) needs more: \(usage.command) \(usage.effect).")
      default: self = .command(command, text: text)
      }
    }
  }
}
