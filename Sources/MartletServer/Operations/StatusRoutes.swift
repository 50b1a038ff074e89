// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

#if HTTPServer
import HTTPTypes
import Hummingbird
import Martlet
import MartletTemplates

// What load balancers, supervisors and dashboards ask.

extension ModelServer {
  /// 200 where requests are answered; 503 while the model is loaded, when it failed, and while the server drains.
  func health(_ request: Request, _ context: any RequestContext, _ exchange: Exchange) async throws -> Response {
    _ = try model()
    if isDraining {
      throw APIError(
        .serviceUnavailable, "the server is shutting down", type: "unavailable_error", code: "draining", headers: APIError.retry(after: 5)
      )
    }
    return Response(json: ["status": "ok"])
  }

  /// 200 as long as the process answers at all.
  func isAlive(_ request: Request, _ context: any RequestContext, _ exchange: Exchange) async throws -> Response {
    Response(json: ["status": "ok"])
  }

  func version(_ request: Request, _ context: any RequestContext, _ exchange: Exchange) async throws -> Response {
    Response(json: ["version": .string(Self.version), "name": "martlet"])
  }

  func metrics(_ request: Request, _ context: any RequestContext, _ exchange: Exchange) async throws -> Response {
    if !configuration.metricsAreOpen { try checkKey(Self.key(in: request.headers)) }
    guard let text = configuration.metricsText else {
      throw APIError(
        .notFound, "this server has no metrics; whoever runs it may add them (ServerConfiguration.metricsText)", code: "no_metrics")
    }
    return Response(text: text((try? model())?.statistics), type: "text/plain; version=0.0.4; charset=utf-8")
  }

  /// Of this package.
  public static let version = "0.1.0"
}
#endif
