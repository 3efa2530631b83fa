package dev.t5g2.demo.core

/** A screen: told of a presenter's whole state, on the main executor. */
fun interface StateListener<in S> {
    fun onState(state: S)
}

/**
 * Holds one immutable state [S], changes it by events, and tells one listener of it after each change.
 *
 * Events may come from any thread and never block: what takes time runs on other threads. A presenter lives as long as the
 * application; a screen attaches when it becomes visible and detaches when it no longer is.
 */
abstract class Presenter<S>(initial: S, protected val threads: Threads) {
    private val lock = Any()
    private var listener: StateListener<S>? = null
    private var posted = false // a notification is on its way and will bring the newest state
    private var timed = false // one is due when the interval is over
    private var toldAt = Long.MIN_VALUE
    private var early: MutableList<(S) -> S>? = mutableListOf() // what the user did before restore()

    /** The newest state; from any thread. */
    @Volatile
    var state: S = initial
        private set

    /** Tells [listener] the state at once, on the calling thread (the main one), and from then on after each change. */
    fun attach(listener: StateListener<S>) {
        val now = synchronized(lock) {
            this.listener = listener
            state
        }
        listener.onState(now)
    }

    /** Ends what [attach] began; nothing happens where another listener has taken its place. */
    fun detach(listener: StateListener<S>) = synchronized(lock) {
        if (this.listener === listener) this.listener = null
    }

    /** Changes the state and tells the listener as soon as the main executor runs. Returns the new state. */
    protected fun update(change: (S) -> S): S = synchronized(lock) {
        val next = change(state)
        if (next != state) {
            state = next
            post()
        }
        next
    }

    /** As [update], for what the user does. What comes before [restore] is done right after it. */
    protected fun edit(change: (S) -> S) = synchronized(lock) {
        val waiting = early
        if (waiting == null) update(change) else waiting.add(change)
        Unit
    }

    /** Puts what was kept in files into the state, once. */
    protected fun restore(kept: (S) -> S) = synchronized(lock) {
        val edits = early.orEmpty()
        early = null
        update { now -> edits.fold(kept(now)) { state, edit -> edit(state) } }
    }

    /** As [update], for changes that come in a stream: the listener is told at most every [INTERVAL_MS], and of the last. */
    protected fun updateOften(change: (S) -> S): S = synchronized(lock) {
        val next = change(state)
        if (next == state) return@synchronized next
        state = next
        val since = if (toldAt == Long.MIN_VALUE) INTERVAL_MS else (threads.clock.nanos() - toldAt) / 1_000_000
        when {
            posted || timed -> Unit
            since >= INTERVAL_MS -> post()
            else -> {
                timed = true
                threads.timer.after(INTERVAL_MS - since) {
                    synchronized(lock) {
                        timed = false
                        post()
                    }
                }
            }
        }
        next
    }

    private fun post() {
        if (posted) return
        posted = true
        toldAt = threads.clock.nanos()
        threads.main.execute(::tell)
    }

    private fun tell() {
        val told: StateListener<S>?
        val now: S
        synchronized(lock) {
            posted = false
            told = listener
            now = state
        }
        told?.onState(now)
    }

    private companion object {
        const val INTERVAL_MS = 50L
    }
}
