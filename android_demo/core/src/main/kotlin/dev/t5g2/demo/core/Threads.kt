package dev.t5g2.demo.core

import java.util.concurrent.Executor
import java.util.concurrent.Executors
import java.util.concurrent.ScheduledThreadPoolExecutor
import java.util.concurrent.ThreadFactory
import java.util.concurrent.TimeUnit

/** A clock for durations: nanoseconds from an arbitrary start, never going back. */
fun interface Clock {
    fun nanos(): Long
}

/** Seconds from [start], a value of [Clock.nanos], until now. */
fun Clock.secondsSince(start: Long): Double = (nanos() - start) / 1e9

/** Runs a task once, [milliseconds] from now, on any thread; the task must be short. */
fun interface Timer {
    fun after(milliseconds: Long, task: Runnable)
}

/**
 * The threads that presenters work on; the application makes them once.
 *
 * @property main where listeners are told of new states; core never blocks it.
 * @property work files, downloads, child processes: as many threads as there are tasks.
 * @property engine one thread, in whose order all calls of the engine happen.
 */
class Threads(val main: Executor, val work: Executor, val engine: Executor, val timer: Timer, val clock: Clock) {
    companion object {
        /** Threads for an application whose main thread is behind [main]. None of them keeps the process alive. */
        fun start(main: Executor): Threads {
            val timer = ScheduledThreadPoolExecutor(1, named("timer"))
            return Threads(
                main = main,
                work = Executors.newCachedThreadPool(named("work")),
                engine = Executors.newSingleThreadExecutor(named("engine")),
                timer = { milliseconds, task -> timer.schedule(task, milliseconds, TimeUnit.MILLISECONDS) },
                clock = System::nanoTime,
            )
        }

        private fun named(name: String) = ThreadFactory { task -> Thread(task, "t5g2-$name").apply { isDaemon = true } }
    }
}
