// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

import Foundation

#if os(Linux)
/// Bytes of the file's map that `address` lies in which this process has in memory, as the system counts them.
package func residentByteCount(ofFileMapAt address: UnsafeRawPointer) throws -> Int {
  // Maps are lines "7f01a000-7f02b000 r--p …", each followed by lines such as "Rss:  1024 kB". Read line by line: Foundation may end the file early.
  guard let file = fopen("/proc/self/smaps", "r") else { throw NotMapped(address: UInt(bitPattern: address)) }
  defer { fclose(file) }
  var line: UnsafeMutablePointer<CChar>?
  defer { free(line) }
  var capacity = 0, isInside = false
  while getline(&line, &capacity, file) > 0, let start = line {
    let words = String(cString: start).split(whereSeparator: \.isWhitespace)
    guard let first = words.first else { continue }
    let ends = first.split(separator: "-").compactMap { UInt($0, radix: 16) }
    if ends.count == 2 { isInside = (ends[0]..<ends[1]).contains(UInt(bitPattern: address)) }
    if isInside, first == "Rss:", let kibibytes = Int(words[1]) { return kibibytes << 10 }
  }
  throw NotMapped(address: UInt(bitPattern: address))
}

/// Bytes of the pages of memory that is no file's which this process has in memory.
package func residentByteCount(of memory: UnsafeRawBufferPointer) throws -> Int {
  let pageSize = Int(sysconf(Int32(_SC_PAGESIZE)))
  let start = UInt(bitPattern: memory.baseAddress) / UInt(pageSize) * UInt(pageSize)
  let byteCount = Int(UInt(bitPattern: memory.baseAddress) - start) + memory.count
  var pages = [UInt8](repeating: 0, count: (byteCount + pageSize - 1) / pageSize)
  guard mincore(UnsafeMutableRawPointer(bitPattern: start), byteCount, &pages) == 0 else { throw NotMapped(address: start) }
  return pages.count { $0 & 1 != 0 } * pageSize
}

private struct NotMapped: Error {
  let address: UInt
}
#endif
