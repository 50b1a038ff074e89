// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

#if HTTPServer
import Metrics
import Synchronization

/// What the server counts besides the engine: requests by route and status, and their times. Labels are of fixed sets, never of a request.
final class ServerMeters: Sendable {
  private let factory: (any MetricsFactory)?
  private let active: Meter?
  private let handlers = Mutex<[String: (Counter, Timer)]>([:])

  init(_ factory: (any MetricsFactory)?) {
    self.factory = factory
    active = factory.map { Meter(label: "martlet_http_active_requests", factory: $0) }
  }

  func began(_ route: String) { active?.increment() }

  func ended(_ route: String, status: Int, _ numbers: Exchange.Numbers, time: Duration) {
    guard let factory else { return }
    active?.decrement()
    let family = "\(status / 100)xx"
    let (counter, timer) = handlers.withLock { handlers in
      if let known = handlers["\(route) \(family)"] { return known }
      let made = (
        Counter(label: "martlet_http_requests_total", dimensions: [("route", route), ("status", family)], factory: factory),
        Timer(label: "martlet_http_request_time", dimensions: [("route", route)], factory: factory)
      )
      handlers["\(route) \(family)"] = made
      return made
    }
    counter.increment()
    timer.recordNanoseconds(time.wholeNanoseconds)
  }
}

extension Duration {
  fileprivate var wholeNanoseconds: Int64 { components.seconds * 1_000_000_000 + components.attoseconds / 1_000_000_000 }
}
#endif
