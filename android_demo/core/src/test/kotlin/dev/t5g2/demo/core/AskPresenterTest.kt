package dev.t5g2.demo.core

import java.io.File
import org.junit.Assert.assertArrayEquals
import org.junit.Assert.assertEquals
import org.junit.Assert.assertFalse
import org.junit.Assert.assertNotNull
import org.junit.Assert.assertNull
import org.junit.Assert.assertTrue
import org.junit.Rule
import org.junit.Test
import org.junit.rules.TemporaryFolder

class AskPresenterTest {
    @get:Rule
    val temporary = TemporaryFolder()

    private val manual = ManualThreads()
    private val engine = FakeEngine()
    private val host = EngineHost(engine, manual.threads)
    private val folder by lazy { File(temporary.root, "ask") }
    private val bundle by lazy {
        InstalledBundle("b", File("/b"), "tiny", 1, hasVision = true, hasTokenizer = true, maxSource = 100, maxTarget = 100)
    }

    private fun start(): AskPresenter {
        val ask = AskPresenter(folder, host, manual.threads)
        manual.settle()
        return ask
    }

    private fun ready(): AskPresenter {
        host.choose(bundle)
        return start()
    }

    private fun picture() = Picture(ByteArray(2 * 3 * 4) { it.toByte() }, 2, 3)

    @Test
    fun `without a model nothing can be sent`() {
        val ask = start()
        assertFalse(ask.state.restoring)
        ask.setPrompt("hello")
        ask.send()
        manual.settle()
        assertFalse(ask.state.canSend)
        assertNull(ask.state.answer)
        assertEquals(emptyList<String>(), engine.calls)
    }

    @Test
    fun `an answer comes, with the time that it took`() {
        val ask = ready()
        ask.setPrompt("one two three")
        engine.onEncode = { manual.pass(700) }
        engine.onToken = { manual.pass(if (it == 0) 5000 else 250) }
        ask.send()
        manual.settle()
        assertEquals(
            AnswerState("one two three", "one two three", AnswerEnd.COMPLETE, 3, 4.0, 0.7),
            ask.state.answer,
        )
        assertEquals("fake, 2 threads", ask.state.engine)
        assertEquals(EnginePhase.IDLE, ask.state.phase)
        assertEquals(listOf("open b", "encode one two three", "answer", "close session"), engine.calls)
    }

    @Test
    fun `phases follow each other`() {
        val ask = ready()
        val phases = mutableListOf<EnginePhase>()
        engine.onEncode = { phases.add(ask.state.phase) }
        engine.onToken = { phases.add(ask.state.phase) }
        ask.setPrompt("a")
        ask.send()
        assertEquals("the event itself does nothing that takes time", EnginePhase.WAITING, ask.state.phase)
        assertEquals(emptyList<String>(), engine.calls)
        manual.settle()
        assertEquals(listOf(EnginePhase.ENCODING, EnginePhase.GENERATING), phases)
    }

    @Test
    fun `pieces are shown as they come, at most every 50 ms`() {
        val ask = ready()
        val shown = mutableListOf<String?>()
        ask.attach { shown.add(it.answer?.text) }
        ask.setPrompt((1..100).joinToString(" "))
        engine.onToken = {
            manual.advance(4)
        }
        ask.send()
        manual.settle()
        val texts = shown.filterNotNull().filter { it.isNotEmpty() }.distinct()
        assertTrue("${texts.size} of 100 in 400 ms", texts.size in 6..10)
        assertEquals(ask.state.prompt, texts.last())
    }

    @Test
    fun `sending twice asks once`() {
        val ask = ready()
        ask.setPrompt("a b")
        ask.send()
        ask.send()
        ask.askAgain()
        manual.settle()
        assertEquals(1, engine.calls.count { it.startsWith("encode") })
    }

    @Test
    fun `stop keeps what is there`() {
        val ask = ready()
        ask.setPrompt("one two three")
        engine.onToken = { if (it == 1) ask.stop() }
        ask.send()
        manual.settle()
        assertEquals(AnswerEnd.STOPPED, ask.state.answer?.end)
        assertEquals("one", ask.state.answer?.text)
        assertEquals(EnginePhase.IDLE, ask.state.phase)
    }

    @Test
    fun `stop before the engine has begun does not begin`() {
        val ask = ready()
        ask.setPrompt("one two three")
        ask.send()
        ask.stop()
        ask.stop()
        assertEquals(EnginePhase.STOPPING, ask.state.phase)
        manual.settle()
        assertEquals(AnswerEnd.STOPPED, ask.state.answer?.end)
        assertEquals(emptyList<String>(), engine.calls)
    }

    @Test
    fun `stop while the source is read writes no answer`() {
        val ask = ready()
        ask.setPrompt("one two three")
        engine.onEncode = { ask.stop() }
        ask.send()
        manual.settle()
        assertEquals(AnswerEnd.STOPPED, ask.state.answer?.end)
        assertFalse(engine.calls.contains("answer"))
    }

    @Test
    fun `stop when nothing runs is harmless`() {
        val ask = ready()
        ask.stop()
        manual.settle()
        assertEquals(EnginePhase.IDLE, ask.state.phase)
        ask.setPrompt("a")
        ask.send()
        manual.settle()
        assertEquals(AnswerEnd.COMPLETE, ask.state.answer?.end)
    }

    @Test
    fun `errors of the engine are shown, and it can be asked again`() {
        val ask = ready()
        ask.setPrompt("one two")
        for (error in listOf(Exception("too long; shorten it"), OutOfMemoryError(), UnsatisfiedLinkError("no library"))) {
            engine.error = error
            ask.send()
            manual.settle()
            assertEquals(EnginePhase.IDLE, ask.state.phase)
            assertEquals(AnswerEnd.FAILED, ask.state.answer?.end)
            assertNotNull(ask.state.error)
        }
        engine.error = null
        ask.send()
        manual.settle()
        assertNull(ask.state.error)
        assertEquals("one two", ask.state.answer?.text)
    }

    @Test
    fun `an error in the middle keeps what was written`() {
        val ask = ready()
        ask.setPrompt("one two three")
        engine.onToken = { if (it == 1) engine.error = Exception("broken") }
        ask.send()
        manual.settle()
        assertEquals("broken", ask.state.error)
        assertEquals(AnswerEnd.FAILED, ask.state.answer?.end)
        assertEquals("one two", ask.state.answer?.text)
        ask.dismissError()
        assertNull(ask.state.error)
    }

    @Test
    fun `a picture goes before the prompt, where that does not say where`() {
        val ask = ready()
        ask.setPicture(picture())
        ask.setPrompt("What is it?")
        ask.send()
        manual.settle()
        ask.setPrompt("Is <start_of_image> a cat?")
        ask.send()
        manual.settle()
        assertEquals(
            listOf("encode <start_of_image> What is it? + 2 x 3", "encode Is <start_of_image> a cat? + 2 x 3"),
            engine.calls.filter { it.startsWith("encode") },
        )
    }

    @Test
    fun `a model that cannot see says so before it is asked`() {
        val ask = ready()
        host.choose(bundle.copy(hasVision = false))
        manual.settle()
        ask.setPicture(picture())
        assertEquals("tiny cannot see pictures; remove it or choose another model.", ask.state.problem)
        ask.send()
        manual.settle()
        assertEquals(emptyList<String>(), engine.calls)
        ask.removePicture()
        ask.setPrompt("a")
        assertTrue(ask.state.canSend)
    }

    @Test
    fun `the engine stays open, is closed when memory is short, and opened again`() {
        val ask = ready()
        ask.setPrompt("a")
        ask.send()
        manual.settle()
        ask.send()
        manual.settle()
        assertEquals(1, engine.calls.count { it == "open b" })
        host.onTrimMemory()
        manual.settle()
        assertEquals("nothing is left open", 0, engine.open)
        assertNull(ask.state.engine)
        ask.send()
        manual.settle()
        assertEquals(2, engine.calls.count { it == "open b" })
        assertEquals(AnswerEnd.COMPLETE, ask.state.answer?.end)
    }

    @Test
    fun `memory that gets short while it writes waits for the answer`() {
        val ask = ready()
        ask.setPrompt("a b c")
        engine.onToken = { if (it == 1) host.onTrimMemory() }
        ask.send()
        manual.settle()
        assertEquals("a b c", ask.state.answer?.text)
        assertEquals(0, engine.open)
    }

    @Test
    fun `another model closes the one before`() {
        val ask = ready()
        ask.setPrompt("a")
        ask.send()
        manual.settle()
        host.choose(bundle.copy(id = "c", folder = File("/c")))
        manual.settle()
        ask.send()
        manual.settle()
        assertEquals(listOf("open b", "close", "open c"), engine.calls.filter { it.startsWith("open") || it == "close" })
    }

    @Test
    fun `beams have no rate`() {
        val ask = ready()
        ask.setPrompt("a b c")
        ask.setOptions(AnswerOptions(beams = 4))
        engine.onToken = { manual.pass(10) }
        ask.send()
        manual.settle()
        assertNull(ask.state.answer?.tokensPerSecond)
        assertEquals(3, ask.state.answer?.tokens)
    }

    @Test
    fun `everything is there again after a kill`() {
        val ask = ready()
        val options = AnswerOptions(maxNewTokens = 7, temperature = 0.5f, topP = 0.9f)
        ask.setPrompt("grüße 🎉 \"x\"\n")
        ask.setOptions(options)
        ask.setPicture(picture())
        engine.onToken = { manual.pass(100) }
        ask.send()
        manual.settle()
        manual.advance(1000)

        val again = start()
        assertArrayEquals(picture().rgba, again.state.picture?.rgba)
        assertEquals(ask.state.copy(picture = null), again.state.copy(picture = null, engine = ask.state.engine))
    }

    @Test
    fun `an answer that a kill cut off says so and is asked again`() {
        val ask = ready()
        ask.setPrompt("one two three")
        var kept: AskPresenter? = null
        engine.onToken = {
            if (it == 2 && kept == null) {
                manual.advance(1000) // it is written to the file
                kept = start() // another life begins here
            }
        }
        ask.send()
        manual.settle()
        val again = kept!!
        val cut = AnswerState("one two three", "one two", AnswerEnd.INTERRUPTED, 2, null, 0.0)
        assertEquals(cut, again.state.answer?.copy(tokensPerSecond = null))
        again.setPrompt("something else")
        again.askAgain()
        manual.settle()
        assertEquals("one two three", again.state.answer?.text)
        assertEquals("one two three", again.state.prompt)
    }

    @Test
    fun `what is entered before it is restored is not lost`() {
        ready().setPrompt("old")
        manual.advance(1000)
        val again = AskPresenter(folder, host, manual.threads)
        again.setPicture(picture())
        assertNull(again.state.picture)
        manual.settle()
        assertNotNull(again.state.picture)
        assertEquals("old", again.state.prompt)
    }

    @Test
    fun `what was kept is not written over before it was read`() {
        ready().setPrompt("old")
        manual.advance(1000)
        val again = AskPresenter(folder, host, manual.threads)
        again.setPicture(picture())
        manual.ring(1000)
        assertEquals("reading and writing", 2, manual.work.size)
        manual.work.runLast()
        manual.settle()
        assertEquals("old", again.state.prompt)
        manual.advance(1000)
        assertEquals("old", start().state.prompt)
        assertNotNull(start().state.picture)
    }

    @Test
    fun `a picture that was removed is gone after a kill too`() {
        val ask = ready()
        ask.setPicture(picture())
        ask.saveNow()
        manual.settle()
        assertNotNull(start().state.picture)
        ask.removePicture()
        ask.saveNow()
        manual.settle()
        assertNull(start().state.picture)
    }

    @Test
    fun `files that are damaged are as none`() {
        ready().setPicture(picture())
        manual.advance(1000)
        File(folder, "picture").writeBytes(ByteArray(20))
        assertNull(start().state.picture)
        for (text in listOf("", "{", "{}", "{\"prompt\": 5}")) {
            File(folder, "ask.json").writeText(text)
            assertEquals("", start().state.prompt)
            assertFalse(start().state.restoring)
        }
    }

    @Test
    fun `a storage that is full is told, and what was entered stays`() {
        val ask = ready()
        deleteAll(folder)
        folder.writeText("not a folder") // nothing can be written there
        ask.setPrompt("a")
        manual.advance(1000)
        assertTrue("${ask.state.error}", ask.state.error!!.startsWith("What you entered cannot be kept ("))
        assertEquals("a", ask.state.prompt)
    }
}
