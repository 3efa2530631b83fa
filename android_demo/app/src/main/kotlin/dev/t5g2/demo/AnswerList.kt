package dev.t5g2.demo

import android.content.ClipData
import android.content.ClipboardManager
import android.content.Context
import android.os.Build
import android.view.LayoutInflater
import android.view.View
import android.widget.LinearLayout
import android.widget.TextView
import android.widget.Toast
import dev.t5g2.demo.core.AnswerEnd
import dev.t5g2.demo.core.AnswerState

/** Answers as cards in [container], newest first; [onAgain] asks anew where the newest one was cut off. */
class AnswerList(private val container: LinearLayout, private val onAgain: () -> Unit) {
    private val context: Context = container.context
    private val texts = Texts(context)

    /** [canAsk]: nothing else is under way. [answers]: oldest first. */
    fun show(answers: List<AnswerState>, canAsk: Boolean) {
        while (container.childCount > answers.size) container.removeViewAt(container.childCount - 1)
        answers.asReversed().forEachIndexed { index, answer ->
            val card = container.getChildAt(index) ?: add()
            bind(card, answer, canAskAgain = canAsk && index == 0)
        }
    }

    private fun add(): View =
        LayoutInflater.from(context).inflate(R.layout.item_answer, container, false).also(container::addView)

    private fun bind(card: View, answer: AnswerState, canAskAgain: Boolean) {
        card.findViewById<TextView>(R.id.answer_question).showOrHide(answer.question)
        card.findViewById<TextView>(R.id.answer_text).showText(answer.text)
        // Told to a screen reader once, when the answer is there, not at every word.
        card.findViewById<TextView>(R.id.answer_figures).apply {
            accessibilityLiveRegion =
                if (answer.end == null) View.ACCESSIBILITY_LIVE_REGION_NONE else View.ACCESSIBILITY_LIVE_REGION_POLITE
            showText(texts.figures(answer))
        }
        card.findViewById<View>(R.id.answer_copy).apply {
            isEnabled = answer.text.isNotEmpty()
            setOnClickListener { copy(answer.text) }
        }
        card.findViewById<View>(R.id.answer_again).apply {
            shown(canAskAgain && (answer.end == AnswerEnd.INTERRUPTED || answer.end == AnswerEnd.FAILED))
            setOnClickListener { onAgain() }
        }
    }

    private fun copy(text: String) {
        val clip = ClipData.newPlainText(context.getString(R.string.answer_label), text)
        context.getSystemService(ClipboardManager::class.java).setPrimaryClip(clip)
        // From Android 13 on the system says so itself.
        if (Build.VERSION.SDK_INT < Build.VERSION_CODES.TIRAMISU) {
            Toast.makeText(context, R.string.copied, Toast.LENGTH_SHORT).show()
        }
    }
}
