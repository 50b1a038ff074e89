// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

// Reads the paths of MaskBench files from standard input, one a line, and prints a line of JSON for each: what compiling took, which instances the form
// accepts, and what each mask took. See README.md; compare.py runs this.

import Martlet
import MartletFormats
import MartletGrammar
import MartletTokenizers

struct Arguments {
  var tokenizer = ""
  var options = JSONSchemaOptions()
  var makesMasks = true
  var printsVocabulary = false
  var isCompact = false

  init(_ arguments: [String]) {
    options.whitespace = .flexible(maximum: 2)
    for argument in arguments {
      switch argument {
      case "--no-masks": makesMasks = false
      case "--vocabulary": printsVocabulary = true
      case "--compact": (isCompact, options.whitespace) = (true, .compact)
      case "--annotate-formats": options.unknownFormats = .annotate
      case "--zero-fractions": options.integersMayHaveZeroFraction = true
      default: tokenizer = argument
      }
    }
  }
}

func microseconds(_ body: () throws -> Void) rethrows -> Double {
  let duration = try ContinuousClock().measure(body)
  return Double(duration.components.seconds) * 1e6 + Double(duration.components.attoseconds) / 1e12
}

func quotedForReport(_ text: String) -> String {
  "\"" + text.unicodeScalars.map { $0 == "\"" || $0 == "\\" ? "\\\($0)" : $0.value < 0x20 ? " " : String($0) }.joined() + "\""
}

let arguments = Arguments(Array(CommandLine.arguments.dropFirst()))
let tokenizer = try makeTokenizer(from: GGUFFile(path: arguments.tokenizer))
let tokens = (0..<Int32(tokenizer.vocabularySize)).map { tokenizer.isControl($0) ? nil : tokenizer.bytes(of: $0) }
let vocabulary = TokenVocabulary(tokens: tokens, endTokens: tokenizer.endTokens.map { Int($0) })
if arguments.printsVocabulary {
  let shown = tokens.map { token in
    token.map { "\"" + $0.map { String($0 >> 4, radix: 16) + String($0 & 15, radix: 16) }.joined() + "\"" } ?? "null"
  }
  print("{\"end\": \(vocabulary.endTokens), \"tokens\": [\(shown.joined(separator: ","))]}")
}
var mask = TokenMask(numTokens: vocabulary.numTokens)

while !arguments.printsVocabulary, let path = readLine() {
  let file = try JSONValue(path: path)
  var compiled: CompiledGrammar?
  var problem = ""
  let compileTime = try microseconds {
    do { compiled = try CompiledGrammar(jsonSchema: file["schema"]!, options: arguments.options) } catch let error as GrammarError {
      problem = "\(error.code.rawValue): \(error)"
    }
  }
  var line =
    "{\"file\": \(quotedForReport(path)), \"compile_us\": \(compileTime), \"error\": \(problem.isEmpty ? "null" : quotedForReport(problem))"
  if let compiled {
    let constraint = GrammarConstraint(compiled, vocabulary: vocabulary)
    var results: [String] = []
    for test in file["tests"]!.elements {
      let text = written(test["data"]!, compact: arguments.isCompact)
      var matcher = constraint.makeMatcher()
      var times: [Double] = []
      var isAccepted = true
      var error: String?
      do {
        for token in tokenizer.encode(text, parsesSpecialTokens: false) {
          if arguments.makesMasks {
            times.append(try microseconds { try matcher.fill(&mask) })
            if mask[Int(token)] == false {
              isAccepted = false
              // A mask and the automaton never disagree.
              if try matcher.advance(Int(token)) { error = "the mask lacks a token that may come" }
              break
            }
          }
          guard try matcher.advance(Int(token)) else {
            isAccepted = false
            if arguments.makesMasks { error = "the mask has a token that may not come" }
            break
          }
        }
        if isAccepted { isAccepted = try matcher.isAccepting }
      } catch let failure { (error, isAccepted) = ("\(failure)", false) }
      let shown = times.map { String(Int($0 * 10)) }.joined(separator: ",")
      results.append(
        "{\"valid\": \(test["valid"]!.bool!), \"accepted\": \(isAccepted), \"error\": \(error.map(quotedForReport) ?? "null"), \"tenths_us\": [\(shown)]}"
      )
    }
    line += ", \"tests\": [\(results.joined(separator: ", "))]"
  }
  print(line + "}")
}
