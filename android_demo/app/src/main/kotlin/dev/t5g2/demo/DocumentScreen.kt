package dev.t5g2.demo

import android.app.Dialog
import android.content.Intent
import android.net.Uri
import android.view.View
import android.widget.Button
import android.widget.EditText
import android.widget.ProgressBar
import android.widget.TextView
import dev.t5g2.demo.core.DocumentPresenter
import dev.t5g2.demo.core.DocumentState
import dev.t5g2.demo.core.EnginePhase
import dev.t5g2.demo.core.Reading
import kotlin.math.min

/** A long text that is read once and answered about as often as wanted. */
class DocumentScreen(host: MainActivity, private val presenter: DocumentPresenter) :
    Screen<DocumentState>(host, R.layout.screen_document, presenter) {

    private val texts = Texts(host)
    private val model: TextView = view.findViewById(R.id.document_model)
    private val chooseModel: Button = view.findViewById(R.id.document_choose_model)
    private val instruction = BoundField(view.findViewById(R.id.document_instruction), presenter::setInstruction)
    private val textField: EditText = view.findViewById(R.id.document_text)
    private val text = BoundField(textField, presenter::setText)
    private val tokens: TextView = view.findViewById(R.id.document_tokens)
    private val openFile: Button = view.findViewById(R.id.document_open)
    private val clear: Button = view.findViewById(R.id.document_clear)
    private val read: Button = view.findViewById(R.id.document_read)
    private val stop: Button = view.findViewById(R.id.document_stop)
    private val problem: TextView = view.findViewById(R.id.document_problem)
    private val error: TextView = view.findViewById(R.id.document_error)
    private val dismissError: Button = view.findViewById(R.id.document_dismiss_error)
    private val progress: ProgressBar = view.findViewById(R.id.document_progress)
    private val status: TextView = view.findViewById(R.id.document_status)
    private val asking: View = view.findViewById(R.id.document_asking)
    private val beginning = BoundField(view.findViewById(R.id.document_beginning), presenter::setBeginning)
    private val ask: Button = view.findViewById(R.id.document_ask)
    private val clearAnswers: Button = view.findViewById(R.id.document_clear_answers)
    private val answers = AnswerList(view.findViewById(R.id.document_answers), presenter::askAgain)

    init {
        textField.scrollsInside()
        chooseModel.setOnClickListener { host.go(Place.MODELS) }
        openFile.setOnClickListener { openFile() }
        clear.setOnClickListener { presenter.setText("") }
        read.setOnClickListener {
            host.hideKeyboard()
            presenter.read()
        }
        stop.setOnClickListener { presenter.stop() }
        dismissError.setOnClickListener { presenter.dismissError() }
        ask.setOnClickListener {
            host.hideKeyboard()
            presenter.ask()
        }
        clearAnswers.setOnClickListener { presenter.clearAnswers() }
        view.findViewById<View>(R.id.document_options).setOnClickListener { open(OPTIONS) }
    }

    override fun onState(state: DocumentState) {
        val idle = state.phase == EnginePhase.IDLE
        val editable = !state.restoring && state.reading != Reading.READING
        model.showText(if (state.restoring) "" else texts.model(state.model, engine = null))
        chooseModel.shown(!state.restoring && state.model == null)
        instruction.show(state.instruction, editable)
        text.show(state.text, editable)
        tokens.showOrHide(length(state))
        openFile.isEnabled = editable
        clear.isEnabled = editable && state.text.isNotEmpty()
        read.shown(idle && state.reading != Reading.READ)
        read.isEnabled = state.canRead
        stop.shown(!idle)
        stop.isEnabled = state.phase != EnginePhase.STOPPING
        problem.showOrHide(state.problem)
        error.showOrHide(state.error)
        dismissError.shown(state.error != null)
        status.showOrHide(status(state))
        // While it is read the text changes all the time; a screen reader hears the beginning and the end.
        status.accessibilityLiveRegion =
            if (idle) View.ACCESSIBILITY_LIVE_REGION_POLITE else View.ACCESSIBILITY_LIVE_REGION_NONE
        showProgress(state)
        asking.shown(state.reading == Reading.READ)
        beginning.show(state.beginning, !state.restoring)
        ask.isEnabled = state.canAsk
        clearAnswers.isEnabled = idle && state.answers.isNotEmpty()
        answers.show(state.answers, state.canAsk)
        view.keepScreenOn = !idle
    }

    private fun length(state: DocumentState): String? {
        val count = state.tokens ?: return state.name
        val limit = state.model?.maxSource ?: return state.name
        val length = host.getString(R.string.tokens_of, count, limit)
        return state.name?.let { host.getString(R.string.tokens_of_file, it, length) } ?: length
    }

    private fun status(state: DocumentState): String? {
        val elapsed = state.elapsedSeconds
        val estimate = state.estimatedSeconds
        return when {
            state.phase == EnginePhase.ENCODING && elapsed != null && estimate != null ->
                host.getString(R.string.reading_estimate, texts.seconds(elapsed), texts.seconds(estimate))
            state.phase == EnginePhase.ENCODING && elapsed != null ->
                host.getString(R.string.reading_elapsed, texts.seconds(elapsed))
            state.phase != EnginePhase.IDLE -> texts.phase(state.phase)
            state.reading == Reading.READ -> wasRead(state)
            else -> null
        }
    }

    private fun wasRead(state: DocumentState): String {
        val read = state.readSeconds?.let { host.getString(R.string.was_read, texts.seconds(it)) }
        val kept = if (state.kept) host.getString(R.string.kept) else state.keepProblem
        return listOfNotNull(read ?: host.getString(R.string.was_read_before), kept).joinToString(" ")
    }

    private fun showProgress(state: DocumentState) {
        val estimate = state.estimatedSeconds
        progress.shown(state.reading == Reading.READING)
        progress.isIndeterminate = estimate == null || estimate <= 0
        if (estimate == null || estimate <= 0) return
        progress.progress = (min((state.elapsedSeconds ?: 0.0) / estimate, 1.0) * progress.max).toInt()
    }

    private fun openFile() {
        val intent = Intent(Intent.ACTION_OPEN_DOCUMENT).addCategory(Intent.CATEGORY_OPENABLE).setType(ANY)
        host.ask(Request.OPEN_TEXT, intent.putExtra(Intent.EXTRA_MIME_TYPES, TEXTS))
    }

    /** Of the file picker, or of another app that shares a file. */
    fun openText(uri: Uri) {
        val resolver = host.applicationContext.contentResolver
        val otherwise = host.getString(R.string.text_name)
        host.demo.threads.work.execute {
            presenter.openText(resolver.nameOf(uri, otherwise)) { resolver.openOrThrow(uri) }
        }
    }

    override fun onResult(request: Request, uri: Uri?) {
        uri?.let(::openText)
    }

    override fun dialog(key: String, about: String?): Dialog =
        OptionsDialog(host, presenter.state.options, presenter::setOptions).create()

    private companion object {
        const val OPTIONS = "options"
        const val ANY = "*/*"

        /** Markdown, CSV and source files often come under other types than text/plain. */
        val TEXTS = arrayOf("text/*", "application/json", "application/xml", "application/octet-stream")
    }
}
