// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

#if HTTPServer
import Dispatch
import Martlet
import MartletServer
import Metrics
import Testing

/// The whole text of small registries, a few lines each. `Scripts/check-metrics.py` has prometheus-client and promtool read that of a server.
@Suite struct PrometheusTests {
  private static func text(_ registry: PrometheusRegistry, names: String = "martlet") throws -> String {
    registry.text(names: try PrometheusNames(names), modelName: "m", statistics: nil)
  }

  @Test func `a page has help, type and series of every family, by name`() throws {
    let registry = PrometheusRegistry(buckets: { _ in [0.5, 0.1, .nan, 0.5, .infinity] })
    Counter(label: "b.requests", dimensions: [("route", "/a")], factory: registry).increment(by: 3)
    Gauge(label: "a-gauge", factory: registry).record(-1.5)
    let timer = Timer(label: "wait", factory: registry)
    for nanoseconds in [100_000_000, 100_000_001, 2_000_000_000] as [Int64] { timer.recordNanoseconds(nanoseconds) }
    #expect(
      try Self.text(registry) == """
        # HELP a_gauge What the program calls a-gauge.
        # TYPE a_gauge gauge
        a_gauge -1.5
        # HELP b_requests_total What the program calls b.requests.
        # TYPE b_requests_total counter
        b_requests_total{route="/a"} 3
        # HELP wait_seconds What the program calls wait.
        # TYPE wait_seconds histogram
        wait_seconds_bucket{le="0.1"} 1
        wait_seconds_bucket{le="0.5"} 2
        wait_seconds_bucket{le="+Inf"} 3
        wait_seconds_sum 2.200000001
        wait_seconds_count 3

        """)
  }

  @Test func `labels are sorted, the last of a name counts, and values are escaped`() throws {
    let registry = PrometheusRegistry()
    Counter(label: "c", dimensions: [("z", "1"), ("b", "2"), ("z", "a\\b\"c\nd")], factory: registry).increment()
    Counter(label: "c_total", dimensions: [("b", "2"), ("z", "a\\b\"c\nd")], factory: registry).increment()
    #expect(try Self.text(registry).split(separator: "\n").last == #"c_total{b="2",z="a\\b\"c\nd"} 2"#)
  }

  @Test func `the same labels have the same handler, whatever their order`() {
    let registry = PrometheusRegistry()
    let first = registry.makeMeter(label: "m", dimensions: [("a", "1"), ("b", "2")])
    let second = registry.makeRecorder(label: "m", dimensions: [("b", "2"), ("a", "1")], aggregate: false)
    #expect(first as AnyObject === second as AnyObject)
  }

  @Test func `names that Prometheus does not allow become others`() throws {
    let registry = PrometheusRegistry()
    for label in ["9é:x", "", "ok_1"] { Gauge(label: label, dimensions: [("__k", "v"), ("", "w")], factory: registry).record(1) }
    let names = try Self.text(registry).split(separator: "\n").filter { !$0.hasPrefix("#") }
    #expect(names == [#"_{_="w",_k="v"} 1"#, #"_9__x{_="w",_k="v"} 1"#, #"ok_1{_="w",_k="v"} 1"#])
  }

  @Test func `a name of two kinds is two families`() throws {
    let registry = PrometheusRegistry()
    Gauge(label: "x", factory: registry).record(1)
    Recorder(label: "x", factory: registry).record(5)
    // It would stand before a value of the histogram x_histogram.
    Gauge(label: "x_histogram_count", factory: registry).record(7)
    let types = try Self.text(registry).split(separator: "\n").filter { $0.hasPrefix("# TYPE") }
    #expect(types == ["# TYPE x gauge", "# TYPE x_histogram histogram", "# TYPE x_histogram_count_gauge gauge"])
  }

  @Test func `a counter of parts loses none, and what is no number is not counted`() throws {
    let registry = PrometheusRegistry()
    let counter = FloatingPointCounter(label: "energy", factory: registry)
    counter.increment(by: 0.4)
    counter.increment(by: 0.7)
    registry.makeCounter(label: "energy", dimensions: []).increment(by: -5)
    let timer = Timer(label: "t", factory: registry)
    timer.recordSeconds(Double.nan)
    timer.recordNanoseconds(-1)
    Recorder(label: "r", factory: registry).record(Double.infinity)
    let lines = try Self.text(registry).split(separator: "\n")
    #expect(lines.contains("energy_total 1.1") && lines.contains("t_seconds_count 0") && lines.contains("r_count 0"))
  }

  @Test func `what is destroyed is shown no more`() throws {
    let registry = PrometheusRegistry()
    let gone = Counter(label: "c", dimensions: [("a", "1")], factory: registry)
    Counter(label: "c", dimensions: [("a", "2")], factory: registry).increment()
    gone.destroy()
    #expect(try Self.text(registry).split(separator: "\n").filter { !$0.hasPrefix("#") } == [#"c_total{a="2"} 1"#])
  }

  @Test func `threads lose nothing`() throws {
    let registry = PrometheusRegistry()
    let meter = Meter(label: "m", factory: registry)
    DispatchQueue.concurrentPerform(iterations: 8) { thread in
      let counter = Counter(label: "c", dimensions: [("shared", "yes")], factory: registry)
      let parts = FloatingPointCounter(label: "p", factory: registry)
      for _ in 0..<5000 {
        counter.increment()
        meter.increment(by: 1)
        registry.makeFloatingPointCounter(label: "f", dimensions: []).increment(by: 0.5)
        registry.makeTimer(label: "t", dimensions: []).recordNanoseconds(1_000_000_000)
      }
      parts.increment(by: 0)
    }
    let lines = try Self.text(registry).split(separator: "\n")
    for line in [#"c_total{shared="yes"} 40000"#, "m 40000", "f_total 20000", "t_seconds_sum 40000", "t_seconds_count 40000"] {
      #expect(lines.contains(Substring(line)), "\(line)")
    }
  }

  @Test func `the names of others are those of the engine's numbers`() throws {
    let registry = PrometheusRegistry()
    for label in ["martlet_prefill_time", "martlet_decode_time", "martlet_time_to_first_token"] {
      Timer(label: label, factory: registry).recordSeconds(2)
    }
    for label in ["martlet_request_prompt_tokens", "martlet_request_generated_tokens"] {
      Recorder(label: label, factory: registry).record(50)
    }
    var statistics = EngineStatistics()
    statistics.pools = [
      EngineStatistics.Pool(window: nil, numLayers: 1, pageSize: 32, totalPages: 10, freePages: 4, cachedPages: 2, heldPages: 4),
      EngineStatistics.Pool(window: 64, numLayers: 1, pageSize: 32, totalPages: 4, freePages: 1, cachedPages: 0, heldPages: 3),
    ]
    statistics.runningRequests = 3
    statistics.admittedPromptTokens = 100
    statistics.cachedPromptTokens = 25
    statistics.ended = [.endToken: 1, .stopString: 2, .length: 4, .deadline: 8, .cancelled: 16, .failed: 32]
    let text = registry.text(names: try PrometheusNames("vllm, llamacpp ,trtllm"), modelName: "a\"b", statistics: statistics)
    let lines = Set(text.split(separator: "\n").map(String.init))
    for line in [
      #"vllm:num_requests_running{engine="0",model_name="a\"b"} 3"#, #"vllm:kv_cache_usage_perc{engine="0",model_name="a\"b"} 0.75"#,
      #"vllm:prefix_cache_hits_total{engine="0",model_name="a\"b"} 25"#,
      #"vllm:request_success_total{engine="0",finished_reason="stop",model_name="a\"b"} 3"#,
      #"vllm:request_success_total{engine="0",finished_reason="length",model_name="a\"b"} 12"#,
      #"vllm:request_success_total{engine="0",finished_reason="abort",model_name="a\"b"} 16"#,
      #"vllm:request_success_total{engine="0",finished_reason="error",model_name="a\"b"} 32"#,
      #"vllm:time_to_first_token_seconds_bucket{engine="0",model_name="a\"b",le="2.5"} 1"#,
      "# TYPE vllm:request_prefill_time_seconds histogram",
      "llamacpp:prompt_tokens_seconds 25", "llamacpp:prompt_seconds_total 2", "llamacpp:kv_cache_usage_ratio 0.75",
      #"trtllm_kv_cache_max_blocks{model_name="a\"b"} 14"#, #"trtllm_kv_cache_free_blocks{model_name="a\"b"} 7"#,
      #"trtllm_kv_cache_hit_rate{model_name="a\"b"} 0.25"#,
    ] { #expect(lines.contains(line), "\(line)") }
    #expect(!text.contains("\nmartlet_") && !text.contains("NaN"))
  }

  @Test func `before there is an engine there is nothing of it`() throws {
    let text = PrometheusRegistry().text(names: try PrometheusNames("martlet,vllm,llamacpp,trtllm"), modelName: "m", statistics: nil)
    #expect(text.isEmpty)
  }

  @Test(arguments: ["", "vllm,", "vllm,prometheus", "VLLM"])
  func `names that there are not are told with those that there are`(_ list: String) {
    let error = #expect(throws: PrometheusNamesError.self) { try PrometheusNames(list) }
    #expect(error?.description.contains("martlet, vllm, llamacpp, trtllm") == true)
  }
}
#endif
