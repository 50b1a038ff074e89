// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

package import Foundation
package import MartletFormats

/// The tiny Hugging Face directories that `make_checkpoints.py` and `make_newer.py` wrote, and what Transformers computed with them.
package struct TinyCheckpoint: Sendable {
  /// Of decoders.
  package static let names = [
    "llama", "gemma3", "qwen2", "qwen3", "qwen2-window", "gemma2", "gemma2-9b", "granite", "ministral3", "phi3", "phi3-long", "smollm3",
    "smollm3-window", "qwen3-moe", "qwen3-moe-mixed", "mixtral", "deepseek-v2", "deepseek-v2-groups", "deepseek-v3", "deepseek-v3-halves",
    "gemma4", "gemma4-moe", "gpt-oss", "gpt-oss-mxfp4", "fp8-tensor", "fp8-static", "fp8-channel", "fp8-block", "fp8-block-compressed",
    "nvfp4", "nvfp4-moe", "nvfp4-mixed", "gemma4-moe-nvfp4", "qwen2-vl", "qwen3-vl",
  ]
  /// Those of them that llama.cpp's converter wrote as GGUF, too.
  package static let converted = [
    "gemma2-9b", "granite", "ministral3", "phi3", "phi3-long", "smollm3", "qwen3-moe", "mixtral", "deepseek-v2", "deepseek-v3", "gemma4",
    "gemma4-moe", "gpt-oss", "gpt-oss-mxfp4", "nvfp4", "nvfp4-moe", "gemma4-moe-nvfp4", "qwen2-vl", "qwen3-vl",
  ]
  /// Those of them whose tokens can have places.
  package static let placed = ["qwen2-vl", "qwen3-vl"]

  /// Of the directory.
  package let path: String
  package let prompts: [[Int32]]
  /// The tokens of highest logit after each prompt, by a margin that rounding does not reach.
  package let greedy: [[Int32]]
  /// The logits after each token of each prompt.
  package let logits: [[[Float]]]
  /// Of a model whose tokens can have places: those of the first prompt, `[3][tokens]`, what it is continued with then, and the logits.
  package var places: [[Int]] { expected["places"]!.elements.map { $0.elements.map { $0.integer! } } }
  package var placedGreedy: [Int] { expected["placed_greedy"]!.elements.map { $0.integer! } }
  package func placedLogits() throws -> [Float] { try SafetensorsFile(path: path + "/expected.safetensors").floats("placed") }
  /// `expected.json`.
  package let expected: JSONValue

  package static func file(_ name: String) -> String { Bundle.module.resourcePath! + "/Checkpoints/" + name }

  package init(_ name: String) throws {
    path = Self.file(name)
    let expected = try JSONValue(path: path + "/expected.json")
    func lists(_ key: String) -> [[Int32]] { expected[key]!.elements.map { $0.elements.map { Int32($0.integer!) } } }
    let prompts = lists("prompts")
    self.expected = expected
    self.prompts = prompts
    greedy = lists("greedy")
    let file = try SafetensorsFile(path: path + "/expected.safetensors")
    logits = try prompts.indices.map { index in
      let values = try file.floats("logits.\(index)")
      let width = values.count / prompts[index].count
      return prompts[index].indices.map { Array(values[$0 * width..<($0 + 1) * width]) }
    }
  }
}

/// A copy of a tiny checkpoint that a test may spoil; removed with the value.
package final class EditedCheckpoint {
  package let path: String

  package init(_ name: String) throws {
    path = FileManager.default.temporaryDirectory.appendingPathComponent("martlet-" + UUID().uuidString).path
    try FileManager.default.copyItem(atPath: TinyCheckpoint.file(name), toPath: path)
  }

  deinit { try? FileManager.default.removeItem(atPath: path) }

  package func remove(_ name: String) throws { try FileManager.default.removeItem(atPath: path + "/" + name) }

  package func write(_ bytes: Data, to name: String) throws { try bytes.write(to: URL(fileURLWithPath: path + "/" + name)) }

  /// Changes the members of a file that holds a JSON object.
  package func edit(_ name: String = "config.json", _ change: (inout [String: Any]) throws -> Void) throws {
    let data = try Data(contentsOf: URL(fileURLWithPath: path + "/" + name))
    var object = try JSONSerialization.jsonObject(with: data) as! [String: Any]
    try change(&object)
    try write(JSONSerialization.data(withJSONObject: object), to: name)
  }

  /// Adds `lm_head.weight` to `model.safetensors`: the bytes of the embedding once more.
  package func repeatEmbedding() throws {
    try append("lm_head.weight", like: "model.embed_tokens.weight", of: "model.safetensors", to: "model.safetensors")
  }

  /// Adds a tensor to a safetensors file, at the end of the data.
  ///
  /// - Parameters:
  ///   - tensor: whose type and shape it has, of the file `source`.
  ///   - value: of every byte; nil: the same bytes.
  package func append(_ name: String, like tensor: String, of source: String, value: UInt8? = nil, to target: String) throws {
    let tensor = try SafetensorsFile(path: path + "/" + source).tensor(tensor)!
    let original = try Data(contentsOf: URL(fileURLWithPath: path + "/" + source))[tensor.offset..<tensor.offset + tensor.byteCount]
    let file = try SafetensorsFile(path: path + "/" + target)
    let end = file.tensors.reduce(0) { $0 + $1.byteCount }
    let data = try Data(contentsOf: URL(fileURLWithPath: path + "/" + target))
    try write(data + (value.map { Data(repeating: $0, count: tensor.byteCount) } ?? original), to: target)
    try editHeader(target) {
      $0[name] = ["dtype": tensor.type, "shape": tensor.shape, "data_offsets": [end, end + tensor.byteCount]]
    }
  }

  /// Changes the header of a safetensors file: name → dtype, shape, data_offsets.
  package func editHeader(_ name: String, _ change: (inout [String: [String: Any]]) -> Void) throws {
    let data = try Data(contentsOf: URL(fileURLWithPath: path + "/" + name))
    let length = data.prefix(8).enumerated().reduce(0) { $0 | Int($1.element) << (8 * $1.offset) }
    var header = try JSONSerialization.jsonObject(with: data[8..<8 + length]) as! [String: [String: Any]]
    change(&header)
    let text = try JSONSerialization.data(withJSONObject: header)
    let size = Data((0..<8).map { UInt8(truncatingIfNeeded: text.count >> (8 * $0)) })
    try write(size + text + data[(8 + length)...], to: name)
  }
}
