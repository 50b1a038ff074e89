// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

/// The attention backends that can be chosen by name: a value, so that adding one changes nobody else's.
public struct AttentionBackendRegistry: Sendable {
  /// In the order in which they were added.
  public private(set) var backends: [any AttentionBackend.Type]

  /// A registry of these backends and no others.
  public init(_ backends: [any AttentionBackend.Type] = []) { self.backends = backends }

  /// The house's own backends.
  public static let builtIn = AttentionBackendRegistry([TrtllmAttention.self, FlashInferAttention.self, VanillaAttention.self])

  /// The names of all backends.
  public var names: [String] { backends.map { $0.name } }

  /// A registry with one more backend; of two with one name the later is found.
  public func adding(_ backend: any AttentionBackend.Type) -> AttentionBackendRegistry {
    AttentionBackendRegistry(backends.filter { $0.name.uppercased() != backend.name.uppercased() } + [backend])
  }

  /// The backend of this name, in any case.
  /// - Throws: ``AttentionError/Code/unknownBackend``.
  public func backend(named name: String) throws(AttentionError) -> any AttentionBackend.Type {
    guard let backend = backends.first(where: { $0.name.uppercased() == name.uppercased() }) else {
      throw .unknownBackend(name: name, known: names)
    }
    return backend
  }
}
