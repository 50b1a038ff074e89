// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

public import MartletAttention
public import MartletCore

/// Where backends are run.
public struct ConformanceTarget {
  public var device: any Device
  /// Workers that planners are told of.
  public var workerCount: Int
  /// Whether the device multiplies bf16, e4m3 and int8 keys as bf16 pairs, so that queries are rounded to bf16.
  public var hasBF16Dots: Bool

  public init(device: any Device, workerCount: Int = 1, hasBF16Dots: Bool) {
    self.device = device
    self.workerCount = workerCount
    self.hasBF16Dots = hasBF16Dots
  }
}

/// What a backend is expected to refuse.
public struct ExpectedObstacle: Sendable {
  /// What must stand in the obstacle.
  public var words: String
  /// The cells that have it.
  public var applies: @Sendable (ConformanceCase) -> Bool

  public init(_ words: String, applies: @escaping @Sendable (ConformanceCase) -> Bool) {
    self.words = words
    self.applies = applies
  }
}

/// A backend under test, and what is known of it beforehand.
public struct ConformanceSubject: Sendable {
  public var backend: any AttentionBackend.Type
  /// Whether it multiplies queries in the device's dot type; else in float32.
  public var usesDotType: Bool
  /// What it refuses, and nothing else: any other obstacle is a failure, and so is serving one of these. nil for a backend from outside,
  /// whose own obstacles are accepted and reported.
  public var obstacles: [ExpectedObstacle]?

  /// What batches do that it refuses altogether, and says so: of any other phase some cell must have been run.
  public var refusedPhases: Set<ConformanceCase.Phase>

  /// Whether it is spared rows that nobody looks at, where a scenario is large.
  public var isSlow: Bool

  public init(
    _ backend: any AttentionBackend.Type, usesDotType: Bool = false, obstacles: [ExpectedObstacle]? = nil,
    refusedPhases: Set<ConformanceCase.Phase> = [], isSlow: Bool = false
  ) {
    self.backend = backend
    self.isSlow = isSlow
    self.usesDotType = usesDotType
    self.obstacles = obstacles
    self.refusedPhases = refusedPhases
  }

  public var name: String { backend.name }

  /// The obstacle that the table expects of a cell.
  func expectedObstacle(_ example: ConformanceCase) -> ExpectedObstacle? { obstacles?.first { $0.applies(example) } }

  /// How the subject rounds queries of a case on a target.
  func rounding(_ example: ConformanceCase, on target: ConformanceTarget) -> QueryRounding {
    let hasPairs = usesDotType && target.hasBF16Dots
    if example.fp8.hasInputs { return hasPairs ? .e4m3InPairs : .e4m3 }
    if !hasPairs { return .float32 }
    switch example.kvType {
    case .bf16, .f8e4m3, .i8: return .bfloat16
    case .f32, .f16, .i32: return .float32
    }
  }
}

// MARK: - The house's own

extension ConformanceSubject {
  /// The built-in backends with the table of what each refuses.
  public static let builtIn: [ConformanceSubject] = [
    ConformanceSubject(TrtllmAttention.self, usesDotType: true, obstacles: [linearCache]),
    ConformanceSubject(FlashInferAttention.self, usesDotType: true, obstacles: [linearCache]),
    ConformanceSubject(VanillaAttention.self, obstacles: [], isSlow: true),
  ]

  /// Backends that read pages serve no linear cache; without a cache there is none.
  private static let linearCache = ExpectedObstacle("linear") { $0.page == .linear && $0.phase != .noCache }

  /// The subjects of a registry: built-in backends as the table has them, others as backends from outside.
  public static func subjects(of registry: AttentionBackendRegistry) -> [ConformanceSubject] {
    registry.backends.map { backend in
      builtIn.first { ObjectIdentifier($0.backend) == ObjectIdentifier(backend) } ?? ConformanceSubject(backend)
    }
  }
}
