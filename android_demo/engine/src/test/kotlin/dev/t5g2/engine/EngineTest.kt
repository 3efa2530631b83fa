package dev.t5g2.engine

import java.io.File
import org.junit.Assert.assertArrayEquals
import org.junit.Assert.assertEquals
import org.junit.Assert.assertFalse
import org.junit.Assert.assertThrows
import org.junit.Assert.assertTrue
import org.junit.Test

class EngineTest {
    private val engine get() = Fixtures.engine

    private fun failure(call: () -> Unit): String = assertThrows(EngineException::class.java) { call() }.message!!

    @Test
    fun `what a bundle can do`() {
        val info = engine.info
        assertTrue(info.hasTokenizer && info.hasVision)
        assertTrue(info.toString(), info.maxSource > 1000 && info.maxTarget > 30 && info.vocabSize > 1000)
        assertTrue(info.toString(), info.imageSide > 0 && info.imageTokens > 0 && info.hiddenSize > 0)
        assertEquals(2, info.threads)
        assertTrue(info.toString(), info.readSeconds > 0 && info.loadSeconds > 0)
        assertEquals(info.bosId, engine.sourceIds("")[0])
        assertEquals("", engine.textOf(intArrayOf(info.bosId, info.eosId)))
        assertTrue(engine.kernels, engine.kernels.matches(Regex("[a-z0-9_]+")))
        assertTrue(engine.manifest.startsWith("{") && "\"t5g2-bundle\"" in engine.manifest)
        assertTrue(Engine.version, Engine.version.matches(Regex("\\d+\\.\\d+\\.\\d+")))
    }

    @Test
    fun `answers are those of the command line`() {
        for (case in Fixtures.answers()) {
            val images = if (case.picture) listOf(Fixtures.picture()) else emptyList()
            val answer = engine.ask(case.prompt, images, case.options)
            assertEquals("${case.prompt.take(80)} with ${case.options}", case.answer, answer)
        }
    }

    // --- text and ids ---

    @Test
    fun `text of every kind goes to ids and back`() {
        val flag = "\uD83C\uDDE9\uD83C\uDDEA"
        for (text in listOf("plain", "äöü ß", "日本語", "emoji 😀👩‍👩‍👧 $flag", "NUL \u0000 inside", " \n\t", "𝔘𝔫𝔦")) {
            val ids = engine.targetIds(text)
            assertEquals(text, engine.textOf(ids))
            assertArrayEquals(text, intArrayOf(engine.info.bosId) + ids, engine.sourceIds(text))
        }
        assertArrayEquals(intArrayOf(), engine.targetIds(""))
        assertEquals("", engine.textOf(intArrayOf()))
    }

    @Test
    fun `half of a surrogate pair is a question mark`() {
        assertArrayEquals(engine.targetIds("a?b"), engine.targetIds("a\uD83Db"))
    }

    @Test
    fun `special tokens are shown on request`() {
        val ids = engine.sourceIds("a")
        assertEquals("a", engine.textOf(ids))
        assertTrue(engine.textOf(ids, skipSpecial = false).endsWith("a") && engine.textOf(ids, skipSpecial = false).length > 1)
    }

    @Test
    fun `a marker becomes a picture's block of tokens`() {
        val marker = "<start_of_image> What number is shown?"
        val text = engine.sourceIds("What number is shown?").size
        assertTrue(engine.sourceIds(marker, imageCount = 1).size >= text + engine.info.imageTokens)
        assertTrue(failure { engine.sourceIds(marker) }.contains("image"))
        assertThrows(IllegalArgumentException::class.java) { engine.sourceIds(marker, imageCount = -1) }
    }

    // --- opening ---

    @Test
    fun `a missing bundle`() {
        val gone = Fixtures.folder.resolve("gone 😀")
        assertEquals("$gone: no such bundle; give a folder made by t5g2-export", failure { Engine.open(gone) })
    }

    @Test
    fun `a folder that is no bundle`() {
        assertTrue(failure { Engine.open(Fixtures.folder.resolve("cache").also { it.mkdirs() }) }.contains("not a bundle"))
    }

    @Test
    fun `an altered bundle`() {
        assertTrue(failure { Fixtures.open("altered") }.contains("sha256 does not match the manifest, the file was altered"))
    }

    @Test
    fun `a path of every kind of character`() {
        Fixtures.open("bündel 😀 日本").use { assertEquals(engine.info.maxSource, it.info.maxSource) }
    }

    @Test
    fun `a path with a NUL is refused`() {
        assertTrue(failure { Engine.open(File("bundle\u0000")) }.contains("NUL"))
    }

    @Test
    fun `threads out of range are a usage error`() {
        val bundle = Fixtures.folder.resolve("bundle")
        val error = assertThrows(EngineUsageException::class.java) { Engine.open(bundle, threads = 257) }
        assertTrue(error.message!!, error.message!!.startsWith("threads: 257"))
    }

    @Test
    fun `an unchanged bundle is hashed once`() {
        Fixtures.open().close()
        assertTrue(Fixtures.folder.resolve("cache/verified").listFiles()!!.isNotEmpty())
    }

    @Test
    fun `what is closed refuses to be used`() {
        val other = Fixtures.open()
        val session = other.encode("ISO date: 3 March 2021")
        val generation = session.generate()
        other.close()
        for (call in listOf({ other.encode("a") }, { other.sourceIds("a") }, { other.textOf(intArrayOf(1)) })) {
            val error = assertThrows(IllegalStateException::class.java) { call() }
            assertEquals("this engine is closed", error.message)
        }
        assertEquals("2021-03-03", session.answer())
        session.close()
        assertThrows(IllegalStateException::class.java) { session.generate() }
        assertThrows(IllegalStateException::class.java) { session.save(File("gone")) }
        assertEquals("2021-03-03", generation.tokens().joinToString("") { it.text })
        generation.close()
        assertThrows(IllegalStateException::class.java) { generation.next() }
        assertThrows(IllegalStateException::class.java) { generation.result() }
        generation.cancel()
        listOf(other, session, generation).forEach(AutoCloseable::close)
        assertFalse(other.info.threads == 0)
    }
}
