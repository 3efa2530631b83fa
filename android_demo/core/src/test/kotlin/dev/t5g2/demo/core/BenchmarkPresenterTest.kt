package dev.t5g2.demo.core

import java.io.File
import org.json.JSONObject
import org.junit.Assert.assertEquals
import org.junit.Assert.assertFalse
import org.junit.Assert.assertNotNull
import org.junit.Assert.assertNull
import org.junit.Assert.assertTrue
import org.junit.Assume.assumeTrue
import org.junit.Rule
import org.junit.Test
import org.junit.rules.TemporaryFolder

/** With real threads and real processes. */
class BenchmarkPresenterTest {
    @get:Rule
    val temporary = TemporaryFolder()

    private val threads = Threads.start(mainThread())
    private val engine = FakeEngine()
    private val host = EngineHost(engine, threads)
    private val folder by lazy { File(temporary.root, "benchmark") }
    private val state = DeviceState("none", 81, 30.5, false)
    private val bundle by lazy {
        InstalledBundle("b", temporary.newFolder("b"), "tiny", 1, hasTokenizer = true, maxSource = 256, maxTarget = 128)
    }

    private fun script(text: String): File = File.createTempFile("bench", "", temporary.root).apply {
        writeText("#!/bin/sh\n$text\n")
        setExecutable(true)
    }

    private fun start(program: File, environment: Map<String, String> = emptyMap()): BenchmarkPresenter {
        host.choose(bundle)
        val benchmark = BenchmarkPresenter(folder, BenchProgram(program, environment), host, threads, { state })
        await("it is restored") { !benchmark.state.restoring }
        return benchmark
    }

    private fun BenchmarkPresenter.awaitEnd() = await("it ends") { !state.running }

    private fun figure(median: Double) = """{"median": $median, "low": ${median - 2}, "high": ${median + 4}, "runs": []}"""

    private val report = """{"format": "t5g2-bench", "format_version": 1, "version": "0.1.0", "date": "2026-11-22T16:23:40Z",
        "command": "t5g2-bench", "machine": {"cpu": "Some CPU", "cores": 8, "memory_mb": 8000, "system": "Linux"}, "repeat": 3,
        "target": 64, "pinned": [], "loading": [{"bundle": "b", "backend": "native", "quantization": "int4-g32",
        "kernels": "neon_dotprod", "threads": 2, "file_mb": 207.5, "load_cold_s": null, "first_token_cold_s": null,
        "load_warm_s": 0.0015}], "results": [{"bundle": "b", "backend": "native", "quantization": "int4-g32",
        "kernels": "neon_dotprod", "threads": 2, "source": 64, "images": 0, "target": 64, "encode_tok_s": ${figure(1000.0)},
        "first_token_s": ${figure(5.0)}, "decode": [{"depth": 0, "tok_s": ${figure(50.0)}, "joules_per_token": null,
        "bytes_per_token": 1000, "bandwidth_share": 0.8}, {"depth": 256, "tok_s": ${figure(40.0)}, "joules_per_token": null}],
        "energy_source": null, "loaded_mb": 7.1, "resident_mb": 223.0, "peak_mb": 225.5, "throttling": "the clock fell",
        "read_gb_s": 17.25}]}"""

    private fun printing(text: String) = script("cat <<'END'\n$text\nEND")

    @Test
    fun `a report is read, kept and there after a restart`() {
        val benchmark = start(printing(report))
        benchmark.start()
        assertTrue(benchmark.state.running)
        benchmark.awaitEnd()
        assertNull(benchmark.state.error)
        val found = benchmark.state.report!!
        assertEquals("Some CPU, 8 cores", found.machine)
        assertEquals(LoadingRow("b", "neon_dotprod", 2, 207_500_000, 0.0015, null, null), found.loading.single())
        val speed = found.speed.single()
        assertEquals(Figure(1000.0, 998.0, 1004.0), speed.encode)
        assertEquals(3.0, speed.encode.spread, 1e-9)
        val decode = listOf(DecodeRow(0, Figure(50.0, 48.0, 54.0), 0.8), DecodeRow(256, Figure(40.0, 38.0, 44.0), null))
        assertEquals(decode, speed.decode)
        assertEquals("the clock fell", speed.throttling)
        assertEquals(state, found.before)
        assertEquals(state, found.after)
        assertEquals(found, start(printing("")).state.report)
    }

    @Test
    fun `what is shared is the bench's report, with the device's state`() {
        val benchmark = start(printing(report))
        benchmark.start()
        benchmark.awaitEnd()
        val shared = JSONObject(benchmark.state.reportFile!!.readText())
        assertEquals("t5g2-bench", shared.getString("format"))
        assertEquals(17.25, shared.getJSONArray("results").getJSONObject(0).getDouble("read_gb_s"), 0.0)
        assertEquals(81, shared.getJSONObject("device_before").getInt("battery_percent"))
    }

    @Test
    fun `the program is asked for what fits the bundle`() {
        val words = File(temporary.root, "words")
        val program = script("echo \"\$@\" > ${words.path}; echo \"\$CACHE\" >> ${words.path}; exit 1")
        val benchmark = start(program, mapOf("CACHE" to "/x"))
        benchmark.setOptions(BenchmarkOptions(listOf(1, 2), listOf(64, 512), listOf(0, 64, 256), 64, 3))
        benchmark.start()
        benchmark.awaitEnd()
        assertEquals(
            "${bundle.folder} --output json --repeat 3 --target 64 --threads 1,2 --source 64 --depth 0,64\n/x\n",
            words.readText(),
        )
        benchmark.setOptions(BenchmarkOptions(emptyList(), listOf(512), listOf(0), 500, 5))
        benchmark.start()
        benchmark.awaitEnd()
        assertEquals("${bundle.folder} --output json --repeat 5 --target 128 --depth 0", words.readLines()[0])
    }

    @Test
    fun `options are there after a restart`() {
        val options = BenchmarkOptions(listOf(1, 4), listOf(64), listOf(0), 32, 2)
        val benchmark = start(printing(report))
        benchmark.setOptions(options)
        await("they are kept") { File(folder, "benchmark-options.json").isFile }
        assertEquals(options, start(printing(report)).state.options)
    }

    @Test
    fun `progress is the program's own, with the model's title`() {
        val benchmark = start(script("echo 't5g2-bench: ${bundle.folder}, 2 threads, cold' >&2; sleep 20"))
        benchmark.start()
        await("it says what it does") { benchmark.state.progress == "tiny, 2 threads, cold" }
        await("time passes") { (benchmark.state.elapsedSeconds ?: 0.0) > 0.4 }
        benchmark.stop()
        benchmark.awaitEnd()
    }

    @Test
    fun `stop ends it soon, though a child of the program lives on`() {
        val benchmark = start(script("sleep 15 & echo on >&2; wait"))
        benchmark.start()
        benchmark.start()
        await("it runs") { benchmark.state.progress == "on" }
        val begin = System.nanoTime()
        benchmark.stop()
        benchmark.stop()
        benchmark.awaitEnd()
        assertTrue("its child does not end that soon", (System.nanoTime() - begin) / 1e9 < 10)
        assertNull("the user wanted it", benchmark.state.error)
        assertFalse(benchmark.state.stopping)
        assertNull(benchmark.state.report)
        benchmark.stop()
    }

    @Test
    fun `its error is shown, and the report before stays`() {
        val first = start(printing(report))
        first.start()
        first.awaitEnd()
        val benchmark = start(script("echo 't5g2-bench: error: /b: not enough memory; close other programs' >&2; exit 1"))
        benchmark.start()
        benchmark.awaitEnd()
        assertEquals("The measurement failed: /b: not enough memory; close other programs", benchmark.state.error)
        assertNotNull(benchmark.state.report)
        benchmark.dismissError()
        assertNull(benchmark.state.error)
    }

    @Test
    fun `a program that is missing, crashes or prints something else says so`() {
        val other = "The bench printed something else than a report ("
        for ((program, complaint) in listOf(
            File(temporary.root, "missing") to "The bench cannot be started (",
            script("kill -SEGV \$\$") to "The measurement failed: it ended with code 139",
            printing("hello") to other,
            printing("{\"format\": \"t5g2-bench\", \"format_version\": 2}") to other,
            printing(report.replace("\"read_gb_s\": 17.25", "\"x\": 1")) to other,
        )) {
            val benchmark = start(program)
            benchmark.start()
            benchmark.awaitEnd()
            val error = benchmark.state.error!!
            assertTrue(error, error.startsWith(complaint))
            assertNull(benchmark.state.report)
        }
    }

    @Test
    fun `the engine of this process is closed before`() {
        val benchmark = start(printing(report))
        val ask = AskPresenter(temporary.newFolder("ask"), host, threads)
        await("it is restored") { !ask.state.restoring }
        ask.setPrompt("a")
        ask.send()
        await("it is answered") { ask.state.answer?.end != null }
        assertEquals(1, engine.open)
        benchmark.start()
        benchmark.awaitEnd()
        assertEquals(0, engine.open)
    }

    @Test
    fun `the real program measures the real bundle`() {
        val program = System.getProperty("t5g2.bench")
        val real = System.getProperty("t5g2.bundle")
        assumeTrue("-Dt5g2.bench and -Dt5g2.bundle: nothing to measure", program != null && real != null)
        host.choose(bundle.copy(folder = File(real), maxSource = 2048, maxTarget = 512))
        val cache = mapOf("XDG_CACHE_HOME" to temporary.newFolder("cache").path)
        val benchmark = BenchmarkPresenter(folder, BenchProgram(File(program), cache), host, threads, { state })
        await("it is restored") { !benchmark.state.restoring }
        benchmark.setOptions(BenchmarkOptions(listOf(1), listOf(32), listOf(0, 16), 4, 2))
        benchmark.start()
        await("it says what it does") { benchmark.state.progress?.startsWith("tiny, 1 thread") == true }
        benchmark.awaitEnd()
        assertNull(benchmark.state.error)
        val speed = benchmark.state.report!!.speed.single()
        assertEquals(32, speed.source)
        assertEquals(listOf(0, 16), speed.decode.map { it.depth })
        assertTrue(speed.encode.median > 0 && speed.firstToken.median > 0 && speed.residentMb > 1)
        assertEquals("int4-g32", speed.quantization)
    }
}
