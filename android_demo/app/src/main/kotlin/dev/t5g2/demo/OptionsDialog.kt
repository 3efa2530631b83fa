package dev.t5g2.demo

import android.app.AlertDialog
import android.app.Dialog
import android.view.View
import android.widget.EditText
import android.widget.RadioGroup
import android.widget.SeekBar
import android.widget.TextView
import dev.t5g2.demo.core.AnswerOptions

/** How answers are chosen; every change is told to [onChange] at once, so that closing it in any way keeps it. */
class OptionsDialog(
    private val host: MainActivity,
    private var options: AnswerOptions,
    private val onChange: (AnswerOptions) -> Unit,
) {
    private val view: View = host.inflate(R.layout.dialog_options)
    private val texts = Texts(host)
    private val way: RadioGroup = view.findViewById(R.id.options_way)
    private val temperature: SeekBar = view.findViewById(R.id.options_temperature)
    private val topP: SeekBar = view.findViewById(R.id.options_top_p)
    private val length: EditText = view.findViewById(R.id.options_length)

    fun create(): Dialog {
        way.check(
            when {
                options.temperature > 0 -> R.id.options_sample
                options.beams > 1 -> R.id.options_beams
                else -> R.id.options_greedy
            },
        )
        temperature.progress = Math.round((if (options.temperature > 0) options.temperature else USUAL_TEMPERATURE) * TENTHS)
        topP.progress = Math.round(options.topP * TWENTIETHS)
        if (options.maxNewTokens > 0) length.setText(options.maxNewTokens.toString())
        label()

        way.setOnCheckedChangeListener { _, _ -> change() }
        temperature.setOnSeekBarChangeListener(listener)
        topP.setOnSeekBarChangeListener(listener)
        BoundField(length) { change() }
        return AlertDialog.Builder(host)
            .setTitle(R.string.options_of_answers)
            .setView(view)
            .setPositiveButton(R.string.done, null)
            .create()
    }

    private val listener = object : SeekBar.OnSeekBarChangeListener {
        override fun onProgressChanged(bar: SeekBar, progress: Int, fromUser: Boolean) = change()
        override fun onStartTrackingTouch(bar: SeekBar) = Unit
        override fun onStopTrackingTouch(bar: SeekBar) = Unit
    }

    private fun change() {
        val sampled = way.checkedRadioButtonId == R.id.options_sample
        options = options.copy(
            maxNewTokens = length.text.toString().toIntOrNull() ?: 0,
            temperature = if (sampled) temperature.progress / TENTHS else 0f,
            topP = if (sampled) topP.progress / TWENTIETHS else 1f,
            beams = if (way.checkedRadioButtonId == R.id.options_beams) BEAMS else 1,
        )
        label()
        onChange(options)
    }

    private fun label() {
        val sampled = way.checkedRadioButtonId == R.id.options_sample
        temperature.isEnabled = sampled
        topP.isEnabled = sampled
        view.findViewById<TextView>(R.id.options_temperature_label)
            .showText(host.getString(R.string.temperature, texts.decimal(temperature.progress / TENTHS.toDouble(), 1)))
        view.findViewById<TextView>(R.id.options_top_p_label)
            .showText(host.getString(R.string.top_p, texts.decimal(topP.progress / TWENTIETHS.toDouble(), 2)))
    }

    private companion object {
        const val TENTHS = 10f // steps of the temperature's bar
        const val TWENTIETHS = 20f // and of top-p's
        const val USUAL_TEMPERATURE = 0.7f
        const val BEAMS = 4
    }
}
