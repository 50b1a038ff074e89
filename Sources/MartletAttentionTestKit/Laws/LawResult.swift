// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

public import MartletAttention
public import MartletCore

/// Whether a backend keeps a law.
public struct LawResult: Sendable, CustomStringConvertible {
  /// The law, as a sentence.
  public var law: String
  public var backend: String
  public var kvType: DataType
  /// What was compared: runs, rows, elements.
  public var comparisons = 0
  /// What broke it; empty where it holds.
  public var problems: [String] = []
  /// Why it could not be asked of this backend, in the backend's words; nil where it was.
  public var refusal: String?

  init(_ law: String, _ setting: LawSetting) {
    self.law = law
    backend = setting.backend.name
    kvType = setting.kvType
  }

  public var isBroken: Bool { !problems.isEmpty }

  public var description: String {
    let what = "\(backend) \(kvType.rawValue): \(law)"
    if let refusal { return "\(what): not asked: \(refusal)" }
    return isBroken ? "\(what): BROKEN: \(problems.joined(separator: "; "))" : "\(what): holds (\(comparisons) comparisons)"
  }

  /// Runs `body` on a fresh result; what it throws is a refusal or a problem.
  static func of(_ law: String, _ setting: LawSetting, _ body: (inout LawResult) throws -> Void) -> LawResult {
    var result = LawResult(law, setting)
    do {
      try body(&result)
    } catch let error as AttentionError where error.code == .obstacles {
      result.refusal = error.reasons.joined(separator: "; ")
    } catch {
      result.problems.append("threw: \(error)")
    }
    return result
  }

  mutating func expect(_ holds: Bool, _ problem: @autoclosure () -> String) {
    comparisons += 1
    if !holds && problems.count < 4 { problems.append(problem()) }
  }
}

/// What a law is asked of: a backend, a type of cache, and devices that differ in nothing but their threads.
public struct LawSetting {
  public var backend: any AttentionBackend.Type
  public var kvType: DataType
  /// Devices of the same kind and variant, the first one plain, others with other numbers of threads.
  public var devices: [any Device]

  /// - Precondition: there is a device.
  public init(_ backend: any AttentionBackend.Type, kvType: DataType, devices: [any Device]) {
    enforce(!devices.isEmpty, "laws are asked on a device")
    self.backend = backend
    self.kvType = kvType
    self.devices = devices
  }
}
