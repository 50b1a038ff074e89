// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

import Foundation
import MartletAttentionTestKit
import MartletCLI
import Testing

/// The trace of `martlet bench engine` against the distributions that it claims.
@Suite struct RequestTraceTests {
  private static func workload(requests: Int = 20_000, rate: Double? = 4, seed: UInt64 = 1) -> RequestTrace.Workload {
    RequestTrace.Workload(
      requests: requests, rate: rate, promptTokens: .uniform(3...9), outputTokens: .lognormal(median: 40, sigma: 0.5),
      sharedPrefixTokens: 5, sharedPrefixShare: 0.25, vocabularySize: 100, seed: seed)
  }

  @Test func `arrivals are a Poisson process of the rate`() {
    let trace = RequestTrace(Self.workload())
    let arrivals = trace.requests.map { Double($0.arrival.components.seconds) + Double($0.arrival.components.attoseconds) * 1e-18 }
    let gaps = zip(arrivals.dropFirst(), arrivals).map { $0 - $1 }
    #expect(arrivals[0] == 0 && gaps.allSatisfy { $0 >= 0 })
    // An exponential distribution's deviation is its mean, so the mean of 20 000 is known to 0.7 %: four deviations are 3 %.
    let mean = gaps.reduce(0, +) / Double(gaps.count)
    #expect(abs(mean - 0.25) < 0.03 * 0.25)
    let deviation = (gaps.reduce(0) { $0 + ($1 - mean) * ($1 - mean) } / Double(gaps.count)).squareRoot()
    #expect(abs(deviation - 0.25) < 0.05 * 0.25)
    // P(gap > 2 means) = e⁻².
    #expect(abs(Double(gaps.count { $0 > 0.5 }) / Double(gaps.count) - exp(-2)) < 0.01)
    #expect(RequestTrace(Self.workload(rate: nil)).requests.allSatisfy { $0.arrival == .zero })
  }

  @Test func `a share of the prompts begins with the prefix, and lengths are as asked`() {
    let trace = RequestTrace(Self.workload()).requests
    let sharing = trace.filter(\.beginsWithPrefix)
    // The deviation of the share of 20 000 is 0.3 %.
    #expect(abs(Double(sharing.count) / Double(trace.count) - 0.25) < 0.0125)
    #expect(Set(sharing.map { $0.prompt.prefix(5) }).count == 1)
    #expect(Set(sharing.map { $0.prompt.count - 5 }) == Set(3...9))
    #expect(Set(trace.filter { !$0.beginsWithPrefix }.map(\.prompt.count)) == Set(3...9))
    #expect(trace.allSatisfy { $0.prompt.allSatisfy { (0..<100).contains($0) } })
    let outputs = trace.map(\.outputTokens).sorted()
    #expect(abs(outputs[outputs.count / 2] - 40) <= 1 && outputs[0] >= 1 && outputs[outputs.count - 1] <= 320)
    // One in 6.3 lies more than a deviation above the median.
    #expect(abs(Double(outputs.count { Double($0) > 40 * exp(0.5) }) / Double(outputs.count) - 0.1587) < 0.02)
  }

  @Test func `the seed decides it, and neither rate nor number changes a request`() {
    let trace = RequestTrace(Self.workload(requests: 50))
    #expect(trace == RequestTrace(Self.workload(requests: 50)))
    #expect(trace != RequestTrace(Self.workload(requests: 50, seed: 2)))
    #expect(Array(RequestTrace(Self.workload(requests: 80)).requests.prefix(50)) == trace.requests)
    #expect(RequestTrace(Self.workload(requests: 50, rate: nil)).requests.map(\.prompt) == trace.requests.map(\.prompt))
  }

  @Test func `percentiles are samples, by nearest rank`() throws {
    let hundred = try #require(Percentiles((1...100).reversed().map(Double.init)))
    #expect(hundred.p50 == 50 && hundred.p90 == 90 && hundred.p99 == 99 && hundred.max == 100)
    let one = try #require(Percentiles([7]))
    #expect(one.p50 == 7 && one.p99 == 7 && one.max == 7)
    let three = try #require(Percentiles([3, 1, 2]))
    #expect(three.p50 == 2 && three.p90 == 3)
    #expect(Percentiles([]) == nil)
  }

  @Test func `lengths are read as they are written`() {
    #expect(LengthDistribution(argument: "128") == .uniform(128...128))
    #expect(LengthDistribution(argument: "64..512") == .uniform(64...512))
    #expect(LengthDistribution(argument: "lognormal:200:0.8") == .lognormal(median: 200, sigma: 0.8))
    for wrong in ["", "0", "9..3", "a..b", "1..2..3", "lognormal:200", "lognormal:0:1", "lognormal:5:-1", "5..", "-3"] {
      #expect(LengthDistribution(argument: wrong) == nil, "\(wrong)")
    }
  }
}
