// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

// The configuration as people write it: what is left out has its default.

/// A string for each level: "low", "normal" or "high".
extension KVRetention: Codable {
  private static let names: [(KVRetention, String)] = [(.low, "low"), (.normal, "normal"), (.high, "high")]

  public init(from decoder: any Decoder) throws {
    let container = try decoder.singleValueContainer()
    let name = try container.decode(String.self)
    guard let level = Self.names.first(where: { $0.1 == name })?.0 else {
      throw DecodingError.dataCorruptedError(
        in: container, debugDescription: "a retention is \"low\", \"normal\" or \"high\", not \"\(name)\"")
    }
    self = level
  }

  public func encode(to encoder: any Encoder) throws {
    var container = encoder.singleValueContainer()
    try container.encode(Self.names[Int(rawValue)].1)
  }
}

/// The number of tokens, or the string "linear".
extension KVCacheConfig.PageSize: Codable {
  public init(from decoder: any Decoder) throws {
    let container = try decoder.singleValueContainer()
    if let count = try? container.decode(Int.self) {
      self = .tokens(count)
    } else if let name = try? container.decode(String.self), name == "linear" {
      self = .linear
    } else {
      throw DecodingError.dataCorruptedError(in: container, debugDescription: "a page size is a number of tokens or \"linear\"")
    }
  }

  public func encode(to encoder: any Encoder) throws {
    var container = encoder.singleValueContainer()
    switch self {
    case .tokens(let count): try container.encode(count)
    case .linear: try container.encode("linear")
    }
  }
}

/// `{"bytes": 1048576}`, `{"fraction_of_free_memory": 0.5}`, or the string "automatic".
extension KVCacheConfig.Budget: Codable {
  private enum CodingKeys: String, CodingKey {
    case bytes
    case fractionOfFreeMemory = "fraction_of_free_memory"
  }

  public init(from decoder: any Decoder) throws {
    if let name = try? decoder.singleValueContainer().decode(String.self), name == "automatic" {
      self = .automatic
      return
    }
    let container = try? decoder.container(keyedBy: CodingKeys.self)
    if let container, container.allKeys == [.bytes] {
      self = .bytes(try container.decode(Int.self, forKey: .bytes))
    } else if let container, container.allKeys == [.fractionOfFreeMemory] {
      self = .fractionOfFreeMemory(try container.decode(Double.self, forKey: .fractionOfFreeMemory))
    } else {
      throw DecodingError.dataCorrupted(
        DecodingError.Context(
          codingPath: decoder.codingPath,
          debugDescription: "a budget is {\"bytes\": …}, {\"fraction_of_free_memory\": …} or \"automatic\""))
    }
  }

  public func encode(to encoder: any Encoder) throws {
    switch self {
    case .automatic:
      var container = encoder.singleValueContainer()
      try container.encode("automatic")
    case .bytes(let count):
      var container = encoder.container(keyedBy: CodingKeys.self)
      try container.encode(count, forKey: .bytes)
    case .fractionOfFreeMemory(let fraction):
      var container = encoder.container(keyedBy: CodingKeys.self)
      try container.encode(fraction, forKey: .fractionOfFreeMemory)
    }
  }
}

/// An object. What it leaves out has its default; whether values can work, ``KVCacheConfig/validate()`` says.
extension KVCacheConfig: Codable {
  private enum CodingKeys: String, CodingKey {
    case budget, retention
    case dataType = "dtype"
    case pageSize = "page_size"
    case reusesPrefixes = "reuses_prefixes"
    case reusesPartialPages = "reuses_partial_pages"
  }

  public init(from decoder: any Decoder) throws {
    let container = try decoder.container(keyedBy: CodingKeys.self)
    self.init()
    func read<Value: Decodable>(_ key: CodingKeys, into property: WritableKeyPath<KVCacheConfig, Value>) throws {
      if let value = try container.decodeIfPresent(Value.self, forKey: key) { self[keyPath: property] = value }
    }
    try read(.dataType, into: \.dataType)
    try read(.pageSize, into: \.pageSize)
    try read(.budget, into: \.budget)
    try read(.reusesPrefixes, into: \.reusesPrefixes)
    try read(.reusesPartialPages, into: \.reusesPartialPages)
    try read(.retention, into: \.retention)
  }

  public func encode(to encoder: any Encoder) throws {
    var container = encoder.container(keyedBy: CodingKeys.self)
    try container.encode(dataType, forKey: .dataType)
    try container.encode(pageSize, forKey: .pageSize)
    try container.encode(budget, forKey: .budget)
    try container.encode(reusesPrefixes, forKey: .reusesPrefixes)
    try container.encode(reusesPartialPages, forKey: .reusesPartialPages)
    try container.encode(retention, forKey: .retention)
  }
}
