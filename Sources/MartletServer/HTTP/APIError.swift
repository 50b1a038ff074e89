// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

#if HTTPServer
public import HTTPTypes
import Martlet
public import MartletTemplates
import MartletTokenizers

/// What a request is answered with where it cannot be served: a status, and OpenAI's error object with all of its four members.
public struct APIError: Error, Sendable, CustomStringConvertible {
  public var status: HTTPResponse.Status
  /// Such as `invalid_request_error`; a family of failures.
  public var type: String
  /// Such as `context_length_exceeded`; a single one, for programs.
  public var code: String?
  /// The field of the request that is wrong.
  public var param: String?
  /// A sentence that names the thing and the way out.
  public var message: String
  public var headers: HTTPFields
  /// Members of the error object besides the four.
  public var further: JSON.Object

  public init(
    _ status: HTTPResponse.Status, _ message: String, type: String? = nil, code: String? = nil, param: String? = nil,
    headers: HTTPFields = [:], further: JSON.Object = [:]
  ) {
    self.status = status
    self.message = message
    self.type = type ?? Self.type(of: status)
    self.code = code
    self.param = param
    self.headers = headers
    self.further = further
  }

  /// A value of a request that cannot be taken.
  static func invalid(_ param: String?, _ message: String, code: String? = "invalid_value") -> APIError {
    APIError(.badRequest, message, code: code, param: param)
  }

  /// Something that would change the answer, and that this server cannot do: never ignored.
  static func unsupported(_ param: String, _ message: String) -> APIError {
    APIError(.badRequest, message, code: "unsupported_parameter", param: param)
  }

  /// The code of errors about a form of answers.
  static let invalidForm = "invalid_form"

  public var description: String { message }

  /// `{"error": {"message", "type", "param", "code"}}`
  public var json: JSON {
    var error: JSON.Object = [
      "message": .string(message), "type": .string(type), "param": param.map { .string($0) } ?? .null,
      "code": code.map { .string($0) } ?? .null,
    ]
    for (key, value) in further.members { error[key] = value }
    return ["error": .object(error)]
  }

  private static func type(of status: HTTPResponse.Status) -> String {
    switch status.code {
    case 401: "authentication_error"
    case 403: "permission_error"
    case 404: "not_found_error"
    case 429: "rate_limit_error"
    case 503: "overloaded_error"
    case 500...: "server_error"
    default: "invalid_request_error"
    }
  }
}

// MARK: - From what the library throws

extension APIError {
  /// - Parameter retryAfter: in seconds, where trying again helps.
  init(_ error: any Error, retryAfter: Int = 1) {
    switch error {
    case let error as APIError: self = error
    case let error as LLMError: self.init(error, retryAfter: retryAfter)
    case let error as TokenizerError: self.init(error)
    case is CancellationError:
      self.init(.serviceUnavailable, "the request was cancelled", code: "service_unavailable", headers: Self.retry(after: retryAfter))
    default:
      self.init(.internalServerError, "the server failed: \(Swift.type(of: error))", headers: [.shouldRetry: "false"])
    }
  }

  private init(_ error: LLMError, retryAfter: Int) {
    let message = error.description
    switch error.code {
    case .overloaded:
      self.init(.serviceUnavailable, message, code: "overloaded", headers: Self.retry(after: retryAfter))
    case .stopped:
      self.init(.serviceUnavailable, message, code: "service_unavailable", headers: Self.retry(after: retryAfter))
    case .notFinite, .cacheOverflow:
      self.init(.internalServerError, message, code: error.code.rawValue, headers: [.shouldRetry: "false"])
    case .unusableModel, .modelTooLarge, .invalidConfiguration, .alreadyRead:
      self.init(.internalServerError, message, headers: [.shouldRetry: "false"])
    case .promptTooLong, .cacheTooSmall:
      self.init(.badRequest, message, code: "context_length_exceeded", param: "messages")
    case .writesNoText, .makesNoEmbeddings:
      self.init(.notImplemented, message, code: "not_supported", headers: [.shouldRetry: "false"])
    case .invalidForm, .formFailed:
      self.init(.badRequest, message, code: Self.invalidForm)
    case .exceedsWaitingLimit:
      self.init(.badRequest, message, code: "too_many_requests_in_one")
    default:
      self.init(.badRequest, message, code: "invalid_value", param: error.property.map(Self.snakeCase))
    }
  }

  private init(_ error: TokenizerError) {
    switch error.code {
    case .unwritableConversation: self.init(.badRequest, error.description, code: "chat_template_error", param: "messages")
    case .malformedMessage: self.init(.badRequest, error.description, code: "invalid_value", param: "messages")
    default: self.init(.badRequest, error.description, code: "no_chat_template", param: "messages")
    }
  }

  /// The prompt has no room, in words that clients look for: "maximum context length", "prompt is too long".
  package static func contextExceeded(promptTokens: Int, isLowerBound: Bool = false, context: Int, param: String) -> APIError {
    APIError(
      .badRequest,
      "This model's maximum context length is \(context) tokens. However, your prompt is too long: \(isLowerBound ? "at least " : "")"
        + "\(promptTokens) tokens, which leave no room for an answer. Shorten it; what the server takes (maxSequenceLength) goes up to what the model was made for.",
      code: "context_length_exceeded", param: param, further: ["n_prompt_tokens": .integer(promptTokens), "n_ctx": .integer(context)])
  }

  static func retry(after seconds: Int) -> HTTPFields { [.retryAfter: "\(seconds)"] }

  /// `maxTokens` → `max_tokens`
  static func snakeCase(_ name: String) -> String {
    name.reduce(into: "") { text, character in
      if character.isUppercase {
        if text.last.map({ $0 != "." && $0 != "_" && !$0.isUppercase }) ?? false { text += "_" }
        text += character.lowercased()
      } else {
        text.append(character)
      }
    }
  }
}

extension HTTPField.Name {
  static let requestID = HTTPField.Name("X-Request-Id")!
  /// Where Anthropic's clients look for the same.
  static let anthropicRequestID = HTTPField.Name("Request-Id")!
  static let apiKey = HTTPField.Name("X-Api-Key")!
  /// Tells OpenAI's clients whether trying again helps, whatever the status says.
  static let shouldRetry = HTTPField.Name("X-Should-Retry")!
  /// Which of the offered tools the model did not see.
  static let leftOutTools = HTTPField.Name("Martlet-Left-Out-Tools")!
  static let accelBuffering = HTTPField.Name("X-Accel-Buffering")!
}
#endif
