// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

import Foundation

/// Tells a supervisor how the server is: a datagram to the socket that `NOTIFY_SOCKET` names (sd_notify(3)). Nothing where there is none.
enum SystemdNotification {
  static func send(_ state: String) {
    guard let path = ProcessInfo.processInfo.environment["NOTIFY_SOCKET"], !path.isEmpty else { return }
    _ = UnixSocket.withAddress(path) { address, length in
      let descriptor = socket(AF_UNIX, Int32(SOCK_DGRAM.rawValue), 0)
      guard descriptor >= 0 else { return false }
      defer { close(descriptor) }
      return state.withCString { sendto(descriptor, $0, strlen($0), 0, address, length) } >= 0
    }
  }
}

/// The path of a Unix socket that is to be made.
enum UnixSocketPath {
  /// Hummingbird takes a path from a server that lives and uses it, and that server deletes the newcomer's socket when it ends.
  static func check(_ path: String) throws {
    let isAlive = UnixSocket.withAddress(path) { address, length in
      let descriptor = socket(AF_UNIX, Int32(SOCK_STREAM.rawValue), 0)
      guard descriptor >= 0 else { return false }
      defer { close(descriptor) }
      return connect(descriptor, address, length) == 0
    }
    guard let isAlive else { throw CommandError("--uds \(path) is too long: a socket's path has at most 107 bytes") }
    if isAlive { throw CommandError("another server listens at \(path)") }
    var isDirectory: ObjCBool = false
    let folder = (path as NSString).deletingLastPathComponent
    if !folder.isEmpty, !FileManager.default.fileExists(atPath: folder, isDirectory: &isDirectory) || !isDirectory.boolValue {
      throw CommandError("there is no folder \(folder) for the socket of --uds")
    }
  }
}

private enum UnixSocket {
  /// Does `body` with a socket's address; nil where the path is too long. One that begins with @ is abstract.
  static func withAddress(_ path: String, _ body: (UnsafePointer<sockaddr>, socklen_t) -> Bool) -> Bool? {
    var address = sockaddr_un()
    address.sun_family = sa_family_t(AF_UNIX)
    var bytes = Array(path.utf8)
    if bytes.first == UInt8(ascii: "@") { bytes[0] = 0 }
    let most = MemoryLayout.size(ofValue: address.sun_path) - 1
    guard bytes.count <= most else { return nil }
    withUnsafeMutableBytes(of: &address.sun_path) { $0.copyBytes(from: bytes) }
    let length = socklen_t(MemoryLayout<sa_family_t>.size + bytes.count + (bytes.first == 0 ? 0 : 1))
    return withUnsafePointer(to: &address) { $0.withMemoryRebound(to: sockaddr.self, capacity: 1) { body($0, length) } }
  }
}
