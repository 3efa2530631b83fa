package dev.t5g2.demo.core

import java.io.ByteArrayOutputStream
import java.io.IOException
import java.io.InputStream
import java.util.concurrent.Executor
import java.util.concurrent.FutureTask
import java.util.concurrent.TimeUnit

/** What a program printed and how it ended; [lastLine] of its standard error. */
internal class ProgramResult(val exitCode: Int, val output: String, val lastLine: String)

/**
 * A program that runs beside the app.
 *
 * @param variables of its environment, beside the app's own.
 * @param executor runs what reads its output: two tasks, for as long as it runs.
 * @param onLine told of each line that it writes to standard error, on another thread.
 */
internal class ChildProcess(
    private val command: List<String>,
    private val variables: Map<String, String>,
    private val executor: Executor,
    private val onLine: (String) -> Unit,
) {
    private var process: Process? = null
    private var stopped = false
    private var last = ""

    /** Any thread: ends the program. */
    fun stop() = synchronized(this) {
        stopped = true
        process?.destroy()
        Unit
    }

    /** Starts it and waits for its end. Throws [Stopped] after [stop], and [IOException] where it cannot be started. */
    fun run(): ProgramResult {
        val process = synchronized(this) {
            if (stopped) throw Stopped()
            ProcessBuilder(command).apply { environment().putAll(variables) }.start().also { this.process = it }
        }
        val output = inBackground { read(process.inputStream) }
        val lines = inBackground { readLines(process.errorStream) }
        process.outputStream.close()
        val code = process.waitFor()
        if (synchronized(this) { stopped }) throw Stopped() // a child of its own may still hold its output open: do not wait
        lines.get(DRAIN_S, TimeUnit.SECONDS)
        return ProgramResult(code, output.get(DRAIN_S, TimeUnit.SECONDS), last)
    }

    private fun <T> inBackground(work: () -> T): FutureTask<T> = FutureTask(work).also(executor::execute)

    private fun read(stream: InputStream): String {
        val bytes = ByteArrayOutputStream()
        stream.copyTo(bytes)
        return bytes.toString("UTF-8")
    }

    private fun readLines(stream: InputStream) = stream.bufferedReader().forEachLine { line ->
        last = line
        onLine(line)
    }

    private companion object {
        const val DRAIN_S = 10L
    }
}
