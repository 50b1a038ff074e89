// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

public import MartletFormats

/// The architectures that can be loaded: a value, so that adding one changes nobody else's.
public struct ModelRegistry: Sendable {
  /// In the order in which they were added.
  public private(set) var models: [any LanguageModel.Type]

  public init(_ models: [any LanguageModel.Type] = []) { self.models = models }

  /// The house's own architectures.
  public static let builtIn = ModelRegistry([Llama.self, Gemma3.self])

  /// The names of all architectures.
  public var architectures: [String] { models.map { $0.architecture } }

  /// A registry with one more architecture; of two with one name the later is found.
  public func adding(_ model: any LanguageModel.Type) -> ModelRegistry {
    ModelRegistry(models.filter { $0.architecture != model.architecture } + [model])
  }

  /// The type that reads this file.
  /// - Throws: ``ModelError/unknownArchitecture(_:known:)``, or `GGUFError` where the file names none.
  public func model(for file: GGUFFile) throws -> any LanguageModel.Type {
    let architecture = try file.string("general.architecture")
    guard let model = models.first(where: { $0.architecture == architecture }) else {
      throw ModelError.unknownArchitecture(architecture, known: architectures)
    }
    return model
  }
}
