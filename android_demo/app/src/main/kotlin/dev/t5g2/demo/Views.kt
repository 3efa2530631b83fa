package dev.t5g2.demo

import android.text.Editable
import android.text.TextUtils
import android.text.TextWatcher
import android.view.View
import android.widget.EditText
import android.widget.TextView

/** Shows [text], or takes no room where there is none. What is shown already is left alone, and with it a selection. */
fun TextView.showOrHide(text: CharSequence?) {
    showText(text ?: "")
    shown(!text.isNullOrEmpty())
}

fun TextView.showText(text: CharSequence) {
    if (!TextUtils.equals(this.text, text)) this.text = text
}

fun View.shown(shown: Boolean) {
    visibility = if (shown) View.VISIBLE else View.GONE
}

/** A field whose text belongs to a presenter: [onEdit] hears what the user types, and only that. */
class BoundField(private val field: EditText, private val onEdit: (String) -> Unit) : TextWatcher {
    private var showing = false

    init {
        field.addTextChangedListener(this)
    }

    fun show(text: String, enabled: Boolean) {
        field.isEnabled = enabled
        if (TextUtils.equals(field.text, text)) return
        showing = true
        field.setText(text)
        field.setSelection(field.text.length)
        showing = false
    }

    override fun beforeTextChanged(text: CharSequence, start: Int, count: Int, after: Int) = Unit

    override fun onTextChanged(text: CharSequence, start: Int, before: Int, count: Int) = Unit

    override fun afterTextChanged(text: Editable) {
        if (!showing) onEdit(text.toString())
    }
}

/** Lets a field with more lines than it shows scroll by itself inside a screen that scrolls too. */
fun EditText.scrollsInside() {
    setOnTouchListener { field, _ ->
        val scrolls = field.canScrollVertically(1) || field.canScrollVertically(-1)
        if (scrolls) field.parent.requestDisallowInterceptTouchEvent(true)
        false
    }
}
