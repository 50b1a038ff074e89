// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

import Foundation
import MartletAttention
import MartletCPU
import MartletCore
import MartletFormats
import MartletModels
import MartletTestSupport
import Testing

/// Hugging Face directories against what Transformers computed with them in float32.
@Suite("A Hugging Face directory")
struct CheckpointTests {
  static let backends = ["VANILLA", "FLASHINFER", "TRTLLM"]

  private func source(_ path: String) throws -> any ModelSource { try ModelRegistry.builtIn.source(HuggingFaceDirectory(path: path)) }

  /// The model for a prompt. Transformers takes LongRoPE's long list for a sequence that passes the original 16 tokens; here the longest sequence that an
  /// engine may hold decides, once for all its sequences.
  private func harness(_ source: any ModelSource, _ name: String, backend: String, for prompt: [Int32]) throws -> ModelHarness {
    try ModelHarness(source, backend: backend, maxSequenceLength: name == "phi3-long" && prompt.count < 16 ? 16 : 64)
  }

  /// Both sides compute in float32, or Transformers in float64, with exact weights, and differ in the order of sums: over a few layers of at most 128 terms
  /// that moves logits by up to a few 1e-6 of the largest here. 1e-5 leaves room for another processor, and is far below what a wrong base, window, norm, cap
  /// or bias does.
  ///
  /// Inputs of MXFP4 and NVFP4 are rounded to 16 bits, 2⁻¹⁶ of the greatest of a row: through two layers of wide gates that moves the worst of some thousand
  /// logits by 1.2e-4 of the largest. With the same experts written out in bfloat16 it is below 1e-5.
  private func expectLogits(_ checkpoint: TinyCheckpoint, _ name: String, _ source: any ModelSource, _ backend: String) throws {
    for (prompt, expected) in zip(checkpoint.prompts, checkpoint.logits) {
      let found = try harness(source, name, backend: backend, for: prompt).logits(prompt)
      #expect(found.count == expected.count && found[0].count == expected[0].count)
      let largest = expected.joined().reduce(0) { max($0, abs($1)) }, isCoded = name.contains("fp4")
      let tolerance: Float = isCoded ? 2e-4 : 1e-5
      let worst = zip(found.joined(), expected.joined()).reduce(0) { max($0, abs($1.0 - $1.1)) }
      #expect(
        worst < tolerance * largest, "\(name): the worst logit of \(prompt.count) tokens is off by \(worst) where the largest is \(largest)"
      )
    }
  }

  @Test("gives the logits that Transformers gives", arguments: TinyCheckpoint.names, backends)
  func logits(name: String, backend: String) throws {
    let checkpoint = try TinyCheckpoint(name)
    try expectLogits(checkpoint, name, source(checkpoint.path), backend)
  }

  @Test("gives them as the GGUF file that llama.cpp's converter makes of it, too", arguments: TinyCheckpoint.converted, backends)
  func converted(name: String, backend: String) throws {
    let checkpoint = try TinyCheckpoint(name)
    try expectLogits(checkpoint, name, GGUFCheckpoint(path: checkpoint.path + "/model.gguf"), backend)
  }

  /// Where a file has scales of the cache, keys and values of e4m3 are stored by them. Rounding in float32 takes a key to its other neighbour here and there,
  /// which moves logits by a hundredth of what the scales do.
  @Test(
    "whose cache has scales gives the logits of keys and values that are stored by them", arguments: ["fp8-tensor", "fp8-static"], backends)
  func cacheScales(name: String, backend: String) throws {
    let checkpoint = try TinyCheckpoint(name)
    let file = try SafetensorsFile(path: checkpoint.path + "/expected.safetensors")
    func worst(_ found: [[Float]], _ expected: [Float]) -> Float { zip(found.joined(), expected).reduce(0) { max($0, abs($1.0 - $1.1)) } }
    for (index, prompt) in checkpoint.prompts.enumerated() {
      let expected = try file.floats("logits-kv.\(index)")
      let found = try ModelHarness(source(checkpoint.path), backend: backend, dataType: .f8e4m3).logits(prompt)
      let largest = expected.reduce(0) { max($0, abs($1)) }
      #expect(worst(found, expected) < 1e-3 * largest, "\(worst(found, expected)) of \(largest)")
      // Without the scales almost all keys fit, but with fewer bits.
      let unscaled = try EditedCheckpoint(name)
      try unscaled.editHeader("model.safetensors") { header in
        for (name, tensor) in header where name.hasSuffix(".k_scale") || name.hasSuffix(".v_scale") {
          header[name] = nil
          header[name.replacing(".k_scale", with: ".q_scale").replacing(".v_scale", with: ".prob_scale")] = tensor
        }
      }
      let other = try ModelHarness(source(unscaled.path), backend: backend, dataType: .f8e4m3).logits(prompt)
      #expect(worst(other, expected) > 3e-3 * largest, "\(worst(other, expected)) of \(largest)")
    }
    let layers = try Llama.attentionLayers(of: source(checkpoint.path), on: CPUDevice(threads: 1))
    let given = AttentionContext(
      device: try CPUDevice(threads: 1), kvCache: nil, maxNumRequests: 1, maxNumTokens: 1,
      quantConfig: QuantConfig(kvScales: KVScales(key: 2)))
    #expect(given.quantConfig(of: layers[0]).kvScales == KVScales(key: 2), "what a person gives counts")
  }

  @Test("gives them for tokens with places in time, height and width, too, in whatever chunks", arguments: TinyCheckpoint.placed, backends)
  func places(name: String, backend: String) throws {
    let checkpoint = try TinyCheckpoint(name), prompt = checkpoint.prompts[0], places = checkpoint.places
    let expected = try checkpoint.placedLogits(), largest = expected.reduce(0) { max($0, abs($1)) }
    for source in [try source(checkpoint.path), try GGUFCheckpoint(path: checkpoint.path + "/model.gguf")] as [any ModelSource] {
      let harness = try ModelHarness(source, backend: backend)
      let found = try harness.logits(prompt, places: places)
      let worst = zip(found.joined(), expected).reduce(0) { max($0, abs($1.0 - $1.1)) }
      #expect(worst < 1e-5 * largest, "off by \(worst) where the largest is \(largest)")
      for chunks in [[1, 2, 3, 4, 5], Array(repeating: 1, count: prompt.count)] {
        #expect(try harness.logits(prompt, chunks: chunks, places: places) == found, "\(chunks)")
      }
      // The same place on all axes is one position, to the bit.
      let line = Array(repeating: Array(prompt.indices), count: 3)
      #expect(try harness.logits(prompt, places: line) == harness.logits(prompt))
    }
  }

  @Test("counts what its experts compute")
  func expertLoads() throws {
    for (name, layers, experts, used) in [("qwen3-moe-mixed", 1, 6, 3), ("gpt-oss", 2, 4, 2), ("llama", 0, 0, 0)] {
      let checkpoint = try TinyCheckpoint(name), harness = try ModelHarness(source(checkpoint.path), backend: "TRTLLM")
      for _ in 0..<2 { _ = try harness.logits(checkpoint.prompts[0], chunks: [3]) }
      let loads = harness.model.expertLoads.map { Array($0.unsafeHostPointer(to: Int32.self)!) }
      #expect(loads.map(\.count) == Array(repeating: experts, count: layers))
      for load in loads { #expect(load.reduce(0, +) == Int32(2 * used * checkpoint.prompts[0].count) && load.contains { $0 > 0 }) }
    }
  }

  @Test("continues prompts with the tokens with which Transformers does", arguments: TinyCheckpoint.names, backends)
  func greedy(name: String, backend: String) throws {
    let checkpoint = try TinyCheckpoint(name)
    for (prompt, expected) in zip(checkpoint.prompts, checkpoint.greedy) {
      let harness = try harness(source(checkpoint.path), name, backend: backend, for: prompt)
      var tokens = prompt
      for _ in expected {
        let last = try harness.logits(tokens).last!
        tokens.append(Int32(last.indices.max { last[$0] < last[$1] }!))
      }
      #expect(Array(tokens[prompt.count...]) == expected)
    }
  }

  @Test("gives the same bits in whatever chunks a prompt comes", arguments: TinyCheckpoint.names, backends)
  func chunks(name: String, backend: String) throws {
    let checkpoint = try TinyCheckpoint(name), prompt = checkpoint.prompts[0]
    let harness = try ModelHarness(source(checkpoint.path), backend: backend)
    let whole = try harness.logits(prompt).joined().map(\.bitPattern)
    for chunks in [[1, 2, 3, 4, 5], Array(repeating: 1, count: prompt.count), [prompt.count - 1]] {
      #expect(try harness.logits(prompt, chunks: chunks).joined().map(\.bitPattern) == whole, "\(chunks)")
    }
  }

  @Test("gives the same bits as the same model in GGUF, in one file or several", arguments: ["qwen2", "qwen3"], backends)
  func sameAsGGUF(name: String, backend: String) throws {
    let checkpoint = try TinyCheckpoint(name)
    let directory = try ModelHarness(source(checkpoint.path), backend: backend)
    // Qwen 2's in parts.
    let path = checkpoint.path + (name == "qwen2" ? "/model-00001-of-00004.gguf" : "/model.gguf")
    let file = try ModelHarness(GGUFCheckpoint(path: path), backend: backend)
    for prompt in checkpoint.prompts {
      #expect(try directory.logits(prompt).joined().map(\.bitPattern) == file.logits(prompt).joined().map(\.bitPattern))
    }
  }

  @Test(
    "means the same in the settings of older versions of Transformers",
    arguments: ["llama", "gemma3", "deepseek-v2", "deepseek-v3", "deepseek-v3-halves", "gemma4", "gemma4-moe"])
  func olderSettings(name: String) throws {
    let checkpoint = try TinyCheckpoint(name)
    let older = try EditedCheckpoint(name)
    try older.remove("config.json")
    try FileManager.default.moveItem(atPath: older.path + "/config-old.json", toPath: older.path + "/config.json")
    let (new, old) = (try ModelHarness(source(checkpoint.path), backend: "TRTLLM"), try ModelHarness(source(older.path), backend: "TRTLLM"))
    #expect(try old.logits(checkpoint.prompts[0]) == new.logits(checkpoint.prompts[0]))
  }

  @Test("stretches RoPE's frequencies as Transformers does, in both spellings")
  func rope() throws {
    let cases =
      try JSONSerialization.jsonObject(with: Data(contentsOf: URL(fileURLWithPath: TinyCheckpoint.file("rope.json")))) as! [[String: Any]]
    #expect(cases.count == 22)
    for entry in cases {
      let name = entry["name"] as! String, length = entry["length"] as! Int
      let expected = entry["frequencies"] as! [Double], magnitude = entry["magnitude"] as! Double
      for key in ["config", "old_config"] {
        let checkpoint = try EditedCheckpoint("llama")
        try checkpoint.edit { $0 = entry[key] as! [String: Any] }
        let layers = try Llama.attentionLayers(of: source(checkpoint.path), on: CPUDevice(threads: 1))
        let rope = layers[0].positionalEmbedding!.rope
        let found = rope.frequencies(maxSequenceLength: length)
        #expect(found.count == expected.count)
        // Theirs are float32: a power, a quotient, a blend.
        for (f, e) in zip(found, expected) { #expect(abs(f - e) <= 1e-6 * e, "\(name), \(key), length \(length): \(f), not \(e)") }
        #expect(abs(rope.magnitude - magnitude) < 1e-6, "\(name), \(key): magnitude \(rope.magnitude), not \(magnitude)")
      }
    }
  }

  @Test("describes its layers: windows, scale, positions")
  func layers() throws {
    let gemma = try Gemma3.attentionLayers(of: source(TinyCheckpoint.file("gemma3")), on: CPUDevice(threads: 1))
    #expect(gemma.map(\.window) == [8, nil, 8])
    #expect(gemma.map { $0.positionalEmbedding!.rope.theta } == [10000, 1_000_000, 10000])
    let qwen = try Qwen2.attentionLayers(of: source(TinyCheckpoint.file("qwen2-window")), on: CPUDevice(threads: 1))
    #expect(qwen.map(\.window) == [nil, 6])
    let llama = try Llama.attentionLayers(of: source(TinyCheckpoint.file("llama")), on: CPUDevice(threads: 1))
    #expect(llama.allSatisfy { $0.positionalEmbedding!.isNeoX && $0.window == nil })
  }

  @Test("of Mistral's has a window in every layer, if it says one")
  func mistral() throws {
    let checkpoint = try EditedCheckpoint("llama")
    try checkpoint.edit {
      $0["model_type"] = "mistral"
      $0["sliding_window"] = 5
    }
    #expect(try Llama.attentionLayers(of: source(checkpoint.path), on: CPUDevice(threads: 1)).map(\.window) == [5, 5])
    try checkpoint.edit { $0["sliding_window"] = NSNull() }
    #expect(try Llama.attentionLayers(of: source(checkpoint.path), on: CPUDevice(threads: 1)).map(\.window) == [nil, nil])
  }

  /// `defaults.json` says what Transformers' classes make of a config.json that says nothing.
  @Test(
    "takes for settings that are missing what Transformers' class takes",
    arguments: ModelRegistry.builtIn.architectures.flatMap { $0.checkpoints.filter { !$0.needsRopeSettings }.map(\.modelType) }
      .filter { $0 != "bert" })  // has settings of its own: EmbeddingTests
  func defaults(modelType: String) throws {
    let all = try JSONValue(path: TinyCheckpoint.file("defaults.json"))
    for (what, extra) in [("", [:]), (" with windows", ["use_sliding_window": true])] as [(String, [String: Any])] {
      guard let expected = all[modelType + what] else {
        #expect(!what.isEmpty, "defaults.json has no \(modelType): add it to make_checkpoints.py")
        continue
      }
      let others = [
        "gemma3_text": "gemma3", "mistral": "llama", "ministral": "llama", "qwen3_moe": "qwen3-moe", "deepseek_v2": "deepseek-v2",
        "deepseek_v3": "deepseek-v3", "qwen2_vl_text": "qwen2-vl", "qwen2_5_vl_text": "qwen2-vl", "qwen3_vl_text": "qwen3-vl",
      ]
      let checkpoint = try EditedCheckpoint(others[modelType] ?? modelType)
      try checkpoint.edit { $0 = extra.merging(["model_type": modelType]) { $1 } }
      // Untied models have an output matrix.
      if expected["tie_word_embeddings"]?.bool != true, ["qwen3", "granite"].contains(modelType) || modelType.contains("_vl") {
        try checkpoint.repeatEmbedding()
      }
      let source = try source(checkpoint.path)
      let architecture = try #require(try source.string(ifPresent: "general.architecture"))
      func integer(_ key: String) throws -> Int? { try source.integer(ifPresent: "\(architecture).\(key)") }
      for (name, key) in [
        ("hidden_size", "embedding_length"), ("intermediate_size", "feed_forward_length"), ("num_hidden_layers", "block_count"),
        ("num_attention_heads", "attention.head_count"), ("max_position_embeddings", "context_length"),
      ] {
        #expect(try integer(key) == expected[name]!.integer!, "\(modelType): \(name)")
      }
      let heads = try #require(try integer("attention.head_count"))
      #expect(try integer("attention.head_count_kv") ?? heads == expected["num_key_value_heads"]!.integer!)
      let usualHeadDim = try #require(try integer("embedding_length")) / heads
      #expect(try integer("attention.key_length") ?? usualHeadDim == expected["head_dim"]?.integer ?? usualHeadDim)
      #expect(try source.float(ifPresent: "\(architecture).attention.layer_norm_rms_epsilon") == Float(expected["rms_norm_eps"]!.double!))
      let rope = expected["rope_parameters"]!
      let theta = (rope["full_attention"] ?? rope)["rope_theta"]!.double!
      #expect(try source.float(ifPresent: "\(architecture).rope.freq_base") == Float(theta))
      if let local = rope["sliding_attention"] {
        #expect(try source.float(ifPresent: "\(architecture).rope.freq_base_swa") ?? 10000 == Float(local["rope_theta"]!.double!))
      }
      for (name, key) in [
        ("query_pre_attn_scalar", "attention.query_pre_attn_scalar"), ("attn_logit_softcapping", "attn_logit_softcapping"),
        ("final_logit_softcapping", "final_logit_softcapping"), ("embedding_multiplier", "embedding_scale"),
        ("residual_multiplier", "residual_scale"), ("attention_multiplier", "attention.scale"), ("logits_scaling", "logit_scale"),
      ] {
        guard let value = expected[name], !value.isNull else { continue }
        #expect(try source.float(ifPresent: "\(architecture).\(key)") == Float(value.double!), "\(modelType): \(name)")
      }
      for (name, key) in [
        ("num_experts_per_tok", "expert_used_count"), ("num_experts", "expert_count"), ("num_local_experts", "expert_count"),
        ("moe_intermediate_size", "expert_feed_forward_length"), ("decoder_sparse_step", "expert_layer_step"),
        ("q_lora_rank", "attention.q_lora_rank"), ("kv_lora_rank", "attention.kv_lora_rank"),
        ("qk_nope_head_dim", "attention.key_length_nope"), ("qk_rope_head_dim", "rope.dimension_count"),
        ("v_head_dim", "attention.value_length_mla"), ("n_routed_experts", "expert_count"), ("n_shared_experts", "expert_shared_count"),
        ("first_k_dense_replace", "leading_dense_block_count"), ("n_group", "expert_group_count"),
        ("topk_group", "expert_group_used_count"),
      ] {
        guard let value = expected[name] else { continue }
        #expect(try integer(key) == value.integer, "\(modelType): \(name)")
      }
      // DeepSeek V2's class has the setting, and does not read it.
      if let normalizes = expected["norm_topk_prob"]?.bool, modelType != "deepseek_v2" {
        #expect(try source.bool(ifPresent: "\(architecture).expert_weights_norm") == normalizes)
      }
      if let rotates = expected["no_rope_layers"] {
        let interval = try #require(try integer("rope.layer_interval"))
        #expect(rotates.elements.map { $0.integer == 1 } == (1...rotates.count).map { $0 % interval != 0 })
      }
      // Windows: the size, and the layers that have one.
      let count = expected["num_hidden_layers"]!.integer!
      let slides =
        expected["layer_types"]?.elements.map { $0.string == "sliding_attention" }
        ?? Array(repeating: expected["sliding_window"].map { !$0.isNull } ?? false, count: count)
      #expect(try integer("attention.sliding_window") == expected["sliding_window"]?.integer)
      if expected["sliding_window"]?.integer != nil {
        #expect(try source.boolList(ifPresent: "\(architecture).attention.sliding_window_pattern") == slides, "\(modelType)\(what)")
      }
    }
  }

  @Test("of Ministral's is a Mistral, whose layers may differ")
  func ministral() throws {
    let checkpoint = try EditedCheckpoint("llama")
    try checkpoint.edit {
      $0["model_type"] = "ministral"
      $0["sliding_window"] = 5
      $0["layer_types"] = ["sliding_attention", "full_attention"]
    }
    #expect(try Llama.attentionLayers(of: source(checkpoint.path), on: CPUDevice(threads: 1)).map(\.window) == [5, nil])
    let ministral = try ModelHarness(source(checkpoint.path), backend: "TRTLLM").logits([1, 2, 3, 4, 5, 6, 7])
    try checkpoint.edit { $0["model_type"] = "mistral" }
    #expect(try ModelHarness(source(checkpoint.path), backend: "TRTLLM").logits([1, 2, 3, 4, 5, 6, 7]) == ministral)
    // No window where it is null, 4096 where it is missing.
    try checkpoint.edit {
      $0["layer_types"] = nil; $0["sliding_window"] = nil
    }
    #expect(try Llama.attentionLayers(of: source(checkpoint.path), on: CPUDevice(threads: 1)).map(\.window) == [4096, 4096])
  }

  @Test("may say RoPE's settings in both spellings, if they say the same")
  func bothSpellings() throws {
    let tiny = try TinyCheckpoint("llama")
    let expected = try ModelHarness(source(tiny.path), backend: "TRTLLM").logits(tiny.prompts[0])
    let checkpoint = try EditedCheckpoint("llama")
    try checkpoint.edit { config in
      var old = config["rope_parameters"] as! [String: Any]
      old["type"] = old.removeValue(forKey: "rope_type")
      old["rope_theta"] = nil
      config["rope_scaling"] = old
    }
    #expect(try ModelHarness(source(checkpoint.path), backend: "TRTLLM").logits(tiny.prompts[0]) == expected)
    try checkpoint.edit { config in
      var old = config["rope_scaling"] as! [String: Any]
      old["factor"] = 9
      config["rope_scaling"] = old
    }
    #expect(message(checkpoint).contains("keep one of them"))
  }

  @Test("says which settings it passed over")
  func ignoredSettings() throws {
    let tiny = try TinyCheckpoint("llama")
    let checkpoint = try EditedCheckpoint("llama")
    try checkpoint.edit { config in
      for (key, value) in [
        "embd_pdrop": 0.0, "resid_pdrop": 0.1, "use_sliding_window": false, "sliding_window": 4096, "max_window_layers": 21,
        "max_sequence_length": 2048, "output_router_logits": false, "classifier_dropout": 0.5, "mlp_extra": [],
        "image_token_id": 7, "is_causal": true, "use_memory": false, "rope_interleaved": false,
        "num_experts": 0, "bias": false, "layerdrop": 0.1, "task": "",
      ] as [String: Any] {
        config[key] = value
      }
    }
    let text = try String(contentsOfFile: checkpoint.path + "/config.json", encoding: .utf8)
    try checkpoint.write(Data(text.replacing("\"hidden_size\":64", with: "\"hidden_size\":64.0").utf8), to: "config.json")
    #expect(try HuggingFaceDirectory(path: checkpoint.path).config["hidden_size"]?.numberText == "64.0")
    let source = try source(checkpoint.path)
    #expect(
      Set(source.ignoredSettings) == [
        "embd_pdrop", "resid_pdrop", "output_router_logits", "classifier_dropout", "mlp_extra", "image_token_id", "use_memory",
        "num_experts", "layerdrop", "task",
      ])
    let logits = try ModelHarness(source, backend: "TRTLLM").logits(tiny.prompts[0])
    #expect(try logits == ModelHarness(self.source(tiny.path), backend: "TRTLLM").logits(tiny.prompts[0]))
    #expect(try self.source(tiny.path).ignoredSettings.isEmpty)
  }

  /// Each is on, or not 0, in a class of Transformers 5.24 where the file does not say it; what this build would compute without asking is refused.
  @Test(
    "is refused where off may be what changes something",
    arguments: [
      "use_qk_norm", "use_rotary_embedding", "use_bias", "use_parallel_residual", "norm_topk_prob", "scale_embedding",
      "do_layer_norm_before",
      "quantized", "parallel_attn", "normalize_before",
    ])
  func offIsASetting(name: String) throws {
    let checkpoint = try EditedCheckpoint("qwen3")
    try checkpoint.edit { $0[name] = false }
    #expect(message(checkpoint).contains("\(name) = false"), "\(message(checkpoint))")
  }

  @Test(
    "is refused where 0 is a number that something is multiplied by",
    arguments: ["embedding_multiplier", "logit_scale", "residual_multiplier", "output_multiplier", "first_layer"])
  func zeroIsASetting(name: String) throws {
    let checkpoint = try EditedCheckpoint("llama")
    try checkpoint.edit { $0[name] = 0 }
    #expect(message(checkpoint).contains("\(name) = 0"), "\(message(checkpoint))")
    // A name that promises an output, or a dropout that is a switch, is not enough either.
    let other = try EditedCheckpoint("llama")
    try other.edit { $0["output_multiplier"] = 0.5 }
    #expect(message(other).contains("output_multiplier"))
    try other.edit {
      $0["output_multiplier"] = nil
      $0["token_dropout"] = true
    }
    #expect(message(other).contains("token_dropout"))
  }

  // MARK: Tied embeddings

  /// Transformers ties two matrices of a file only if they are equal (`tie_weights`), so that its logits are those of the untied model.
  @Test("has the output matrix that its file has, though the settings say that it is the embedding", arguments: ["llama", "qwen2"])
  func differentOutput(name: String) throws {
    let tiny = try TinyCheckpoint(name)
    let checkpoint = try EditedCheckpoint(name)
    try checkpoint.edit { $0["tie_word_embeddings"] = true }
    #expect(try !source(checkpoint.path).sharesEmbedding())
    let logits = try ModelHarness(source(checkpoint.path), backend: "TRTLLM").logits(tiny.prompts[0])
    #expect(zip(logits.joined(), tiny.logits[0].joined()).allSatisfy { abs($0 - $1) < 2e-5 })
  }

  @Test("that ties its matrices may hold both, or the one matrix under the other's name")
  func equalOutput() throws {
    let tiny = try TinyCheckpoint("qwen3")
    let original = try ModelHarness(source(tiny.path), backend: "TRTLLM").logits(tiny.prompts[0])

    let both = try EditedCheckpoint("qwen3")
    try both.repeatEmbedding()
    let source = try source(both.path)
    #expect(source.modelTensors.contains { $0.name == "output.weight" })
    #expect(try source.sharesEmbedding())
    #expect(try ModelHarness(source, backend: "TRTLLM").logits(tiny.prompts[0]) == original)

    let other = try EditedCheckpoint("qwen3")
    try other.editHeader("model.safetensors") { $0["lm_head.weight"] = $0.removeValue(forKey: "model.embed_tokens.weight") }
    #expect(try ModelHarness(self.source(other.path), backend: "TRTLLM").logits(tiny.prompts[0]) == original)
  }

  // MARK: What is wrong

  private func message(_ checkpoint: EditedCheckpoint) -> String {
    do {
      _ = try ModelHarness(source(checkpoint.path), backend: "VANILLA")
      return "no error"
    } catch {
      return "\(error)"
    }
  }

  @Test("that lacks a file says which")
  func missingFiles() throws {
    var checkpoint = try EditedCheckpoint("llama")
    try checkpoint.remove("config.json")
    #expect(message(checkpoint).contains("has no config.json"))

    checkpoint = try EditedCheckpoint("llama")
    try checkpoint.remove("model-00002-of-00003.safetensors")
    #expect(message(checkpoint).contains("has no model-00002-of-00003.safetensors; the index lists it"))

    checkpoint = try EditedCheckpoint("llama")
    try checkpoint.remove("model.safetensors.index.json")
    #expect(message(checkpoint).contains("has no model.safetensors and no model.safetensors.index.json"))
  }

  /// The index is a table of contents that many programs write: Transformers reads every tensor of the files that it names.
  @Test("has the tensors that its files hold, whatever the index says beside that")
  func indexAndShards() throws {
    let tiny = try TinyCheckpoint("llama")
    let expected = try ModelHarness(source(tiny.path), backend: "TRTLLM").logits(tiny.prompts[0])
    let first = "model-00001-of-00003.safetensors", last = "model-00003-of-00003.safetensors"
    func edited(_ change: (inout [String: Any]) -> Void) throws -> EditedCheckpoint {
      let checkpoint = try EditedCheckpoint("llama")
      try checkpoint.edit("model.safetensors.index.json") { index in
        var map = index["weight_map"] as! [String: Any]
        change(&map)
        index["weight_map"] = map
      }
      return checkpoint
    }
    // A tensor that no file has and nobody needs; one that is not listed; one that is listed for a file that does not have it.
    for change: (inout [String: Any]) -> Void in [
      { $0["model.extra.weight"] = first }, { $0["model.norm.weight"] = nil },
      { $0["model.norm.weight"] = $0["model.norm.weight"] as? String == first ? last : first },
    ] {
      let checkpoint = try edited(change)  // the directory goes with the value
      #expect(try ModelHarness(source(checkpoint.path), backend: "TRTLLM").logits(tiny.prompts[0]) == expected)
    }
    // What is needed and in no file is missing.
    var checkpoint = try edited { _ in }
    let norm = try #require(
      try [first, "model-00002-of-00003.safetensors", last].first {
        try SafetensorsFile(path: checkpoint.path + "/" + $0).tensor("model.norm.weight") != nil
      })
    try checkpoint.editHeader(norm) { $0["something.else"] = $0.removeValue(forKey: "model.norm.weight") }
    #expect(message(checkpoint).contains("there is no tensor \"model.norm.weight\""))

    // Of two files with a tensor, the one that the index names counts; what neither it nor the formula knows is nothing.
    checkpoint = try edited { _ in }
    let other = norm == first ? last : first
    try checkpoint.append("model.norm.weight", like: "model.norm.weight", of: norm, value: 7, to: other)
    try checkpoint.append("leftover.weight", like: "model.norm.weight", of: norm, value: 7, to: other)
    #expect(try ModelHarness(source(checkpoint.path), backend: "TRTLLM").logits(tiny.prompts[0]) == expected)
    try checkpoint.edit("model.safetensors.index.json") { index in
      var map = index["weight_map"] as! [String: Any]
      map["model.norm.weight"] = other
      index["weight_map"] = map
    }
    #expect(try ModelHarness(source(checkpoint.path), backend: "TRTLLM").logits(tiny.prompts[0]) != expected)
  }

  @Test("whose index is wrong names the entry")
  func wrongIndex() throws {
    func message(_ change: (inout [String: Any]) -> Void) throws -> String {
      let checkpoint = try EditedCheckpoint("llama")
      try checkpoint.edit("model.safetensors.index.json") { index in
        var map = index["weight_map"] as! [String: Any]
        change(&map)
        index["weight_map"] = map
      }
      return self.message(checkpoint)
    }
    #expect(try message { $0["model.norm.weight"] = "../llama/model.safetensors" }.contains("not the name of a .safetensors file"))
    #expect(try message { $0["model.norm.weight"] = 3 }.contains("not the name of a .safetensors file"))
    #expect(try message { $0 = [:] }.contains("weight_map is empty"))

    let checkpoint = try EditedCheckpoint("llama")
    try checkpoint.write(Data("{}".utf8), to: "model.safetensors.index.json")
    #expect(self.message(checkpoint).contains("weight_map is missing"))
    try checkpoint.write(Data("{".utf8), to: "model.safetensors.index.json")
    #expect(self.message(checkpoint).contains("model.safetensors.index.json: the text cannot be read"))
  }

  @Test("whose weights are wrong names the tensor")
  func wrongWeights() throws {
    let name = "model.layers.1.mlp.up_proj.weight"
    var checkpoint = try EditedCheckpoint("qwen3")
    try checkpoint.edit { $0["intermediate_size"] = 65 }
    #expect(message(checkpoint).contains("\"model.layers.0.mlp.gate_proj.weight\" has shape [64, 64] where [65, 64] is needed"))

    checkpoint = try EditedCheckpoint("qwen3")
    let weights = try Data(contentsOf: URL(fileURLWithPath: checkpoint.path + "/model.safetensors"))
    try checkpoint.write(weights.prefix(200), to: "model.safetensors")
    #expect(message(checkpoint).contains("the header needs"))
    try checkpoint.write(weights.dropLast(), to: "model.safetensors")
    #expect(message(checkpoint).contains("the data of tensor"))

    checkpoint = try EditedCheckpoint("qwen3")
    try checkpoint.editHeader("model.safetensors") { header in
      let (begin, end) = ((header[name]!["data_offsets"] as! [Int])[0], (header[name]!["data_offsets"] as! [Int])[1])
      header[name]!["data_offsets"] = [begin - 64, end - 64]
    }
    #expect(message(checkpoint).contains("overlaps the tensor before it"))

    checkpoint = try EditedCheckpoint("qwen3")
    try checkpoint.editHeader("model.safetensors") { $0[name]!["dtype"] = "I16" }
    #expect(message(checkpoint).contains("\"\(name)\" has type I16, which this build cannot read (reads: F32, F16, BF16, F8_E4M3)"))

    checkpoint = try EditedCheckpoint("qwen3")
    try checkpoint.editHeader("model.safetensors") { header in
      header["model.layers.1.mlp.surprise.weight"] = header.removeValue(forKey: name)
    }
    #expect(message(checkpoint).contains("there is no tensor \"\(name)\""))

    checkpoint = try EditedCheckpoint("qwen3")
    try checkpoint.edit {
      $0["num_hidden_layers"] = 1; $0["layer_types"] = ["full_attention"]
    }
    #expect(message(checkpoint).contains("has a tensor \"model.layers.1."), "a layer that is not used")

    checkpoint = try EditedCheckpoint("qwen3")
    try checkpoint.editHeader("model.safetensors") { header in
      header["blk.0.attn_q.weight"] = ["dtype": "F32", "shape": [0], "data_offsets": [0, 0]]
    }
    #expect(message(checkpoint).contains("has a tensor \"blk.0.attn_q.weight\""), "GGUF's name in a directory")
  }

  @Test("in NVFP4 whose parts do not fit names the tensor")
  func wrongSixteens() throws {
    let module = "model.layers.1.mlp.up_proj."
    func message(_ checkpoint: String, _ change: (inout [String: [String: Any]]) -> Void) throws -> String {
      let edited = try EditedCheckpoint(checkpoint)
      try edited.editHeader("model.safetensors", change)
      return self.message(edited)
    }
    // Sizes that the data still fits.
    #expect(
      try message("nvfp4") { $0[module + "weight_scale"]!["shape"] = [4, 128] }.contains(
        "\(module)weight_scale\" has shape [4, 128] where [128, 4] is needed"))
    #expect(
      try message("nvfp4") { $0[module + "weight_packed"]!["shape"] = [64, 64] }.contains(
        "\(module)weight_packed\" has shape [64, 64] where [128, half of 64], two values in a byte, and rows of a multiple of 64 values"))
    #expect(
      try message("nvfp4") { $0[module + "weight_packed"]!["shape"] = [256, 16] }.contains("\(module)weight_packed\" has shape [256, 16]"))
    // Scales that are others', or missing: then the codes are no matrix.
    #expect(try message("nvfp4") { $0[module + "weight_scale"]!["dtype"] = "F8_E8M0" }.contains("there is no tensor \"\(module)weight\""))
    #expect(
      try message("nvfp4-mixed") { $0[module + "weight_scale"]!["dtype"] = "F8_E8M0" }.contains("\"\(module)weight\" has type U8"))
    #expect(
      try message("nvfp4") { $0[module + "surprise"] = $0.removeValue(forKey: module + "weight_global_scale") }.contains(
        "there is no tensor \"\(module)weight_global_scale\""))
    #expect(
      try message("nvfp4-mixed") { $0[module + "weight_global_scale"] = $0.removeValue(forKey: module + "weight_scale_2") }.contains(
        "there is no tensor \"\(module)weight_scale_2\""))
    #expect(
      try message("nvfp4-mixed") { $0[module + "pre_quant_scale"] = $0.removeValue(forKey: module + "input_scale") }.contains(
        "has a tensor \"\(module)pre_quant_scale\""))

    let zero = try EditedCheckpoint("nvfp4"), name = module + "weight_global_scale"
    let tensor = try #require(try SafetensorsFile(path: zero.path + "/model.safetensors").tensor(name))
    var bytes = try Data(contentsOf: URL(fileURLWithPath: zero.path + "/model.safetensors"))
    bytes.replaceSubrange(tensor.offset..<tensor.offset + 4, with: [0, 0, 0, 0])
    try zero.write(bytes, to: "model.safetensors")
    #expect(self.message(zero).contains("\(name) = 0.0: a number that scales weights is needed"))

    let other = try EditedCheckpoint("nvfp4-moe")
    try other.edit("hf_quant_config.json") { $0["quantization"] = ["quant_algo": "NVFP4_AWQ"] }
    #expect(self.message(other).contains("hf_quant_config.json: quantization.quant_algo = NVFP4_AWQ: this build reads FP8 and NVFP4"))
    try other.edit("hf_quant_config.json") { $0["quantization"] = ["quant_algo": "NVFP4", "group_size": 32] }
    #expect(self.message(other).contains("hf_quant_config.json: quantization.group_size = 32: this build reads 16 only"))
  }

  @Test("of GGUF has no tensors that belong to those of NVFP4")
  func companions() throws {
    var writer = GGUFWriter()
    writer.addTensor("a.weight", type: GGUFTensorType(.nvfp4), shape: [1, 64], bytes: [UInt8](repeating: 7, count: 36))
    writer.addTensor("b.weight", shape: [1, 1], floats: [1])
    for name in ["a.scale", "a.input_scale", "b.scale", "b.input_scale", "c.scale"] { writer.addTensor(name, shape: [1], floats: [1]) }
    let file = try GGUFFile(bytes: writer.bytes()), expected = ["a.weight", "b.weight", "b.scale", "b.input_scale", "c.scale"]
    #expect(file.modelTensors.map(\.name) == expected)
    #expect(try GGUFCheckpoint(file).modelTensors.map(\.name) == expected)
  }

  /// The setting, its value (nil: none), a checkpoint, and what the message must say.
  static let settings: [(String, String, (any Sendable)?, String)] = [
    (
      "llama", "model_type", "mamba",
      "\"mamba\" is unknown (known: \(ModelRegistry.builtIn.architectures.flatMap { $0.checkpoints.map(\.modelType) }.joined(separator: ", "))"
    ),
    ("llama", "model_type", nil, "no \"model_type\""), ("llama", "hidden_size", NSNull(), "no \"hidden_size\""),
    ("llama", "hidden_size", nil, "\"model.embed_tokens.weight\" has shape [128, 64] where [any, 4096] is needed"),
    ("llama", "num_hidden_layers", NSNull(), "no \"num_hidden_layers\""), ("llama", "num_hidden_layers", nil, "num_hidden_layers = 32"),
    ("llama", "rms_norm_eps", NSNull(), "no \"rms_norm_eps\""), ("qwen3", "head_dim", NSNull(), "no \"head_dim\""),
    ("llama", "max_position_embeddings", NSNull(), "no \"max_position_embeddings\""),
    ("qwen3", "head_dim", nil, "\"model.layers.0.self_attn.q_norm.weight\" has shape [32] where 128 values is needed"),
    ("llama", "hidden_size", "64", "hidden_size = \"64\": an integer is needed"),
    ("llama", "hidden_size", 0, "hidden_size = 0: it must be"),
    ("llama", "num_key_value_heads", 3, "num_key_value_heads = 3: it must divide"), ("llama", "vocab_size", 127, "vocab_size = 127"),
    ("llama", "hidden_act", "gelu", "this build computes \"silu\" only"),
    ("llama", "attention_bias", true, "\"model.layers.0.self_attn.q_proj.bias\""),
    ("llama", "mlp_bias", true, "mlp_bias = true"), ("llama", "tie_word_embeddings", "yes", "true or false is needed"),
    ("qwen3", "tie_word_embeddings", false, "there is none"),
    ("llama", "use_sliding_window", true, "this model type has no windows"), ("llama", "is_causal", false, "computes true only"),
    ("llama", "hidden_size", 64.5, "an integer is needed"), ("qwen3", "logit_scale", true, "logit_scale = true, which this build"),
    ("llama", "residual_multiplier", 0.5, "residual_multiplier = 0.5, which this build does not know"),
    ("llama", "quantization_config", ["bits": 4], "quantization_config.quant_method = none"),
    ("llama", "quantization_config", ["quant_method": "gptq"], "take unquantised weights"),
    ("llama", "quantization_config", ["quant_method": "fp8", "fmt": "e5m2"], "quantization_config.fmt = e5m2"),
    (
      "fp8-block", "quantization_config", ["quant_method": "fp8", "weight_block_size": [128, 64]] as [String: any Sendable],
      "weight_block_size = [128, 64]: a block has rows, and a multiple of 128 columns"
    ),
    (
      "fp8-block", "quantization_config", ["quant_method": "fp8", "weight_block_size": [64, 128]] as [String: any Sendable],
      "weight_scale_inv\" has shape [2, 2] where one scale for a matrix of [144, 132], one for each row, or one for 64 × 128 values is needed"
    ),
    ("fp8-channel", "quantization_config", ["quant_method": "compressed-tensors", "format": "pack-quantized"], "format = pack-quantized"),
    (
      "fp8-channel", "quantization_config",
      ["quant_method": "compressed-tensors", "config_groups": ["a": ["weights": ["num_bits": 4]]]] as [String: any Sendable],
      "config_groups.a.weights.num_bits = 4"
    ),
    (
      "nvfp4", "quantization_config",
      ["quant_method": "compressed-tensors", "format": "nvfp4-pack-quantized", "config_groups": ["a": ["weights": ["group_size": 32]]]]
        as [String: any Sendable], "config_groups.a.weights.group_size = 32"
    ),
    (
      "nvfp4", "quantization_config",
      [
        "quant_method": "compressed-tensors", "format": "mixed-precision",
        "config_groups": ["a": ["format": "nvfp4-pack-quantized", "weights": ["num_bits": 8]] as [String: any Sendable]],
      ] as [String: any Sendable], "config_groups.a.weights.num_bits = 8"
    ),
    (
      "nvfp4", "quantization_config",
      [
        "quant_method": "compressed-tensors", "format": "mixed-precision",
        "config_groups": ["a": ["format": "mxfp4-pack-quantized"] as [String: any Sendable]],
      ] as [String: any Sendable], "config_groups.a.format = mxfp4-pack-quantized"
    ),
    (
      "nvfp4", "quantization_config",
      [
        "quant_method": "compressed-tensors", "format": "nvfp4-pack-quantized",
        "transform_config": ["config_groups": ["a": ["type": "hadamard"]]],
      ] as [String: any Sendable], "transform_config = set: this build knows no transforms"
    ),
    (
      "nvfp4-mixed", "quantization_config",
      [
        "quant_method": "modelopt", "quant_algo": "MIXED_PRECISION",
        "quantized_layers": ["model.layers.0.mlp.up_proj": ["quant_algo": "W4A8_AWQ"]],
      ] as [String: any Sendable], "quantized_layers.model.layers.0.mlp.up_proj.quant_algo = W4A8_AWQ"
    ),
    ("gpt-oss", "swiglu_limit", -7, "swiglu_limit = -7"),
    ("gpt-oss", "intermediate_size", 25, "gate_up_proj\" has shape [4, 40, 48] where [4, 40, 50] is needed"),
    ("gpt-oss-mxfp4", "intermediate_size", 64, "gate_up_proj_blocks\" has shape [4, 192, 2, 16] where [4, 128, 2, 16] is needed"),
    ("qwen2", "use_mrope", true, "use_mrope = true: this build computes false only"),
    ("llama", "sliding_window", 8, "sliding_window = 8, which this build"),
    ("llama", "rope_parameters", ["rope_type": "spiral"], "rope_type = spiral"), ("llama", "rope_parameters", 4, "an object is needed"),
    ("llama", "rope_parameters", ["rope_type": "linear", "factor": -2.0] as [String: any Sendable], "the linear factor must be above 0"),
    (
      "llama", "rope_parameters", ["rope_type": "yarn", "factor": 2.0, "truncate": 2] as [String: any Sendable], "rope_parameters.truncate"
    ),
    ("llama", "rope_parameters", ["rope_type": "llama3", "factor": 2.0] as [String: any Sendable], "no \"low_freq_factor\""),
    ("llama", "rope_parameters", ["rope_type": "default", "warp": 2.0] as [String: any Sendable], "rope_parameters.warp = 2"),
    ("llama", "rope_scaling", ["rope_type": "linear", "factor": 2.0] as [String: any Sendable], "says something else: keep one of them"),
    ("llama", "partial_rotary_factor", 0.4, "partial_rotary_factor = 0.4: this model type turns all dims"),
    ("llama", "rope_theta", "big", "a number within float32's range is needed"),
    ("llama", "rope_theta", 1e39, "rope_theta = 1e+39: a number within"),
    ("gemma3", "attn_logit_softcapping", 30.0, "attn_logit_softcapping = 30"),
    ("gemma3", "use_bidirectional_attention", true, "looks to both sides of a token: it answers with vectors"),
    ("gemma3", "layer_types", ["full_attention"], "num_hidden_layers is 3"),
    ("gemma3", "sliding_window", NSNull(), "no \"sliding_window\""),
    ("gemma3", "layer_types", ["full_attention", "chunked_attention", "full_attention"], "layer_types = chunked_attention"),
    ("gemma3", "query_pre_attn_scalar", -1, "query_pre_attn_scalar = -1"),
    ("ministral3", "rope_parameters", nil, "no \"rope_parameters\""), ("granite", "attention_multiplier", -1, "attention_multiplier = -1"),
    ("granite", "logits_scaling", "8", "logits_scaling = \"8\""),
    ("smollm3-window", "no_rope_layers", [0, 1], "no_rope_layers = a list of 2: there are 3 layers"),
    ("smollm3-window", "no_rope_layers", [0, 1, 2], "a list of Booleans, or of zeros and ones is needed"),
    ("smollm3-window", "no_rope_layer_interval", 0, "no_rope_layer_interval = 0"),
    ("smollm3-window", "layer_types", nil, "layer_types must then say which layers have the window"),
    ("gemma2", "final_logit_softcapping", -3, "final_logit_softcapping = -3.0: it must be above 0"),
    ("gemma2", "sliding_window", NSNull(), "no \"sliding_window\""),
    ("qwen2-window", "sliding_window", -3, "sliding_window = -3: it must be at least 1"),
  ]

  @Test("that asks for what this build does not compute names the setting", arguments: settings.indices)
  func wrongSettings(_ index: Int) throws {
    let (name, setting, value, expected) = Self.settings[index]
    let checkpoint = try EditedCheckpoint(name)
    try checkpoint.edit { $0[setting] = value }
    let message = message(checkpoint)
    #expect(message.contains(expected), "\(setting): \(message)")
  }

  @Test("may have settings without effect, and tensors that follow from others")
  func withoutEffect() throws {
    let checkpoint = try EditedCheckpoint("qwen3")
    try checkpoint.edit { config in
      config["_name_or_path"] = "somewhere"
      config["use_cache"] = false
      config["use_mrope"] = false
      config["attn_implementation"] = "eager"
      config["new_and_unset"] = NSNull()
      config["partial_rotary_factor"] = 1.0
    }
    let tiny = try TinyCheckpoint("qwen3")
    let (edited, original) = (
      try ModelHarness(source(checkpoint.path), backend: "TRTLLM"), try ModelHarness(source(tiny.path), backend: "TRTLLM")
    )
    #expect(try edited.logits(tiny.prompts[0]) == original.logits(tiny.prompts[0]))
  }
}
