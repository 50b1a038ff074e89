// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

// The editing of a line as a state: keys go in, rows for a screen come out. It knows no terminal; `TerminalEditor` is the one that does.

/// A line, or several, on its way from the keyboard.
package struct LineEditor: Sendable {
  /// What a key led to besides a change of the text.
  package enum Outcome: Sendable, Hashable {
    /// The text is entered.
    case entered(String)
    /// Ctrl-C: over text that is thrown away, or where there is none.
    case interrupted(hadText: Bool)
    /// Ctrl-D where there is no text.
    case ended
    case suspended
    case clearScreen
  }

  /// Columns of the terminal.
  package var width = 80
  package private(set) var edited = EditedText()
  package private(set) var history: LineHistory
  /// Whether the line that was entered last went into the history.
  package private(set) var isKept = false
  private let prompt: String
  private let continuation: String
  /// Words that a slash at the beginning of the text may become by a tab.
  private let commands: [String]
  /// Which entry of the history is shown, from the newest on; nil is what is being written.
  private var shownEntry: Int?
  private var draft = ""
  private var killed = ""
  private var lastWasKill = false
  private var search: Search?

  private struct Search: Sendable {
    var query = ""
    /// Of the entry that was found.
    var entry: Int?
    /// Whether nothing more was found for the query.
    var hasFailed = false
    var before: EditedText
  }

  package init(prompt: String = "> ", continuation: String = ". ", history: LineHistory = LineHistory(), commands: [String] = []) {
    self.prompt = prompt
    self.continuation = continuation
    self.history = history
    self.commands = commands
  }

  /// As it is to be seen.
  package var layout: ScreenLayout {
    var prompt = prompt
    if let search {
      prompt = "(\(search.hasFailed ? "not found" : "search") \"\(search.query)\") "
    }
    return ScreenLayout(edited.characters, prompt: prompt, continuation: continuation, width: width)
  }

  /// Where the cursor is in the layout's rows.
  package var cursorPlace: ScreenLayout.Place { layout.places[edited.cursor] }

  /// Without text, for the next line.
  package mutating func reset() {
    edited = EditedText()
    shownEntry = nil
    search = nil
    lastWasKill = false
  }

  package mutating func handle(_ key: Key) -> Outcome? {
    if search != nil {
      if handleInSearch(key) { return nil }
    }
    let joinsKill = lastWasKill
    lastWasKill = false
    switch key {
    case .text(let text): edited.insert(text)
    case .paste(let text): edited.insert(text)
    case .newline: edited.insert("\n")
    case .tab: complete()
    case .enter: return enter()
    case .left: edited.move(to: edited.cursor - 1)
    case .right: edited.move(to: edited.cursor + 1)
    case .up: moveVertically(by: -1)
    case .down: moveVertically(by: 1)
    case .home: edited.move(to: edited.lineStart(at: edited.cursor))
    case .end: edited.move(to: edited.lineEnd(at: edited.cursor))
    case .wordLeft: edited.move(to: edited.wordLeft)
    case .wordRight: edited.move(to: edited.wordRight)
    case .backspace: if edited.cursor > 0 { edited.remove(edited.cursor - 1..<edited.cursor) }
    case .delete: edited.remove(edited.cursor..<edited.cursor + 1)
    case .killWordLeft: kill(edited.wordLeft..<edited.cursor, joins: joinsKill, forwards: false)
    case .killWordRight: kill(edited.cursor..<edited.wordRight, joins: joinsKill, forwards: true)
    case .killToStart: kill(edited.lineStart(at: edited.cursor)..<edited.cursor, joins: joinsKill, forwards: false)
    case .killToEnd:
      let end = edited.lineEnd(at: edited.cursor)
      // At the end of a line its line feed goes, so that the next is joined.
      kill(edited.cursor..<(end == edited.cursor ? min(end + 1, edited.characters.count) : end), joins: joinsKill, forwards: true)
    case .yank: edited.insert(killed)
    case .transpose: edited.transpose()
    case .earlier: show(entry: (shownEntry ?? -1) + 1)
    case .later: if let shownEntry { show(entry: shownEntry - 1) }
    case .search: search = Search(before: edited)
    case .clearScreen: return .clearScreen
    case .interrupt:
      let hadText = !edited.isEmpty
      reset()
      return .interrupted(hadText: hadText)
    case .endOfInput:
      if edited.isEmpty { return .ended }
      edited.remove(edited.cursor..<edited.cursor + 1)
    case .suspend: return .suspended
    case .escape: break
    }
    return nil
  }

  // MARK: Entering

  private mutating func enter() -> Outcome? {
    // A backslash at the end of a line is a promise of another line; it is taken away at once, so that what is seen is what is sent.
    if edited.isAtEnd, edited.characters.last == "\\", edited.characters.suffix(2) != ["\\", "\\"] {
      edited.remove(edited.cursor - 1..<edited.cursor)
      edited.insert("\n")
      return nil
    }
    if TextBlock(edited.text) == .open {
      edited.move(to: edited.characters.count)
      edited.insert("\n")
      return nil
    }
    let text = edited.text
    edited.move(to: edited.characters.count)
    isKept = history.add(text)
    return .entered(text)
  }

  // MARK: History

  private mutating func show(entry: Int) {
    guard entry < history.entries.count else { return }
    if shownEntry == nil { draft = edited.text }
    if entry < 0 {
      shownEntry = nil
      edited.replaceAll(with: draft)
    } else {
      shownEntry = entry
      edited.replaceAll(with: history.entries[history.entries.count - 1 - entry])
    }
  }

  /// Within the text by rows of the screen; beyond its first and last through the history.
  private mutating func moveVertically(by step: Int) {
    let layout = layout
    let place = layout.places[edited.cursor]
    let row = place.row + step
    if row < 0 { return show(entry: (shownEntry ?? -1) + 1) }
    if row >= layout.rows.count {
      if let shownEntry { show(entry: shownEntry - 1) }
      return
    }
    edited.move(to: layout.index(at: ScreenLayout.Place(row: row, column: place.column)))
  }

  // MARK: Search

  /// - Returns: whether the key is done with; else the search has ended, and the key is one like any other.
  private mutating func handleInSearch(_ key: Key) -> Bool {
    guard var current = search else { return false }
    switch key {
    case .text(let text): current.query += text
    case .paste(let text): current.query += text.filter { $0 != "\n" }
    case .backspace:
      current.query = String(current.query.dropLast())
      current.entry = nil
    case .search:
      find(&current, from: (current.entry ?? -1) + 1)
      return true
    case .escape, .interrupt:
      edited = current.before
      search = nil
      return true
    default:
      search = nil
      shownEntry = current.entry ?? shownEntry
      return false
    }
    find(&current, from: current.entry ?? 0)
    return true
  }

  /// Shows the newest entry from `first` on, counted from the newest, that has the query in it.
  private mutating func find(_ current: inout Search, from first: Int) {
    let found = current.query.isEmpty ? nil : history.entries.reversed().enumerated().dropFirst(first).first { $1.contains(current.query) }
    current.hasFailed = found == nil && !current.query.isEmpty
    if let found {
      if shownEntry == nil { draft = current.before.text }
      current.entry = found.offset
      edited.replaceAll(with: found.element)
    } else if first == 0 {
      current.entry = nil
      edited = current.before
    }
    search = current
  }

  // MARK: Kills and completion

  private mutating func kill(_ range: Range<Int>, joins: Bool, forwards: Bool) {
    let text = edited.remove(range)
    if text.isEmpty { return }
    killed = joins ? (forwards ? killed + text : text + killed) : text
    lastWasKill = true
  }

  /// A command's name, as far as it is certain; elsewhere a tab is one.
  private mutating func complete() {
    let word = String(edited.characters[..<edited.cursor])
    guard word.hasPrefix("/"), !word.contains(where: \.isWhitespace) else { return edited.insert("\t") }
    let matches = commands.filter { $0.hasPrefix(word) }
    guard let first = matches.first else { return }
    let common = matches.dropFirst().reduce(first) { $0.commonPrefix(with: $1) }
    edited.insert(String(common.dropFirst(word.count)) + (matches.count == 1 && edited.isAtEnd ? " " : ""))
  }
}

extension String {
  fileprivate func commonPrefix(with other: String) -> String { String(zip(self, other).prefix { $0 == $1 }.map(\.0)) }
}
