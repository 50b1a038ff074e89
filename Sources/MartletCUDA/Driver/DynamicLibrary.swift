// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

import CMartletLibc

/// A shared library that was opened while the program runs, and stays open until it ends: functions that were found in it stay callable.
///
/// `@unchecked Sendable`: the handle is never closed, and `dlsym` may be called by any thread.
struct DynamicLibrary: @unchecked Sendable {
  /// What was opened, for messages.
  let path: String
  private let handle: UnsafeMutableRawPointer

  /// Why a library could not be opened, in the words of the system.
  struct Failure: Error {
    let path: String
    let reason: String
  }

  /// - Parameters:
  ///   - path: a file, or a bare name, which the system looks for.
  ///   - isGlobal: whether libraries that are opened later may find their symbols in it.
  init(_ path: String, isGlobal: Bool = false) throws(Failure) {
    guard let handle = dlopen(path, RTLD_NOW | (isGlobal ? RTLD_GLOBAL : RTLD_LOCAL)) else {
      throw Failure(path: path, reason: dlerror().map { String(cString: $0) } ?? "no reason was given")
    }
    self.path = path
    self.handle = handle
  }

  /// The address of a symbol; nil where there is none such.
  func symbol(_ name: String) -> UnsafeMutableRawPointer? { dlsym(handle, name) }
}
