// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

#if HTTPServer
import HummingbirdCore

#if TLS
import HummingbirdTLS
import NIOSSL
#endif

/// A certificate's chain and its key, in PEM files.
public struct TLSFiles: Sendable {
  public var certificates: String
  public var key: String

  public init(certificates: String, key: String) {
    self.certificates = certificates
    self.key = key
  }

  /// What swift-nio-ssl finds out only when it begins: that a key is of another certificate.
  func error(_ error: any Error) -> TLSError? {
    String(reflecting: type(of: error)).hasPrefix("NIOSSL")
      ? TLSError(message: "\(certificates) and \(key) do not go together: \(error)") : nil
  }

  /// A server that speaks TLS. What is wrong with the files is said with their names, which swift-nio-ssl's errors lack.
  func builder(_ channel: HTTP1Channel.Configuration) throws -> HTTPServerBuilder {
    #if TLS
    let chain: [NIOSSLCertificate]
    do { chain = try NIOSSLCertificate.fromPEMFile(certificates) } catch {
      throw TLSError(message: "the certificates in \(certificates) cannot be read: \(error)")
    }
    let privateKey: NIOSSLPrivateKey
    do { privateKey = try NIOSSLPrivateKey(file: key, format: .pem) } catch {
      throw TLSError(message: "the key in \(key) cannot be read: \(error)")
    }
    let configuration = TLSConfiguration.makeServerConfiguration(
      certificateChain: chain.map { .certificate($0) }, privateKey: .privateKey(privateKey))
    do { return try .tls(.http1(configuration: channel), tlsConfiguration: configuration) } catch {
      throw TLSError(message: "\(certificates) and \(key) do not go together: \(error)")
    }
    #else
    throw TLSError(message: "this build has no TLS: build it with --traits TLS")
    #endif
  }
}

/// Why there is no TLS.
public struct TLSError: Error, Sendable, CustomStringConvertible {
  public var message: String
  public var description: String { message }
}
#endif
