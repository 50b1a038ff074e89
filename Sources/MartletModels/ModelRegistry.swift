// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

public import MartletFormats

/// The architectures that can be loaded: a value, so that adding one changes nobody else's.
public struct ModelRegistry: Sendable {
  /// In the order in which they were added.
  public private(set) var models: [any LanguageModel.Type]

  public init(_ models: [any LanguageModel.Type] = []) { self.models = models }

  /// The house's own architectures.
  public static let builtIn = ModelRegistry([Llama.self, Gemma3.self, Qwen2.self, Qwen3.self])

  /// The names of all architectures.
  public var architectures: [String] { models.map { $0.architecture } }

  /// A registry with one more architecture; of two with one name the later is found.
  public func adding(_ model: any LanguageModel.Type) -> ModelRegistry {
    ModelRegistry(models.filter { $0.architecture != model.architecture } + [model])
  }

  /// The type that reads this source.
  /// - Throws: ``ModelError/Code/unknownArchitecture``, or the source's error where it names none.
  public func model(for source: any ModelSource) throws -> any LanguageModel.Type {
    let architecture = try source.string("general.architecture")
    guard let model = models.first(where: { $0.architecture == architecture }) else {
      throw ModelError.unknownArchitecture(architecture, known: architectures)
    }
    return model
  }

  /// A Hugging Face directory as a source: its settings and tensors under GGUF's names.
  /// - Throws: ``ModelError`` naming the `model_type` that no architecture here reads, or the setting that is missing, unknown or not supported.
  public func source(_ directory: HuggingFaceDirectory) throws -> any ModelSource {
    guard let type = directory.config["model_type"]?.string else { throw ModelError.missingSetting("model_type") }
    for model in models {
      guard let translation = model.checkpoints.first(where: { $0.modelType == type }) else { continue }
      return try TranslatedCheckpoint(directory, architecture: model.architecture, translation: translation)
    }
    throw ModelError.unknownArchitecture(type, known: models.flatMap { $0.checkpoints.map(\.modelType) })
  }
}
