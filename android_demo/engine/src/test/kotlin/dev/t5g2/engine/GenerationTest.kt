package dev.t5g2.engine

import java.io.File
import java.util.Collections
import java.util.concurrent.CountDownLatch
import java.util.concurrent.TimeUnit
import kotlin.concurrent.thread
import kotlin.math.abs
import org.junit.Assert.assertEquals
import org.junit.Assert.assertNotEquals
import org.junit.Assert.assertNull
import org.junit.Assert.assertThrows
import org.junit.Assert.assertTrue
import org.junit.Test

class GenerationTest {
    private val engine get() = Fixtures.engine

    private val date get() = engine.encode("ISO date: 3 March 2021")

    /** A target that takes as long as a bundle allows. */
    private val endless get() = GenerationOptions(minNewTokens = engine.info.maxTarget - 1, temperature = 1f, seed = 1)

    private fun misuse(options: GenerationOptions): String =
        date.use { session -> assertThrows(EngineUsageException::class.java) { session.generate(options) }.message!! }

    @Test
    fun `tokens come one by one and make the result`() {
        date.use { session ->
            session.generate().use { generation ->
                val first = generation.next()!!
                assertEquals(Finish.NONE, generation.result().finish)
                val tokens = listOf(first) + generation.tokens()
                assertNull(generation.next())
                val result = generation.result()
                assertEquals("2021-03-03", result.text)
                assertEquals(result.text, tokens.joinToString("") { it.text })
                assertEquals(result.ids.toList(), tokens.map { it.id }.filter { it >= 0 })
                assertEquals(Finish.STOP, result.finish)
                assertTrue(first.logprob.isNaN() && first.top.isEmpty())
            }
        }
    }

    @Test
    fun `the length can be limited`() {
        date.use { session ->
            session.generate(GenerationOptions(maxNewTokens = 2)).use { generation ->
                assertEquals(2, generation.tokens().count { it.id >= 0 })
                assertEquals(Finish.LENGTH, generation.result().finish)
            }
        }
    }

    @Test
    fun `log-probabilities of the token and of the likeliest`() {
        date.use { session ->
            session.generate(GenerationOptions(logprobs = 3)).use { generation ->
                for (token in generation.tokens().filter { it.id >= 0 }) {
                    assertEquals(3, token.top.size)
                    assertEquals(TopToken(token.id, token.logprob), token.top[0])
                    assertTrue(token.top.map { it.logprob }.zipWithNext().all { (a, b) -> a >= b } && token.logprob <= 0)
                }
            }
            session.generate(GenerationOptions(logprobs = 0)).use { generation ->
                assertTrue(generation.next()!!.run { top.isEmpty() && logprob <= 0 })
            }
        }
    }

    @Test
    fun `a prefix is given and not repeated`() {
        date.use { session ->
            assertEquals("-03-03", session.answer(GenerationOptions(prefix = "2021")))
            val ids = engine.targetIds("2021").toList()
            assertEquals("-03-03", session.answer(GenerationOptions(prefixIds = ids)))
            assertEquals("2021-03-03", session.answer(GenerationOptions(prefix = "")))
        }
        assertTrue(misuse(GenerationOptions(prefix = "a", prefixIds = listOf(5))).contains("not both"))
    }

    @Test
    fun `stop strings and stop ids end it`() {
        date.use { session ->
            assertEquals("2021", session.answer(GenerationOptions(stopStrings = listOf("😀", "-"))))
            val first = session.generate().use { it.next()!!.id }
            assertEquals("", session.answer(GenerationOptions(stopIds = listOf(first))))
            assertNotEquals("2021-03-03", session.answer(GenerationOptions(suppressedIds = listOf(first))))
        }
        assertTrue(misuse(GenerationOptions(stopStrings = listOf("a\u0000b"))).contains("NUL"))
        assertTrue(misuse(GenerationOptions(stopStrings = listOf(""))).contains("empty"))
    }

    @Test
    fun `a seed gives the same tokens again`() {
        engine.encode("Say something").use { session ->
            fun sampled(seed: Long) = session.answer(GenerationOptions(temperature = 2f, maxNewTokens = 24, seed = seed))
            val answers = (1L..4L).map(::sampled)
            assertEquals(answers, (1L..4L).map(::sampled))
            assertTrue("$answers", answers.distinct().size > 1)
        }
    }

    @Test
    fun `beams are ranked`() {
        date.use { session ->
            session.generate(GenerationOptions(beams = 3, maxNewTokens = 16)).use { generation ->
                assertEquals("2021-03-03", generation.tokens().joinToString("") { it.text })
                val results = (0..2).map(generation::result)
                assertEquals("2021-03-03", results[0].text)
                assertTrue(results.map { it.score }.zipWithNext().all { (a, b) -> a >= b } && results[0].score < 0)
                assertThrows(EngineUsageException::class.java) { generation.result(3) }
                assertThrows(IllegalArgumentException::class.java) { generation.result(-1) }
            }
        }
    }

    @Test
    fun `options out of range are named`() {
        val wrong = mapOf(
            "max_new_tokens" to GenerationOptions(maxNewTokens = -1),
            "min_new_tokens" to GenerationOptions(minNewTokens = -1),
            "temperature" to GenerationOptions(temperature = -1f),
            "top_k" to GenerationOptions(topK = -1),
            "top_p" to GenerationOptions(topP = 2f),
            "min_p" to GenerationOptions(minP = -1f),
            "repetition_penalty" to GenerationOptions(repetitionPenalty = 0f),
            "no_repeat_ngram" to GenerationOptions(noRepeatNgram = -1),
            "seed" to GenerationOptions(seed = -2),
            "beams" to GenerationOptions(beams = 65),
            "length_penalty" to GenerationOptions(beams = 2, lengthPenalty = 11f),
            "stop" to GenerationOptions(stopIds = listOf(-1)),
            "suppressed" to GenerationOptions(suppressedIds = listOf(-1)),
            "prefix" to GenerationOptions(prefixIds = listOf(-1)),
            "logprobs" to GenerationOptions(logprobs = 101),
        )
        for ((name, options) in wrong) assertTrue("$name: ${misuse(options)}", misuse(options).startsWith(name))
    }

    // --- other threads ---

    @Test
    fun `cancelling from another thread ends it`() {
        date.use { session ->
            session.generate(endless).use { generation ->
                val first = CountDownLatch(1)
                val stopper = thread {
                    first.await(10, TimeUnit.SECONDS)
                    generation.cancel()
                }
                var count = 0
                while (generation.next() != null) {
                    count++
                    first.countDown()
                    stopper.join(20)
                }
                assertTrue("$count", count in 1 until engine.info.maxTarget - 1)
                assertEquals(Finish.CANCELLED, generation.result().finish)
                assertNull(generation.next())
            }
        }
    }

    @Test
    fun `cancelled before it began, it makes nothing`() {
        date.use { session ->
            for (beams in listOf(1, 3)) {
                session.generate(GenerationOptions(beams = beams)).use { generation ->
                    generation.cancel()
                    assertNull(generation.next())
                    assertEquals(Finish.CANCELLED, generation.result().finish)
                }
            }
        }
    }

    @Test
    fun `closing all while another thread generates`() {
        repeat(20) { round ->
            val other = Fixtures.open()
            val session = other.encode("Say something")
            val generation = session.generate(endless)
            val first = CountDownLatch(1)
            var end: Any? = null
            val worker = thread {
                end = try {
                    generation.tokens().forEach { _ -> first.countDown() }
                } catch (closed: IllegalStateException) {
                    closed.message
                }
            }
            assertTrue(first.await(10, TimeUnit.SECONDS))
            Thread.sleep(round % 5L)
            val start = System.nanoTime()
            listOf(other, session, generation).shuffled().forEach(AutoCloseable::close)
            assertTrue("close waited", System.nanoTime() - start < 1_000_000_000)
            worker.join(10_000)
            assertTrue("$end", end == Unit || end == "this generation is closed")
        }
    }

    @Test
    fun `one generation asked by many threads gives each token once`() {
        date.use { session ->
            session.generate().use { generation ->
                val ids = Collections.synchronizedList(mutableListOf<Int>())
                val threads = List(4) { thread { generation.tokens().forEach { ids += it.id } } }
                threads.forEach { it.join(10_000) }
                assertEquals(generation.result().ids.sorted(), ids.filter { it >= 0 }.sorted())
            }
        }
    }

    @Test
    fun `memory does not grow`() {
        fun resident(): Long = File("/proc/self/statm").readText().split(" ")[1].toLong() * 4096
        fun work() = repeat(150) { engine.encode(Fixtures.records.take(200)).use { it.generate().use(Generation::next) } }
        work()
        val before = resident()
        work()
        assertTrue("${abs(resident() - before)} bytes", resident() - before < 8_000_000)
    }
}
