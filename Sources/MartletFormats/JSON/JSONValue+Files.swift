// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

#if canImport(Glibc)
  import Glibc
#elseif canImport(Musl)
  import Musl
#elseif canImport(Darwin)
  import Darwin
#endif

extension JSONValue {
  /// Parses the file at `path`; nil if there is no file.
  package init?(ifPresent path: String) throws(JSONError) {
    guard access(path, F_OK) == 0 else { return nil }
    try self.init(path: path)
  }
}

/// The bytes of a small file that stands beside JSON ones, such as `chat_template.jinja`; nil if there is no file.
package func textFile(ifPresent path: String) throws(JSONError) -> [UInt8]? {
  guard access(path, F_OK) == 0 else { return nil }
  let file: FileBytes
  do { file = try FileBytes(path: path) } catch { throw .cannotOpen(path: path, reason: error.reason) }
  // The bytes go with the file.
  return withExtendedLifetime(file) { Array(file.bytes) }
}
