package dev.t5g2.engine

import java.util.concurrent.CountDownLatch
import java.util.concurrent.TimeUnit
import kotlin.concurrent.thread
import org.junit.Assert.assertEquals
import org.junit.Assert.assertThrows
import org.junit.Assert.assertTrue
import org.junit.Test

class HandleTest {
    private val freed = mutableListOf<Long>()
    private val handle = Handle(7, "thing") { freed += it }

    @Test
    fun `a call gets the pointer and gives its result`() {
        assertEquals("7", handle.use { it.toString() })
        assertEquals(emptyList<Long>(), freed)
    }

    @Test
    fun `closing frees it once`() {
        handle.close()
        handle.close()
        assertEquals(listOf(7L), freed)
    }

    @Test
    fun `a call after closing is refused and says what was closed`() {
        handle.close()
        val error = assertThrows(IllegalStateException::class.java) { handle.use { it.toString() } }
        assertEquals("this thing is closed", error.message)
        handle.useIfOpen { throw AssertionError("it was called") }
    }

    @Test
    fun `closing while a call is in it neither waits nor frees before the call has ended`() {
        val inside = CountDownLatch(1)
        val leave = CountDownLatch(1)
        val caller = thread {
            handle.use {
                inside.countDown()
                leave.await()
            }
        }
        assertTrue(inside.await(10, TimeUnit.SECONDS))
        handle.close()
        assertThrows(IllegalStateException::class.java) { handle.use { it.toString() } }
        assertEquals(emptyList<Long>(), freed)
        leave.countDown()
        caller.join(10_000)
        assertEquals(listOf(7L), freed)
    }

    @Test
    fun `closing inside a call frees it after that`() {
        handle.use {
            handle.close()
            assertEquals(emptyList<Long>(), freed)
        }
        assertEquals(listOf(7L), freed)
    }

    @Test
    fun `a call that throws leaves it usable`() {
        assertThrows(ArithmeticException::class.java) { handle.use { throw ArithmeticException() } }
        assertEquals(1, handle.use { 1 })
        handle.close()
        assertEquals(listOf(7L), freed)
    }
}
