// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

// Who may ask: keys, hosts, other origins' pages.

#if HTTPServer
import HTTPTypes
import Hummingbird
import MartletTemplates

extension ModelServer {
  /// `Authorization: Bearer KEY`, the word in any case, or `X-Api-Key: KEY`.
  static func key(in headers: HTTPFields) -> String? {
    if let value = headers[.authorization] {
      let parts = value.split(separator: " ", maxSplits: 1)
      if parts.count == 2, parts[0].lowercased() == "bearer" { return String(parts[1]) }
    }
    return headers[.apiKey]
  }

  func checkKey(_ key: String?) throws {
    if configuration.apiKeys.isEmpty { return }
    guard let key else {
      throw APIError(
        .unauthorized, "this server wants an API key: send it as Authorization: Bearer KEY", code: "missing_api_key",
        headers: [.wwwAuthenticate: "Bearer"])
    }
    // Every key is compared, and every byte, so that the time says nothing.
    let isKnown = configuration.apiKeys.reduce(false) { Self.areEqual($1, key) || $0 }
    if !isKnown {
      throw APIError(
        .unauthorized, "the API key is not one of this server's", code: "invalid_api_key", headers: [.wwwAuthenticate: "Bearer"])
    }
  }

  /// In a time that depends on the lengths alone.
  static func areEqual(_ left: String, _ right: String) -> Bool {
    let (left, right) = (Array(left.utf8), Array(right.utf8))
    var difference = left.count ^ right.count
    for index in right.indices { difference |= Int(right[index] ^ (left.isEmpty ? 0 : left[index % left.count])) }
    return difference == 0
  }

  /// What a log calls a key, which tells no byte of it.
  static func name(ofKey key: String) -> String {
    // FNV-1a, of which a log shows a third.
    let hash = key.utf8.reduce(UInt64(0xCBF2_9CE4_8422_2325)) { ($0 ^ UInt64($1)) &* 0x100_0000_01B3 }
    return "#" + String(hash & 0xFF_FFFF, radix: 16)
  }

  func checkHost(_ request: Request) throws {
    guard let hosts = configuration.hosts, let name = hostName(request) else { return }
    if !hosts.contains(name) {
      throw APIError(
        .forbidden,
        "this server does not answer to the host \(JSON.string(name).shown); whoever runs it may add the name (ServerConfiguration.hosts)",
        code: "host_not_allowed")
    }
  }

  /// The host of a request, without its port. The HTTP/1 decoder takes the field `Host` out of the others and hands it on as the authority.
  private func hostName(_ request: Request) -> String? {
    guard let host = request.head.authority else { return nil }
    if host.hasPrefix("["), let end = host.firstIndex(of: "]") { return String(host[...end]).lowercased() }
    return host.split(separator: ":", omittingEmptySubsequences: false).first.map { $0.lowercased() }
  }

  /// By the Fetch standard `*` does not cover `Authorization`, so what was asked for is said back.
  func addCORS(to response: inout Response, _ request: Request) {
    guard !configuration.corsOrigins.isEmpty, let origin = request.headers[.origin] else { return }
    response.headers[.vary] = "Origin"
    guard configuration.corsOrigins.contains("*") || configuration.corsOrigins.contains(origin) else { return }
    response.headers[.accessControlAllowOrigin] = origin
    response.headers[.accessControlExposeHeaders] = "X-Request-Id, Retry-After"
    if request.method == .options {
      response.headers[.accessControlAllowMethods] = "GET, POST, HEAD, OPTIONS"
      response.headers[.accessControlAllowHeaders] = request.headers[.accessControlRequestHeaders] ?? "Authorization, Content-Type"
      response.headers[.accessControlMaxAge] = "600"
    }
  }
}
#endif
