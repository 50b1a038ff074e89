// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

// A small runtime for attention alone: requests whose queries, keys and values are functions of a seed, so that the same request can be
// run in any company, chunking, page size or number of threads.

import MartletAttention
import MartletCPU
import MartletCore
import MartletKVCache
import MartletTestSupport

/// A part of one request in a step.
struct Piece {
  var id: Int
  var count: Int
  var isContext: Bool

  static func context(_ id: Int, _ count: Int) -> Piece { Piece(id: id, count: count, isContext: true) }
  static func generation(_ id: Int, _ count: Int = 1) -> Piece { Piece(id: id, count: count, isContext: false) }
}

/// How the runtime hands queries, keys and values to a layer.
enum InputForm: CaseIterable { case separate, fused }

extension Tensor {
  /// Float32 or e4m3 elements as floats.
  var floats: [Float] {
    dataType == .f8e4m3
      ? unsafeHostPointer(to: UInt8.self)!.map { Float(Float8E4M3(bitPattern: $0)) } : Array(unsafeHostPointer(to: Float.self)!)
  }
}

final class AttentionRuntime {
  let device: CPUDevice
  let queue: any DeviceQueue
  let layers: [AttentionLayer]
  let manager: KVCacheManager?
  let metadata: AttentionMetadata
  let maxTokens: Int
  var form = InputForm.fused
  var mask = AttentionMask.causal
  /// Of a request that begins like another: which, and for how many tokens.
  var prefixes: [Int: (source: Int, length: Int)] = [:]
  /// Of a request whose pages are to be remembered: its tokens' ids.
  var tokenIDs: [Int: [Int32]] = [:]
  /// Takes the place of a row's numbers, by request and position.
  var poison: ((Int, Int) -> Float?)?
  /// Changes the metadata that a step has described.
  var beforePrepare: ((AttentionMetadata) -> Void)?
  /// Multiplies e4m3 output.
  var outputScale: Float = 1
  /// Bits for (request id, query position, key position), under the custom mask.
  var isVisible: ((Int, Int, Int) -> Bool)?
  /// Of each layer, request and position: the attention's output and log-sum-exp.
  private(set) var outputs: [[Int: [[Float]]]]
  private(set) var logSumExps: [[Int: [[Float]]]]
  private(set) var positions: [Int: Int] = [:]
  private let input: [Tensor]
  private let output: [Tensor]
  private let logSumExp: [Tensor]

  init(
    _ backend: String, _ specs: [AttentionLayerSpec], cache: KVCacheConfig?, maxSequenceLength: Int? = nil, maxSequences: Int? = nil,
    maxRequests: Int = 8, maxTokens: Int = 512, threads: Int = 1,
    workers: Int? = nil, masks: Set<AttentionMask> = [.causal], instructionSet: String? = nil,
    flashInferLayout: FlashInferAttention.Layout = .hnd
  ) throws {
    let device = try CPUDevice(instructionSet: instructionSet, threads: threads)
    let context = AttentionContext(
      device: device, kvCache: cache, maxNumRequests: maxRequests, maxNumTokens: maxTokens, maxSequenceLength: maxSequenceLength,
      workerCount: workers ?? threads, flashInferLayout: flashInferLayout)
    let type = try AttentionBackendRegistry.builtIn.backend(named: backend)
    let layers = try specs.map { try AttentionLayer($0, backend: type, in: context) }
    let manager =
      cache == nil ? nil : try KVCacheManager(layers: layers.map(\.kvLayerSpec), in: context, maxSequences: maxSequences)
    self.device = device
    self.layers = layers
    self.manager = manager
    self.maxTokens = maxTokens
    queue = manager?.queue ?? device.makeQueue()
    metadata = try layers[0].makeMetadata(
      AttentionMetadata.Setup(context: context, layers: specs, kvCacheManager: manager, masks: masks, queue: queue))
    input = try specs.map { try device.makeTensor(Shape(maxTokens, $0.fusedWidth), .f32) }
    output = try layers.map { try device.makeTensor(Shape(maxTokens, $0.spec.outputWidth), $0.outputDataType) }
    logSumExp = try specs.map { try device.makeTensor(Shape(maxTokens, $0.numHeads), .f32) }
    outputs = Array(repeating: [:], count: specs.count)
    logSumExps = Array(repeating: [:], count: specs.count)
  }

  /// The fused row of a request's token: about normally distributed, the same wherever it is asked for.
  static func row(layer: Int, id: Int, position: Int, width: Int) -> [Float] {
    var random = SeededGenerator(seed: UInt64(layer &* 1_000_003 &+ id) &* 0x1_0000_0001 &+ UInt64(position))
    return (0..<width).map { _ in
      // The sum of four uniform numbers, scaled to variance 1.
      let bits = random.next()
      let sum = (0..<4).reduce(0) { $0 + Int(bits >> UInt64(16 * $1) & 0xFFFF) }
      return (Float(sum) / 65536 - 2) * 1.7320508
    }
  }

  /// Gives a new request the pages of the first tokens of another.
  func share(_ source: Int, tokens: Int, with id: Int) {
    precondition(manager!.addSequence(id) && manager!.share(prefixOf: source, tokens: tokens, with: id), "nothing to share")
    positions[id] = tokens
    prefixes[id] = (source, tokens)
  }

  /// Adds a request that begins with what the cache has of its tokens: the rows of those are the source's.
  /// - Returns: how many tokens.
  func begin(_ id: Int, _ tokens: [Int32], like source: Int) -> Int? {
    guard let reused = manager!.addSequence(id, tokens: tokens) else { return nil }
    tokenIDs[id] = tokens
    positions[id] = reused
    prefixes[id] = (source, reused)
    return reused
  }

  /// Ends a request.
  func end(_ id: Int) {
    manager!.remove(id)
    positions[id] = nil
    for layer in outputs.indices { (outputs[layer][id], logSumExps[layer][id]) = (nil, nil) }
  }

  /// Sets the metadata, extending the cache, without preparing it.
  func describe(_ pieces: [Piece]) {
    metadata.removeAllRequests()
    for piece in pieces {
      let cached = positions[piece.id, default: 0]
      if let manager {
        if !manager.contains(piece.id) {
          precondition(tokenIDs[piece.id].map { manager.addSequence(piece.id, tokens: $0) == 0 } ?? manager.addSequence(piece.id))
        }
        precondition(manager.extend(piece.id, to: cached + piece.count), "the test's cache is too small")
      }
      metadata.addRequest(
        piece.id, newTokens: piece.count, cachedTokens: cached, promptLength: cached + piece.count, isContext: piece.isContext)
      if let isVisible {
        metadata.customMasks.append(
          CustomAttentionMask(queryLength: piece.count, keyLength: cached + piece.count) { isVisible(piece.id, cached + $0, $1) })
      }
    }
  }

  /// One step of all layers. `check` runs before pages behind windows are given back.
  func step(_ pieces: [Piece], check: () throws -> Void = {}) throws {
    describe(pieces)
    beforePrepare?(metadata)
    try metadata.prepare()
    try runLayers(pieces)
    for piece in pieces { positions[piece.id, default: 0] += piece.count }
    try check()
    for piece in pieces {
      if let tokens = tokenIDs[piece.id] {
        manager?.computed(piece.id, upTo: positions[piece.id]!, tokens: tokens)
      } else {
        manager?.computed(piece.id, upTo: positions[piece.id]!)
      }
    }
  }

  private func runLayers(_ pieces: [Piece]) throws {
    for (index, layer) in layers.enumerated() {
      let spec = layer.spec
      let target = input[index].unsafeHostPointer(to: Float.self)!
      var token = 0
      for piece in pieces {
        let first = positions[piece.id, default: 0]
        for position in first..<first + piece.count {
          let id = prefixes[piece.id].flatMap { position < $0.length ? $0.source : nil } ?? piece.id
          var row = Self.row(layer: spec.layerIndex, id: id, position: position, width: spec.fusedWidth)
          if let value = poison?(piece.id, position) { row = Array(repeating: value, count: spec.fusedWidth) }
          for (column, value) in row.enumerated() { target[token * spec.fusedWidth + column] = value }
          token += 1
        }
      }
      var inputs = AttentionInputs(fusedQKV: input[index], mask: mask)
      if form == .separate {
        let q = try part(index, columns: 0..<spec.queryWidth, tokens: token)
        let k = try part(index, columns: spec.queryWidth..<spec.queryWidth + spec.keyWidth, tokens: token)
        let v = try part(index, columns: spec.queryWidth + spec.keyWidth..<spec.fusedWidth, tokens: token)
        inputs = AttentionInputs(q: q, k: k, v: v, mask: mask)
      }
      inputs.outputScale = outputScale
      try layer.forward(
        inputs, metadata: metadata, output: AttentionOutput(values: output[index], logSumExp: logSumExp[index]), on: queue)
      queue.wait()
      token = 0
      for piece in pieces {
        for _ in 0..<piece.count {
          let values = output[index].rows(token..<token + 1).floats
          let sums = logSumExp[index].rows(token..<token + 1).unsafeHostPointer(to: Float.self)!
          outputs[index][piece.id, default: []].append(values)
          logSumExps[index][piece.id, default: []].append(Array(sums))
          token += 1
        }
      }
    }
  }

  private func part(_ layer: Int, columns: Range<Int>, tokens: Int) throws -> Tensor {
    let result = try device.makeTensor(Shape(tokens, columns.count), .f32)
    let source = input[layer].unsafeHostPointer(to: Float.self)!
    let target = result.unsafeHostPointer(to: Float.self)!
    let width = layers[layer].spec.fusedWidth
    for token in 0..<tokens {
      for (index, column) in columns.enumerated() { target[token * columns.count + index] = source[token * width + column] }
    }
    return result
  }
}
