package dev.t5g2.demo.core

import java.io.File
import javax.imageio.ImageIO
import org.junit.Assert.assertEquals
import org.junit.Assert.assertNull
import org.junit.Assert.assertTrue
import org.junit.Assume.assumeTrue
import org.junit.Before
import org.junit.Rule
import org.junit.Test
import org.junit.rules.TemporaryFolder

/** The presenters over the real engine and the nano bundle: `-Dt5g2.bundle`, and `-Dt5g2.examples`, nano/examples. */
class T5g2EngineTest {
    @get:Rule
    val temporary = TemporaryFolder()

    private val bundle = System.getProperty("t5g2.bundle")
    private val examples = System.getProperty("t5g2.examples")
    private val threads = Threads.start(mainThread())
    private val host by lazy { EngineHost(T5g2Engine.factory(File(temporary.root, "cache")), threads) }

    @Before
    fun choose() {
        assumeTrue("-Dt5g2.bundle and -Dt5g2.examples: no engine to ask", bundle != null && examples != null)
        val folder = File(bundle)
        host.choose(ModelLibrary(folder.parentFile).bundles().single { it.id == folder.name })
    }

    private fun ask(folder: String = "ask"): AskPresenter {
        val ask = AskPresenter(File(temporary.root, folder), host, threads)
        await("it is restored") { !ask.state.restoring }
        return ask
    }

    private fun AskPresenter.answer(): AnswerState {
        send()
        await("it is answered") { state.phase == EnginePhase.IDLE }
        assertNull(state.error)
        return state.answer!!
    }

    @Test
    fun `a text is answered`() {
        val ask = ask()
        ask.setPrompt("ISO date: the 3rd of March 2021")
        val answer = ask.answer()
        assertEquals("2021-03-03", answer.text)
        assertEquals(AnswerEnd.COMPLETE, answer.end)
        assertTrue(answer.tokens >= 5 && answer.tokensPerSecond!! > 1 && answer.encodeSeconds!! > 0)
        ask.setOptions(AnswerOptions(maxNewTokens = 3))
        assertEquals(AnswerEnd.LENGTH, ask.answer().end)
        ask.setOptions(AnswerOptions(beams = 4))
        assertEquals("2021-03-03", ask.answer().text)
    }

    @Test
    fun `a picture is seen, also after a kill and after memory was short`() {
        val image = ImageIO.read(File(examples, "number.png"))
        val rgba = ByteArray(image.width * image.height * 4)
        for (y in 0 until image.height) {
            for (x in 0 until image.width) {
                val argb = image.getRGB(x, y)
                val at = 4 * (y * image.width + x)
                for ((channel, shift) in listOf(16, 8, 0, 24).withIndex()) rgba[at + channel] = (argb shr shift).toByte()
            }
        }
        val first = ask()
        first.setPicture(Picture(rgba, image.width, image.height))
        first.setPrompt("What number is shown?")
        val number = first.answer().text
        assertTrue(number, Regex("\\d{3,4}").matches(number))
        first.saveNow()
        await("it is kept") { File(temporary.root, "ask/picture").isFile && File(temporary.root, "ask/ask.json").isFile }
        host.onTrimMemory()
        val again = ask()
        assertEquals(number, again.answer().text)
    }

    @Test
    fun `an answer is stopped where it is`() {
        T5g2Engine.factory(File(temporary.root, "cache")).open(File(bundle)).use { engine ->
            engine.encode("ISO date: the 3rd of March 2021", emptyList()).use { session ->
                val job = AnswerJob(threads.clock)
                val answer = job.write(session, AnswerOptions(), AnswerState("")) { if (it.tokens == 3) job.stop() }
                assertEquals(AnswerEnd.STOPPED, answer.end)
                assertEquals(3, answer.tokens)
            }
        }
    }

    @Test
    fun `the engine's words on a source that is too long`() {
        val ask = ask()
        ask.setPrompt("7 ".repeat(5000))
        ask.send()
        await("it fails") { ask.state.phase == EnginePhase.IDLE }
        assertTrue("${ask.state.error}", "2048" in ask.state.error!!)
        assertEquals(AnswerEnd.FAILED, ask.state.answer?.end)
    }

    @Test
    fun `a document is read once, and asked again after a kill`() {
        fun document() = DocumentPresenter(File(temporary.root, "document"), host, threads).also {
            await("it is restored") { !it.state.restoring }
        }
        fun DocumentPresenter.answer(): String {
            ask()
            await("it is answered") { state.phase == EnginePhase.IDLE }
            assertNull(state.error)
            return state.answers.last().text
        }
        val document = document()
        document.setText(File(examples, "records.txt").readText())
        document.read()
        await("it is read") { document.state.phase == EnginePhase.IDLE }
        assertNull(document.state.error)
        assertTrue("${document.state.keepProblem}", document.state.kept)
        assertEquals("Rosa=529", document.answer())
        document.setBeginning("Rosa=")
        assertEquals("529", document.answer())
        document.saveNow()
        await("it is kept") { File(temporary.root, "document/document.json").isFile }
        host.onTrimMemory()

        val again = document()
        assertEquals(Reading.READ, again.state.reading)
        assertEquals(document.state.tokens, again.state.tokens)
        again.setBeginning("")
        assertEquals("Rosa=529", again.answer())
    }
}
