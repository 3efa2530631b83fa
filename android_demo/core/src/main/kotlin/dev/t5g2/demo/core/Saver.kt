package dev.t5g2.demo.core

import java.io.IOException

/**
 * Writes a presenter's state to its files soon after it changed: one write for all changes within [DELAY_MS], one at a time.
 *
 * @param save writes what is to be kept as it is then; called on a worker thread.
 * @param onError told when that failed, with a text for the user.
 */
internal class Saver(private val threads: Threads, private val onError: (String) -> Unit, private val save: () -> Unit) {
    private var dirty = false
    private var timed = false
    private var running = false

    /** The state has changed. */
    fun request() {
        synchronized(this) {
            dirty = true
            if (timed) return
            timed = true
        }
        threads.timer.after(DELAY_MS) {
            synchronized(this) { timed = false }
            now()
        }
    }

    /** Writes what has changed without waiting for the time to pass. */
    fun now() {
        synchronized(this) {
            if (!dirty || running) return
            running = true
        }
        threads.work.execute(::run)
    }

    private fun run() {
        while (true) {
            synchronized(this) {
                if (!dirty) {
                    running = false
                    return
                }
                dirty = false
            }
            try {
                save()
            } catch (error: IOException) {
                onError("What you entered cannot be kept (${error.message}); free some storage.")
            }
        }
    }

    private companion object {
        const val DELAY_MS = 300L
    }
}
