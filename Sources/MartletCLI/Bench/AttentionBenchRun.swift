// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

import MartletAttention
import MartletAttentionTestKit
import MartletCPU
import MartletCore

/// Times workloads in turn with the machine's ceilings.
struct AttentionBenchRun {
  private let device: CPUDevice
  private let ceilings: CPUCeilings
  private let threads: Int
  private let pageSize: Int
  private let repeats: Int
  private(set) var report: AttentionBenchReport

  init(_ device: CPUDevice, threads: Int, pageSize: Int, repeats: Int) throws {
    self.device = device
    self.threads = threads
    self.pageSize = pageSize
    self.repeats = repeats
    ceilings = try CPUCeilings(device, clock: ContinuousClock())
    report = AttentionBenchReport(
      engine: "martlet", machine: device.summary,
      ceilings: .init(
        f32: (ceilings.operationsPerSecond(.f32) ?? 0) * 1e-9, bf16: ceilings.operationsPerSecond(.bf16).map { $0 * 1e-9 },
        i8: ceilings.operationsPerSecond(.i8).map { $0 * 1e-9 }),
      results: [])
  }

  mutating func measure(_ workload: AttentionWorkload, _ backend: any AttentionBackend.Type, _ type: DataType) throws {
    var options = AttentionTimer.Options(clock: ContinuousClock())
    options.dataType = type
    options.pageSize = pageSize
    options.workerCount = threads
    let timer = try AttentionTimer(backend, workload, options, on: device)
    let bytes = workload.cacheByteCount(type)
    let reader = try ceilings.makeReader(byteCount: Int(bytes))
    _ = try timer.run()
    var forwards: [Double] = []
    var prepares: [Double] = []
    var attends: [Double] = []
    var bandwidths: [Double] = []
    var peaks: [Double] = []
    // In turn, so that all see the same minutes of the machine.
    for _ in 0..<repeats {
      let sample = try timer.run()
      forwards.append(sample.forward)
      prepares.append(sample.prepare)
      attends.append(try timer.runWithoutAppend().forward)
      bandwidths.append(reader.bytesPerSecond())
      peaks.append(peak(workload, type))
    }
    let seconds = median(forwards), peak = median(peaks), bandwidth = median(bandwidths)
    let compute = workload.operations / peak, memory = bytes / bandwidth
    report.results.append(
      .init(
        engine: backend.name, workload: "\(workload)", dtype: CacheDataType(type).rawValue, pageSize: pageSize, seconds: seconds,
        prepareSeconds: median(prepares), appendSeconds: max(0, seconds - median(attends)),
        gflops: workload.operations / seconds * 1e-9, gigabytesPerSecond: bytes / seconds * 1e-9, peakGflops: peak * 1e-9,
        readGigabytesPerSecond: bandwidth * 1e-9, roofSeconds: max(compute, memory), isBoundByMemory: memory > compute,
        samples: forwards))
  }

  /// The most operations a second of the products that attention over this type makes.
  private func peak(_ workload: AttentionWorkload, _ type: DataType) -> Double {
    let f32 = { ceilings.operationsPerSecond(.f32, tries: 1) ?? 1 }
    // Where each key meets few rows, decoding 8-bit numbers counts.
    let isDecode = workload.maxNewTokens == workload.steps[0].count
    let rows = min(workload.numHeads / workload.numKVHeads, 6)
    return switch type {
    case .f8e4m3 where isDecode: ceilings.operationsPerSecond(.widenedE4M3(rows: rows), tries: 1) ?? f32()
    case .i8 where isDecode: ceilings.operationsPerSecond(.widenedI8(rows: rows), tries: 1) ?? f32()
    // As pairs, or widened: processors with AMX are faster at the latter.
    case .bf16, .f8e4m3, .i8: max(ceilings.operationsPerSecond(.bf16, tries: 1) ?? 0, f32())
    default: f32()
    }
  }

  private func median(_ values: [Double]) -> Double { values.sorted()[values.count / 2] }
}

extension CacheDataType {
  init(_ type: DataType) {
    self = Self.allCases.first { $0 != .auto && $0.dataType == type } ?? .auto
  }
}
