// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

// Backends with one fault each, made from the golden one: the kit must find every fault.

import MartletAttention
import MartletCore
import MartletKVCache
import Synchronization

/// A fault, as changes of what the golden backend is given and of what it gives.
protocol Fault {
  static var name: String { get }
  static func change(_ layer: inout AttentionLayerSpec)
  static func change(_ inputs: inout AttentionInputs)
  static func obstacles(_ layer: AttentionLayerSpec) -> [String]
  /// After the layer's forward.
  static func change(_ output: AttentionOutput, _ layer: AttentionLayerSpec, _ inputs: AttentionInputs, _ metadata: AttentionMetadata)
}

extension Fault {
  static var name: String { "\(Self.self)" }
  static func change(_ layer: inout AttentionLayerSpec) {}
  static func change(_ inputs: inout AttentionInputs) {}
  static func obstacles(_ layer: AttentionLayerSpec) -> [String] { [] }
  static func change(
    _ output: AttentionOutput, _ layer: AttentionLayerSpec, _ inputs: AttentionInputs, _ metadata: AttentionMetadata
  ) {}
}

final class FaultyAttention<Kind: Fault>: AttentionBackend {
  typealias Metadata = VanillaMetadata
  static var name: String { Kind.name }
  private let layer: AttentionLayerSpec
  private let golden: VanillaAttention

  static func capabilities(on device: any Device) -> AttentionCapabilities { VanillaAttention.capabilities(on: device) }
  static func obstacles(to layer: AttentionLayerSpec, in context: AttentionContext) -> [String] {
    VanillaAttention.obstacles(to: layer, in: context) + Kind.obstacles(layer)
  }
  static func kvLayout(for layer: AttentionLayerSpec, in context: AttentionContext) -> KVLayout {
    VanillaAttention.kvLayout(for: layer, in: context)
  }

  init(_ layer: AttentionLayerSpec, in context: AttentionContext) throws {
    var changed = layer
    Kind.change(&changed)
    self.layer = layer
    golden = try VanillaAttention(changed, in: context)
  }

  func forward(_ inputs: AttentionInputs, metadata: VanillaMetadata, output: AttentionOutput, on queue: any DeviceQueue) throws {
    var changed = inputs
    Kind.change(&changed)
    try golden.forward(changed, metadata: metadata, output: output, on: queue)
    Kind.change(output, layer, inputs, metadata)
  }
}

private func floats(_ tensor: Tensor) -> UnsafeMutableBufferPointer<Float> { tensor.unsafeHostPointer(to: Float.self)! }

enum NoFault: Fault {}

/// Sees one key too many.
enum ShiftedWindow: Fault {
  static func change(_ layer: inout AttentionLayerSpec) { layer.window = layer.window.map { $0 - 1 } }
}

enum DroppedSink: Fault {
  static func change(_ layer: inout AttentionLayerSpec) { layer.sinks = nil }
}

enum DroppedSoftCap: Fault {
  static func change(_ layer: inout AttentionLayerSpec) { layer.softCap = nil }
}

/// Stores e4m3 without the layer's scales.
enum ForgottenScale: Fault {
  static func change(_ layer: inout AttentionLayerSpec) { layer.quantConfig?.kvScales = KVScales() }
}

/// Multiplies by √d where it should divide by it, a little.
enum WrongScale: Fault {
  static func change(_ layer: inout AttentionLayerSpec) { layer.scale *= 1.02 }
}

enum CausalAlways: Fault {
  static func change(_ inputs: inout AttentionInputs) { inputs.mask = .causal }
}

/// Appends nothing: what it reads are pages that were never written.
enum NoAppend: Fault {
  static func change(_ inputs: inout AttentionInputs) {
    if case .separate(let q, _, _) = inputs.form { inputs = AttentionInputs(queries: q, mask: inputs.mask) }
  }
}

/// Gives log-sum-exps base e.
enum NaturalLogarithm: Fault {
  static func change(
    _ output: AttentionOutput, _ layer: AttentionLayerSpec, _ inputs: AttentionInputs, _ metadata: AttentionMetadata
  ) {
    guard let sums = output.logSumExp.map(floats) else { return }
    for index in 0..<metadata.numTokens * layer.numHeads { sums[index] *= 0.6931472 }
  }
}

/// The last bit depends on the place in the batch.
enum BatchOrder: Fault {
  static func change(
    _ output: AttentionOutput, _ layer: AttentionLayerSpec, _ inputs: AttentionInputs, _ metadata: AttentionMetadata
  ) {
    let values = floats(output.values)
    for token in Int(metadata.queryIndptr[1])..<max(Int(metadata.queryIndptr[1]), metadata.numTokens) {
      values[token * layer.outputWidth] = values[token * layer.outputWidth].nextUp
    }
  }
}

/// The last bit depends on the page size.
enum PageSize: Fault {
  static func change(
    _ output: AttentionOutput, _ layer: AttentionLayerSpec, _ inputs: AttentionInputs, _ metadata: AttentionMetadata
  ) {
    guard metadata.kvCacheManager?.pageSize == 64 else { return }
    let values = floats(output.values)
    for token in 0..<metadata.numTokens { values[token * layer.outputWidth] = values[token * layer.outputWidth].nextUp }
  }
}

/// Attends, in a step without cached tokens, to the step's keys as they came and not as they are stored.
enum UnroundedKeys: Fault {
  static func change(
    _ output: AttentionOutput, _ layer: AttentionLayerSpec, _ inputs: AttentionInputs, _ metadata: AttentionMetadata
  ) {
    guard case .separate(let q, let k, let v) = inputs.form else { return }
    let (queries, keys, values, result) = (floats(q), floats(k), floats(v), floats(output.values))
    for sequence in 0..<metadata.numSeqs where metadata.kvLens[sequence] == metadata.seqLens[sequence] {
      let first = Int(metadata.queryIndptr[sequence])
      for token in first..<Int(metadata.queryIndptr[sequence + 1]) {
        for head in 0..<layer.numHeads {
          let kvHead = head / layer.groupSize
          let scores = (first...token).map { key in
            layer.scale
              * (0..<layer.headDim).reduce(Float(0)) {
                $0 + queries[token * layer.queryWidth + head * layer.headDim + $1]
                  * keys[key * layer.keyWidth + kvHead * layer.headDim + $1]
              }
          }
          let largest = scores.max()!
          let weights = scores.map { power($0 - largest) }
          let sum = weights.reduce(0, +)
          for dim in 0..<layer.valueHeadDim {
            result[token * layer.outputWidth + head * layer.valueHeadDim + dim] =
              weights.enumerated().reduce(Float(0)) {
                $0 + $1.element * values[(first + $1.offset) * layer.valueWidth + kvHead * layer.valueHeadDim + dim]
              } / sum
          }
        }
      }
    }
  }

  /// e to the x ≤ 0, by its series of x / 64.
  private static func power(_ x: Float) -> Float {
    let step = Double(x) / 64
    var (term, sum) = (1.0, 1.0)
    for n in 1..<20 {
      term *= step / Double(n)
      sum += term
    }
    var result = 1.0
    for _ in 0..<64 { result *= sum }
    return Float(result)
  }
}

/// Refuses what its table does not name.
enum UnexpectedObstacle: Fault {
  static func obstacles(_ layer: AttentionLayerSpec) -> [String] { layer.headDim == 96 ? ["it cannot do heads of 96; choose another"] : [] }
}

/// Refuses all.
enum AllRefused: Fault {
  static func obstacles(_ layer: AttentionLayerSpec) -> [String] { ["it does nothing; choose another"] }
}

/// Ends the process in one forward, if nobody has said before that it did.
enum EndsOnce: Fault {
  /// Forwards until then; nil never ends.
  static let remaining = Mutex<Int?>(nil)

  /// The small ones are enough.
  static func obstacles(_ layer: AttentionLayerSpec) -> [String] { layer.headDim > 96 ? ["it has no heads above 96"] : [] }
  static func change(_ inputs: inout AttentionInputs) {
    let isEnd = remaining.withLock { remaining in
      remaining = remaining.map { $0 - 1 }
      return remaining == 0
    }
    if isEnd { fatalError("a forward too many") }
  }
}

/// Refuses masks when its metadata is made; computes nothing.
final class CausalAttention: AttentionBackend {
  final class Metadata: AttentionMetadata {
    required init(_ setup: Setup) throws {
      guard setup.masks == [.causal] else {
        throw AttentionError.obstacles(
          backend: CausalAttention.name, layer: setup.layers[0].layerIndex,
          reasons: ["it has causal masks alone; choose another attention backend"])
      }
      try super.init(setup)
    }
  }

  static let name = "CausalAttention"
  static func capabilities(on device: any Device) -> AttentionCapabilities { [] }
  static func obstacles(to layer: AttentionLayerSpec, in context: AttentionContext) -> [String] { [] }
  static func kvLayout(for layer: AttentionLayerSpec, in context: AttentionContext) -> KVLayout {
    VanillaAttention.kvLayout(for: layer, in: context)
  }
  init(_ layer: AttentionLayerSpec, in context: AttentionContext) throws {}
  func forward(_ inputs: AttentionInputs, metadata: Metadata, output: AttentionOutput, on queue: any DeviceQueue) throws {}
}
