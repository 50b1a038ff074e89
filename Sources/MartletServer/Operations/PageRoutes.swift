// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

#if HTTPServer
import CMartletPage
import HTTPTypes
public import Hummingbird
import NIOCore

/// A file of the page, as it lies in the binary.
private struct PageAsset: Sendable {
  let path: String
  let type: String
  let body: ByteBuffer
  /// A hash of the bytes: another build has other tags.
  let tag: String

  static let all: [PageAsset] = (0..<martlet_page_asset_count()).map { index in
    let asset = martlet_page_asset_at(index)
    let bytes = UnsafeBufferPointer(start: asset.bytes, count: asset.count)
    let hash = bytes.reduce(UInt64(0xCBF2_9CE4_8422_2325)) { ($0 ^ UInt64($1)) &* 0x100_0000_01B3 }
    return PageAsset(
      path: String(cString: asset.path), type: String(cString: asset.content_type), body: ByteBuffer(bytes: bytes),
      tag: "\"\(String(hash, radix: 16))\"")
  }
}

extension ModelServer {
  /// The page, at `/` of the router or of its group: it names everything relative to its own address, so it works behind any prefix.
  public func addPage<Context: RequestContext>(to router: some RouterMethods<Context>) {
    for asset in PageAsset.all {
      let isIndex = asset.path == "index.html"
      let handler: Handler = { request, _, _ in
        var headers: HTTPFields = [
          .contentType: asset.type, .eTag: asset.tag, .cacheControl: "no-cache",
          .contentSecurityPolicy: "default-src 'self'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'",
          .xContentTypeOptions: "nosniff",
        ]
        // The page names its files relative to itself, which is a folder.
        let path = request.uri.path
        if isIndex, !path.hasSuffix("/"), !path.hasSuffix("index.html") {
          let last = path.split(separator: "/").last.map(String.init) ?? ""
          return Response(status: .temporaryRedirect, headers: [.location: last + "/"])
        }
        if request.headers[.ifNoneMatch] == asset.tag { return Response(status: .notModified, headers: headers) }
        headers[.contentLength] = "\(asset.body.readableBytes)"
        return Response(status: .ok, headers: headers, body: ResponseBody(byteBuffer: asset.body))
      }
      if isIndex { add("", to: router, needsKey: false, route: "page", [(.get, handler)]) }
      add(asset.path, to: router, needsKey: false, route: "page", [(.get, handler)])
    }
  }
}
#endif
