// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

import Foundation
import MartletCLI
import Testing

/// The editing of lines: keys in, rows of a screen out.
@Suite struct LineEditorTests {
  /// The rows with the cursor as `|`, after the keys.
  private static func screen(_ editor: LineEditor) -> [String] {
    var rows = editor.layout.rows
    let place = editor.cursorPlace
    var row = ""
    var column = 0
    var isShown = false
    for character in rows[place.row] {
      if column == place.column {
        row += "|"
        isShown = true
      }
      row.append(character)
      column += character.columns
    }
    rows[place.row] = isShown ? row : row + "|"
    return rows
  }

  private static func edit(_ keys: [Key], width: Int = 20, history: [String] = []) -> LineEditor {
    var editor = LineEditor(history: LineHistory(history), commands: ["/clear", "/continue", "/save"])
    editor.width = width
    for key in keys { _ = editor.handle(key) }
    return editor
  }

  @Test(
    arguments: [
      ([.text("hello")], "> hello|"),
      ([.text("helo"), .left, .text("l")], "> hell|o"),
      ([.text("hello"), .home, .text("X"), .end, .text("Y")], "> XhelloY|"),
      ([.text("one two, three"), .wordLeft, .wordLeft], "> one |two, three"),
      ([.text("one two, three"), .home, .wordRight, .wordRight], "> one two|, three"),
      ([.text("abc"), .backspace, .backspace], "> a|"),
      ([.text("abc"), .home, .backspace, .delete], "> |bc"),
      ([.text("abc"), .delete, .right, .left, .left, .left, .left, .left], "> |abc"),
      ([.text("abc"), .left, .endOfInput], "> ab|"),
      ([.text("one two"), .killWordLeft], "> one |"),
      ([.text("one two"), .home, .killWordRight], "> | two"),
      ([.text("one two"), .wordLeft, .killToEnd], "> one |"),
      ([.text("one two"), .wordLeft, .killToStart], "> |two"),
      ([.text("one two"), .killWordLeft, .home, .yank], "> two|one "),
      // Kills in a row are one, in the order of the text.
      ([.text("one two three"), .killWordLeft, .killWordLeft, .home, .yank], "> two three|one "),
      ([.text("one two three"), .home, .killWordRight, .killWordRight, .end, .yank], ">  threeone two|"),
      ([.text("abcd"), .left, .left, .transpose], "> acb|d"),
      ([.text("abcd"), .transpose], "> abdc|"),
      ([.text("a"), .transpose], "> a|"),
      ([.text("/cl"), .tab], "> /clear |"), ([.text("/c"), .tab, .text("o"), .tab], "> /continue |"), ([.text("/x"), .tab], "> /x|"),
    ] as [([Key], String)])
  func `keys edit the line`(keys: [Key], row: String) {
    #expect(Self.screen(Self.edit(keys)) == [row])
  }

  @Test func `what is seen as one character is one`() {
    let (accent, flag, family) = ("e\u{301}", "🇫🇷", "👩‍👩‍👧")
    #expect(Self.screen(Self.edit([.text("a\(accent)\(flag)\(family)z"), .left, .left, .backspace])) == ["> a\(accent)|\(family)z"])
    // An accent that comes after its letter joins it, and goes with it.
    #expect(Self.edit([.text("e"), .text("\u{301}"), .left]).edited.cursor == 0)
    #expect(Self.edit([.text("e"), .text("\u{301}"), .backspace]).edited.isEmpty)
    #expect(Self.screen(Self.edit([.text("日本"), .left])) == ["> 日|本"])
    #expect(Self.edit([.text("日本"), .left]).cursorPlace == ScreenLayout.Place(row: 0, column: 4))
  }

  @Test func `a long line lies in rows, and the cursor moves through them`() {
    let text = "abcdefghijklmnopqrstuvwxyz"
    #expect(Self.screen(Self.edit([.text(text)], width: 10)) == ["> abcdefgh", "ijklmnopqr", "stuvwxyz|"])
    // Behind a full row the cursor is on the next.
    #expect(Self.screen(Self.edit([.text("abcdefgh")], width: 10)) == ["> abcdefgh", "|"])
    #expect(Self.screen(Self.edit([.text(text), .up], width: 10)) == ["> abcdefgh", "ijklmnop|qr", "stuvwxyz"])
    #expect(Self.screen(Self.edit([.text(text), .up, .up, .down], width: 10)) == ["> abcdefgh", "ijklmnop|qr", "stuvwxyz"])
    // A wide character that does not fit begins the next row.
    #expect(Self.screen(Self.edit([.text("abcdefg日x")], width: 10)) == ["> abcdefg", "日x|"])
    #expect(Self.screen(Self.edit([.text("ab\tc"), .left], width: 10)) == ["> ab    |c"])
  }

  @Test func `lines are begun by Alt-Enter, by a backslash, in a block and by a paste`() {
    #expect(Self.screen(Self.edit([.text("one"), .newline, .text("two")])) == ["> one", ". two|"])
    var editor = Self.edit([.text("one\\")])
    #expect(editor.handle(.enter) == nil && editor.edited.text == "one\n")
    #expect(editor.handle(.text("two")) == nil && editor.handle(.enter) == .entered("one\ntwo"))
    // Two backslashes are letters, and so is one in the middle.
    editor = Self.edit([.text("C:\\\\")])
    #expect(editor.handle(.enter) == .entered("C:\\\\"))
    editor = Self.edit([.text("\"\"\"one")])
    #expect(editor.handle(.enter) == nil && editor.handle(.enter) == nil)
    _ = editor.handle(.text("two\"\"\""))
    #expect(editor.handle(.enter) == .entered("\"\"\"one\n\ntwo\"\"\""))
    editor = Self.edit([.text("What is this? "), .paste("int f() {\n\n  return 1; \\\n}")])
    #expect(Self.screen(editor) == ["> What is this? int ", "f() {", ". ", ".   return 1; \\", ". }|"])
    #expect(editor.handle(.enter) == .entered("What is this? int f() {\n\n  return 1; \\\n}"))
  }

  @Test func `up and down go through rows first, then through history, and what was begun comes back`() {
    let history = ["first", "second\nline", "third"]
    #expect(Self.screen(Self.edit([.up], history: history)) == ["> third|"])
    #expect(Self.screen(Self.edit([.text("draft"), .up, .up], history: history)) == ["> second", ". line|"])
    #expect(Self.screen(Self.edit([.text("draft"), .up, .up, .up, .up, .up, .up], history: history)) == ["> first|"])
    #expect(Self.screen(Self.edit([.text("draft"), .up, .up, .up], history: history)) == ["> seco|nd", ". line"])
    #expect(Self.screen(Self.edit([.text("draft"), .up, .up, .down, .down], history: history)) == ["> draft|"])
    #expect(Self.screen(Self.edit([.text("draft"), .down], history: history)) == ["> draft|"])
    #expect(Self.screen(Self.edit([.text("draft"), .earlier, .earlier, .earlier, .later], history: history)) == ["> second", ". line|"])
    var editor = Self.edit([.up, .text("!")], history: history)
    #expect(editor.handle(.enter) == .entered("third!") && editor.isKept)
    editor.reset()
    #expect(editor.history.entries == history + ["third!"] && editor.edited.isEmpty)
    _ = editor.handle(.text("third!"))
    #expect(editor.handle(.enter) == .entered("third!") && !editor.isKept && editor.history.entries.count == 4)
  }

  @Test func `a search finds the newest line with the text, and older ones`() {
    let history = ["git push", "swift build", "git pull", "ls"]
    #expect(Self.screen(Self.edit([.search, .text("git")], width: 40, history: history)) == ["(search \"git\") git pull|"])
    #expect(Self.screen(Self.edit([.search, .text("git"), .search], width: 40, history: history)) == ["(search \"git\") git push|"])
    #expect(
      Self.screen(Self.edit([.search, .text("git"), .search, .search], width: 40, history: history)) == ["(not found \"git\") git push|"])
    #expect(Self.screen(Self.edit([.search, .text("gix"), .backspace], width: 40, history: history)) == ["(search \"gi\") git pull|"])
    #expect(Self.screen(Self.edit([.text("ab"), .left, .search, .text("git"), .escape], history: history)) == ["> a|b"])
    #expect(Self.screen(Self.edit([.text("ab"), .search, .text("git"), .interrupt], history: history)) == ["> ab|"])
    #expect(Self.screen(Self.edit([.search, .text("build"), .home], history: history)) == ["> |swift build"])
    // From the line that was found, up goes on.
    #expect(Self.screen(Self.edit([.text("ab"), .search, .text("build"), .up], history: history)) == ["> git push|"])
    #expect(Self.screen(Self.edit([.text("ab"), .search, .text("ls"), .down], history: history)) == ["> ab|"])
    var editor = Self.edit([.search, .text("build")], history: history)
    #expect(editor.handle(.enter) == .entered("swift build"))
  }

  @Test func `Ctrl-C clears, Ctrl-D ends where nothing is`() {
    var editor = Self.edit([.text("abc")])
    #expect(editor.handle(.interrupt) == .interrupted(hadText: true) && editor.edited.isEmpty)
    #expect(editor.handle(.interrupt) == .interrupted(hadText: false))
    #expect(editor.handle(.endOfInput) == .ended)
    #expect(editor.handle(.suspend) == .suspended && editor.handle(.clearScreen) == .clearScreen)
  }

  @Test func `random keys never lose the cursor or a row`() {
    var generator = Numbers(state: 7)
    let keys: [Key] = [
      .text("a"), .text("日"), .text(" "), .text("\u{301}"), .text("👩‍👩‍👧"), .text("\u{200D}"), .text("🇫"), .paste("x\n\ny z"), .newline, .left,
      .right,
      .up, .down, .home, .end, .wordLeft, .wordRight, .backspace, .delete, .killWordLeft, .killWordRight, .killToStart, .killToEnd, .yank,
      .transpose, .earlier, .later, .search, .escape, .tab,
    ]
    for _ in 0..<100 {
      var editor = LineEditor(history: LineHistory(["one", "two\nthree", String(repeating: "w", count: 50)]))
      editor.width = Int.random(in: 4...30, using: &generator)
      for _ in 0..<60 {
        _ = editor.handle(keys.randomElement(using: &generator)!)
        let layout = editor.layout
        #expect((0...editor.edited.characters.count).contains(editor.edited.cursor))
        #expect(layout.places.count == editor.edited.characters.count + 1)
        #expect(layout.places == layout.places.sorted())
        #expect(layout.rows.allSatisfy { $0.reduce(0) { $0 + $1.columns } <= editor.width })
        #expect(editor.cursorPlace.row < layout.rows.count && editor.cursorPlace.column < editor.width)
        #expect(Array(editor.edited.text) == editor.edited.characters)
      }
    }
  }

  private struct Numbers: RandomNumberGenerator {
    var state: UInt64
    mutating func next() -> UInt64 {
      state = state &* 6_364_136_223_846_793_005 &+ 1_442_695_040_888_963_407
      return state ^ (state >> 29)
    }
  }

  // MARK: Widths

  @Test func `characters have the columns that Python's Unicode tables give them`() throws {
    // Assigned characters only: tables of different years differ in the others.
    let script = """
      import sys, unicodedata
      for code in range(0x20, 0x110000):
          character = chr(code)
          category = unicodedata.category(character)
          if category in ("Cn", "Cs", "Co"):
              continue
          if code == 0x1171E:  # a mark that became another kind of mark in Unicode 16
              continue
          # What Unicode 16 made wide, which terminals draw in either way.
          if 0x2630 <= code <= 0x2637 or 0x268A <= code <= 0x268F or 0x4DC0 <= code <= 0x4DFF or 0x1D300 <= code <= 0x1D376:
              continue
          if category in ("Mn", "Me", "Cf", "Cc", "Zl", "Zp") or 0x1160 <= code <= 0x11FF:
              columns = 0
          else:
              columns = 2 if unicodedata.east_asian_width(character) in "WF" else 1
          print(code, columns)
      """
    let process = Process()
    let output = Pipe()
    process.executableURL = URL(fileURLWithPath: "/usr/bin/env")
    process.arguments = ["python3", "-c", script]
    process.standardOutput = output
    try process.run()
    let lines = String(decoding: output.fileHandleForReading.readDataToEndOfFile(), as: UTF8.self).split(separator: "\n")
    process.waitUntilExit()
    #expect(lines.count > 140_000)
    var wrong: [String] = []
    for line in lines {
      let numbers = line.split(separator: " ").map { Int($0)! }
      let scalar = Unicode.Scalar(UInt32(numbers[0]))!
      if scalar.columns != numbers[1] { wrong.append("U+" + String(numbers[0], radix: 16)) }
    }
    #expect(wrong.isEmpty, "\(wrong.count): \(wrong.prefix(20))")
    #expect(Character("❤️").columns == 2 && Character("🇫🇷").columns == 2 && Character("👩‍👩‍👧").columns == 2 && Character("e\u{301}").columns == 1)
  }

  // MARK: Blocks and history

  @Test(
    arguments: [
      ("plain", .none), ("\"\"\"one", .open), ("\"\"\"", .open), (" \"\"\"\none\n", .open), ("\"\"\"one\"\"\"", .closed("one")),
      ("\"\"\"\none\n\n  two\n\"\"\" ", .closed("one\n\n  two")), ("\"\"\"\"\"\"", .closed("")), ("\"\"\"\n\"\"\"", .closed("")),
      ("\"\"\"A docstring.\"\"\"\ndef f(): pass", .none), ("say \"\"\"", .none),
    ] as [(String, TextBlock)])
  func `a block is between its marks`(text: String, block: TextBlock) {
    #expect(TextBlock(text) == block)
  }

  @Test func `the history's file is private, bounded, and keeps every letter`() throws {
    let folder = try TemporaryFolder()
    let file = HistoryFile(path: folder.path + "/state/martlet/history")
    #expect(file.read().entries.isEmpty)
    let entries = ["one", "two\nlines \\n and \\", "日本\ttab"]
    for entry in entries { #expect(file.add(entry) == nil) }
    #expect(file.read().entries == entries)
    func mode(_ path: String) throws -> Int? { try FileManager.default.attributesOfItem(atPath: path)[.posixPermissions] as? Int }
    #expect(try mode(file.path) == 0o600 && mode(folder.path + "/state/martlet") == 0o700)
    for number in 0..<2500 { _ = file.add("entry \(number)") }
    let kept = file.read()
    #expect(kept.entries.count == 1000 && kept.entries.last == "entry 2499")
    #expect(try String(contentsOfFile: file.path, encoding: .utf8).split(separator: "\n").count == 1000 && mode(file.path) == 0o600)
    var history = LineHistory()
    #expect(!history.add(" \n") && !history.add(String(repeating: "x", count: LineHistory.longestEntry + 1)) && history.add("x"))
    #expect(HistoryFile(path: "/proc/nowhere/history").add("x") != nil)
  }

  @Test func `a history that another program left broken is read as far as it is one, and added to`() throws {
    let folder = try TemporaryFolder()
    let endless = String(repeating: "x", count: 2 * LineHistory.longestEntry + 1)
    let file = HistoryFile(path: try folder.write("one\n\(endless)\ntwo", to: "history"))
    #expect(file.read().entries == ["one", "two"])
    #expect(file.add("three") == nil && file.read().entries == ["one", "two", "three"])
  }

  // MARK: Answers

  /// What a terminal of a width shows of an answer that comes in pieces, a letter at a time or all at once.
  private static func shown(_ text: String, columns: Int, pieces: Int) -> String {
    var answer = AnswerText(columns: columns)
    var screen: [[Character]] = [[]]
    let characters = Array(text)
    for start in stride(from: 0, to: characters.count, by: pieces) {
      var output = answer.add(String(characters[start..<min(start + pieces, characters.count)]))[...]
      while let character = output.popFirst() {
        if character == "\n" {
          screen.append([])
        } else if character == "\u{1B}" {
          // `ESC [ n D ESC [ K`: back by n columns, and clear.
          var columns = Int(output.dropFirst().prefix { $0.isNumber })!
          output = output.drop { $0 != "K" }.dropFirst()
          while columns > 0 { columns -= screen[screen.count - 1].removeLast().columns }
        } else {
          screen[screen.count - 1].append(character)
        }
      }
    }
    return screen.map { String($0) }.joined(separator: "\n")
  }

  @Test(arguments: [1, 3, 1000])
  func `lines are broken between words and nowhere else`(pieces: Int) {
    func shown(_ text: String) -> String { Self.shown(text, columns: 13, pieces: pieces) }
    #expect(shown("The quick brown fox jumps.") == "The quick \nbrown fox \njumps.")
    #expect(shown("aaaa bbbb cc dd") == "aaaa bbbb cc\ndd")
    #expect(shown("one\n\n  two three four five") == "one\n\n  two three \nfour five")
    // A word that is longer than a line stays whole.
    #expect(shown("see https://example.org/a/long/path now") == "see \nhttps://example.org/a/long/path now")
    #expect(shown("日本語日本語日本語") == "日本語日本語\n日本語")
    let code = "Code:\n```\nlet x = a + b + c + d + e\n```\nand words again here"
    #expect(shown(code) == "Code:\n```\nlet x = a + b + c + d + e\n```\nand words \nagain here")
  }

  @Test func `an answer commands no terminal, and is not broken where that is not wanted`() {
    var more = AnswerText(columns: 13, after: "Code:\n```\nlet x")
    #expect(more.add(" = a + b + c + d + e\n```\nword word word") == " = a + b + c + d + e\n```\nword word wo\u{1B}[2D\u{1B}[K\nword")
    var answer = AnswerText(columns: nil)
    #expect(
      answer.add("a\u{1B}[2Jb\u{7}\tc\r\n" + String(repeating: "word ", count: 40)) == "a^[[2Jb^G\tc\n"
        + String(repeating: "word ", count: 40))
    #expect(answer.add("\u{0}\u{1F}\u{7F}\u{80}\u{9B}31m\u{1B}\u{301}é") == "^@^_^?<80><9B>31m^[\u{301}é")
    // What is shown takes room as letters do.
    #expect(Self.shown("word word \u{1B}[31m", columns: 13, pieces: 1) == "word word \n^[[31m")
  }
}
