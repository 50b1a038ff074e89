// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

public import MartletFormats

/// The architectures that can be loaded: a value, so that adding one changes nobody else's.
public struct ModelRegistry: Sendable {
  /// In the order in which they were added.
  public private(set) var architectures: [any ModelArchitecture.Type]

  public init(_ architectures: [any ModelArchitecture.Type] = []) { self.architectures = architectures }

  /// The house's own architectures.
  public static let builtIn = ModelRegistry([
    Llama.self, Bert.self, DeepSeek2.self, Gemma2.self, Gemma3.self, Gemma4.self, GemmaEmbedding.self, GptOss.self, Granite.self,
    Ministral3.self, Phi3.self, Qwen2.self, Qwen2VL.self, Qwen3.self, Qwen3MoE.self, Qwen3VL.self, SmolLM3.self,
  ])

  /// The names of all architectures.
  public var names: [String] { architectures.map { $0.name } }

  /// A registry with one more architecture; of two with one name the later is found.
  public func adding(_ architecture: any ModelArchitecture.Type) -> ModelRegistry {
    ModelRegistry(architectures.filter { $0.name != architecture.name } + [architecture])
  }

  /// The architecture that reads this source.
  /// - Throws: ``ModelError/Code/unknownArchitecture``, or the source's error where it names none.
  public func architecture(of source: any ModelSource) throws -> any ModelArchitecture.Type {
    let name = try source.string("general.architecture")
    guard let architecture = architectures.first(where: { $0.name == name }) else {
      throw ModelError.unknownArchitecture(name, known: names)
    }
    return architecture
  }

  /// A Hugging Face directory as a source: its settings and tensors under GGUF's names.
  /// - Throws: ``ModelError`` naming the `model_type` that no architecture here reads, or the setting that is missing, unknown or not supported.
  public func source(_ directory: HuggingFaceDirectory) throws -> any ModelSource {
    guard let type = directory.config["model_type"]?.string else { throw ModelError.missingSetting("model_type") }
    for architecture in architectures {
      guard let translation = architecture.checkpoints.first(where: { $0.modelType == type }) else { continue }
      return try TranslatedCheckpoint(directory, architecture: architecture.name, translation: translation)
    }
    throw ModelError.unknownArchitecture(type, known: architectures.flatMap { $0.checkpoints.map(\.modelType) })
  }
}
