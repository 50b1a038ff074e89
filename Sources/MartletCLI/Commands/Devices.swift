// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

import ArgumentParser
import MartletCPU
import MartletCUDA
import MartletCore

struct Devices: ParsableCommand {
  static let configuration = CommandConfiguration(
    abstract: "Lists what a model can run on: the processor, and each NVIDIA GPU.",
    discussion: "The names are those that --device takes. Where there is no GPU it says why.")

  @Flag(help: "Print one JSON object.")
  var json = false

  func run() throws {
    var report = Report(devices: [.init(name: "cpu", description: try CPUDevice(threads: CPULimits().processorCount).summary)])
    do {
      report.devices += try CUDADevice.descriptions().enumerated().map { .init(name: "cuda:\($0.offset)", description: $0.element) }
    } catch {
      report.noGPU = error.description
    }
    if json { try Terminal.writeJSON(report) } else { try Terminal.write(report.text) }
  }

  struct Report: Encodable {
    struct Device: Encodable {
      var name: String
      var description: String
    }

    var devices: [Device]
    /// Why there is no GPU among them; absent where there is one.
    var noGPU: String?

    enum CodingKeys: String, CodingKey {
      case devices
      case noGPU = "no_gpu"
    }

    var text: String {
      let width = devices.reduce(0) { max($0, $1.name.count) }
      let lines = devices.map { $0.name + String(repeating: " ", count: width - $0.name.count) + "  " + $0.description }
      return (lines + (noGPU.map { ["No GPU: \($0)."] } ?? [])).joined(separator: "\n") + "\n"
    }
  }
}
