package dev.t5g2.demo.core

import java.util.concurrent.Executor
import java.util.concurrent.Executors

/** Threads that do nothing by themselves: tests decide when, and in which order, and what time it is. */
class ManualThreads {
    class Queue : Executor {
        private val tasks = ArrayDeque<Runnable>()
        val size: Int get() = tasks.size

        override fun execute(task: Runnable) {
            tasks.add(task)
        }

        /** Runs the task that came last, as another thread might that is quicker. */
        fun runLast() = tasks.removeLast().run()

        /** Runs the next task; false: there is none. */
        fun runOne(): Boolean {
            (tasks.removeFirstOrNull() ?: return false).run()
            return true
        }
    }

    private class Due(val nanos: Long, val task: Runnable)

    private val timers = mutableListOf<Due>()
    var nanos = 0L
    val main = Queue()
    val work = Queue()
    val engine = Queue()
    val threads = Threads(
        main,
        work,
        engine,
        { milliseconds, task -> timers.add(Due(nanos + milliseconds * 1_000_000, task)) },
        { nanos },
    )

    /** Runs all there is to do now. */
    fun settle() {
        do {
            val done = work.runOne() || engine.runOne() || main.runOne()
        } while (done)
    }

    /** Lets time pass: timers run when they are due, and what follows from them. */
    fun advance(milliseconds: Long) {
        val end = nanos + milliseconds * 1_000_000
        while (true) {
            val next = timers.filter { it.nanos <= end }.minByOrNull { it.nanos } ?: break
            timers.remove(next)
            nanos = maxOf(nanos, next.nanos)
            next.task.run()
            settle()
        }
        nanos = end
        settle()
    }

    /** Timers run that are due until then, and nothing of what follows from them. */
    fun ring(milliseconds: Long) {
        nanos += milliseconds * 1_000_000
        val due = timers.filter { it.nanos <= nanos }
        timers.removeAll(due)
        due.forEach { it.task.run() }
    }

    /** Only time passes: no timer runs. */
    fun pass(milliseconds: Long) {
        nanos += milliseconds * 1_000_000
    }
}

/** A main thread that nobody has to end. */
fun mainThread(): Executor = Executors.newSingleThreadExecutor { Thread(it).apply { isDaemon = true } }

/** Waits for something that other threads do; fails after a minute, as other work may be on the machine. */
fun await(what: String, condition: () -> Boolean) {
    val end = System.nanoTime() + 60_000_000_000
    while (!condition()) {
        check(System.nanoTime() < end) { "$what: did not happen" }
        Thread.sleep(2)
    }
}

/** The message of the [Failure] that [work] must throw. */
fun failure(work: () -> Unit): String {
    try {
        work()
    } catch (failure: Failure) {
        return failure.message!!
    }
    throw AssertionError("nothing failed")
}
