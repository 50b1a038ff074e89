// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

import MartletCore
import Testing

@Suite struct `A shape` {
  @Test func `knows its rank, dimensions and count`() {
    let shape = Shape(2, 3, 5, 7)
    #expect(shape.rank == 4)
    #expect((0..<4).map { shape[$0] } == [2, 3, 5, 7])
    #expect(shape.count == 210)
    #expect(shape.description == "[2, 3, 5, 7]")
    #expect(Shape(6).count == 6)
    #expect(Shape(6, 0, 2).count == 0)
  }

  @Test func `differs from one with another rank`() {
    #expect(Shape(3, 1) != Shape(3))
    #expect(Shape(3, 1) == Shape(3, 1))
    #expect(Shape(3, 1) != Shape(1, 3))
    #expect(Set([Shape(3), Shape(3, 1), Shape(3, 1, 1), Shape(3)]).count == 3)
  }

  @Test func `stops the program at a negative dimension or an axis it has not`() async {
    await #expect(processExitsWith: .failure) { _ = Shape(2, -1) }
    await #expect(processExitsWith: .failure) { _ = Shape(2, 3)[2] }
  }
}
