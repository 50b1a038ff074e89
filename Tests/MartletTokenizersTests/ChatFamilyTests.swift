// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

// Templates in the manner of every well-known family, in many conversations, against what transformers makes of them. The templates, the
// conversations and the recorded texts are MartletTemplatesTests/Fixtures; make_families.py there records them.

import Foundation
import MartletFormats
import MartletTemplates
import MartletTokenizers
import Testing

@Suite struct ChatFamilyTests {
  private static let fixtures = URL(fileURLWithPath: #filePath).deletingLastPathComponent().deletingLastPathComponent()
    .appendingPathComponent("MartletTemplatesTests/Fixtures")

  @Test func `every family's templates write what transformers renders, and raise where it does`() throws {
    let root = JSON(try JSONValue(path: Self.fixtures.appendingPathComponent("families.json").path))
    let conversations = try #require(root["conversations"])
    var templates: [String: ChatTemplate] = [:]
    var counts = (written: 0, raised: 0)
    for recorded in try #require(root["cases"]?.array) {
      let name = try #require(recorded["template"]?.string)
      if templates[name] == nil {
        let source = try String(contentsOf: Self.fixtures.appendingPathComponent("families/\(name)"), encoding: .utf8)
        templates[name] = try ChatTemplate(source: source, specialTokens: ["bos_token": "<s>", "eos_token": "</s>"])
      }
      let template = try #require(templates[name])
      let key = try #require(recorded["conversation"]?.string)
      let conversation = try #require(conversations[key])
      var messages = try #require(conversation["messages"]?.array)
      if recorded["withoutLast"] == true { messages.removeLast() }
      let continues = recorded["continueFinalMessage"] == true
      for thinking in recorded["thinking"] == "any" ? [nil, true, false] : [recorded["thinking"] ?? nil] as [JSON?] {
        var options = ChatOptions(
          addsGenerationPrompt: recorded["generationPrompt"] == true && !continues, continuesFinalMessage: continues,
          now: LocalTime("2026-11-29T12:34:56"))
        if let thinking, !thinking.isNull { options.variables["enable_thinking"] = thinking }
        let rendered = Result {
          try template.render(
            json: messages, tools: conversation["tools"]?.array, documents: conversation["documents"]?.array, options: options)
        }
        let what: Comment = "\(name), \(key), thinking \(thinking?.text ?? "unset")"
        switch (rendered, recorded["output"]?.string) {
        case (.success(let text), let output?):
          #expect(Array(text.text.utf8) == Array(output.utf8), what)
          counts.written += 1
        case (.failure(let error as TokenizerError), nil) where error.code == .unwritableConversation:
          let problem = try #require(error.underlying as? TemplateError, what)
          if problem.code == .raised { #expect(problem.message == recorded["message"]?.string, what) }
          counts.raised += 1
        case (.success, nil): Issue.record("\(what.rawValue): written, where transformers raises \(recorded["message"]?.string ?? "")")
        case (.failure(let error), _): Issue.record("\(what.rawValue): \(error)")
        }
      }
    }
    #expect(templates.count >= 20 && counts.written > 1000 && counts.raised > 50)
  }
}
