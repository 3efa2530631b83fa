package dev.t5g2.demo.core

import org.junit.Assert.assertEquals
import org.junit.Test

class PresenterTest {
    private class Counter(threads: Threads) : Presenter<Int>(0, threads) {
        fun set(value: Int) = update { value }

        fun stream(value: Int) = updateOften { value }
    }

    private val manual = ManualThreads()
    private val counter = Counter(manual.threads)
    private val seen = mutableListOf<Int>()
    private val listener = StateListener<Int> { seen.add(it) }

    @Test
    fun `a listener gets the state at once, and then each change on the main executor`() {
        counter.set(1)
        counter.attach(listener)
        assertEquals(listOf(1), seen)
        counter.set(2)
        assertEquals("not before main runs", listOf(1), seen)
        manual.settle()
        assertEquals(listOf(1, 2), seen)
    }

    @Test
    fun `changes that main had no time for come as one`() {
        counter.attach(listener)
        (1..100).forEach(counter::set)
        assertEquals(1, manual.main.size)
        manual.settle()
        assertEquals(listOf(0, 100), seen)
    }

    @Test
    fun `no change, no call`() {
        counter.attach(listener)
        counter.set(0)
        manual.settle()
        assertEquals(listOf(0), seen)
    }

    @Test
    fun `a stream is told of every 50 ms, and of its last`() {
        counter.attach(listener)
        for (value in 1..95) {
            counter.stream(value)
            manual.advance(3)
        }
        assertEquals("the first state, and one at 0, 50, ... 250 ms", 7, seen.size)
        assertEquals(95, counter.state)
        manual.advance(50)
        assertEquals(95, seen.last())
        assertEquals(8, seen.size)
    }

    @Test
    fun `what is not a stream is told of at once, in the middle of one`() {
        counter.attach(listener)
        counter.stream(1)
        manual.settle()
        manual.pass(10)
        counter.stream(2)
        counter.set(3)
        manual.settle()
        assertEquals(listOf(0, 1, 3), seen)
    }

    @Test
    fun `nobody is told after detaching, and another one starts with the newest`() {
        counter.attach(listener)
        counter.set(1)
        counter.detach(listener)
        manual.settle()
        assertEquals(listOf(0), seen)
        counter.attach(listener)
        assertEquals(listOf(0, 1), seen)
    }

    @Test
    fun `an old screen that detaches late does not take the new one's place`() {
        val old = StateListener<Int> { }
        counter.attach(old)
        counter.attach(listener)
        counter.detach(old)
        counter.set(5)
        manual.settle()
        assertEquals(listOf(0, 5), seen)
    }
}
