// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

/// What a device refuses. A device of your own may add codes of its own.
///
/// A program looks at ``code``, a person reads ``description``. More codes may come, so a `switch` over them has a `default`.
public struct DeviceError: Error, Sendable, Hashable, CustomStringConvertible {
  /// Which failure it is.
  public struct Code: RawRepresentable, Sendable, Hashable, Codable {
    public let rawValue: String
    public init(rawValue: String) { self.rawValue = rawValue }

    /// There is less memory than was asked for: ``DeviceError/requestedByteCount`` and ``DeviceError/availableByteCount``.
    public static let outOfMemory = Code(rawValue: "outOfMemory")
    /// The device has no kernel for a weight's format or shape.
    public static let unsupportedWeight = Code(rawValue: "unsupportedWeight")
    /// The device has no products that round rows so.
    public static let unsupportedActivations = Code(rawValue: "unsupportedActivations")
    /// An instruction set that does not exist, or that this machine cannot run.
    public static let unknownInstructionSet = Code(rawValue: "unknownInstructionSet")
    /// The system refused a thread.
    public static let threadsUnavailable = Code(rawValue: "threadsUnavailable")
    /// The system did not let a thread run where it was to be.
    public static let placementUnavailable = Code(rawValue: "placementUnavailable")
    /// No machine is asked for so many threads, or so few.
    public static let invalidThreadCount = Code(rawValue: "invalidThreadCount")
  }

  public let code: Code
  /// A sentence that names the thing and the way out.
  public let description: String
  /// The bytes that were asked for, for ``Code/outOfMemory``; else nil.
  public let requestedByteCount: Int?
  /// About how many bytes are free, for ``Code/outOfMemory``; else nil.
  public let availableByteCount: Int?

  public init(_ code: Code, _ description: String, requestedByteCount: Int? = nil, availableByteCount: Int? = nil) {
    self.code = code
    self.description = description
    self.requestedByteCount = requestedByteCount
    self.availableByteCount = availableByteCount
  }
}

extension DeviceError {
  /// ``Code/outOfMemory``, in bytes.
  public static func outOfMemory(device: String, requested: Int, available: Int) -> DeviceError {
    DeviceError(
      .outOfMemory,
      "device \(device): \(requested) bytes were asked for and about \(available) are free; "
        + "lower the context length, the key/value cache budget, or the requests or tokens of a step",
      requestedByteCount: requested, availableByteCount: available)
  }

  /// ``Code/unsupportedWeight``, with the weight's name.
  public static func unsupportedWeight(device: String, weight: String, reason: String) -> DeviceError {
    DeviceError(.unsupportedWeight, "device \(device): weight \"\(weight)\": \(reason)")
  }

  /// ``Code/unsupportedActivations``, with those that the device has.
  public static func unsupportedActivations(device: String, requested: Activations, available: [Activations]) -> DeviceError {
    let names = available.map(\.rawValue).joined(separator: ", ")
    return DeviceError(
      .unsupportedActivations,
      "device \(device): activations is \(requested.rawValue), and it has no such products; choose one of those that it has (\(names))")
  }

  /// ``Code/unknownInstructionSet``, with those that this machine has.
  public static func unknownInstructionSet(name: String, available: [String]) -> DeviceError {
    DeviceError(
      .unknownInstructionSet,
      "instruction set \"\(name)\" is not available on this machine (available: \(available.joined(separator: ", ")))")
  }

  /// ``Code/threadsUnavailable``, with the system's reason.
  public static func threadsUnavailable(device: String, requested: Int, reason: String) -> DeviceError {
    DeviceError(
      .threadsUnavailable,
      "device \(device): the system refused one of \(requested) threads (\(reason)); ask for fewer threads")
  }

  /// ``Code/placementUnavailable``, with the system's reason.
  public static func placementUnavailable(device: String, node: Int, reason: String) -> DeviceError {
    DeviceError(
      .placementUnavailable,
      "device \(device): the system did not let a thread run on the processors of node \(node) (\(reason)); leave the threads' placement free"
    )
  }

  /// ``Code/invalidThreadCount``, with the most that can be asked for.
  public static func invalidThreadCount(device: String, requested: Int, most: Int) -> DeviceError {
    DeviceError(
      .invalidThreadCount,
      "device \(device): \(requested) threads were asked for; ask for 1 to \(most), or leave the number out")
  }
}
