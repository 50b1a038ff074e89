// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

import CMartletLibc

extension JSONValue {
  /// Parses the file at `path`; nil if there is no file.
  package init?(ifPresent path: String) throws(JSONError) {
    guard access(path, F_OK) == 0 else { return nil }
    try self.init(path: path)
  }
}

/// The names of what lies in a directory; none if there is no directory.
package func fileNames(inDirectory path: String) -> [String] {
  guard let directory = opendir(path) else { return [] }
  defer { closedir(directory) }
  var names: [String] = []
  while let entry = readdir(directory) {
    let name = withUnsafePointer(to: &entry.pointee.d_name) {
      $0.withMemoryRebound(to: CChar.self, capacity: MemoryLayout.size(ofValue: entry.pointee.d_name)) { String(cString: $0) }
    }
    if name != "." && name != ".." { names.append(name) }
  }
  return names
}

/// The bytes of a small file that stands beside JSON ones, such as `chat_template.jinja`; nil if there is no file.
package func textFile(ifPresent path: String) throws(JSONError) -> [UInt8]? {
  guard access(path, F_OK) == 0 else { return nil }
  let file: FileBytes
  do { file = try FileBytes(path: path) } catch { throw .cannotOpen(path: path, reason: error.reason) }
  // The bytes go with the file.
  return withExtendedLifetime(file) { Array(file.bytes) }
}
