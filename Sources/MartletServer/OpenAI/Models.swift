// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

#if HTTPServer
import HTTPTypes
import Hummingbird
import Martlet
import MartletTemplates

// GET /v1/models and /v1/models/{id}

extension ModelServer {
  func listModels(_ request: Request, _ context: any RequestContext, _ exchange: Exchange) async throws -> Response {
    let llm = try model()
    return Response(
      json: ["object": "list", "data": .array(([modelName(llm)] + configuration.modelAliases).map { modelJSON($0, llm) })])
  }

  func getModel(_ request: Request, _ context: any RequestContext, _ exchange: Exchange) async throws -> Response {
    let raw = context.coreContext.parameters.getCatchAll().joined(separator: "/")
    // Names have slashes, and clients send them as %2F; what is no encoding is the name itself.
    let name = raw.percentDecoded ?? raw
    let llm = try model(named: name)
    return Response(json: modelJSON(name, llm))
  }

  private func modelJSON(_ name: String, _ llm: LLM) -> JSON {
    [
      "id": .string(name), "object": "model", "created": .integer(started), "owned_by": "martlet", "root": .string(modelName(llm)),
      "parent": .null, "max_model_len": .integer(llm.maxSequenceLength),
      "meta": [
        "n_vocab": .integer(llm.tokenizer.vocabularySize), "n_ctx": .integer(llm.maxSequenceLength),
        "architecture": .string(llm.model.architecture), "has_chat_template": .bool((try? llm.chatTemplate.get()) != nil),
        "embedding_size": llm.embeddingSize.map { .integer($0) } ?? .null,
      ],
    ]
  }
}
extension String {
  /// The text of a path's element; nil where a % begins no byte, or the bytes are no text.
  var percentDecoded: String? {
    var bytes: [UInt8] = []
    var rest = utf8[...]
    while let byte = rest.popFirst() {
      guard byte == UInt8(ascii: "%") else {
        bytes.append(byte)
        continue
      }
      guard rest.count >= 2, rest.first != UInt8(ascii: "+"), rest.first != UInt8(ascii: "-"), let digits = String(rest.prefix(2)),
        let value = UInt8(digits, radix: 16)
      else { return nil }
      bytes.append(value)
      rest = rest.dropFirst(2)
    }
    return String(validating: bytes, as: UTF8.self)
  }
}
#endif
