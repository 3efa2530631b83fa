package dev.t5g2.demo

import android.view.View
import android.widget.TableLayout
import android.widget.TableRow
import android.widget.TextView
import dev.t5g2.demo.core.BenchmarkReport
import dev.t5g2.demo.core.DeviceState
import dev.t5g2.demo.core.LoadingRow
import dev.t5g2.demo.core.SpeedRow

/** A benchmark's report as two tables, with the device's state before and after. */
class ReportView(private val view: View) {
    private val context = view.context
    private val texts = Texts(context)

    /** Null: there is none yet. */
    fun show(report: BenchmarkReport?) {
        view.shown(report != null)
        if (report == null) return
        val first = report.speed.firstOrNull()
        view.findViewById<TextView>(R.id.report_facts).text = context.getString(
            R.string.report_facts,
            first?.bundle.orEmpty(),
            first?.kernels.orEmpty(),
            report.machine,
            report.version,
            report.date,
            report.repeat,
        )
        fill(R.id.report_speed, speed(report.speed))
        fill(R.id.report_loading, loading(report.loading))
        view.findViewById<TextView>(R.id.report_device).text = listOf(
            context.getString(R.string.device_before, device(report.before)),
            context.getString(R.string.device_after, device(report.after)),
        ).joinToString("\n")
        val slowed = report.speed.mapNotNull { it.throttling }.distinct()
        view.findViewById<TextView>(R.id.report_throttling).showOrHide(
            if (slowed.isEmpty()) null else context.getString(R.string.throttled, texts.join(slowed)),
        )
    }

    private fun speed(rows: List<SpeedRow>): List<List<String>> {
        val depths = rows.flatMap { row -> row.decode.map { it.depth } }.distinct().sorted()
        val head = listOf(text(R.string.column_threads), text(R.string.column_source)) +
            depths.map { context.getString(R.string.column_decode, it) } +
            listOf(text(R.string.column_encode), text(R.string.column_first), text(R.string.column_memory))
        return listOf(head) + rows.map { row ->
            listOf(texts.number(row.threads), texts.number(row.source)) +
                depths.map { depth ->
                    row.decode.firstOrNull { it.depth == depth }?.let { texts.figure(it.tokensPerSecond) } ?: missing()
                } +
                listOf(
                    texts.figure(row.encode),
                    context.getString(R.string.milliseconds, texts.figure(row.firstToken, MILLISECONDS)),
                    texts.megabytes(row.peakMb),
                )
        }
    }

    private fun loading(rows: List<LoadingRow>): List<List<String>> {
        val head = listOf(
            R.string.column_threads,
            R.string.column_size,
            R.string.column_warm,
            R.string.column_cold,
            R.string.column_cold_token,
        )
        return listOf(head.map(::text)) + rows.map { row ->
            val durations = listOf(row.warmSeconds, row.coldSeconds, row.coldFirstTokenSeconds)
            listOf(texts.number(row.threads), texts.bytes(row.fileBytes)) +
                durations.map { it?.let(texts::seconds) ?: missing() }
        }
    }

    private fun fill(id: Int, rows: List<List<String>>) {
        val table = view.findViewById<TableLayout>(id)
        table.removeAllViews()
        rows.forEachIndexed { index, cells ->
            val style = if (index == 0) R.style.Text_Cell_Head else R.style.Text_Cell
            table.addView(TableRow(context).apply { cells.forEach { addView(cell(it, style)) } })
        }
    }

    private fun cell(text: String, style: Int) = TextView(context, null, 0, style).also { it.text = text }

    private fun device(state: DeviceState?): String = texts.join(
        listOf(
            when (state?.thermal) {
                null -> null
                AndroidDevice.NONE -> text(R.string.thermal_none)
                AndroidDevice.LIGHT -> text(R.string.thermal_light)
                AndroidDevice.MODERATE -> text(R.string.thermal_moderate)
                AndroidDevice.SEVERE -> text(R.string.thermal_severe)
                else -> text(R.string.thermal_critical)
            },
            state?.batteryPercent?.let { context.getString(R.string.battery_level, it) },
            state?.batteryCelsius?.let { context.getString(R.string.battery_temperature, texts.decimal(it, 1)) },
            state?.charging?.let { text(if (it) R.string.charging else R.string.on_battery) },
        ),
    ).ifEmpty { text(R.string.device_silent) }

    private fun text(id: Int) = context.getString(id)

    private fun missing() = text(R.string.not_measured)

    private companion object {
        const val MILLISECONDS = 1e3
    }
}
