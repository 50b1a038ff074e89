// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

#if HTTPServer
import AsyncAlgorithms
import HTTPTypes
import Hummingbird
import Martlet
import MartletTemplates

// GET /martlet/live: the engine between its steps, as the page's live view draws it.

extension ModelServer {
  /// Events of ``EngineSnapshot``s, at most ten a second, for as long as somebody reads. Nothing is gathered while nobody does.
  func live(_ request: Request, _ context: any RequestContext, _ exchange: Exchange) async throws -> Response {
    let llm = try model()
    let showsText = request.uri.queryParameters["text"] == "1"
    if showsText, !configuration.livePrompts {
      throw APIError(
        .forbidden, "this server shows no prompts; whoever runs it may let it (ServerConfiguration.livePrompts)", code: "prompts_not_shown",
        param: "text")
    }
    let name = modelName(llm)
    return stream(exchange) { events in
      let channel = AsyncChannel<EngineSnapshot>()
      // A view that nobody looks at any more ends when its client goes, whether or not a write fails.
      let number = exchange.watcher?.add { channel.finish() }
      defer { if let number { exchange.watcher?.remove(number) } }
      try await withThrowingTaskGroup(of: Void.self) { group in
        group.addTask {
          for await snapshot in llm.snapshots(showsText: showsText) { await channel.send(snapshot) }
          channel.finish()
        }
        defer { group.cancelAll() }
        for await var snapshot in channel {
          snapshot.model = name
          events.add(snapshot.json)
          try await events.flush()
        }
      }
    }
  }
}

extension EngineSnapshot {
  /// As the page reads it. Written by hand, since there are ten a second of some hundred numbers each.
  fileprivate var json: JSON {
    [
      "time": .number(time), "model": model.map { .string($0) } ?? .null, "is_running": .bool(isRunning),
      "max_batch_size": .integer(maxBatchSize), "max_num_tokens": .integer(maxNumTokens),
      "max_sequence_length": .integer(maxSequenceLength),
      "waiting_requests": .integer(waitingRequests), "waiting_tokens": .integer(waitingTokens),
      "running_requests": .integer(runningRequests),
      "paused_requests": .integer(pausedRequests),
      "totals": [
        "steps": .integer(totals.steps), "prompt_tokens": .integer(totals.promptTokens),
        "cached_prompt_tokens": .integer(totals.cachedPromptTokens), "generated_tokens": .integer(totals.generatedTokens),
        "pauses": .integer(totals.pauses), "requests": .integer(totals.requests),
      ],
      "pools": .array(pools.map(\.json)),
      "prefix_tree": ["nodes": .array(prefixTree.nodes.map(\.json)), "is_cut": .bool(prefixTree.isCut)],
      "steps": .array(steps.map(\.json)), "requests": .array(requests.map(\.json)), "requests_left_out": .integer(requestsLeftOut),
    ]
  }
}

extension EngineSnapshot.Pool {
  fileprivate var json: JSON {
    [
      "page_size": .integer(pageSize), "page_bytes": .integer(pageBytes), "window": window.map { .integer($0) } ?? .null,
      "pages": .integer(pages), "free": .integer(free), "kept": .integer(kept), "held": .integer(held),
      "runs": .array(runs.map { [.integer($0.count), .integer($0.kind.rawValue), .integer($0.request)] }),
    ]
  }
}

extension EngineSnapshot.Node {
  fileprivate var json: JSON {
    [
      .integer(parent), .integer(tokens), .integer(pages), .integer(holders), .number(idleSeconds), .integer(Int(retention.rawValue)),
    ]
  }
}

extension EngineSnapshot.Step {
  fileprivate var json: JSON {
    [
      "number": .integer(number), "start": .number(start), "context_requests": .integer(contextRequests),
      "context_tokens": .integer(contextTokens), "generation_requests": .integer(generationRequests), "model_time": .number(modelTime),
      "sampling_time": .number(samplingTime), "overhead_time": .number(overheadTime),
    ]
  }
}

extension EngineSnapshot.Request {
  fileprivate var json: JSON {
    [
      "number": .integer(number), "id": .string(id), "state": .string(state.rawValue),
      "waits_for": waitsFor.map { .string($0.rawValue) } ?? .null, "priority": .integer(priority),
      "prompt_tokens": .integer(promptTokens),
      "cached_prompt_tokens": .integer(cachedPromptTokens), "computed_prompt_tokens": .integer(computedPromptTokens),
      "generated_tokens": .integer(generatedTokens), "pages": .array(pages.map { .integer($0) }), "age": .number(age),
      "time_to_first_token": timeToFirstToken.map { .number($0) } ?? .null, "pauses": .integer(pauses),
      "text": text.map { .string($0) } ?? .null,
    ]
  }
}
#endif
