// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

#if HTTPServer
import MartletServer
import MartletTemplates
import Testing

/// The document is whole and made of the tables. That it is valid and true is found by `Scripts/check-openapi.sh`.
@Suite struct OpenAPIDocumentTests {
  static func document(_ configuration: ServerConfiguration = ServerConfiguration()) -> JSON {
    OpenAPIDocument(configuration, models: ["m", "alias"]).json
  }

  private static func body(_ path: String, of document: JSON = document()) -> JSON? {
    document["paths"]?[path]?["post"]?["requestBody"]?["content"]?["application/json"]?["schema"]
  }

  @Test func `every reference leads somewhere`() {
    let document = Self.document()
    var count = 0
    func walk(_ json: JSON) {
      if let target = json["$ref"]?.string {
        count += 1
        let place = target.split(separator: "/").dropFirst().reduce(Optional(document)) { $0?[String($1)] }
        #expect(target.hasPrefix("#/") && place != nil, "\(target)")
      }
      for member in json.object?.members ?? [] { walk(member.value) }
      for element in json.array ?? [] { walk(element) }
    }
    walk(document)
    #expect(count > 50)
  }

  @Test func `every operation has a name of its own, and says what errors look like`() {
    var names: Set<String> = []
    for path in Self.document()["paths"]?.object?.members ?? [] {
      for operation in path.value.object?.members ?? [] {
        let name = operation.value["operationId"]?.string
        #expect(name.map { names.insert($0).inserted } == true, "\(path.key): \(name ?? "no name")")
        for status in ["403", "500", "503"] { #expect(operation.value["responses"]?[status] != nil, "\(path.key): \(status)") }
      }
    }
    #expect(names.count >= 19)
  }

  @Test func `a body has every field of its table, and what must be there is no null`() {
    for (path, table, required) in [
      ("/v1/chat/completions", ChatCompletionRequest.table, ["messages"]), ("/v1/completions", CompletionRequest.table, ["prompt"]),
      ("/v1/responses", ResponseRequest.table, ["input"]), ("/v1/messages", MessagesRequest.table, ["messages", "max_tokens"]),
      ("/tokenize", TokenizeFields.table, []), ("/detokenize", TokenizeFields.detokenizeTable, ["tokens"]),
    ] as [(String, [any AnyField], [String])] {
      let body = Self.body(path)
      #expect(body?["required"]?.array?.compactMap(\.string) == required, "\(path)")
      #expect(body?["properties"]?.object?.count == Set(table.map(\.name)).count, "\(path)")
      for field in table {
        let property = body?["properties"]?[field.name]
        #expect(property?["description"]?.string == field.about, "\(path) \(field.name)")
        if property?.object?.count == 1 { continue }
        #expect(RequestFieldTests.allowsType(property ?? .null, .null) != required.contains(field.name), "\(path) \(field.name)")
      }
    }
  }

  @Test(
    arguments: [
      (nil, 1, false), ("reasoning.encrypted_content", 1, false), (nil, 0, true), (["reasoning.encrypted_content"], 1, false),
      (.string(ResponseRequest.includedLogprobs), 1, true), ([.string(ResponseRequest.includedLogprobs)], 1, true),
    ] as [(JSON?, Int, Bool)])
  func `alternatives without log-probabilities are neither documented nor taken`(include: JSON?, top: Int, isTaken: Bool) throws {
    var json: JSON.Object = ["input": "x", "top_logprobs": .integer(top)]
    json["include"] = include
    let asked = try? ResponseRequest(.object(json), id: "r", server: ServerConfiguration())
    #expect((asked != nil) == isTaken)
    // What the document says of it, read as a validator does.
    let choices = try #require(Self.body("/v1/responses")?["allOf"]?.array?.first?["anyOf"]?.array)
    let isDocumented = choices.contains { choice in
      if let tops = choice["properties"]?["top_logprobs"]?["enum"]?.array { return tops.contains(.integer(top)) }
      guard choice["required"] == ["include"], let include else { return false }
      return (choice["properties"]?["include"]?["anyOf"]?.array ?? []).contains { form in
        form["const"] == include || include.array?.contains { $0 == form["contains"]?["const"] } ?? false
      }
    }
    #expect(isDocumented == isTaken)
  }

  @Test func `names of models and limits are those of the server`() {
    let document = Self.document(ServerConfiguration(maxSamples: 4))
    #expect(Self.body("/v1/responses", of: document)?["properties"]?["model"]?["enum"] == ["", "m", "alias", .null])
    #expect(Self.body("/v1/chat/completions", of: document)?["properties"]?["n"]?["maximum"] == 4)
  }

  @Test func `the live view is a stream of snapshots`() {
    let content = Self.document()["paths"]?["/martlet/live"]?["get"]?["responses"]?["200"]?["content"]
    #expect(content?.object?.members.map(\.key) == ["text/event-stream"])
    #expect(
      content?["text/event-stream"]?["schema"]?["properties"]?["data"]?["contentSchema"] == ["$ref": "#/components/schemas/LiveSnapshot"])
  }

  @Test func `keys are asked for where the server wants them`() {
    let (open, closed) = (Self.document(), Self.document(ServerConfiguration(apiKeys: ["k"])))
    func operation(_ document: JSON, _ path: String, _ method: String) -> JSON? { document["paths"]?[path]?[method] }
    #expect(operation(open, "/v1/models", "get")?["security"] == [])
    #expect(operation(closed, "/v1/models", "get")?["security"]?.array?.isEmpty == false)
    #expect(operation(closed, "/v1/models", "get")?["responses"]?["401"] != nil)
    #expect(operation(open, "/v1/models", "get")?["responses"]?["401"] == nil)
    #expect(operation(closed, "/openapi.json", "get")?["security"] == [])
  }
}
#endif
