// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

/// A fixed run of host elements that a device can copy from and to without staging (pinned, where the device knows pinning).
///
/// Made by ``Device/makeHostBuffer(of:count:)``. Its address never changes.
///
/// `@unchecked Sendable`: whoever owns the step that fills it synchronises; the engine's loop is one thread.
public final class HostBuffer<Element: BitwiseCopyable & Sendable>: @unchecked Sendable {
  private let storage: UnsafeMutableBufferPointer<Element>
  private let release: @Sendable () -> Void

  /// Takes over `storage`, which `release` gives back.
  public init(adopting storage: UnsafeMutableBufferPointer<Element>, release: @escaping @Sendable () -> Void) {
    self.storage = storage
    self.release = release
  }

  deinit { release() }

  /// The number of elements.
  public var count: Int { storage.count }

  /// - Precondition: `index` is within `0..<count`.
  public subscript(index: Int) -> Element {
    get {
      enforce(index >= 0 && index < storage.count, "index \(index) of a host buffer of \(storage.count)")
      return storage[index]
    }
    set {
      enforce(index >= 0 && index < storage.count, "index \(index) of a host buffer of \(storage.count)")
      storage[index] = newValue
    }
  }

  /// Calls `body` with the first `count` elements (all of them by default).
  public func withSpan<R, E: Error>(count: Int? = nil, _ body: (Span<Element>) throws(E) -> R) throws(E) -> R {
    try body(UnsafeBufferPointer(rebasing: storage[..<(count ?? storage.count)]).span)
  }

  /// Calls `body` with all elements, for writing.
  public func withMutableSpan<R, E: Error>(_ body: (inout MutableSpan<Element>) throws(E) -> R) throws(E) -> R {
    var span = storage.mutableSpan
    return try body(&span)
  }

  /// The memory itself, for devices' copies. Valid while the buffer lives.
  public var unsafeStorage: UnsafeMutableBufferPointer<Element> { storage }
}
