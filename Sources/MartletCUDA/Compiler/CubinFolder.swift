// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

/// Compiled kernels in a folder: a cache, or what came with the program.
///
/// A file's name says what it was made of, so that nothing ever has to be thrown away because it is old:
///
///     attention.sm_90a.0123456789abcdef0123456789abcdef.nvrtc-13.5.cubin
///
/// is the program, the target, half the SHA-256 of its sources and options, and the compiler. Its first line has the SHA-256 of the rest: a file that was cut off, or
/// that somebody else put there, is not taken.
struct CubinFolder: Sendable {
  let path: String

  /// What a file was made of, up to the compiler.
  struct Key: Sendable {
    let program: String
    let target: String
    /// 32 digits.
    let hash: String

    init(_ program: KernelProgram, target: String) {
      self.program = program.name
      self.target = target
      hash = String(program.hash.prefix(32))
    }

    fileprivate var prefix: String { "\(program).\(target).\(hash).nvrtc-" }
  }

  /// What is found under a key.
  enum Finding {
    case image([UInt8])
    /// There is such a file, and its contents are not what was written.
    case damaged(path: String)
    case nothing
  }

  /// - Parameter compiler: the version of NVRTC; nil takes any, and of several the one that was made by the newest.
  func find(_ key: Key, compiler: String?) -> Finding {
    let names =
      if let compiler {
        ["\(key.prefix)\(compiler).cubin"]
      } else {
        FileBytes.names(in: path).filter { $0.hasPrefix(key.prefix) && $0.hasSuffix(".cubin") }.sorted {
          Self.version($0) > Self.version($1)
        }
      }
    for name in names {
      guard let bytes = FileBytes.read("\(path)/\(name)") else { continue }
      guard let image = Self.contents(of: bytes) else { return .damaged(path: "\(path)/\(name)") }
      return .image(image)
    }
    return .nothing
  }

  func store(_ image: [UInt8], _ key: Key, compiler: String) throws(FileBytes.Failure) {
    try FileBytes.makeFolder(path)
    try FileBytes.write(Self.head(of: image) + image, to: "\(path)/\(key.prefix)\(compiler).cubin")
  }

  private static func head(of image: [UInt8]) -> [UInt8] { Array("martlet cubin 1 \(SHA256.hex(of: image))\n".utf8) }

  /// What follows the first line; nil where that is not its line.
  private static func contents(of bytes: [UInt8]) -> [UInt8]? {
    guard let end = bytes.firstIndex(of: UInt8(ascii: "\n")) else { return nil }
    let image = Array(bytes[(end + 1)...])
    return bytes[...end].elementsEqual(head(of: image)) ? image : nil
  }

  /// The compiler's major and minor version in a file's name, as one number.
  private static func version(_ name: String) -> Int {
    let parts = name.dropLast(".cubin".count).split(separator: "-").last?.split(separator: ".").map { Int($0) ?? 0 } ?? []
    return (parts.first ?? 0) * 1000 + (parts.count > 1 ? parts[1] : 0)
  }
}
