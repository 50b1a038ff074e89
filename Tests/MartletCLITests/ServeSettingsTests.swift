// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

import Foundation
import MartletCLI
import MartletTestSupport
import Testing

/// The options of `martlet serve` from the command line, the environment and a file.
@Suite struct ServeSettingsTests {
  /// What is made of the three places.
  private func merged(_ arguments: [String] = [], _ environment: [String: String] = [:], file: String? = nil) throws -> [String] {
    var arguments = arguments
    let folder = try TemporaryFolder()
    if let file { arguments.append("--config=" + (try folder.write(file, to: "settings.json"))) }
    return try ServeSettings.merged(arguments: arguments, environment: environment).filter { !$0.hasPrefix("--config") }
  }

  @Test func `the command line goes before the environment, and that before the file`() throws {
    let file = #"{"port": 1, "host": "file", "served-name": "file", "live-prompts": true, "api-key": ["a", "b"], "drain-timeout": 2.5}"#
    #expect(
      try merged(["model", "--port=3"], ["MARTLET_SERVE_PORT": "2", "MARTLET_SERVE_HOST": "environment", "OTHER": "x"], file: file)
        == [
          "--host=environment", "--served-name=file", "--live-prompts", "--api-key=a", "--api-key=b", "--drain-timeout=2.5", "model",
          "--port=3",
        ])
    // Lists are taken whole from the first place that has one; several keys of a variable stand on lines of their own.
    #expect(
      try merged([], ["MARTLET_SERVE_API_KEY": "one, too\r\ntwo\n"], file: file).filter { $0.hasPrefix("--api-key") }
        == ["--api-key=one, too", "--api-key=two"])
    #expect(try merged([], ["MARTLET_SERVE_LIVE_PROMPTS": "false", "MARTLET_SERVE_OPEN_METRICS": "1"]) == ["--open-metrics"])
    #expect(try merged([], ["MARTLET_SERVE_ACTIVATIONS": "bf16"], file: #"{"activations": "exact"}"#) == ["--activations=bf16"])
    #expect(try merged([], [:], file: #"{"latent-prompts": "expanded:256"}"#) == ["--latent-prompts=expanded:256"])
    #expect(try merged(["--alias", "a", "--alias", "b"]) == ["--alias", "a", "--alias", "b"])
  }

  /// An empty key would open the server, and an empty value take the next argument with it.
  @Test(arguments: [
    ("MARTLET_SERVE_API_KEY", "", "is empty"), ("MARTLET_SERVE_API_KEY", "\n \n", "is empty"),
    ("MARTLET_SERVE_SERVED_NAME", "", "is empty"),
    ("MARTLET_SERVE_PROT", "1", "there is no option --prot"), ("MARTLET_SERVE_LIVE_PROMPTS", "maybe", "must be true or false"),
  ]) func `what is wrong in the environment is an error that names the variable`(name: String, value: String, problem: String) {
    let error = #expect(throws: (any Error).self) { try merged([], [name: value]) }
    #expect("\(error.map { "\($0)" } ?? "")".contains(name) && "\(error.map { "\($0)" } ?? "")".contains(problem))
  }

  @Test(arguments: [
    (#"{"api-key": []}"#, "holds no key"), (#"{"api-key": [""]}"#, "not empty"), (#"{"api-key": 5}"#, "array of strings"),
    (#"{"served-name": ""}"#, "is empty"), (#"{"prot": 1}"#, "no option \"prot\""), (#"{"port": 1, "port": 2}"#, "\"port\" twice"),
    (#"{"live-prompts": 1}"#, "true or false"), (#"{"port": null}"#, "string or a number"), (#"{"config": "x"}"#, "no option"),
    ("[1]", "no object"), ("{", "not JSON"),
  ]) func `what is wrong in the file is an error that names the file`(text: String, problem: String) {
    let error = #expect(throws: (any Error).self) { try merged(file: text) }
    #expect("\(error.map { "\($0)" } ?? "")".contains("settings.json") && "\(error.map { "\($0)" } ?? "")".contains(problem))
  }

  @Test(arguments: [
    (["--uds", "s", "--port", "0"], "--uds and --port"), (["--host=::1", "--uds=s"], "--uds and --host"),
    (["--max-body", "2M", "--max-bodies", "1M"], "--max-bodies"), (["--write-timeout", "0"], "--write-timeout"),
    (["--write-timeout", "nan"], "--write-timeout"), (["--body-timeout", "86401"], "--body-timeout"), (["--port", "65536"], "--port"),
  ]) func `options that do not go together, or are out of their range, are errors that name them`(arguments: [String], words: String) throws
  {
    let result = try CommandLine.run(["serve", "no-such-model"] + arguments)
    #expect(result.status == 64 && result.error.contains(words), "\(result.error)")
  }

  @Test func `an option that counts once may not be given twice`() {
    #expect(throws: (any Error).self) { try merged(["--port", "1", "--port=2"]) }
  }
}
