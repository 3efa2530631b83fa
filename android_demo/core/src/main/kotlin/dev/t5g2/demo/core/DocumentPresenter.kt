package dev.t5g2.demo.core

import java.io.File
import java.io.InputStream

/**
 * Reads a document once, then answers any number of times.
 *
 * T5Gemma 2 is an encoder and a decoder. The encoder reads instruction and document together, which takes most of the time and
 * gives a session; the decoder writes answers from it, each of which can begin with other words ([setBeginning]) and be chosen
 * in another way ([setOptions]), without reading again. What is to be asked of the document in general belongs in the
 * instruction. The session is kept in a file, so that it is there after the app was ended.
 *
 * @param folder where the text, its session and the answers are kept.
 */
class DocumentPresenter(folder: File, private val host: EngineHost, threads: Threads) :
    Presenter<DocumentState>(DocumentState(), threads) {
    /** What is under way: encoding a text, or an answer. */
    private class Job(val answer: AnswerJob, val source: String, val options: AnswerOptions)

    private val store = DocumentStore(folder)
    private val saver = Saver(threads, { problem -> update { it.copy(error = problem) } }) {
        val now = state
        if (!now.restoring) store.save(now) // else it would write over what is still to be read
    }

    @Volatile
    private var job: Job? = null

    @Volatile
    private var chosen: InstalledBundle? = null

    private val encoded = EncodedDocument(store)
    private var edits = 0 // counts changes of what is read, so that a token count that comes late is not taken for the newest

    init {
        threads.work.execute {
            val restored = store.restore(DocumentState())
            encoded.restore()
            restore { settled(restored.copy(restoring = false, model = it.model)) }
            saver.request() // of what was entered meanwhile
            countSoon()
        }
        host.add(object : EngineUser {
            override fun onChosen(bundle: InstalledBundle?) {
                chosen = bundle
                update { settled(it.copy(model = bundle?.info, tokens = null)) }
                countSoon()
            }

            override fun onRelease() {
                encoded.release()
                update(::settled)
            }
        })
    }

    /** The document. */
    fun setText(text: String) = editSource { it.copy(text = text, name = if (text.isEmpty()) null else it.name) }

    /** Takes a text file as the document. [open] opens it, on a worker thread. */
    fun openText(name: String, open: () -> InputStream) = threads.work.execute {
        try {
            val text = readTextFile(name, open)
            editSource { it.copy(text = text, name = name, error = null) }
        } catch (failure: Failure) {
            update { it.copy(error = failure.forUser()) }
        }
    }

    /** What the model is told before the document; a blank is put between where it does not end with one. */
    fun setInstruction(text: String) = editSource { it.copy(instruction = text) }

    /** The words that the next answer begins with. */
    fun setBeginning(text: String) = editAndKeep { it.copy(beginning = text) }

    fun setOptions(options: AnswerOptions) = editAndKeep { it.copy(options = options) }

    /** Encodes instruction and document. Answers to what was read before are removed. */
    fun read() {
        val job = begin({ it.canRead }) { it.copy(answers = emptyList()) } ?: return
        onEngine { read(job) }
    }

    /** Asks what was read. */
    fun ask() = ask({ it.beginning }, { it })

    /** Asks the last answer's question again, in its place. */
    fun askAgain() {
        if (state.answers.isNotEmpty()) ask({ it.answers.last().question }, { it.dropLast(1) })
    }

    /** Ends the answer that is being written; what is there of it stays. Reading ends after the encoder's one call. */
    fun stop() {
        var stopped: Job? = null
        update {
            if (it.phase == EnginePhase.IDLE || it.phase == EnginePhase.STOPPING) return@update it
            stopped = job
            it.copy(phase = EnginePhase.STOPPING)
        }
        stopped?.answer?.stop()
    }

    /** Removes the answers, but for one that is being written. */
    fun clearAnswers() = editAndKeep { state -> state.copy(answers = state.answers.filter { it.end == null }) }

    fun dismissError() {
        update { it.copy(error = null) }
    }

    /** Keeps at once what has changed, as when the screen goes. */
    fun saveNow() = saver.now()

    private fun editAndKeep(change: (DocumentState) -> DocumentState) {
        edit(change)
        saver.request()
    }

    private fun editSource(change: (DocumentState) -> DocumentState) {
        editAndKeep { settled(change(it).copy(tokens = null)) }
        countSoon()
    }

    /** [state] with what follows from what was encoded last: is it this text, by this model? */
    private fun settled(state: DocumentState): DocumentState {
        val seal = chosen?.seal
        val read = encoded.reading
        val kept = state.copy(kept = encoded.isKept)
        if (read == null || seal == null || !encoded.isOf(seal, sourceOf(state))) {
            return kept.copy(reading = Reading.NOT_READ, readSeconds = null)
        }
        return kept.copy(reading = Reading.READ, readSeconds = read.seconds, tokens = read.tokens)
    }

    /** Counts the tokens of what is to be read when nothing was changed for a while. */
    private fun countSoon() {
        val edit = synchronized(this) { ++edits }
        threads.timer.after(COUNT_DELAY_MS) {
            if (synchronized(this) { edit == edits }) host.run { count(edit) }
        }
    }

    private fun count(edit: Int) {
        val now = state
        if (now.restoring || now.tokens != null || now.text.isBlank() || now.model?.hasTokenizer != true) return
        // Where it fails, reading it will say what is wrong.
        guarded({ }) {
            val tokens = host.open().countTokens(sourceOf(now), 0)
            update { if (synchronized(this) { edit == edits }) it.copy(tokens = tokens) else it }
        }
    }

    private fun begin(allowed: (DocumentState) -> Boolean, change: (DocumentState) -> DocumentState): Job? {
        var begun: Job? = null
        update { now ->
            if (!allowed(now)) return@update now
            val next = change(now).copy(phase = EnginePhase.WAITING, error = null)
            val options = now.options.copy(prefix = next.answers.lastOrNull()?.question.orEmpty())
            begun = Job(AnswerJob(threads.clock), sourceOf(now), options)
            job = begun
            next
        }
        if (begun != null) saver.request()
        return begun
    }

    private fun ask(beginning: (DocumentState) -> String, keep: (List<AnswerState>) -> List<AnswerState>) {
        val job = begin({ it.canAsk }) {
            it.copy(answers = (keep(it.answers) + AnswerState(beginning(it))).takeLast(MOST_ANSWERS))
        } ?: return
        onEngine { answer(job) }
    }

    /** Runs [work] on the engine's thread and shows what goes wrong. */
    private fun onEngine(work: () -> Unit) = host.run {
        guarded(::fail, work)
        update { settled(it.copy(phase = EnginePhase.IDLE, elapsedSeconds = null, estimatedSeconds = null)) }
        saver.request()
    }

    private fun fail(error: Throwable) {
        update { now ->
            val answers = now.answers.map { if (it.end == null) it.copy(end = AnswerEnd.FAILED) else it }
            now.copy(answers = answers, error = error.forUser())
        }
    }

    private fun read(job: Job) {
        if (job.answer.isStopped) return
        val engine = open()
        val seal = host.opened!!.seal
        val tokens = engine.countTokens(job.source, 0)
        encoded.forget() // the text before this one, whose memory this one will need
        val begin = threads.clock.nanos()
        val estimate = store.speed(seal)?.takeIf { it > 0 }?.let { tokens / it }
        enter(EnginePhase.ENCODING)
        update { now ->
            val reading = if (sourceOf(now) == job.source) Reading.READING else now.reading
            now.copy(reading = reading, keepProblem = null, elapsedSeconds = 0.0, estimatedSeconds = estimate)
        }
        tick(job, begin)
        val fresh = engine.encode(job.source, emptyList())
        if (job.answer.isStopped) {
            fresh.close()
            return
        }
        val seconds = threads.clock.secondsSince(begin)
        encoded.set(fresh, KeptReading(SourceKey(seal, job.source), fresh.tokenCount, seconds))
        keep(seal, fresh.tokenCount / seconds.coerceAtLeast(1e-3))
    }

    /** The encoder is one call, so how far it is can only be told by the clock. */
    private fun tick(job: Job, begin: Long) {
        threads.timer.after(TICK_MS) {
            if (this.job !== job || state.elapsedSeconds == null) return@after
            update { if (it.elapsedSeconds == null) it else it.copy(elapsedSeconds = threads.clock.secondsSince(begin)) }
            tick(job, begin)
        }
    }

    /** Without the file it works too, until the memory is needed. */
    private fun keep(seal: String, tokensPerSecond: Double) {
        try {
            encoded.keep()
            store.saveSpeed(seal, tokensPerSecond)
        } catch (error: Exception) {
            update { it.copy(keepProblem = "What was read cannot be kept: ${error.forUser()}") }
        }
    }

    private fun answer(job: Job) {
        if (job.answer.isStopped) return setAnswer { it.copy(end = AnswerEnd.STOPPED) }
        val session = encoded.session(open())
        enter(EnginePhase.GENERATING)
        val start = state.answers.last()
        val whole = job.answer.write(session, job.options, start) { answer ->
            updateOften { it.copy(answers = it.answers.dropLast(1) + answer) }
            saver.request()
        }
        setAnswer { whole }
    }

    private fun setAnswer(change: (AnswerState) -> AnswerState) {
        update { it.copy(answers = it.answers.dropLast(1) + change(it.answers.last())) }
    }

    private fun open(): OpenEngine {
        if (!host.isOpen) enter(EnginePhase.OPENING)
        return host.open()
    }

    private fun enter(phase: EnginePhase) {
        update { if (it.phase == EnginePhase.STOPPING) it else it.copy(phase = phase) }
    }

    private companion object {
        const val COUNT_DELAY_MS = 400L
        const val TICK_MS = 200L
        const val MOST_ANSWERS = 50

        fun sourceOf(state: DocumentState): String = when {
            state.instruction.isEmpty() -> state.text
            state.instruction.last().isWhitespace() -> state.instruction + state.text
            else -> state.instruction + " " + state.text
        }
    }
}
