// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

import Martlet
import MartletAttention
import MartletCore
import MartletFormats
import MartletKVCache
import MartletModels
import MartletTokenizers

/// What `martlet inspect` finds: a value that is printed as text or as JSON.
///
/// A file that cannot be served is still described as far as it can be read; `problems` says what stands in the way.
struct Inspection: Encodable {
  struct Model: Encodable {
    var architecture: String
    var name: String
    var contextLength: Int
    var layers: Int
    var hiddenSize: Int
    var feedForwardSize: Int
    var heads: Int
    var kvHeads: Int
    var headDim: Int
    var vocabularySize: Int
    /// What the model makes vectors by: mean, first or last; absent where it writes text.
    var pooling: String?

    enum CodingKeys: String, CodingKey {
      case architecture, name, layers, heads, pooling
      case contextLength = "context_length"
      case hiddenSize = "hidden_size"
      case feedForwardSize = "feed_forward_size"
      case kvHeads = "kv_heads"
      case headDim = "head_dim"
      case vocabularySize = "vocabulary_size"
    }
  }

  /// The tensors of one format.
  struct Format: Encodable {
    var format: String
    /// Whether this build can multiply it.
    var isReadable: Bool
    var count: Int
    /// Absent where the format is unknown, and so the size of its blocks.
    var bytes: Int?

    enum CodingKeys: String, CodingKey {
      case format, count, bytes
      case isReadable = "readable"
    }
  }

  struct TokenizerSummary: Encodable {
    var model: String
    var preTokenizer: String?
    var vocabularySize: Int
    /// The token put before a prompt; absent where there is none.
    var beginningTokenID: Int?
    var endTokenIDs: [Int]
    /// The names of the file's templates, "default" first; absent where there is none that runs.
    var chatTemplates: [String]?
    /// Why the file's templates do not run; absent where they do, and where there are none.
    var chatTemplateProblem: String?

    enum CodingKeys: String, CodingKey {
      case model
      case preTokenizer = "pre_tokenizer"
      case vocabularySize = "vocabulary_size"
      case beginningTokenID = "beginning_token_id"
      case endTokenIDs = "end_token_ids"
      case chatTemplates = "chat_templates"
      case chatTemplateProblem = "chat_template_problem"
    }
  }

  /// What an attention backend can do for this model on this device.
  struct Backend: Encodable {
    var name: String
    /// What it does in one pass.
    var fuses: String
    /// Why it cannot serve the model with these cache options; empty when it can.
    var obstacles: [String]
    /// Absent where there are obstacles, and where the model makes vectors, which takes no cache.
    var cache: Cache?
  }

  /// Keys and values of one sequence.
  struct Cache: Encodable {
    struct Pool: Encodable {
      /// Absent where the layers see everything.
      var window: Int?
      var layers: Int
      /// All layers of the pool together.
      var bytesPerToken: Int
      /// The most pages that a sequence of the context length holds at a time.
      var pages: Int
      var bytes: Int

      enum CodingKeys: String, CodingKey {
        case window, layers, pages, bytes
        case bytesPerToken = "bytes_per_token"
      }
    }

    var contextLength: Int
    var dataType: String
    var pageSize: Int
    var pools: [Pool]
    var bytes: Int

    enum CodingKeys: String, CodingKey {
      case pools, bytes
      case contextLength = "context_length"
      case dataType = "dtype"
      case pageSize = "page_size"
    }
  }

  var path: String
  var fileBytes: Int
  var model: Model?
  var tensorCount: Int
  var formats: [Format]
  var tokenizer: TokenizerSummary?
  var device: String
  var weightBytes: Int
  var backends: [Backend]
  var problems: [String]

  enum CodingKeys: String, CodingKey {
    case path, model, formats, tokenizer, device, problems
    case fileBytes = "file_bytes"
    case tensorCount = "tensor_count"
    case weightBytes = "weight_bytes"
    case backends = "attention_backends"
  }

  init(_ files: ModelFiles, path: String, device: any Device, cache: KVCacheConfig, quantConfig: QuantConfig, contextLength: Int?) throws {
    self.path = path
    self.device = device.summary
    fileBytes = files.byteCount
    var tensors: [ModelTensor] = []
    var source: (any ModelSource)?
    problems = []
    backends = []
    do { source = try files.source(for: .builtIn) } catch { problems.append(words(of: error)) }
    if let source {
      tensors = source.modelTensors
    } else if case .directory(let directory) = files {
      tensors = directory.tensors.map {
        ModelTensor(name: $0.name, shape: $0.shape, formatName: $0.type, format: $0.weightFormat, byteCount: $0.byteCount)
      }
    }
    tensorCount = tensors.count
    weightBytes = tensors.reduce(0) { $0 + ($1.byteCount ?? 0) }
    formats = Dictionary(grouping: tensors, by: \.formatName).map { name, tensors in
      Format(
        format: name, isReadable: tensors.allSatisfy { $0.format != nil }, count: tensors.count,
        bytes: tensors.contains { $0.byteCount == nil } ? nil : tensors.reduce(0) { $0 + $1.byteCount! })
    }
    .sorted { ($1.bytes ?? 0, $0.format) < ($0.bytes ?? 0, $1.format) }

    do {
      let (tokenizer, template) = try files.readTokenizer()
      let (kind, preTokenizer) = try Self.tokenizerNames(files)
      self.tokenizer = TokenizerSummary(
        model: kind, preTokenizer: preTokenizer,
        vocabularySize: tokenizer.vocabularySize, beginningTokenID: tokenizer.addsBOS ? tokenizer.bosToken.map(Int.init) : nil,
        endTokenIDs: tokenizer.endTokens.map(Int.init).sorted())
      switch template {
      case .success(let template):
        self.tokenizer?.chatTemplates = template.programs.keys.sorted { $1 != "default" && ($0 == "default" || $0 < $1) }
      case .failure(let error) where error.code == .noChatTemplate: break
      case .failure(let error): self.tokenizer?.chatTemplateProblem = words(of: error)
      }
    } catch {
      problems.append(words(of: error))
    }
    guard let source else { return }
    do {
      let configuration = try ModelConfiguration(source, layersDiffer: true)
      model = Model(
        architecture: configuration.architecture, name: configuration.name, contextLength: configuration.contextLength,
        layers: configuration.numLayers, hiddenSize: configuration.hiddenSize, feedForwardSize: configuration.feedForwardSize,
        heads: configuration.numHeads, kvHeads: configuration.numKVHeads, headDim: configuration.headDim,
        vocabularySize: configuration.vocabularySize, pooling: try Pooling(source)?.method.rawValue)
      let layers = try ModelRegistry.builtIn.architecture(of: source).attentionLayers(of: source, on: device)
      if let contextLength, contextLength > configuration.contextLength {
        throw CommandError(
          "--context is \(contextLength): the model was made for contexts of at most \(configuration.contextLength) tokens")
      }
      let length = contextLength ?? min(configuration.contextLength, EngineConfiguration.defaultMaxSequenceLength)
      backends = AttentionBackendRegistry.builtIn.backends.map {
        Backend(
          $0, layers: layers, device: device, cache: model?.pooling == nil ? cache : nil, quantConfig: quantConfig, contextLength: length)
      }
    } catch {
      problems.append(words(of: error))
    }
  }
}

extension Inspection.Backend {
  init(
    _ backend: any AttentionBackend.Type, layers: [AttentionLayerSpec], device: any Device, cache: KVCacheConfig?,
    quantConfig: QuantConfig, contextLength: Int
  ) {
    // As the engine makes it for one request at a time.
    let chunk = EngineConfiguration().maxNumTokens
    let context = AttentionContext(
      device: device, kvCache: cache, maxNumRequests: 1, maxNumTokens: chunk, maxSequenceLength: contextLength, quantConfig: quantConfig)
    name = backend.name
    fuses = backend.capabilities(on: device).description
    let reasons = layers.map { (layer: $0.layerIndex, reasons: backend.obstacles(to: $0, in: context)) }
    obstacles = reasons.reduce(into: []) { all, next in
      for reason in next.reasons where !all.contains(reason) { all.append(reason) }
    }
    guard obstacles.isEmpty, let cache else { return }

    let specs = layers.map { KVLayerSpec(layout: backend.kvLayout(for: $0, in: context), window: $0.window) }
    let pools = cache.demand(of: specs, maxSequenceLength: contextLength, maxTokensPerStep: chunk).map {
      Inspection.Cache.Pool(
        window: $0.window, layers: $0.layerCount, bytesPerToken: $0.bytesPerPage / context.pageSize, pages: $0.pages,
        bytes: $0.byteCount)
    }
    self.cache = Inspection.Cache(
      contextLength: contextLength, dataType: cache.dataType.rawValue, pageSize: context.pageSize,
      pools: pools, bytes: pools.reduce(0) { $0 + $1.bytes })
  }
}

extension Inspection {
  /// The kind of tokenizer and how it cuts text into words, as the files name them.
  private static func tokenizerNames(_ files: ModelFiles) throws -> (String, String?) {
    switch files {
    case .gguf(let checkpoint):
      (try checkpoint.first.string("tokenizer.ggml.model"), try checkpoint.first.string(ifPresent: "tokenizer.ggml.pre"))
    case .directory: ("tokenizer.json", nil)
    }
  }

  /// For people.
  var text: String {
    var lines = ["\(path): \(Self.size(fileBytes))"]
    if let model {
      lines += [
        "model      \(model.architecture)" + (model.name.isEmpty ? "" : " (\(model.name))"),
        "           \(model.layers) layers, hidden size \(model.hiddenSize), feed-forward \(model.feedForwardSize), "
          + "vocabulary \(model.vocabularySize)",
        "           \(model.heads) heads and \(model.kvHeads) key/value heads of \(model.headDim), context \(model.contextLength)",
      ]
    }
    if let pooling = model?.pooling {
      lines.append("           makes vectors of texts, by the \(pooling == "mean" ? "mean" : "\(pooling) one") of their states")
    }
    lines.append("tensors    \(tensorCount), \(Self.size(weightBytes))")
    for format in formats {
      let bytes = format.bytes.map(Self.size) ?? "size unknown"
      lines.append("           \(format.format): \(format.count), \(bytes)" + (format.isReadable ? "" : " (this build cannot read it)"))
    }
    if let tokenizer {
      lines.append(
        "tokenizer  \(tokenizer.model)" + (tokenizer.preTokenizer.map { ", \($0)" } ?? "")
          + ", \(tokenizer.vocabularySize) tokens, "
          + (tokenizer.beginningTokenID.map { "begins texts with token \($0)" } ?? "adds no token at the beginning")
          + ", ends with \(tokenizer.endTokenIDs.map(String.init).joined(separator: " or "))"
          + (tokenizer.chatTemplates.map { ", chat template" + ($0 == ["default"] ? "" : "s \($0.joined(separator: ", "))") }
            ?? ", no chat template" + (tokenizer.chatTemplateProblem == nil ? "" : " that runs")))
      if let problem = tokenizer.chatTemplateProblem { lines.append("           \(problem)") }
    }
    lines.append("device     \(device)")
    for backend in backends {
      lines.append("attention  \(backend.name): " + (backend.obstacles.isEmpty ? "can serve it" : "cannot serve it"))
      if !backend.fuses.isEmpty { lines.append("           in one pass: \(backend.fuses)") }
      for obstacle in backend.obstacles { lines.append("           obstacle: \(obstacle)") }
      guard let cache = backend.cache else { continue }
      lines.append(
        "           one sequence of \(cache.contextLength) tokens: \(Self.size(cache.bytes)) of \(cache.dataType) keys and values, "
          + "\(Self.size(cache.bytes + weightBytes)) with the weights")
      for pool in cache.pools {
        lines.append(
          "           \(pool.layers) layers" + (pool.window.map { " with a window of \($0)" } ?? "")
            + ": \(pool.bytesPerToken) bytes a token, \(pool.pages) pages of \(cache.pageSize) tokens, \(Self.size(pool.bytes))")
      }
    }
    lines += problems.map { "problem    \($0)" }
    return lines.joined(separator: "\n") + "\n"
  }

  private static func size(_ byteCount: Int) -> String {
    let units = [(1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB")]
    guard let (unit, name) = units.first(where: { byteCount >= $0.0 }) else { return "\(byteCount) bytes" }
    let tenths = (byteCount * 10 + unit / 2) / unit
    return "\(tenths / 10).\(tenths % 10) \(name)"
  }
}
