// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

import CMartletKernels
import MartletCore

/// Which processors are near which memory: the machine's nodes, as far as this process may use their processors.
///
/// A machine without nodes, or one that does not say, is one node. Memory without processors is no node here: nobody can be near it.
public struct NUMATopology: Sendable, Hashable {
  /// Processors that are as near as any to a part of the memory.
  public struct Node: Sendable, Hashable {
    /// The system's number of it.
    public let number: Int
    /// The system's numbers of its processors, ascending; at least one.
    public let processors: [Int]

    /// - Precondition: at least one processor, each below 16384.
    public init(number: Int, processors: [Int]) {
      enforce(!processors.isEmpty, "node \(number) has no processors")
      for processor in processors {
        enforce(
          (0..<ProcessorMask.capacity).contains(processor),
          "processor \(processor) of node \(number) is not in 0..<\(ProcessorMask.capacity)")
      }
      self.number = number
      self.processors = processors.sorted()
    }
  }

  /// At least one.
  public let nodes: [Node]

  /// Nodes that somebody made up, or knows better.
  /// - Precondition: at least one.
  public init(nodes: [Node]) {
    enforce(!nodes.isEmpty, "a machine without nodes is one node")
    self.nodes = nodes
  }

  /// The machine's, of the processors that the calling thread may use: a control group's set of processors narrows them, too.
  public init() { self.init(root: "", usable: ProcessorMask.ofThisThread.processors) }

  /// - Parameters:
  ///   - root: where `sys` is: "" but in tests.
  ///   - usable: the processors that may be used, at least one.
  package init(root: String, usable: [Int]) {
    let folder = root + "/sys/devices/system/node", usable = Set(usable)
    var left = usable
    var found: [Node] = []
    for number in Self.numbers(in: folder + "/online") {
      let processors = Self.numbers(in: folder + "/node\(number)/cpulist").filter { left.contains($0) }
      guard !processors.isEmpty else { continue }
      left.subtract(processors)
      found.append(Node(number: number, processors: processors))
    }
    // No thread is kept on processors that no node names.
    nodes = found.isEmpty ? [Node(number: 0, processors: Array(usable))] : found
  }

  /// What the system writes as "0-3,8,10-11"; numbers beyond the largest mask, and what is no number, are left out.
  private static func numbers(in path: String) -> [Int] {
    SystemFile.text(of: path).utf8.split { $0 == UInt8(ascii: ",") || $0 == UInt8(ascii: "\n") }.flatMap { part -> Range<Int> in
      let ends = part.split(separator: UInt8(ascii: "-"), omittingEmptySubsequences: false).map { Int(Substring($0)) }
      guard (1...2).contains(ends.count), let first = ends[0], let last = ends[ends.count - 1], first >= 0, first <= last else {
        return 0..<0
      }
      return min(first, ProcessorMask.capacity)..<min(last + 1, ProcessorMask.capacity)
    }
  }
}

/// Processors as the system's bits.
struct ProcessorMask {
  /// As many processors as a mask has bits.
  static let capacity = 64 * Int(martlet_affinity_words)
  private var words = [UInt64](repeating: 0, count: Int(martlet_affinity_words))

  /// - Precondition: each below ``capacity``.
  init(_ processors: [Int]) { for processor in processors { words[processor / 64] |= 1 << UInt64(processor % 64) } }

  /// Those that the calling thread may run on.
  static var ofThisThread: ProcessorMask {
    var mask = ProcessorMask([])
    martlet_get_affinity(&mask.words)
    return mask
  }

  var processors: [Int] { words.indices.flatMap { word in (0..<64).filter { words[word] >> UInt64($0) & 1 != 0 }.map { 64 * word + $0 } } }

  /// Has a thread run on these processors alone.
  /// - Returns: 0, or the system's error.
  func pin(_ thread: UInt) -> Int32 { martlet_set_affinity(thread, words) }
}
