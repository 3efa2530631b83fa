package dev.t5g2.demo.core

import kotlin.math.ceil

/** Bytes a second over the last [WINDOW_S] seconds of a transfer, and how long the rest will take. */
internal class RateMeter(private val clock: Clock) {
    private class Sample(val nanos: Long, val bytes: Long)

    private val samples = ArrayDeque<Sample>()

    /** Forgets what was before: a pause, or bytes that were there already. */
    fun reset(bytes: Long) {
        samples.clear()
        samples.add(Sample(clock.nanos(), bytes))
    }

    fun add(bytes: Long) {
        val now = clock.nanos()
        // One sample in a while is enough, and keeps the list short whatever the size of the pieces.
        if (samples.size >= 2 && now - samples[samples.size - 2].nanos < SAMPLE_NS) samples.removeLast()
        samples.add(Sample(now, bytes))
        while (samples.size > 2 && now - samples[1].nanos >= WINDOW_S * 1_000_000_000L) samples.removeFirst()
    }

    /** Null: less than a second has been seen. */
    val bytesPerSecond: Double?
        get() {
            val first = samples.firstOrNull() ?: return null
            val nanos = clock.nanos() - first.nanos
            return if (nanos < 1_000_000_000L) null else (samples.last().bytes - first.bytes) / (nanos / 1e9)
        }

    /** Null: not known, or nothing comes. */
    fun secondsLeft(bytes: Long): Long? = bytesPerSecond?.takeIf { it > 0 }?.let { ceil(bytes / it).toLong() }

    private companion object {
        const val WINDOW_S = 5L
        const val SAMPLE_NS = 200_000_000L
    }
}
