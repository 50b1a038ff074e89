// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

import CMartletCUDAKernels

/// Kernels that are compiled together: a source, the headers that it may include, and options.
package struct KernelProgram: Sendable {
  package struct Header: Sendable {
    package let name: String
    package let text: String

    package init(name: String, text: String) {
      self.name = name
      self.text = text
    }
  }

  /// Of letters, digits, `-` and `_`, since it becomes part of a file's name: "products-q4_k".
  package let name: String
  /// What its source is called, in the compiler's log.
  package let file: String
  package let text: String
  package let headers: [Header]
  /// Beside the target.
  package let options: [String]

  package init(name: String, file: String, text: String, headers: [Header] = [], options: [String] = []) {
    self.name = name
    self.file = file
    self.text = text
    self.headers = headers
    self.options = options
  }

  /// The SHA-256 of everything that decides what it becomes, but for the target and the compiler.
  var hash: String {
    let parts = [text] + headers.flatMap { [$0.name, $0.text] } + options
    // Counts keep apart what would read the same one after another.
    return SHA256.hex(of: parts.lazy.flatMap { "\($0.utf8.count) \($0)".utf8 })
  }
}

extension KernelProgram {
  /// The program that holds a kernel of this package.
  /// - Parameter kernel: a `martlet_cuda_kernel_id`.
  init(of kernel: Int32) {
    let entry = martlet_cuda_kernel_at(kernel)
    self.init(source: String(cString: entry.source), definition: String(cString: entry.definition))
  }

  private init(source: String, definition: String) {
    let files = (0..<martlet_cuda_source_count()).map { index in
      let file = martlet_cuda_source_at(index)
      return Header(name: String(cString: file.name), text: String(cString: file.text))
    }
    let options = (0..<martlet_cuda_option_count()).map { String(cString: martlet_cuda_option_at($0)) }
    guard let text = files.first(where: { $0.name == source })?.text else { fatalError("there is no source \(source) of CUDA kernels") }
    self.init(
      name: Self.name(source: source, definition: definition), file: source, text: text,
      headers: files.filter { $0.name.hasSuffix(".h") || $0.name.hasSuffix(".cuh") },
      options: options + (definition.isEmpty ? [] : ["-D\(definition)"]))
  }

  /// The source without its ending, and what the definition defines.
  private static func name(source: String, definition: String) -> String {
    let parts = [source.split(separator: ".").first, definition.split(separator: "=").last].compactMap(\.self)
    return String(parts.joined(separator: "-").map { $0.isLetter || $0.isNumber || $0 == "_" ? $0 : "-" })
  }

  /// Every program of this package.
  package static var all: [KernelProgram] {
    var names: Set<String> = []
    return (0..<Int32(martlet_cuda_kernel_count.rawValue)).map { KernelProgram(of: $0) }.filter { names.insert($0.name).inserted }
  }
}
