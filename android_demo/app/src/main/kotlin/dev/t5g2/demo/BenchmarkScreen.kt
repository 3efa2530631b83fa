package dev.t5g2.demo

import android.app.AlertDialog
import android.app.Dialog
import android.content.ClipData
import android.content.Intent
import android.view.View
import android.widget.Button
import android.widget.EditText
import android.widget.TextView
import dev.t5g2.demo.core.BenchmarkOptions
import dev.t5g2.demo.core.BenchmarkPresenter
import dev.t5g2.demo.core.BenchmarkReport
import dev.t5g2.demo.core.BenchmarkState
import java.io.File
import java.io.IOException

/** Measures the chosen model and shows what was measured last. */
class BenchmarkScreen(host: MainActivity, private val presenter: BenchmarkPresenter) :
    Screen<BenchmarkState>(host, R.layout.screen_benchmark, presenter) {

    private val texts = Texts(host)
    private val model: TextView = view.findViewById(R.id.benchmark_model)
    private val chooseModel: Button = view.findViewById(R.id.benchmark_choose_model)
    private val options: Button = view.findViewById(R.id.benchmark_options)
    private val start: Button = view.findViewById(R.id.benchmark_start)
    private val stop: Button = view.findViewById(R.id.benchmark_stop)
    private val share: Button = view.findViewById(R.id.benchmark_share)
    private val plan: TextView = view.findViewById(R.id.benchmark_plan)
    private val error: TextView = view.findViewById(R.id.benchmark_error)
    private val dismissError: Button = view.findViewById(R.id.benchmark_dismiss_error)
    private val bar: View = view.findViewById(R.id.benchmark_bar)
    private val progress: TextView = view.findViewById(R.id.benchmark_progress)
    private val reportView = ReportView(view.findViewById(R.id.benchmark_report))
    private var shownReport: BenchmarkReport? = null

    init {
        chooseModel.setOnClickListener { host.go(Place.MODELS) }
        options.setOnClickListener { open(OPTIONS) }
        start.setOnClickListener { presenter.start() }
        stop.setOnClickListener { presenter.stop() }
        share.setOnClickListener { presenter.state.reportFile?.let(::share) }
        dismissError.setOnClickListener { presenter.dismissError() }
    }

    override fun onState(state: BenchmarkState) {
        model.showText(if (state.restoring) "" else texts.model(state.model, engine = null))
        chooseModel.shown(!state.restoring && state.model == null)
        options.isEnabled = !state.restoring && !state.running
        start.shown(!state.running)
        start.isEnabled = state.canStart
        stop.shown(state.running)
        stop.isEnabled = !state.stopping
        share.shown(state.reportFile != null && !state.running)
        plan.showText(plan(state.options))
        error.showOrHide(state.error)
        dismissError.shown(state.error != null)
        bar.shown(state.running)
        progress.showOrHide(progress(state))
        if (state.report != shownReport) {
            shownReport = state.report
            reportView.show(state.report)
        }
        view.keepScreenOn = state.running
    }

    private fun plan(options: BenchmarkOptions) = host.getString(
        R.string.plan,
        if (options.threads.isEmpty()) host.getString(R.string.threads_automatic) else texts.list(options.threads),
        texts.list(options.sources),
        options.target,
        texts.list(options.depths),
        options.repeat,
    )

    private fun progress(state: BenchmarkState): String? = when {
        !state.running -> null
        state.stopping -> host.getString(R.string.phase_stopping)
        else -> host.getString(
            R.string.benchmark_elapsed,
            state.progress ?: host.getString(R.string.benchmark_starting),
            texts.whole((state.elapsedSeconds ?: 0.0).toLong()),
        )
    }

    /** Hands the receiver a copy, which the next run does not overwrite while it is being read. */
    private fun share(report: File) {
        val context = host.applicationContext
        host.demo.threads.work.execute {
            try {
                report.copyTo(SharedFiles.file(context, SharedFiles.Shared.REPORT), overwrite = true)
                host.demo.threads.main.execute(::sendShared)
            } catch (_: IOException) {
                host.demo.threads.main.execute { host.tell(R.string.report_unreadable) }
            }
        }
    }

    private fun sendShared() {
        val uri = SharedFiles.uri(host, SharedFiles.Shared.REPORT)
        val intent = Intent(Intent.ACTION_SEND)
            .setType(SharedFiles.Shared.REPORT.type)
            .putExtra(Intent.EXTRA_STREAM, uri)
            .addFlags(Intent.FLAG_GRANT_READ_URI_PERMISSION)
        intent.clipData = ClipData.newRawUri(null, uri)
        host.open(Intent.createChooser(intent, host.getString(R.string.share_report)))
    }

    override fun dialog(key: String, about: String?): Dialog {
        val content = host.inflate(R.layout.dialog_benchmark)
        fun field(id: Int) = content.findViewById<EditText>(id)
        fun numbers(id: Int) = NUMBER.findAll(field(id).text).mapNotNull { it.value.toIntOrNull() }.distinct().toList()
        fun number(id: Int, otherwise: Int) = numbers(id).firstOrNull() ?: otherwise
        val now = presenter.state.options
        field(R.id.bench_threads).setText(now.threads.joinToString())
        field(R.id.bench_sources).setText(now.sources.joinToString())
        field(R.id.bench_depths).setText(now.depths.joinToString())
        field(R.id.bench_target).setText(now.target.toString())
        field(R.id.bench_repeat).setText(now.repeat.toString())
        return AlertDialog.Builder(host)
            .setTitle(R.string.benchmark_what)
            .setView(content)
            .setPositiveButton(R.string.done) { _, _ ->
                presenter.setOptions(
                    BenchmarkOptions(
                        threads = numbers(R.id.bench_threads),
                        sources = numbers(R.id.bench_sources).ifEmpty { now.sources },
                        depths = numbers(R.id.bench_depths).ifEmpty { now.depths },
                        target = number(R.id.bench_target, now.target),
                        repeat = number(R.id.bench_repeat, now.repeat),
                    ),
                )
            }
            .setNegativeButton(R.string.cancel, null)
            .create()
    }

    private companion object {
        const val OPTIONS = "options"
        val NUMBER = Regex("[0-9]+")
    }
}
