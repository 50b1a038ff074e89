// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

import CMartletLibc

/// A place where NVRTC may lie.
public enum NVRTCPlace: Sendable, Hashable, CustomStringConvertible {
  /// The library itself, or the folder that holds it.
  case path(String)
  /// A folder with Python's packages below it (a virtual environment, `/usr`, `~/.local`): `lib/python3.*/site-packages/nvidia/…/lib`.
  case python(prefix: String)
  /// Wherever the system looks for libraries.
  case system

  /// Where to look, in this order: what somebody named, `lib` beside the program's own folder, Python's packages, the toolkit's usual folder, the system.
  ///
  /// - Parameters:
  ///   - named: a library or its folder that somebody named. Then nothing else is looked at: a mistake in it is told.
  ///   - programFolder: the folder of the running program; nil where nobody knows it.
  ///   - pythonPrefixes: virtual environments and the like, beside `/usr/local` and `/usr`.
  public static func all(named: String? = nil, programFolder: String? = nil, pythonPrefixes: [String] = []) -> [NVRTCPlace] {
    if let named { return [.path(named)] }
    return (programFolder.map { [.path($0 + "/../lib")] } ?? []) + (pythonPrefixes + ["/usr/local", "/usr"]).map { .python(prefix: $0) }
      + [.path("/usr/local/cuda/lib64"), .system]
  }

  /// What the library is called, the newest first.
  static let names = ["libnvrtc.so.13", "libnvrtc.so.12", "libnvrtc.so"]

  public var description: String {
    switch self {
    case .path(let path): path
    case .python(let prefix): "Python's packages below \(prefix)"
    case .system: "the system's library path"
    }
  }

  /// The files that may be the library, in the order in which they are tried; those in folders are there, others may be.
  package var candidates: [String] {
    switch self {
    case .path(let path):
      return Self.isFolder(path) ? Self.libraries(in: path) : [path]
    case .python(let prefix):
      // Debian's own packages lie in lib/python3/dist-packages.
      return Self.entries(of: "\(prefix)/lib") { $0.hasPrefix("python3") }.flatMap { python in
        ["site-packages", "dist-packages"].flatMap { packages in
          // "cu13" is what CUDA 13's packages call their folder, "cuda_nvrtc" what CUDA 12's did.
          ["cu13", "cuda_nvrtc"].flatMap { Self.libraries(in: "\(prefix)/lib/\(python)/\(packages)/nvidia/\($0)/lib") }
        }
      }
    case .system: return Self.names
    }
  }

  private static func libraries(in folder: String) -> [String] {
    names.map { "\(folder)/\($0)" }.filter { access($0, R_OK) == 0 }
  }

  /// The second half of the compiler in the same folder; nil where there is none, or the system knows the folder.
  static func builtins(beside path: String) -> String? {
    guard let slash = path.lastIndex(of: "/") else { return nil }
    let folder = String(path[..<slash])
    return entries(of: folder) { $0.hasPrefix("libnvrtc-builtins.so") }.first.map { "\(folder)/\($0)" }
  }

  private static func isFolder(_ path: String) -> Bool {
    var status = stat()
    return stat(path, &status) == 0 && martlet_is_directory(&status)
  }

  /// Names in a folder, the greatest first; none where it is not there.
  private static func entries(of folder: String, _ isWanted: (String) -> Bool) -> [String] {
    FileBytes.names(in: folder).filter(isWanted).sorted(by: >)
  }
}
