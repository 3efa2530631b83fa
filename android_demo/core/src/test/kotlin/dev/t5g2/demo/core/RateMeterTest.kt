package dev.t5g2.demo.core

import org.junit.Assert.assertEquals
import org.junit.Assert.assertNull
import org.junit.Test

class RateMeterTest {
    private var nanos = 0L
    private val meter = RateMeter { nanos }

    /** Bytes come at a rate for some seconds, in small pieces. */
    private fun receive(from: Long, bytesPerSecond: Long, seconds: Int): Long {
        var bytes = from
        repeat(seconds * 100) {
            nanos += 10_000_000
            bytes += bytesPerSecond / 100
            meter.add(bytes)
        }
        return bytes
    }

    @Test
    fun `says nothing before a second has passed`() {
        meter.reset(0)
        nanos += 900_000_000
        meter.add(1_000_000)
        assertNull(meter.bytesPerSecond)
        assertNull(meter.secondsLeft(1))
    }

    @Test
    fun `bytes that were there before do not count`() {
        meter.reset(1_000_000)
        receive(1_000_000, 5000, 3)
        assertEquals(5000.0, meter.bytesPerSecond!!, 100.0)
    }

    @Test
    fun `follows a change within five seconds, and not at once`() {
        meter.reset(0)
        var bytes = receive(0, 1000, 10)
        bytes = receive(bytes, 3000, 2)
        assertEquals(1800.0, meter.bytesPerSecond!!, 150.0)
        receive(bytes, 3000, 4)
        assertEquals(3000.0, meter.bytesPerSecond!!, 150.0)
    }

    @Test
    fun `a connection that gives nothing more gets slower and slower`() {
        meter.reset(0)
        receive(0, 1000, 5)
        nanos += 5_000_000_000
        assertEquals(500.0, meter.bytesPerSecond!!, 50.0)
    }

    @Test
    fun `says how long the rest takes`() {
        meter.reset(0)
        receive(0, 1000, 4)
        assertEquals(10L, meter.secondsLeft(9_700))
    }

    @Test
    fun `nothing received, no end in sight`() {
        meter.reset(7)
        nanos += 2_000_000_000
        assertNull(meter.secondsLeft(1))
    }
}
