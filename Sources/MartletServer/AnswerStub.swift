#if HTTPServer
import Martlet
import MartletTemplates
public enum AnswerPart: Sendable {
  case content(String), reasoning(String), callBegan(index: Int, name: String), callArguments(index: Int, String), callEnded(index: Int),
    callBroke(index: Int)
}
struct AnswerFormat: Sendable { var needsControlTokens = false }
struct AnswerParser: Sendable {
  init(format: AnswerFormat, tools: [JSON], promptEnd: String, parsesReasoning: Bool) {}
  mutating func append(_ t: String) -> [AnswerPart] { t.isEmpty ? [] : [.content(t)] }
  mutating func finish() -> [AnswerPart] { [] }
}
extension LLM { var answerFormat: AnswerFormat { AnswerFormat() } }
extension SamplingParams {
  var showsControlTokens: Bool {
    get { false }
    set {}
  }
}
#endif
