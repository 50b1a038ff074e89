// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

import CMartletKernels
import CMartletLibc

/// What the machine and the process's control groups (v1 or v2) allow: processors and memory.
///
/// A container that may use 2 of 64 processors must not start 64 threads: the quota would stop all of them for most of each period.
public struct CPULimits: Sendable {
  /// Where `proc` and `sys` are: "" but in tests.
  private let root: String

  public init() { self.init(root: "") }

  package init(root: String) { self.root = root }

  /// Processors that this process can keep busy, at least 1: its affinity, or the control group's quota if that is less.
  public var processorCount: Int {
    max(1, min(Int(martlet_affinity_count()), processorQuota.map { Int($0.rounded(.up)) } ?? .max))
  }

  /// Processors' worth of time that the control group grants; nil where it sets no limit.
  package var processorQuota: Double? {
    var quotas: [Double] = []
    for group in groups(controller: nil) {
      // "max 100000" or "150000 100000": microseconds in each period.
      let fields = words(of: group + "/cpu.max")
      if fields.count == 2, let quota = Double(fields[0]), let period = Double(fields[1]), period > 0 { quotas.append(quota / period) }
    }
    for group in groups(controller: "cpu") {
      if let quota = number(in: group + "/cpu.cfs_quota_us"), let period = number(in: group + "/cpu.cfs_period_us"), quota > 0, period > 0 {
        quotas.append(Double(quota) / Double(period))
      }
    }
    return quotas.min()
  }

  /// Bytes of a processor's second-level cache, which blocks of a product are cut for: 512 KiB where the system does not say.
  package var secondCacheByteCount: Int {
    let size = words(of: "/sys/devices/system/cpu/cpu0/cache/index2/size").first ?? ""
    guard size.hasSuffix("K"), let kibibytes = Int(size.dropLast()), kibibytes > 0 else { return 512 << 10 }
    return kibibytes << 10
  }

  /// Bytes that can still be allocated without swapping or being killed, as the kernel estimates them.
  public var availableByteCount: Int {
    var available = Int.max
    let memory = words(of: "/proc/meminfo")
    if let index = memory.firstIndex(of: "MemAvailable:"), index + 1 < memory.count, let kibibytes = Int(memory[index + 1]) {
      available = kibibytes << 10
    }
    for group in groups(controller: nil) {
      available = min(available, room(limit: group + "/memory.max", usage: group + "/memory.current", statistics: group + "/memory.stat"))
    }
    for group in groups(controller: "memory") {
      let limit = group + "/memory.limit_in_bytes", usage = group + "/memory.usage_in_bytes"
      available = min(available, room(limit: limit, usage: usage, statistics: group + "/memory.stat"))
    }
    return available
  }

  /// What a group's limit leaves; file pages that nobody used lately count as free, because the kernel drops them first.
  private func room(limit: String, usage: String, statistics: String) -> Int {
    guard let limit = number(in: limit), let usage = number(in: usage) else { return .max }
    let fields = words(of: statistics)
    let key: Substring = fields.contains("total_inactive_file") ? "total_inactive_file" : "inactive_file"
    let reclaimable = fields.firstIndex(of: key).flatMap { $0 + 1 < fields.count ? Int(fields[$0 + 1]) : nil } ?? 0
    return max(0, limit - usage + min(reclaimable, usage))
  }

  /// The folders of the process's group and of all its ancestors (each may set a limit): of the unified hierarchy (v2) for nil, else of
  /// the v1 controller.
  private func groups(controller: String?) -> [String] {
    for line in lines(of: "/proc/self/cgroup") {
      // "0::/path" in v2, "4:cpu,cpuacct:/path" in v1.
      let fields = line.split(separator: ":", maxSplits: 2, omittingEmptySubsequences: false)
      guard fields.count == 3 else { continue }
      let mount: String
      if let controller {
        guard fields[1].split(separator: ",").contains(where: { $0 == controller }) else { continue }
        mount = "/sys/fs/cgroup/\(controller)"
      } else {
        guard fields[0] == "0", fields[1].isEmpty else { continue }
        mount = "/sys/fs/cgroup"
      }
      // In a container the path may be the host's, which does not exist here: the mount itself is then the group.
      var folders = [mount], path = mount
      for part in fields[2].split(separator: "/") {
        path += "/" + part
        folders.append(path)
      }
      return folders
    }
    return []
  }

  private func number(in path: String) -> Int? { words(of: path).first.flatMap { Int($0) } }

  // By bytes: characters are a hundred times as slow to tell apart, and this is asked for every piece of memory that a model takes.
  private func words(of path: String) -> [Substring] {
    SystemFile.text(of: root + path).utf8.split { $0 == UInt8(ascii: " ") || $0 == UInt8(ascii: "\n") || $0 == UInt8(ascii: "\t") }.map(
      Substring.init)
  }

  private func lines(of path: String) -> [Substring] {
    SystemFile.text(of: root + path).utf8.split(separator: UInt8(ascii: "\n")).map(Substring.init)
  }
}

/// Small files in which the system says something.
enum SystemFile {
  /// Empty where there is no such file.
  static func text(of path: String) -> String {
    guard let file = fopen(path, "r") else { return "" }
    defer { fclose(file) }
    var bytes: [UInt8] = []
    var block = [UInt8](repeating: 0, count: 4096)
    while case let count = fread(&block, 1, block.count, file), count > 0 { bytes += block[..<count] }
    return String(decoding: bytes, as: UTF8.self)
  }
}
