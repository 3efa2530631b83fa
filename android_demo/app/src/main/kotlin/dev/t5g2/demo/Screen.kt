package dev.t5g2.demo

import android.app.Dialog
import android.net.Uri
import android.os.Bundle
import android.view.View
import dev.t5g2.demo.core.Presenter
import dev.t5g2.demo.core.StateListener

/** The app's destinations; [button] leads there. */
enum class Place(val button: Int) {
    ASK(R.id.go_ask),
    DOCUMENT(R.id.go_document),
    MODELS(R.id.go_models),
    BENCHMARK(R.id.go_benchmark),
}

/** What another app is asked for, and the destination that wants the answer. */
enum class Request(val place: Place) {
    PICK_PICTURE(Place.ASK),
    TAKE_PICTURE(Place.ASK),
    OPEN_TEXT(Place.DOCUMENT),
    IMPORT_ZIP(Place.MODELS),
}

/**
 * One destination: its view shows the presenter's state [S] whole, whenever it changes, and hands events on. It keeps nothing
 * but what dialog is open, so it can be thrown away and made again with the activity.
 */
abstract class Screen<S>(protected val host: MainActivity, layout: Int, private val presenter: Presenter<S>) :
    StateListener<S> {

    val view: View = host.inflate(layout)

    private class Open(val dialog: Dialog, val key: String, val about: String?)

    private var open: Open? = null

    fun start() = presenter.attach(this)

    fun stop() = presenter.detach(this)

    /** The activity ends: an open dialog must not outlive it. */
    fun close() {
        open?.dialog?.dismiss()
        open = null
    }

    fun save(out: Bundle) {
        val open = open?.takeIf { it.dialog.isShowing } ?: return
        out.putString(KEY, open.key)
        out.putString(ABOUT, open.about)
        out.putBundle(DIALOG, open.dialog.onSaveInstanceState())
    }

    fun restore(from: Bundle) {
        val key = from.getString(KEY) ?: return
        open(key, from.getString(ABOUT))
        from.getBundle(DIALOG)?.let { open?.dialog?.onRestoreInstanceState(it) }
    }

    /** The other app's answer to a [Request] of this place; [uri] is null where the request says where it goes. */
    open fun onResult(request: Request, uri: Uri?) = Unit

    /** Makes the dialog called [key], about the thing with the name [about]; null: there is no such thing any more. */
    protected open fun dialog(key: String, about: String?): Dialog? = null

    protected fun open(key: String, about: String? = null) {
        close()
        val dialog = dialog(key, about) ?: return
        dialog.show()
        open = Open(dialog, key, about)
    }

    private companion object {
        const val KEY = "key"
        const val ABOUT = "about"
        const val DIALOG = "dialog"
    }
}
