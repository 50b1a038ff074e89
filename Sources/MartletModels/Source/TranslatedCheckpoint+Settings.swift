// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

import MartletFormats

/// `config.json` as metadata: the translation's tables, then what is more than a renaming: windows and RoPE.
extension TranslatedCheckpoint {
  mutating func readSettings(_ reader: ConfigReader, architecture: String) throws {
    set("general.architecture", .string(architecture), spelling: "model_type")
    set("general.name", directory.path.split(separator: "/").last.map { .string(String($0)) }, spelling: "name")
    // Their projections come with rows as RoPE in halves wants them, whatever a GGUF of the same architecture does.
    set("\(architecture).rope.is_neox", .bool(true), spelling: "model_type")
    try read(translation.settings, reader, architecture)
    try checkQuantization(reader)
    try readWindows(reader, architecture)
    try readRope(reader, architecture)
    try checkVocabulary(reader)
    try reader.finish(withoutEffect: CheckpointTranslation.withoutEffect)
    ignoredSettings += reader.ignored
  }

  private mutating func read(_ settings: [CheckpointTranslation.Setting], _ reader: ConfigReader, _ architecture: String) throws {
    for setting in settings {
      switch setting {
      case .integer(let name, let key):
        set("\(architecture).\(key)", try integer(name, reader).map { .integer($0) }, spelling: name)
      case .float(let name, let key):
        let value = reader.has(name) ? try reader.double(name) : translation.defaults[name]
        set("\(architecture).\(key)", value.map { .float(Float($0)) }, spelling: name)
      case .bool(let name, let key, let usual):
        set("\(architecture).\(key)", try (reader.bool(name) ?? usual).map { .bool($0) }, spelling: name)
      case .integers(let name, let key):
        set("\(architecture).\(key)", try reader.integers(name).map { .integers($0) }, spelling: name)
      case .flags(let name, let key):
        set("\(architecture).\(key)", try reader.flags(name).map { .bools($0) }, spelling: name)
      case .string(let name, let key, let usual):
        set("\(architecture).\(key)", try (reader.string(name) ?? usual).map { .string($0) }, spelling: name)
      case .layerIntegers(let object, let name, let key):
        set("\(architecture).\(key)", try layerIntegers(object, name, reader).map { .integers($0) }, spelling: object)
      case .implied(let key, let value): set("\(architecture).\(key)", .integer(value), spelling: "model_type")
      case .unread(let name): _ = reader.value(name)
      case .fixed(let name, let value): try Self.check(name, value, reader)
      }
    }
  }

  /// An integer of `config.json`, or what Transformers takes without it.
  private func integer(_ name: String, _ reader: ConfigReader) throws -> Int? {
    reader.has(name) ? try reader.integer(name) : translation.defaults[name].map { Int($0) }
  }

  private func layerIntegers(_ object: String, _ name: String, _ reader: ConfigReader) throws -> [Int]? {
    guard let layers = try reader.object(object), let count = try integer("num_hidden_layers", reader),
      (1...ModelConfiguration.largestSize).contains(count)
    else { return nil }
    // Numbers are padded with zeros where there are many layers.
    return try (0..<count).map { layer in
      let number = "\(layer)"
      let names = (0...max(0, "\(count)".count - number.count)).map { String(repeating: "0", count: $0) + number }
      return try names.first { layers.has($0) }.flatMap { try layers.object($0)?.integer(name) } ?? 0
    }
  }

  private func checkVocabulary(_ reader: ConfigReader) throws {
    guard let stated = try reader.integer("vocab_size"),
      let rows = modelTensors.first(where: { $0.name == "token_embd.weight" })?.shape.first,
      stated != rows
    else { return }
    throw reader.invalid("vocab_size", stated, "\(spelling(of: "token_embd.weight")) has \(rows) rows")
  }

  private static func check(_ name: String, _ expected: CheckpointTranslation.Setting.Value, _ reader: ConfigReader) throws {
    guard let value = reader.value(name) else { return }
    switch expected {
    case .bool(let bool) where value.bool == bool: return
    case .string(let string) where value.string == string: return
    case .bool(let bool): throw reader.invalid(name, value, "this build computes \(bool) only")
    case .string(let string): throw reader.invalid(name, value, "this build computes \"\(string)\" only")
    case .null: throw reader.invalid(name, value, "this build reads directories without it only; take unquantised weights, or a GGUF file")
    }
  }

  // MARK: Windows

  private mutating func readWindows(_ reader: ConfigReader, _ architecture: String) throws {
    let layerCount = try integer("num_hidden_layers", reader) ?? 0
    guard layerCount >= 1 && layerCount <= ModelConfiguration.largestSize else { return }  // the configuration names it
    let types = try layerTypes(reader, count: layerCount)
    let windowKey = "\(architecture).attention.sliding_window", patternKey = "\(architecture).attention.sliding_window_pattern"
    set(windowKey, nil, spelling: "sliding_window")
    let slides: [Bool]
    switch translation.windows {
    case .none:
      guard types?.contains(true) != true else {
        throw reader.invalid("layer_types", "sliding_attention", "this model type has no windows")
      }
      // Qwen's settings in another's clothes.
      if let isOn = try reader.bool("use_sliding_window") {
        if isOn { throw reader.invalid("use_sliding_window", true, "this model type has no windows") }
        _ = (reader.value("sliding_window"), reader.value("max_window_layers"))
      }
      return
    case .all: slides = types ?? Array(repeating: true, count: layerCount)
    case .pattern(let usual):
      // Old files say it with an underscore before it, too.
      let pattern = try reader.integer("sliding_window_pattern") ?? reader.integer("_sliding_window_pattern") ?? usual
      guard pattern >= 1 else { throw reader.invalid("sliding_window_pattern", pattern, "it must be at least 1") }
      slides = types ?? (1...layerCount).map { $0 % pattern != 0 }
    case .fromLayer:
      let first = try integer("max_window_layers", reader) ?? layerCount
      let usesWindows = try reader.bool("use_sliding_window") ?? false
      guard usesWindows else {
        _ = reader.value("sliding_window")
        return
      }
      slides = types ?? (0..<layerCount).map { $0 >= first }
    case .named:
      let usesWindows = try reader.bool("use_sliding_window") ?? false
      guard usesWindows || types?.contains(true) == true else {
        _ = reader.value("sliding_window")
        return
      }
      guard let types else {
        throw reader.invalid("use_sliding_window", true, "layer_types must then say which layers have the window")
      }
      slides = types
    }
    guard let window = try integer("sliding_window", reader) else {
      // Null: no layer has one, unless the settings say which ones have.
      switch translation.windows {
      case .all, .fromLayer, .named: if types?.contains(true) != true { return }
      case .none, .pattern: if !slides.contains(true) { return }
      }
      throw missingKey(windowKey)
    }
    set(windowKey, .integer(window), spelling: "sliding_window")
    set(patternKey, .bools(slides), spelling: "layer_types")
  }

  private func layerTypes(_ reader: ConfigReader, count: Int) throws -> [Bool]? {
    guard let types = try reader.strings("layer_types") else { return nil }
    guard types.count == count else {
      throw reader.invalid("layer_types", "a list of \(types.count)", "num_hidden_layers is \(count)")
    }
    return try types.map { type in
      switch type {
      case "sliding_attention": true
      case "full_attention": false
      default: throw reader.invalid("layer_types", type, "this build knows full_attention and sliding_attention")
      }
    }
  }

  // MARK: RoPE

  /// Both spellings: `rope_theta` beside `rope_scaling`, and everything inside `rope_parameters`, which may be nested by kind of layer.
  private mutating func readRope(_ reader: ConfigReader, _ architecture: String) throws {
    let prefix = "\(architecture).rope"
    let outerTheta = try reader.double("rope_theta")
    let outerFactor = try reader.double("partial_rotary_factor")
    let localTheta = try reader.double("rope_local_base_freq")
    let outerLength = try reader.integer("original_max_position_embeddings")
    if let isInterleaved = try reader.bool("rope_interleaved"), isInterleaved {
      throw reader.invalid("rope_interleaved", true, "this build reads directories whose RoPE turns halves")
    }
    let old = try reader.object("rope_scaling"), new = try reader.object("rope_parameters")
    if let old, let new, !new.says(old) {
      throw reader.invalid("rope_scaling", "an object", "there is rope_parameters, too, which says something else: keep one of them")
    }
    let group = new ?? old
    if group == nil, translation.needsRopeSettings { throw ModelError.missingSetting("rope_parameters") }
    let nested = try group?.object("full_attention")
    let global = nested ?? group
    let local = try nested == nil ? nil : group?.object("sliding_attention")
    if nested != nil { try group?.finish() }

    let theta = try global?.double("rope_theta") ?? outerTheta ?? translation.ropeTheta
    set("\(prefix).freq_base", .float(Float(theta)), spelling: "rope_theta")
    if case .pattern = translation.windows {
      if let type = try local.flatMap({ try $0.string("rope_type") ?? $0.string("type") }), type != "default" {
        throw local!.invalid("rope_type", type, "this build stretches global layers only")
      }
      let theta = try local?.double("rope_theta") ?? localTheta
      set("\(prefix).freq_base_swa", theta.map { .float(Float($0)) }, spelling: "rope_local_base_freq")
    } else if localTheta != nil || local != nil {
      throw reader.invalid(
        localTheta != nil ? "rope_local_base_freq" : "rope_parameters", "present", "this model type has one RoPE for all layers")
    }
    try local?.finish()
    ignoredSettings += (local?.ignored ?? []) + (nested == nil ? [] : group?.ignored ?? [])
    if try global?.string("rope_type") == "proportional" {
      // A share of the pairs turns, by frequencies over all dims of a head.
      if let factor = try global?.double("factor"), factor != 1 { throw global!.invalid("factor", factor, "this build computes 1 only") }
      let share = try global?.double("partial_rotary_factor") ?? 1
      set("\(prefix).proportional_share", .float(Float(share)), spelling: "partial_rotary_factor")
    } else if let factor = try global?.double("partial_rotary_factor") ?? outerFactor, factor != 1 {
      guard translation.rotatesPart else {
        throw reader.invalid("partial_rotary_factor", factor, "this model type turns all dims of a head")
      }
      guard factor > 0, factor < 1 else { throw reader.invalid("partial_rotary_factor", factor, "it must be above 0 and at most 1") }
      let heads = try integer("num_attention_heads", reader) ?? 1
      let headDim = try integer("head_dim", reader) ?? (integer("hidden_size", reader) ?? 0) / max(heads, 1)
      set("\(prefix).dimension_count", .integer(Int(Double(headDim) * factor)), spelling: "partial_rotary_factor")
    }
    guard let global else { return }
    try readScaling(global, prefix: "\(prefix).scaling", outerLength: outerLength)
    try read(translation.ropeSettings, global, architecture)
    try global.finish(withoutEffect: ["finetuned", "max_position_embeddings"])
    ignoredSettings += global.ignored
  }

  private mutating func readScaling(_ reader: ConfigReader, prefix: String, outerLength: Int?) throws {
    let name = try reader.string("rope_type") ?? reader.string("type") ?? "default"
    let type = translation.ropeTypes[name] ?? name
    _ = reader.value("type")
    func number(_ name: String, as key: String) throws {
      set("\(prefix).\(key)", try reader.double(name).map { .float(Float($0)) }, spelling: name)
    }
    set("\(prefix).type", .string(["default", "proportional"].contains(type) ? "none" : type), spelling: "rope_type")
    // Some model types have the length beside the object, where it counts first.
    let length = try reader.integer("original_max_position_embeddings")
    set("\(prefix).original_context_length", (outerLength ?? length).map { .integer($0) }, spelling: "original_max_position_embeddings")
    switch type {
    case "default", "proportional": return
    case "linear": try number("factor", as: "factor")
    case "dynamic":
      try number("alpha", as: "alpha")
      try number("factor", as: "factor")
    case "llama3":
      try number("factor", as: "factor")
      try number("low_freq_factor", as: "low_freq_factor")
      try number("high_freq_factor", as: "high_freq_factor")
    case "yarn":
      try number("factor", as: "factor")
      try number("attention_factor", as: "attention_factor")
      try number("beta_fast", as: "yarn_beta_fast")
      try number("beta_slow", as: "yarn_beta_slow")
      try number("mscale", as: "mscale")
      try number("mscale_all_dim", as: "mscale_all_dim")
      set("\(prefix).yarn_truncate", .bool(try reader.bool("truncate") ?? true), spelling: "truncate")
    case "longrope":
      try number("factor", as: "factor")
      try number("attention_factor", as: "attention_factor")
      set("\(prefix).short_factor", try reader.doubles("short_factor").map { .floats($0.map { Float($0) }) }, spelling: "short_factor")
      set("\(prefix).long_factor", try reader.doubles("long_factor").map { .floats($0.map { Float($0) }) }, spelling: "long_factor")
    default:
      throw reader.invalid("rope_type", name, "this build knows default, linear, dynamic, llama3, yarn and longrope")
    }
  }
}
