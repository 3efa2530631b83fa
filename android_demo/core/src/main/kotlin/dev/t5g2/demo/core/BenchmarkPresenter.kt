package dev.t5g2.demo.core

import java.io.File
import java.io.IOException
import org.json.JSONObject

/**
 * The program t5g2-bench, as the app ships it.
 *
 * @property environment what it needs beside the app's own, such as XDG_CACHE_HOME, a folder in which it may remember which
 *   bundles were hashed.
 */
class BenchProgram(val file: File, val environment: Map<String, String> = emptyMap())

/**
 * Measures the chosen model with t5g2-bench, in a process of its own: loading and memory are of a whole process. The engine of
 * this process is closed before, and not used as long as nobody asks.
 *
 * @param folder where options and the last report are kept.
 */
class BenchmarkPresenter(
    private val folder: File,
    private val program: BenchProgram,
    private val host: EngineHost,
    threads: Threads,
    private val monitor: DeviceMonitor,
) : Presenter<BenchmarkState>(BenchmarkState(), threads) {
    private val optionsFile = File(folder, "benchmark-options.json")
    private val reportFile = File(folder, "t5g2-bench.json")
    private val saver = Saver(threads, { problem -> update { it.copy(error = problem) } }) {
        val now = state
        if (!now.restoring) writeAtomically(optionsFile, now.options.toJson().toString())
    }

    @Volatile
    private var chosen: InstalledBundle? = null

    @Volatile
    private var run: Run? = null

    private inner class Run(val bundle: InstalledBundle, options: BenchmarkOptions) {
        val begin = threads.clock.nanos()
        val process = ChildProcess(commandFor(bundle, options), program.environment, threads.work, ::showProgress)

        private fun showProgress(line: String) {
            val words = plain(line).replace(bundle.folder.path, bundle.title)
            update { if (run === this && it.running) it.copy(progress = words) else it }
        }
    }

    init {
        threads.work.execute {
            val options = restoreOptions()
            val report = restoreReport()
            restore {
                it.copy(restoring = false, options = options, report = report, reportFile = report?.let { reportFile })
            }
            saver.request() // of what was set meanwhile
        }
        host.add(object : EngineUser {
            override fun onChosen(bundle: InstalledBundle?) {
                chosen = bundle
                update { it.copy(model = bundle?.info) }
            }

            override fun onRelease() = Unit
        })
    }

    fun setOptions(options: BenchmarkOptions) {
        edit { it.copy(options = options) }
        saver.request()
    }

    /** Measures the chosen model. The report that is there stays until the new one is. */
    fun start() {
        var begun: Run? = null
        update { now ->
            val bundle = chosen
            if (!now.canStart || bundle == null) return@update now
            begun = Run(bundle, now.options)
            run = begun
            now.copy(running = true, stopping = false, progress = null, elapsedSeconds = 0.0, error = null)
        }
        val run = begun ?: return
        tick(run)
        host.run { // after what the engine is doing, which would disturb
            guarded({ }) { host.close() }
            threads.work.execute { measure(run) }
        }
    }

    /** Ends the measurement; nothing of it stays. */
    fun stop() {
        val run = run ?: return
        update { if (it.running) it.copy(stopping = true) else it }
        threads.work.execute { run.process.stop() }
    }

    fun dismissError() {
        update { it.copy(error = null) }
    }

    private fun measure(run: Run) {
        guarded({ error -> if (error !is Stopped) update { it.copy(error = error.forUser()) } }) {
            val before = monitor.read()
            val result = try {
                run.process.run()
            } catch (error: IOException) {
                throw Failure("The bench cannot be started (${error.message}); install the app again.", error)
            }
            if (result.exitCode != 0) {
                val reason = plain(result.lastLine).ifEmpty { "it ended with code ${result.exitCode}" }
                throw Failure("The measurement failed: $reason")
            }
            val text = completeReport(result.output, before, monitor.read())
            val report = reportFrom(text)
            writeAtomically(reportFile, text)
            update { it.copy(report = report, reportFile = reportFile) }
        }
        this.run = null
        update { it.copy(running = false, stopping = false, progress = null, elapsedSeconds = null) }
    }

    private fun tick(run: Run) {
        threads.timer.after(TICK_MS) {
            if (this.run !== run) return@after
            update { if (it.running) it.copy(elapsedSeconds = threads.clock.secondsSince(run.begin)) else it }
            tick(run)
        }
    }

    private fun restoreOptions(): BenchmarkOptions = fromOurFile {
        readTextIfThere(optionsFile)?.let { benchmarkOptionsFrom(JSONObject(it)) }
    } ?: BenchmarkOptions()

    private fun restoreReport(): BenchmarkReport? = try {
        readTextIfThere(reportFile)?.let(::reportFrom)
    } catch (_: Failure) {
        null
    } catch (_: IOException) {
        null
    }

    /** What does not fit the bundle is left out; where nothing remains, the bench's own choice holds. */
    private fun commandFor(bundle: InstalledBundle, options: BenchmarkOptions): List<String> {
        val target = options.target.coerceAtMost(bundle.maxTarget)
        return listOf(program.file.path, bundle.folder.path, "--output", "json") +
            listOf("--repeat", "${options.repeat}", "--target", "$target") +
            list("--threads", options.threads) +
            list("--source", options.sources.filter { it <= bundle.maxSource }) +
            list("--depth", options.depths.filter { it <= bundle.maxTarget - target })
    }

    private fun list(name: String, values: List<Int>): List<String> =
        if (values.isEmpty()) emptyList() else listOf(name, values.joinToString(","))

    private companion object {
        const val TICK_MS = 500L

        /** A line of the program's without its name. */
        fun plain(line: String): String = line.removePrefix("t5g2-bench: ").removePrefix("error: ").trim()
    }
}
