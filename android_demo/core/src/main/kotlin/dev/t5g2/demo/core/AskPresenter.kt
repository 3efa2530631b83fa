package dev.t5g2.demo.core

import java.io.File

/**
 * Asks the chosen model a prompt, with at most one picture, and shows the answer as it is written.
 *
 * @param folder where prompt, picture and answer are kept.
 */
class AskPresenter(folder: File, private val host: EngineHost, threads: Threads) : Presenter<AskState>(AskState(), threads) {
    private class Job(val question: String, val picture: Picture?, val options: AnswerOptions, val answer: AnswerJob)

    private val store = AskStore(folder)
    private val saver = Saver(threads, { problem -> update { it.copy(error = problem) } }) {
        val now = state
        if (!now.restoring) store.save(now) // else it would write over what is still to be read
    }

    @Volatile
    private var job: Job? = null

    init {
        threads.work.execute {
            val restored = store.restore(AskState())
            restore { restored.copy(restoring = false, model = it.model, engine = it.engine) }
            saver.request() // of what was entered meanwhile
        }
        host.add(object : EngineUser {
            override fun onChosen(bundle: InstalledBundle?) {
                update { it.copy(model = bundle?.info) }
            }

            override fun onRelease() {
                update { it.copy(engine = null) }
            }
        })
    }

    fun setPrompt(text: String) = editAndKeep { it.copy(prompt = text) }

    /** Goes with the prompt. At most 1024 pixels a side are of use: the engine scales it to what the model sees. */
    fun setPicture(picture: Picture) = editAndKeep { it.copy(picture = picture) }

    fun removePicture() = editAndKeep { it.copy(picture = null) }

    fun setOptions(options: AnswerOptions) = editAndKeep { it.copy(options = options) }

    /** Asks prompt and picture. */
    fun send() = begin { it.prompt }

    /** Asks the last answer's question again, with the picture that is there. */
    fun askAgain() = begin { it.answer?.question ?: it.prompt }

    /** Ends the answer that is being written; what is there of it stays. */
    fun stop() {
        var stopped: Job? = null
        update {
            if (it.phase == EnginePhase.IDLE || it.phase == EnginePhase.STOPPING) return@update it
            stopped = job
            it.copy(phase = EnginePhase.STOPPING)
        }
        stopped?.answer?.stop()
    }

    fun dismissError() {
        update { it.copy(error = null) }
    }

    /** Keeps at once what has changed, as when the screen goes. */
    fun saveNow() = saver.now()

    private fun editAndKeep(change: (AskState) -> AskState) {
        edit(change)
        saver.request()
    }

    private fun begin(question: (AskState) -> String) {
        var begun: Job? = null
        update { now ->
            val asked = now.copy(prompt = question(now))
            if (!asked.canSend) return@update now
            val job = Job(asked.prompt, now.picture, now.options, AnswerJob(threads.clock))
            begun = job
            this.job = job
            asked.copy(phase = EnginePhase.WAITING, answer = AnswerState(job.question), error = null)
        }
        val job = begun ?: return
        saver.request()
        host.run { run(job) }
    }

    private fun run(job: Job) {
        guarded(::fail) {
            val answer = answer(job)
            update { it.copy(phase = EnginePhase.IDLE, answer = answer) }
        }
        saver.request()
    }

    private fun fail(error: Throwable) {
        update {
            it.copy(phase = EnginePhase.IDLE, answer = it.answer?.copy(end = AnswerEnd.FAILED), error = error.forUser())
        }
    }

    private fun answer(job: Job): AnswerState {
        if (job.answer.isStopped) return AnswerState(job.question, end = AnswerEnd.STOPPED)
        if (!host.isOpen) enter(EnginePhase.OPENING)
        val engine = host.open()
        enter(EnginePhase.ENCODING)
        update { it.copy(engine = "${engine.kernels}, ${engine.threads} ${if (engine.threads == 1) "thread" else "threads"}") }
        val begin = threads.clock.nanos()
        return engine.encode(source(job), listOfNotNull(job.picture)).use { session ->
            write(job, session, AnswerState(job.question, encodeSeconds = threads.clock.secondsSince(begin)))
        }
    }

    private fun write(job: Job, session: SourceSession, start: AnswerState): AnswerState {
        if (job.answer.isStopped) return start.copy(end = AnswerEnd.STOPPED)
        enter(EnginePhase.GENERATING)
        update { it.copy(answer = start) }
        return job.answer.write(session, job.options, start) { answer ->
            updateOften { it.copy(answer = answer) }
            saver.request()
        }
    }

    private fun enter(phase: EnginePhase) {
        update { if (it.phase == EnginePhase.STOPPING) it else it.copy(phase = phase) }
    }

    /** The picture comes first, where the prompt does not say where. */
    private fun source(job: Job): String =
        if (job.picture == null || PICTURE_MARKER in job.question) job.question else "$PICTURE_MARKER ${job.question}"

    private companion object {
        const val PICTURE_MARKER = "<start_of_image>"
    }
}
