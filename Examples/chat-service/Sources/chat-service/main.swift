// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

import Martlet

// Usage: chat-service MODEL. Three users talk at once, one of them stops an answer, a crowd is turned away, and the service ends in order.
let service = try await ChatService(
  model: CommandLine.arguments.dropFirst().first ?? "smollm2-135m.gguf", system: "You are brief.", deadline: .seconds(120))

try await withThrowingTaskGroup(of: Void.self) { group in
  for user in ["Ada", "Grace", "Alan"] {
    group.addTask {
      let first = try await service.ask("My name is \(user). What is the capital of France?", from: user)
      let second = try await service.ask("And of Italy?", from: user)
      print("\(user): \(first.tokenIDs.count) and \(second.tokenIDs.count) tokens, \(await service.history(of: user).count) messages")
    }
  }
  try await group.waitForAll()
}

// The first piece of the answer is enough.
let stopped = try await service.ask("Tell me a very long story.", from: "Ada") { _ in Task { await service.stop("Ada") } }
print("stopped: \(stopped.finishReason.rawValue)")

// Twenty-four fit, eight that run and sixteen that wait; of a hundred at once the others are told to come back.
let crowd = await withTaskGroup(of: Bool.self) { group in
  for guest in 0..<100 {
    group.addTask {
      do {
        _ = try await service.ask("Hello!", from: "guest \(guest)")
        return true
      } catch ChatService.Failure.overloaded {
        return false
      } catch {
        fatalError("\(error)")
      }
    }
  }
  var answered = 0
  for await isAnswered in group where isAnswered { answered += 1 }
  return answered
}
let statistics = await service.statistics
print("crowd: some answered: \(crowd >= 16), some refused: \(crowd < 100), prefix hits: \(statistics.prefixHitRate > 0.1)")

await service.shutdown()
do {
  _ = try await service.ask("Are you there?", from: "Ada")
} catch ChatService.Failure.unavailable {
  print("the service has ended")
}
