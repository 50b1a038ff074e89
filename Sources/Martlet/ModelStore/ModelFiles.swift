// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

import Foundation
public import MartletFormats
public import MartletModels
public import MartletTokenizers

/// A model on disk, open and checked: a GGUF file or the parts of one, or a directory as Hugging Face's hub has it.
public enum ModelFiles: Sendable {
  case gguf(GGUFCheckpoint)
  /// `config.json`, safetensors, `tokenizer.json`, `tokenizer_config.json`.
  case directory(HuggingFaceDirectory)

  /// Opens what is at `path`: a directory, or a file; with the first part of a model in GGUF all parts.
  /// - Throws: `GGUFError` or `CheckpointError`.
  public init(path: String) throws {
    var isDirectory: ObjCBool = false
    if FileManager.default.fileExists(atPath: path, isDirectory: &isDirectory), isDirectory.boolValue {
      self = .directory(try HuggingFaceDirectory(path: path))
    } else {
      self = .gguf(try GGUFCheckpoint(path: path))
    }
  }

  /// Bytes of the weights' files.
  public var byteCount: Int {
    switch self {
    case .gguf(let checkpoint): checkpoint.byteCount
    case .directory(let directory): directory.byteCount
    }
  }

  /// Metadata and weights, under the names that architectures use.
  public func source(for models: ModelRegistry) throws -> any ModelSource {
    switch self {
    case .gguf(let checkpoint): checkpoint
    case .directory(let directory): try models.source(directory)
    }
  }

  /// The tokenizer that the files describe, and how they say that conversations are written; the error says why they do not.
  public func readTokenizer() throws(TokenizerError) -> (tokenizer: any Tokenizer, chatTemplate: Result<ChatTemplate, TokenizerError>) {
    switch self {
    case .gguf(let checkpoint):
      let file = checkpoint.first
      let tokenizer = try MartletTokenizers.makeTokenizer(from: file)
      let template = Result { () throws(TokenizerError) in try ChatTemplate(from: file, tokenizer: tokenizer) }
      return (tokenizer, template)
    case .directory(let directory):
      let files = try TokenizerFiles(directory: directory.path)
      return (files.tokenizer, files.chatTemplate)
    }
  }

  /// The tokenizer that the files describe.
  public func makeTokenizer() throws(TokenizerError) -> any Tokenizer { try readTokenizer().tokenizer }
}
