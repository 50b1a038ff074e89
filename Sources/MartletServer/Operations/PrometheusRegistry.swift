// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

#if HTTPServer
public import Martlet
public import Metrics

public final class PrometheusRegistry: MetricsFactory, Sendable {
  public init() {}
  public func text(names: PrometheusNames, modelName: String, statistics: EngineStatistics?) -> String { "" }
  public func makeCounter(label: String, dimensions: [(String, String)]) -> any CounterHandler { NOOPMetricsHandler.instance }
  public func makeRecorder(label: String, dimensions: [(String, String)], aggregate: Bool) -> any RecorderHandler {
    NOOPMetricsHandler.instance
  }
  public func makeTimer(label: String, dimensions: [(String, String)]) -> any TimerHandler { NOOPMetricsHandler.instance }
  public func makeMeter(label: String, dimensions: [(String, String)]) -> any MeterHandler { NOOPMetricsHandler.instance }
  public func destroyCounter(_ handler: any CounterHandler) {}
  public func destroyRecorder(_ handler: any RecorderHandler) {}
  public func destroyTimer(_ handler: any TimerHandler) {}
}

public struct PrometheusNames: Sendable {
  public init(_ list: String) throws {}
}
#endif
