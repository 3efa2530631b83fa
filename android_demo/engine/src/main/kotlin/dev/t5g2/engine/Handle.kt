package dev.t5g2.engine

/**
 * A native object, freed once it is closed and no call is in it.
 *
 * @param name what it is, for the message of a use after [close].
 */
internal class Handle(private val pointer: Long, private val name: String, private val free: (Long) -> Unit) {
    private var calls = 0
    private var closed = false

    /** Calls with the pointer, which stays valid meanwhile. Throws IllegalStateException if closed. */
    fun <T> use(call: (Long) -> T): T {
        check(enter()) { "this $name is closed" }
        return left(call)
    }

    /** [use] that does nothing if closed. */
    fun useIfOpen(call: (Long) -> Unit) {
        if (enter()) left(call)
    }

    fun close() {
        val last = synchronized(this) {
            val first = !closed
            closed = true
            first && calls == 0
        }
        if (last) free(pointer)
    }

    private fun enter(): Boolean = synchronized(this) {
        if (!closed) calls++
        !closed
    }

    private fun <T> left(call: (Long) -> T): T {
        try {
            return call(pointer)
        } finally {
            val last = synchronized(this) { --calls == 0 && closed }
            if (last) free(pointer)
        }
    }
}
