// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

#if HTTPServer
import HTTPTypes
import Hummingbird
import MartletFormats
import MartletTemplates
import MartletTokenizers
import NIOCore

extension ModelServer {
  /// What `read` makes of the JSON of a request's body, on a thread that may take its time for it. Meanwhile the body counts as one that is read.
  ///
  /// - Throws: ``APIError``: 415 for another type, 413 above ``ServerConfiguration/maxBodyBytes``, 503 where all bodies together go beyond
  ///   ``ServerConfiguration/maxBodyBytesInFlight``, 408 where it does not arrive in ``ServerConfiguration/bodyTimeout``, 400 for what is no JSON.
  func read<Asked: Sendable>(
    _ request: Request, _ read: @escaping @Sendable (_ body: JSON) throws -> Asked
  ) async throws -> Asked {
    let type = request.headers[.contentType]?.split(separator: ";").first.map { $0.lowercased().filter { $0 != " " } }
    guard type == "application/json" else {
      // A page of another origin may post anything else without asking first.
      throw APIError(
        .unsupportedMediaType,
        "the body is \(type.map { JSON.string($0).shown } ?? "of no type"); send it with the header Content-Type: application/json",
        code: "unsupported_content_type")
    }
    if let encoding = request.headers[.contentEncoding], encoding.lowercased() != "identity" {
      throw APIError(.unsupportedMediaType, "the body is compressed; send it as it is", code: "unsupported_content_encoding")
    }
    let most = configuration.maxBodyBytes
    if let length = request.headers[.contentLength].flatMap({ Int($0) }), length > most { throw tooLarge("\(length)") }
    let share = BodyShare(of: bodies)
    defer { share.end() }
    let buffer = try await collect(request.body, share)
    return try await Exchange.offload { try read(Self.json(in: buffer)) }
  }

  /// - Parameter buffer: read where it lies, since a copy of it would live as long as what is made of it.
  private static func json(in buffer: ByteBuffer) throws -> JSON {
    do {
      return JSON(try buffer.withUnsafeReadableBytes { bytes in try JSONValue(parsing: bytes.bytes) })
    } catch let error as JSONError {
      throw APIError.invalid(
        nil, "the body is not JSON: \(error.offset.map { "byte \($0): \(error.reason)" } ?? error.description)", code: "invalid_json")
    }
  }

  private func collect(_ body: RequestBody, _ share: BodyShare) async throws -> ByteBuffer {
    let (most, timeout) = (configuration.maxBodyBytes, configuration.bodyTimeout)
    return try await withThrowingTaskGroup(of: ByteBuffer.self) { group in
      group.addTask {
        var whole = ByteBuffer()
        do {
          for try await var part in body {
            if whole.readableBytes + part.readableBytes > most { throw self.tooLarge("more") }
            try share.add(part.readableBytes)
            whole.writeBuffer(&part)
          }
        } catch let error where !(error is APIError || error is CancellationError) {
          // The parser's: the connection ended within the body, or a chunk is none.
          throw APIError(.badRequest, "the body did not arrive whole", code: "incomplete_body")
        }
        return whole
      }
      group.addTask {
        try await Task.sleep(for: timeout)
        throw APIError(
          .requestTimeout, "the body did not arrive within \(timeout.components.seconds) s (ServerConfiguration.bodyTimeout)",
          code: "body_timeout")
      }
      defer { group.cancelAll() }
      guard let buffer = try await group.next() else { throw CancellationError() }
      return buffer
    }
  }

  private func tooLarge(_ bytes: String) -> APIError {
    APIError(
      .contentTooLarge,
      "the body has \(bytes) bytes; at most \(configuration.maxBodyBytes) are taken (ServerConfiguration.maxBodyBytes)",
      code: "body_too_large")
  }
}
#endif
