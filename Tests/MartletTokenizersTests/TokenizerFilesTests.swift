// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

// A directory as the Hugging Face hub has it: what each file says about the tokenizer.

import Foundation
import MartletTemplates
import MartletTokenizers
import Testing

@Suite struct TokenizerFilesTests {
  /// Calls `body` with a directory that holds these files, and a recorded `tokenizer.json`.
  private func withDirectory(
    _ files: [String: String], tokenizer: String? = "qwen2", _ body: (String) throws -> Void
  ) throws {
    let directory = FileManager.default.temporaryDirectory.appendingPathComponent("martlet-\(UUID().uuidString)")
    try FileManager.default.createDirectory(at: directory, withIntermediateDirectories: true)
    defer { try? FileManager.default.removeItem(at: directory) }
    if let tokenizer { try Data(TokenizerTruth.file(tokenizer)).write(to: directory.appendingPathComponent("tokenizer.json")) }
    for (name, text) in files { try Data(text.utf8).write(to: directory.appendingPathComponent(name)) }
    try body(directory.path)
  }

  private func error(_ files: [String: String], tokenizer: String? = "qwen2") throws -> TokenizerError? {
    var result: TokenizerError?
    try withDirectory(files, tokenizer: tokenizer) { path in
      result = #expect(throws: TokenizerError.self) { try TokenizerFiles(directory: path) }
    }
    return result
  }

  @Test func `a tokenizer alone has no special tokens but those of its template`() throws {
    try withDirectory([:]) { path in
      let files = try TokenizerFiles(directory: path)
      #expect(files.tokenizer.bosToken == nil && files.tokenizer.eosToken == nil && !files.tokenizer.addsBOS)
      #expect(throws: TokenizerError.noChatTemplate(known: ChatTemplate.names)) { try files.chatTemplate.get() }
      let truth = try TokenizerTruth()
      #expect(try makeTokenizer(directory: path).encode(truth.texts[20], parsesSpecialTokens: false) == truth.ids["qwen2"]![20])
    }
    try withDirectory([:], tokenizer: "llama3") { path in
      let tokenizer = try makeTokenizer(directory: path)
      #expect(tokenizer.addsBOS && tokenizer.bosToken == 0)
    }
  }

  @Test func `the files beside it say which tokens begin and end a text`() throws {
    let config = #"{"bos_token":{"content":"<s>"},"eos_token":"</s>","add_bos_token":true}"#
    try withDirectory(["tokenizer_config.json": config]) { path in
      let tokenizer = try makeTokenizer(directory: path)
      #expect(tokenizer.addsBOS && tokenizer.bosToken == 0 && tokenizer.eosToken == 1)
    }
    // The template goes before the flag, and a null is nothing.
    try withDirectory(["tokenizer_config.json": #"{"bos_token":null,"add_bos_token":false}"#], tokenizer: "llama3") { path in
      let tokenizer = try makeTokenizer(directory: path)
      #expect(tokenizer.addsBOS && tokenizer.bosToken == 0)
    }
    let generation = #"{"eos_token_id":[1,3,99999]}"#
    try withDirectory(["generation_config.json": generation, "config.json": #"{"eos_token_id":5}"#]) { path in
      let tokenizer = try makeTokenizer(directory: path)
      #expect(tokenizer.eosToken == 1 && tokenizer.endTokens.isSuperset(of: [1, 3]) && !tokenizer.endTokens.contains(5))
    }
    try withDirectory(["config.json": #"{"eos_token_id":5}"#]) { path in
      let tokenizer = try makeTokenizer(directory: path)
      #expect(tokenizer.endTokens.contains(5))
    }
  }

  /// What `Fixtures/make_directories.py` recorded.
  private struct Directories: Decodable {
    struct Case: Decodable {
      var files: [String: String]
      var bos: Int32?
      var ids: [[Int32]]
    }
    var texts: [String]
    var cases: [String: Case]
  }

  @Test func `a directory gives the ids of the transformers package, whichever file names its tokens`() throws {
    let url = try #require(Bundle.module.url(forResource: "directories", withExtension: "json", subdirectory: "Fixtures"))
    let recorded = try JSONDecoder().decode(Directories.self, from: Data(contentsOf: url))
    #expect(recorded.cases.count >= 13)
    for (name, directory) in recorded.cases {
      try withDirectory(directory.files, tokenizer: nil) { path in
        let tokenizer = try makeTokenizer(directory: path)
        let prefix = tokenizer.addsBOS ? [try #require(tokenizer.bosToken)] : []
        // The token of a template is the one that begins a text here, whether or not the files name it.
        #expect(tokenizer.bosToken == directory.bos || tokenizer.addsBOS && directory.bos == nil, "\(name)")
        for (text, ids) in zip(recorded.texts, directory.ids) {
          #expect(prefix + tokenizer.encode(text, parsesSpecialTokens: true) == ids, "\(name): \(text)")
        }
      }
    }
  }

  @Test func `the chat template is the text of its own file, or the config's, or the old file's, and of several the one for the occasion`()
    throws
  {
    func quoted(_ text: String) throws -> String { String(decoding: try JSONEncoder().encode(text), as: UTF8.self) }
    func text(_ files: [String: String], tools: [JSON]? = nil) throws -> String {
      var text = ""
      try withDirectory(files) { directory in
        for (name, program) in files where name.hasPrefix("additional") {
          let path = directory + "/additional_chat_templates"
          try FileManager.default.createDirectory(atPath: path, withIntermediateDirectories: true)
          try Data(program.utf8).write(to: URL(fileURLWithPath: path + "/" + name.dropFirst("additional-".count)))
        }
        text = try TokenizerFiles(directory: directory).chatTemplate.get().render([ChatMessage(role: "user", content: "Hi")], tools: tools)
          .text
      }
      return text
    }
    #expect(try text(["chat_template.json": #"{"chat_template": "old"}"#]) == "old")
    let config = #"{"chat_template":\#(try quoted("config"))}"#
    #expect(try text(["tokenizer_config.json": config, "chat_template.json": #"{"chat_template": "old"}"#]) == "config")
    let several = #"{"chat_template":[{"name":"tool_use","template":"tools"},{"name":"default","template":"default"}]}"#
    #expect(try text(["tokenizer_config.json": several]) == "default" && text(["tokenizer_config.json": several], tools: []) == "tools")
    #expect(try text(["tokenizer_config.json": several, "chat_template.jinja": "file"], tools: []) == "file")
    let files = ["chat_template.jinja": "file", "additional-tool_use.jinja": "own tools"]
    #expect(try text(files) == "file" && text(files, tools: []) == "own tools")
  }

  @Test(arguments: [
    ("chat_template.jinja", "{{ raise_exception('no') }}"), ("chat_template.jinja", "{{ 1 +"),
    ("tokenizer_config.json", #"{"chat_template": "{{ raise_exception('no') }}"}"#),
    ("tokenizer_config.json", #"{"chat_template": "{% if"}"#),
    ("chat_template.json", #"{"chat_template": "{{ raise_exception('no') }}"}"#),
  ]) func `what a directory's program raises is said with its file`(name: String, text: String) throws {
    try withDirectory([name: text]) { directory in
      let error = #expect(throws: TokenizerError.self) {
        try TokenizerFiles(directory: directory).chatTemplate.get().render([ChatMessage(role: "user", content: "Hi")])
      }
      #expect(error?.description.contains(" of \(directory)/\(name)") == true, "\(error!)")
    }
  }

  @Test func `programs know the tokens that the config names, and no others`() throws {
    let config = """
      {"bos_token": {"content": "<s>"}, "eos_token": "</s>", "pad_token": null, "image_token": "<img>", "add_bos_token": false,
       "extra_special_tokens": {"boi": "<boi>"}, "chat_template": "{{ bos_token }}{{ eos_token }}{{ pad_token is defined }}{{ image_token }}{{ boi }}"}
      """
    try withDirectory(["tokenizer_config.json": config]) { directory in
      let template = try TokenizerFiles(directory: directory).chatTemplate.get()
      #expect(try template.render([ChatMessage(role: "user", content: "Hi")]).text == "<s></s>False<img><boi>")
    }
  }

  @Test func `what is wrong is named with its file`() throws {
    #expect(try error([:], tokenizer: nil)?.description.contains("has no tokenizer.json") == true)
    #expect(
      try error(["tokenizer_config.json": #"{"bos_token":"<x>"}"#])
        == .malformed(field: "tokenizer_config.json: bos_token", problem: "is \"<x>\", which tokenizer.json does not have"))
    #expect(
      try error(["tokenizer_config.json": #"{"add_bos_token":true}"#])
        == .malformed(field: "tokenizer_config.json: add_bos_token", problem: "is true, but there is no bos_token"))
    #expect(
      try error(["tokenizer_config.json": #"{"add_bos_token":"yes"}"#])
        == .malformed(field: "tokenizer_config.json: add_bos_token", problem: "is \"yes\", not true or false"))
    #expect(
      try error(["generation_config.json": #"{"eos_token_id":"x"}"#])
        == .malformed(field: "generation_config.json: eos_token_id", problem: "is \"x\", not an integer"))
    let cut = try error(["tokenizer_config.json": "{"])
    #expect(cut?.code == .json && cut?.description.hasPrefix("tokenizer: tokenizer_config.json: JSON: byte 1: ") == true)
  }
}
