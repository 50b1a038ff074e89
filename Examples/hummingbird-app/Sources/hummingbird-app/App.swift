// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

// A Hummingbird application that has routes of its own, and a language model beside them.
//
//   hummingbird-app MODEL.gguf [PORT]
//   curl localhost:8080/greeting
//   curl localhost:8080/llm/v1/chat/completions -H 'Content-Type: application/json' -d '{"messages": [{"role": "user", "content": "Hello"}]}'

import Hummingbird
import Martlet
import MartletServer

@main
struct App {
  static func main() async throws {
    let arguments = CommandLine.arguments
    guard arguments.count > 1 else { fatalError("usage: hummingbird-app MODEL.gguf [PORT]") }
    let port = arguments.count > 2 ? Int(arguments[2]) ?? 8080 : 8080

    let router = Router(context: ServerContext.self)
    router.get("greeting") { _, _ in "Hello from the application.\n" }

    // The lines that add a model.
    let llm = try await LLM.load(model: arguments[1])
    let server = ModelServer(llm)
    server.addRoutes(to: router.group("llm"))
    server.addPage(to: router.group("llm"))
    let app = Application(
      router: router, server: .http1(configuration: .martlet()), configuration: .init(address: .hostname("127.0.0.1", port: port)))
    try await app.runService()
  }
}
