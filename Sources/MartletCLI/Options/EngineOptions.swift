// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

import ArgumentParser
import Martlet
import MartletAttention
import MartletCPU
import MartletKVCache
import MartletTokenizers

/// Where and how the model runs.
struct EngineOptions: ParsableArguments {
  @Option(
    name: .customLong("attention-backend"), help: ArgumentHelp("Attention backend: TRTLLM, FLASHINFER or VANILLA.", valueName: "name"))
  var attentionBackend = "TRTLLM"

  @Option(
    parsing: .unconditional, help: ArgumentHelp("The most tokens of one prompt in one step (default: as many as fit).", valueName: "n"))
  var chunk: Int?

  @Option(
    name: .customLong("step-time"), parsing: .unconditional,
    help: ArgumentHelp(
      "Milliseconds that a step may take while an answer is generated, up to 1.6 times as many while long prompts wait; 0 sets no limit.",
      valueName: "ms"))
  var stepTime = 100

  @Option(name: .customLong("batch-size"), parsing: .unconditional, help: ArgumentHelp("The most requests in one step.", valueName: "n"))
  var batchSize = 16

  @Option(
    name: .customLong("step-tokens"), parsing: .unconditional,
    help: ArgumentHelp("The most tokens in one step (default: 512, or the batch size where that is more).", valueName: "n"))
  var stepTokens: Int?

  @Option(
    name: .customLong("capacity-policy"),
    help: ArgumentHelp(
      "guaranteed-no-evict: a request runs when all that it may need is free; max-utilization: as soon as it fits, and may pause.",
      valueName: "policy"))
  var capacityPolicy = CapacityPolicyArgument.guaranteedNoEvict

  @OptionGroup var products: ActivationsOptions
  @OptionGroup var latents: LatentPromptsOptions
  @OptionGroup var device: DeviceOptions

  func validate() throws {
    try validatePositive(chunk, "--chunk")
    if stepTime < 0 { throw ValidationError("--step-time is \(stepTime); it must be 0 or more milliseconds") }
    try validatePositive(batchSize, "--batch-size")
    // As many as a step has tokens; told here in the words of the option that was given.
    if batchSize > 1 << 20 { throw ValidationError("--batch-size is \(batchSize); it must be at most \(1 << 20)") }
    if let stepTokens, stepTokens < batchSize {
      throw ValidationError("--step-tokens is \(stepTokens); it must hold one token of each of --batch-size \(batchSize) requests")
    }
    do {
      _ = try AttentionBackendRegistry.builtIn.backend(named: attentionBackend)
    } catch {
      throw ValidationError(words(of: error))
    }
  }

  /// The engine's configuration, on this machine's processor.
  /// - Parameter cache: nil where there is none.
  func configuration(cache: CacheOptions?, context: Int?, chatTemplate: ChatTemplate? = nil) throws -> EngineConfiguration {
    EngineConfiguration(
      device: try device.makeDevice(), attentionBackend: attentionBackend,
      kvCache: cache?.kvCache ?? KVCacheConfig(), quantConfig: cache?.format.quantConfig ?? QuantConfig(),
      activations: products.activations, latentPrompts: latents.latentPrompts, maxSequenceLength: context, maxBatchSize: batchSize,
      maxNumTokens: stepTokens ?? max(512, batchSize),
      chunkSize: chunk, targetStepTime: stepTime > 0 ? .milliseconds(stepTime) : nil, capacityPolicy: capacityPolicy.policy,
      chatTemplate: chatTemplate)
  }
}

/// `guaranteed-no-evict`, `max-utilization`.
enum CapacityPolicyArgument: String, ExpressibleByArgument, CaseIterable {
  case guaranteedNoEvict = "guaranteed-no-evict"
  case maxUtilization = "max-utilization"

  var policy: CapacityPolicy {
    switch self {
    case .guaranteedNoEvict: .guaranteedNoEvict
    case .maxUtilization: .maxUtilization
    }
  }
}

func validatePositive(_ value: Int?, _ option: String) throws {
  if let value, value < 1 { throw ValidationError("\(option) is \(value); it must be at least 1") }
}
