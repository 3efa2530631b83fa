package dev.t5g2.engine

import java.io.File
import java.nio.ByteBuffer
import java.util.concurrent.Callable
import java.util.concurrent.Executors
import org.junit.After
import org.junit.Assert.assertArrayEquals
import org.junit.Assert.assertEquals
import org.junit.Assert.assertThrows
import org.junit.Assert.assertTrue
import org.junit.Test

class SessionTest {
    private val engine get() = Fixtures.engine
    private val saved = File.createTempFile("t5g2", ".session")

    @After
    fun tidy() {
        saved.delete()
    }

    private fun failure(call: () -> Unit): String = assertThrows(EngineException::class.java) { call() }.message!!

    @Test
    fun `a long source is encoded once and asked often`() {
        engine.encode(Fixtures.records).use { session ->
            assertArrayEquals(engine.sourceIds(Fixtures.records), session.ids)
            assertTrue("${session.tokenCount}", session.tokenCount > 300)
            val answer = session.answer()
            assertTrue(answer, answer.isNotEmpty())
            assertEquals(answer, session.answer())
            assertEquals(answer, session.answer(GenerationOptions(beams = 2)))
        }
    }

    @Test
    fun `ids are taken as they are`() {
        engine.encode(engine.sourceIds("ISO date: 3 March 2021")).use { assertEquals("2021-03-03", it.answer()) }
        assertTrue(failure { engine.encode(intArrayOf()) }.contains("no tokens"))
        assertTrue(failure { engine.encode(intArrayOf(-5)) }.contains("outside the vocabulary"))
    }

    @Test
    fun `an empty text is a source of BOS alone`() {
        engine.encode("").use { assertEquals(1, it.tokenCount) }
    }

    @Test
    fun `pixels in any buffer are the same picture`() {
        val array = Fixtures.picture()
        val text = "<start_of_image> What number is shown?"
        val expected = engine.ask(text, listOf(array))
        val bytes = array.bytes()!!
        val direct = ByteBuffer.allocateDirect(bytes.size + 3)
        direct.position(3)
        direct.put(bytes).position(3)
        val middle = ByteBuffer.wrap(ByteArray(5) + bytes + ByteArray(5), 5, bytes.size)
        for (buffer in listOf(direct, middle, direct.asReadOnlyBuffer())) {
            assertEquals(expected, engine.ask(text, listOf(Image(buffer, array.width, array.height))))
        }
    }

    @Test
    fun `pictures that do not match the markers are refused`() {
        val two = listOf(Fixtures.picture(), Fixtures.picture())
        val wrong = listOf("<start_of_image> one" to two, "<start_of_image> none" to emptyList(), "no marker" to two)
        for ((text, images) in wrong) {
            assertTrue(failure { engine.encode(text, images) }.contains("image"))
        }
    }

    @Test
    fun `a source that is too long is refused with its length`() {
        val text = "word ".repeat(engine.info.maxSource + 1)
        val message = failure { engine.encode(text) }
        assertTrue(message, message.contains(engine.sourceIds(text).size.toString()) && "${engine.info.maxSource}" in message)
    }

    @Test
    fun `what was saved answers alike`() {
        val expected = engine.encode(Fixtures.records).use { session ->
            session.save(saved)
            session.answer()
        }
        engine.loadSession(saved).use { session ->
            assertArrayEquals(engine.sourceIds(Fixtures.records), session.ids)
            assertEquals(expected, session.answer())
        }
    }

    @Test
    fun `a saved session that is damaged, no session, or not there is refused`() {
        engine.encode("a").use { it.save(saved) }
        val bytes = saved.readBytes()
        bytes[bytes.size / 2] = (bytes[bytes.size / 2] + 1).toByte()
        saved.writeBytes(bytes)
        assertTrue(failure { engine.loadSession(saved) }.startsWith("$saved: "))
        saved.writeText("something else")
        assertTrue(failure { engine.loadSession(saved) }.contains("not a saved session"))
        assertTrue(failure { engine.loadSession(File("/gone")) }.contains("check the path"))
        engine.encode("a").use { session ->
            assertTrue(failure { session.save(File("/gone/file")) }.contains("check the path"))
        }
    }

    @Test
    fun `the right target scores higher than a wrong one`() {
        engine.encode("ISO date: 3 March 2021").use { session ->
            val targets = listOf("2021-03-03", "2021-03-04").map { engine.targetIds(it) + engine.info.eosId }
            val scores = targets.map { session.score(it).sum() }
            assertTrue("$scores", scores[0] > scores[1] && scores[0] <= 0)
            assertTrue(failure { session.score(intArrayOf()) }.contains("no tokens"))
        }
    }

    @Test
    fun `threads share an engine and a session`() {
        val prompts = (1..4).map { "ISO date: $it March 2021" }
        val expected = (1..4).map { "2021-03-0$it" }
        val threads = Executors.newFixedThreadPool(4)
        engine.encode(prompts[0]).use { shared ->
            val answers = threads.invokeAll((0 until 12).map { i ->
                Callable { if (i % 3 == 0) shared.answer() else engine.ask(prompts[i % 4]) }
            })
            threads.shutdown()
            assertEquals((0 until 12).map { expected[if (it % 3 == 0) 0 else it % 4] }, answers.map { it.get() })
        }
    }
}
