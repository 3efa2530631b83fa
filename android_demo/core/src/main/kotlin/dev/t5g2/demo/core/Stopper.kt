package dev.t5g2.demo.core

import java.util.concurrent.ExecutionException
import java.util.concurrent.Executor
import java.util.concurrent.FutureTask
import java.util.concurrent.TimeUnit
import java.util.concurrent.locks.ReentrantLock
import kotlin.concurrent.withLock

/** Thrown by work that was asked to stop. */
internal class Stopped : Exception()

/** Asks work on another thread to stop, at once, whatever it waits for. Any thread. */
internal class Stopper {
    private val lock = ReentrantLock()
    private val changed = lock.newCondition()
    private var stopped = false

    fun stop() = lock.withLock {
        stopped = true
        changed.signalAll()
    }

    /** Throws [Stopped] where it was asked for. */
    fun check() {
        if (lock.withLock { stopped }) throw Stopped()
    }

    /** Waits so long, or throws [Stopped]. */
    fun sleep(milliseconds: Long) {
        lock.withLock {
            var left = TimeUnit.MILLISECONDS.toNanos(milliseconds)
            while (!stopped && left > 0) left = changed.awaitNanos(left)
        }
        check()
    }

    /**
     * Runs [work] on a thread of [executor] and waits for its end, or throws [Stopped] and leaves it alone: a call that waits
     * for the network cannot be ended from outside in every version of Java.
     */
    fun <T> waitFor(executor: Executor, work: () -> T): T {
        check()
        val task = FutureTask(work)
        executor.execute {
            task.run()
            lock.withLock { changed.signalAll() }
        }
        lock.withLock {
            while (!stopped && !task.isDone) changed.await()
        }
        check()
        try {
            return task.get()
        } catch (error: ExecutionException) {
            throw error.cause!!
        }
    }
}
