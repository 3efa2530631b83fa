package dev.t5g2.demo.core

import java.io.File
import java.io.IOException
import org.junit.Assert.assertEquals
import org.junit.Assert.assertFalse
import org.junit.Assert.assertNull
import org.junit.Assert.assertTrue
import org.junit.Rule
import org.junit.Test
import org.junit.rules.TemporaryFolder

class DocumentPresenterTest {
    @get:Rule
    val temporary = TemporaryFolder()

    private val manual = ManualThreads()
    private val engine = FakeEngine()
    private val host = EngineHost(engine, manual.threads)
    private val folder by lazy { File(temporary.root, "document") }
    private val bundle = InstalledBundle(
        id = "b",
        folder = File("/b"),
        title = "tiny",
        bytes = 1,
        seal = "seal-b",
        hasTokenizer = true,
        maxSource = 10,
        maxTarget = 100,
    )

    private fun start(): DocumentPresenter {
        val document = DocumentPresenter(folder, host, manual.threads)
        manual.settle()
        return document
    }

    private fun ready(text: String = "", instruction: String = ""): DocumentPresenter {
        host.choose(bundle)
        val document = start()
        document.setInstruction(instruction)
        document.setText(text)
        return document
    }

    private fun readOne(text: String = "one two three", instruction: String = ""): DocumentPresenter {
        val document = ready(text, instruction)
        document.read()
        manual.settle()
        assertEquals(Reading.READ, document.state.reading)
        return document
    }

    private fun count(call: String) = engine.calls.count { it.startsWith(call) }

    @Test
    fun `tokens are counted when the typing rests, once`() {
        val document = ready("a b")
        manual.advance(300)
        document.setText("a b c")
        manual.advance(300)
        assertNull(document.state.tokens)
        manual.advance(200)
        assertEquals(3, document.state.tokens)
        assertEquals(listOf("open b"), engine.calls)
    }

    @Test
    fun `a text that is too long is not read`() {
        val document = ready((1..12).joinToString(" "))
        manual.advance(1000)
        assertEquals("12 tokens are 2 more than tiny takes; shorten the text.", document.state.problem)
        document.read()
        manual.settle()
        assertEquals(0, count("encode"))
    }

    @Test
    fun `read once, asked three times`() {
        val document = readOne()
        document.ask()
        manual.settle()
        document.setBeginning("Yes,")
        document.ask()
        manual.settle()
        document.setOptions(AnswerOptions(beams = 4))
        document.ask()
        manual.settle()
        assertEquals(1, count("encode"))
        assertEquals(listOf("answer", "answer Yes,", "answer Yes,"), engine.calls.filter { it.startsWith("answer") })
        assertEquals(listOf("", "Yes,", "Yes,"), document.state.answers.map { it.question })
        assertTrue(document.state.answers.all { it.text == "one two three" && it.end == AnswerEnd.COMPLETE })
    }

    @Test
    fun `instruction and document are read as one`() {
        readOne("text", "Code of Rosa?")
        ready("text", "Summarize:\n").read()
        manual.settle()
        val read = engine.calls.filter { it.startsWith("encode") }
        assertEquals(listOf("encode Code of Rosa? text", "encode Summarize:\ntext"), read)
    }

    @Test
    fun `elapsed time and, from the second time on, an estimate`() {
        val elapsed = mutableListOf<Double?>()
        val estimates = mutableListOf<Double?>()
        val document = ready("one two three four")
        engine.onEncode = {
            manual.advance(1000)
            elapsed.add(document.state.elapsedSeconds)
            estimates.add(document.state.estimatedSeconds)
            assertEquals(Reading.READING, document.state.reading)
            manual.advance(1000)
        }
        document.read()
        manual.settle()
        assertEquals(2.0, document.state.readSeconds!!, 1e-9)
        document.setText("one two")
        document.read()
        manual.settle()
        assertEquals(listOf(1.0, 1.0), elapsed)
        assertEquals(listOf(null, 1.0), estimates)
        assertNull(document.state.elapsedSeconds)
    }

    @Test
    fun `a changed text has to be read again, the same one has not`() {
        val document = readOne()
        document.setText("one two")
        assertEquals(Reading.NOT_READ, document.state.reading)
        assertFalse(document.state.canAsk)
        document.ask()
        manual.settle()
        assertEquals(0, count("answer"))
        document.setText("one two three")
        assertEquals(Reading.READ, document.state.reading)
        document.setInstruction("Now")
        assertEquals(Reading.NOT_READ, document.state.reading)
    }

    @Test
    fun `a text that is changed while it is read is not taken for read`() {
        val document = ready("one")
        engine.onEncode = { document.setText("two") }
        document.read()
        manual.settle()
        assertEquals(Reading.NOT_READ, document.state.reading)
        assertEquals(EnginePhase.IDLE, document.state.phase)
        assertTrue(document.state.canRead)
    }

    @Test
    fun `a text that is changed before its turn came is not shown as being read`() {
        val document = ready("one")
        var reading: Reading? = null
        engine.onEncode = { reading = document.state.reading }
        document.read()
        document.setText("two")
        manual.settle()
        assertEquals(Reading.NOT_READ, reading)
        assertEquals(Reading.NOT_READ, document.state.reading)
    }

    @Test
    fun `memory that gets short frees the session, which is loaded from its file`() {
        val document = readOne()
        host.onTrimMemory()
        manual.settle()
        assertEquals(0, engine.open)
        assertEquals(Reading.READ, document.state.reading)
        document.ask()
        manual.settle()
        assertEquals("one two three", document.state.answers.single().text)
        assertEquals(1, count("load"))
        assertEquals(1, count("encode"))
    }

    @Test
    fun `another model has not read it, the first one still has`() {
        val document = readOne()
        host.choose(bundle.copy(id = "c", seal = "seal-c"))
        manual.settle()
        assertEquals(Reading.NOT_READ, document.state.reading)
        assertEquals(0, engine.open)
        host.choose(bundle)
        manual.settle()
        assertEquals(Reading.READ, document.state.reading)
        document.ask()
        manual.settle()
        assertEquals("one two three", document.state.answers.single().text)
        assertEquals(1, count("encode"))
    }

    @Test
    fun `what was read is there after a kill`() {
        val document = readOne("one two three", "Say:")
        document.setBeginning("So")
        document.ask()
        manual.settle()
        manual.advance(1000)
        val again = start()
        assertEquals(document.state, again.state)
        again.ask()
        manual.settle()
        assertEquals(2, again.state.answers.size)
        assertEquals(1, count("encode"))
        assertEquals(1, count("load"))
    }

    @Test
    fun `a kill while it is read leaves the text, not read`() {
        val document = ready("one two")
        manual.advance(1000)
        var again: DocumentPresenter? = null
        engine.onEncode = { again = start() }
        document.read()
        manual.settle()
        val other = again!!
        assertEquals("one two", other.state.text)
        assertEquals(Reading.NOT_READ, other.state.reading)
        assertTrue(other.state.canRead)
    }

    @Test
    fun `an answer that a kill cut off is asked again in its place`() {
        val document = readOne()
        document.setBeginning("So")
        var again: DocumentPresenter? = null
        engine.onToken = {
            if (it == 1 && again == null) {
                manual.advance(1000)
                again = start()
            }
        }
        document.ask()
        manual.settle()
        val other = again!!
        assertEquals(AnswerEnd.INTERRUPTED, other.state.answers.single().end)
        assertEquals("one", other.state.answers.single().text)
        other.setBeginning("")
        other.askAgain()
        manual.settle()
        assertEquals(listOf("So"), other.state.answers.map { it.question })
        assertEquals("one two three", other.state.answers.single().text)
    }

    @Test
    fun `a session that cannot be kept can be asked as long as memory lasts`() {
        val document = ready("one two")
        engine.onEncode = { engine.error = IOException("No space left on device") } // of the next call: saving
        document.read()
        manual.settle()
        assertEquals("What was read cannot be kept: No space left on device", document.state.keepProblem)
        assertFalse(document.state.kept)
        document.ask()
        manual.settle()
        assertEquals("one two", document.state.answers.single().text)
        host.onTrimMemory()
        manual.settle()
        assertEquals(0, engine.open)
        assertEquals(Reading.NOT_READ, document.state.reading)
    }

    @Test
    fun `a session file that the engine refuses is forgotten`() {
        readOne()
        manual.advance(1000)
        val again = start()
        File(folder, "session").delete()
        again.ask()
        manual.settle()
        assertTrue(again.state.error!!, again.state.error!!.startsWith("What was read cannot be used again ("))
        assertEquals(Reading.NOT_READ, again.state.reading)
        assertEquals(AnswerEnd.FAILED, again.state.answers.single().end)
        assertTrue(again.state.canRead)
    }

    @Test
    fun `stop while it is read throws it away`() {
        val document = ready("one two")
        engine.onEncode = { document.stop() }
        document.read()
        manual.settle()
        assertEquals(Reading.NOT_READ, document.state.reading)
        assertEquals(EnginePhase.IDLE, document.state.phase)
        assertEquals("only the engine", 1, engine.open)
    }

    @Test
    fun `stop in an answer keeps what is there`() {
        val document = readOne()
        engine.onToken = { if (it == 2) document.stop() }
        document.ask()
        manual.settle()
        assertEquals("one two", document.state.answers.single().text)
        assertEquals(AnswerEnd.STOPPED, document.state.answers.single().end)
    }

    @Test
    fun `events twice are as once`() {
        val document = ready("one two")
        document.read()
        document.read()
        document.ask()
        manual.settle()
        document.ask()
        document.ask()
        document.askAgain()
        document.read()
        manual.settle()
        document.stop()
        assertEquals(1, count("encode"))
        assertEquals(1, count("answer"))
        assertEquals(EnginePhase.IDLE, document.state.phase)
    }

    @Test
    fun `errors are shown, and it can be read again`() {
        val document = ready("one two")
        manual.advance(1000) // the engine is open
        engine.error = Exception("too long")
        document.read()
        manual.settle()
        assertEquals("too long", document.state.error)
        assertEquals(Reading.NOT_READ, document.state.reading)
        document.read()
        manual.settle()
        assertEquals(Reading.READ, document.state.reading)
        assertNull(document.state.error)
    }

    @Test
    fun `reading anew removes the answers, clearing too`() {
        val document = readOne()
        document.ask()
        manual.settle()
        document.clearAnswers()
        assertEquals(0, document.state.answers.size)
        document.ask()
        manual.settle()
        document.setText("other")
        document.read()
        manual.settle()
        assertEquals(0, document.state.answers.size)
    }

    @Test
    fun `a text file becomes the document`() {
        val document = ready()
        document.openText("a.txt") { "\uFEFFgrüße\n".byteInputStream() }
        manual.settle()
        assertEquals("grüße\n", document.state.text)
        assertEquals("a.txt", document.state.name)
    }

    @Test
    fun `what is no text is refused`() {
        val document = ready("mine")
        document.openText("a.jpg") { byteArrayOf(-1, -40, -1).inputStream() }
        manual.settle()
        assertEquals("a.jpg is not a text in UTF-8; choose a plain text file.", document.state.error)
        document.openText("a.txt") { ByteArray(5_000_000).inputStream() }
        manual.settle()
        assertEquals("a.txt is larger than 4.2 MB; choose a part of it.", document.state.error)
        document.openText("a.txt") { throw IOException("gone") }
        manual.settle()
        assertEquals("a.txt cannot be read (gone); choose another file.", document.state.error)
        assertEquals("mine", document.state.text)
    }
}
