package dev.t5g2.demo

import android.content.Context
import android.text.format.Formatter
import dev.t5g2.demo.core.AnswerEnd
import dev.t5g2.demo.core.AnswerState
import dev.t5g2.demo.core.EnginePhase
import dev.t5g2.demo.core.Figure
import dev.t5g2.demo.core.ModelInfo
import java.text.NumberFormat

/** Numbers and sentences in the user's language. */
class Texts(private val context: Context) {
    private val resources get() = context.resources

    fun join(parts: List<String?>): String =
        parts.filterNot { it.isNullOrEmpty() }.joinToString(context.getString(R.string.separator))

    fun list(numbers: List<Int>): String = numbers.joinToString(context.getString(R.string.list_separator)) { number(it) }

    fun number(value: Int): String = NumberFormat.getIntegerInstance().format(value)

    /** Three significant digits. */
    fun number(value: Double): String = decimal(value, if (value >= 99.95) 0 else if (value >= 9.995) 1 else 2)

    fun decimal(value: Double, digits: Int): String = NumberFormat.getNumberInstance().run {
        minimumFractionDigits = digits
        maximumFractionDigits = digits
        format(value)
    }

    fun bytes(count: Long): String = Formatter.formatShortFileSize(context, count)

    fun megabytes(count: Double): String = bytes((count * 1e6).toLong())

    fun seconds(value: Double): String = when {
        value < 1 -> context.getString(R.string.milliseconds, number(value * 1e3))
        value < MINUTE -> context.getString(R.string.seconds, decimal(value, 1))
        else -> whole(value.toLong())
    }

    /** Without fractions: of estimates. */
    fun whole(seconds: Long): String = when {
        seconds < MINUTE -> context.getString(R.string.seconds, number(seconds.toInt()))
        seconds < HOUR -> context.getString(R.string.minutes_seconds, seconds / MINUTE, seconds % MINUTE)
        else -> context.getString(R.string.hours_minutes, seconds / HOUR, seconds % HOUR / MINUTE)
    }

    fun figure(figure: Figure, unit: Double = 1.0): String =
        context.getString(R.string.figure, number(figure.median * unit), number(figure.spread * unit))

    fun tokens(count: Int): String = resources.getQuantityString(R.plurals.tokens, count, count)

    fun model(model: ModelInfo?, engine: String?): String = when {
        model == null -> context.getString(R.string.no_model)
        engine == null -> model.title
        else -> context.getString(R.string.model_in_use, model.title, engine)
    }

    /** Null when nothing is under way. */
    fun phase(phase: EnginePhase): String? = when (phase) {
        EnginePhase.IDLE -> null
        EnginePhase.WAITING -> R.string.phase_waiting
        EnginePhase.OPENING -> R.string.phase_opening
        EnginePhase.ENCODING -> R.string.phase_encoding
        EnginePhase.GENERATING -> R.string.phase_generating
        EnginePhase.STOPPING -> R.string.phase_stopping
    }?.let(context::getString)

    /** How long and how fast an answer is, and how it ended. */
    fun figures(answer: AnswerState): String = join(
        listOf(
            answer.tokens.takeIf { it > 0 }?.let(::tokens),
            answer.tokensPerSecond?.let { context.getString(R.string.tokens_per_second, number(it)) },
            answer.encodeSeconds?.let { context.getString(R.string.read_in, seconds(it)) },
            when (answer.end) {
                AnswerEnd.LENGTH -> context.getString(R.string.end_length)
                AnswerEnd.STOPPED -> context.getString(R.string.end_stopped)
                AnswerEnd.INTERRUPTED -> context.getString(R.string.end_interrupted)
                AnswerEnd.FAILED -> context.getString(R.string.end_failed)
                AnswerEnd.COMPLETE, null -> null
            },
        ),
    )

    private companion object {
        const val MINUTE = 60L
        const val HOUR = 3600L
    }
}
