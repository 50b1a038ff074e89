// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

import ArgumentParser
import Martlet
import MartletAttention
import MartletCore
import MartletKVCache

/// How keys and values are kept, and how many.
struct CacheOptions: ParsableArguments {
  @OptionGroup var format: CacheFormatOptions

  @Option(
    name: .customLong("kv-cache-memory"), parsing: .unconditional,
    help: ArgumentHelp("Bytes for keys and values; K, M and G are powers of 1024 (default: by free memory).", valueName: "bytes"))
  var memory: ByteCountArgument?

  @Flag(name: .customLong("no-prefix-reuse"), help: "Compute every prompt whole, also where an earlier one began with the same tokens.")
  var noPrefixReuse = false

  var kvCache: KVCacheConfig {
    var cache = format.kvCache
    cache.budget = memory.map { .bytes($0.byteCount) } ?? .automatic
    cache.reusesPrefixes = !noPrefixReuse
    return cache
  }
}

/// What one page of keys and values is.
struct CacheFormatOptions: ParsableArguments {
  @Option(
    name: .customLong("kv-cache-dtype"),
    help: ArgumentHelp("Type of cached keys and values: auto (bf16), f32, f16, bf16, fp8 (e4m3) or int8.", valueName: "type"))
  var dataType = CacheDataType.auto

  @Flag(name: .customLong("fp8-inputs"), help: "Round queries to e4m3 too (with --kv-cache-dtype fp8).")
  var fp8Inputs = false

  @Option(
    name: .customLong("page-size"), parsing: .unconditional,
    help: ArgumentHelp("Tokens in a page, a power of two up to 1048576, or linear (VANILLA only).", valueName: "n"))
  var pageSize = PageSizeArgument(pageSize: .tokens(32))

  /// With the default budget and prefix reuse.
  var kvCache: KVCacheConfig {
    KVCacheConfig(dataType: dataType.dataType, pageSize: pageSize.pageSize)
  }

  var quantConfig: QuantConfig { QuantConfig(fp8Inputs: fp8Inputs) }

  func validate() throws {
    if fp8Inputs && dataType != .fp8 { throw ValidationError("--fp8-inputs needs --kv-cache-dtype fp8") }
  }
}

enum CacheDataType: String, ExpressibleByArgument, CaseIterable {
  case auto, f32, f16, bf16, fp8, int8

  init?(argument: String) { self.init(rawValue: argument.lowercased()) }

  var dataType: DataType {
    switch self {
    case .auto: KVCacheConfig().dataType
    case .f32: .f32
    case .f16: .f16
    case .bf16: .bf16
    case .fp8: .f8e4m3
    case .int8: .i8
    }
  }
}

/// `32`, `linear`.
struct PageSizeArgument: ExpressibleByArgument {
  var pageSize: KVCacheConfig.PageSize

  init(pageSize: KVCacheConfig.PageSize) { self.pageSize = pageSize }

  init?(argument: String) {
    if argument.lowercased() == "linear" {
      pageSize = .linear
    } else if let count = Int(argument), count > 0, count <= KVCacheConfig.mostTokensPerPage, count & (count - 1) == 0 {
      pageSize = .tokens(count)
    } else {
      return nil
    }
  }

  var defaultValueDescription: String {
    switch pageSize {
    case .linear: "linear"
    case .tokens(let count): "\(count)"
    }
  }
}

/// `1048576`, `512M`, `2G`.
struct ByteCountArgument: ExpressibleByArgument {
  var byteCount: Int

  init?(argument: String) {
    let units: [Character: Int] = ["K": 1 << 10, "M": 1 << 20, "G": 1 << 30]
    let unit = argument.last.flatMap { units[Character($0.uppercased())] }
    guard let count = Int(unit == nil ? argument : String(argument.dropLast())), count > 0 else { return nil }
    let (bytes, overflows) = count.multipliedReportingOverflow(by: unit ?? 1)
    if overflows { return nil }
    byteCount = bytes
  }
}
