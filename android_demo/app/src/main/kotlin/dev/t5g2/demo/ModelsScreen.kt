package dev.t5g2.demo

import android.app.AlertDialog
import android.app.Dialog
import android.content.Intent
import android.net.Uri
import android.view.LayoutInflater
import android.view.View
import android.view.ViewGroup
import android.widget.Button
import android.widget.EditText
import android.widget.LinearLayout
import android.widget.ProgressBar
import android.widget.RadioButton
import android.widget.TextView
import dev.t5g2.demo.core.InstalledBundle
import dev.t5g2.demo.core.ModelsPresenter
import dev.t5g2.demo.core.ModelsState
import dev.t5g2.demo.core.Offer
import dev.t5g2.demo.core.PartialBundle
import dev.t5g2.demo.core.Transfer

/** The models on the device, and getting more of them. */
class ModelsScreen(host: MainActivity, private val presenter: ModelsPresenter) :
    Screen<ModelsState>(host, R.layout.screen_models, presenter) {

    private val texts = Texts(host)
    private val add: Button = view.findViewById(R.id.models_add)
    private val import: Button = view.findViewById(R.id.models_import)
    private val error: TextView = view.findViewById(R.id.models_error)
    private val dismissError: Button = view.findViewById(R.id.models_dismiss_error)
    private val busy: TextView = view.findViewById(R.id.models_busy)
    private val cancelLookUp: View = view.findViewById(R.id.models_cancel_look_up)
    private val offerCard: View = view.findViewById(R.id.models_offer)
    private val transferCard: View = view.findViewById(R.id.models_transfer)
    private val list: LinearLayout = view.findViewById(R.id.models_list)
    private var listed: Listed? = null

    /** What the list is made of; made anew only when that changes. */
    private data class Listed(
        val bundles: List<InstalledBundle>,
        val partials: List<PartialBundle>,
        val chosen: String?,
        val busy: Boolean,
    )

    init {
        add.setOnClickListener { open(URL) }
        import.setOnClickListener { importZip() }
        dismissError.setOnClickListener { presenter.dismissError() }
        cancelLookUp.setOnClickListener { presenter.cancel() }
        view.findViewById<View>(R.id.offer_download).setOnClickListener { presenter.download() }
        view.findViewById<View>(R.id.offer_dismiss).setOnClickListener { presenter.dismissOffer() }
        view.findViewById<View>(R.id.transfer_pause).setOnClickListener { presenter.pause() }
        view.findViewById<View>(R.id.transfer_cancel).setOnClickListener { presenter.cancel() }
    }

    override fun onState(state: ModelsState) {
        val free = !state.loading && !state.lookingUp && state.transfer == null
        add.isEnabled = free
        import.isEnabled = free
        error.showOrHide(state.error)
        dismissError.shown(state.error != null)
        busy.showOrHide(
            when {
                state.loading -> host.getString(R.string.models_loading)
                state.lookingUp -> host.getString(R.string.looking_up)
                else -> null
            },
        )
        cancelLookUp.shown(state.lookingUp)
        show(state.offer)
        show(state.transfer)
        show(Listed(state.bundles, state.partials, state.chosen, !free))
        view.keepScreenOn = !free
    }

    private fun show(offer: Offer?) {
        offerCard.shown(offer != null)
        if (offer == null) return
        view.findViewById<TextView>(R.id.offer_title).showText(offer.title)
        view.findViewById<TextView>(R.id.offer_facts).showText(
            texts.join(
                listOf(
                    offer.quantization,
                    texts.bytes(offer.bytes),
                    sight(offer.hasVision),
                    host.getString(R.string.source_limit, offer.maxSource),
                    memory(offer.memoryBytes),
                    offer.checkpoint,
                ),
            ),
        )
        view.findViewById<TextView>(R.id.offer_problems).showOrHide(offer.problems.joinToString("\n"))
        view.findViewById<TextView>(R.id.offer_warnings).showOrHide(offer.warnings.joinToString("\n"))
        view.findViewById<View>(R.id.offer_download).isEnabled = offer.problems.isEmpty()
    }

    private fun show(transfer: Transfer?) {
        transferCard.shown(transfer != null)
        if (transfer == null) return
        val download = transfer.kind == Transfer.Kind.DOWNLOAD
        val total = transfer.bytesTotal
        view.findViewById<TextView>(R.id.transfer_title)
            .showText(host.getString(if (download) R.string.downloading else R.string.importing, transfer.title))
        view.findViewById<ProgressBar>(R.id.transfer_bar).apply {
            isIndeterminate = total == null || total == 0L
            if (total != null && total > 0) progress = (transfer.bytesDone.toDouble() / total * max).toInt()
        }
        view.findViewById<TextView>(R.id.transfer_figures).showText(
            texts.join(
                listOf(
                    amount(transfer.bytesDone, total),
                    transfer.bytesPerSecond?.let { host.getString(R.string.bytes_per_second, texts.bytes(it.toLong())) },
                    transfer.secondsLeft?.let { host.getString(R.string.time_left, texts.whole(it)) },
                    transfer.file,
                ),
            ),
        )
        view.findViewById<TextView>(R.id.transfer_note)
            .showOrHide(if (transfer.stopping) host.getString(R.string.transfer_stopping) else transfer.note)
        view.findViewById<View>(R.id.transfer_pause).apply {
            shown(download)
            isEnabled = !transfer.stopping
        }
        view.findViewById<View>(R.id.transfer_cancel).isEnabled = !transfer.stopping
    }

    private fun show(now: Listed) {
        if (now == listed) return
        listed = now
        list.removeAllViews()
        now.partials.forEach { list.addView(card(it, now.busy)) }
        now.bundles.forEach { list.addView(card(it, now)) }
    }

    private fun card(partial: PartialBundle, busy: Boolean): View = inflate(R.layout.item_partial).apply {
        findViewById<TextView>(R.id.partial_title).text = partial.title
        findViewById<TextView>(R.id.partial_facts).text = texts.join(
            listOf(host.getString(R.string.paused_at, amount(partial.bytesDone, partial.bytesTotal)), partial.url),
        )
        findViewById<View>(R.id.partial_resume).apply {
            isEnabled = !busy
            setOnClickListener { presenter.resume(partial.id) }
        }
        findViewById<View>(R.id.partial_discard).apply {
            isEnabled = !busy
            setOnClickListener { open(DISCARD, partial.id) }
        }
    }

    private fun card(bundle: InstalledBundle, now: Listed): View = inflate(R.layout.item_bundle).apply {
        findViewById<RadioButton>(R.id.bundle_choose).apply {
            text = bundle.title
            isChecked = bundle.id == now.chosen
            isEnabled = bundle.damage == null
            setOnClickListener { presenter.choose(bundle.id) }
        }
        findViewById<TextView>(R.id.bundle_facts).text = facts(bundle)
        findViewById<TextView>(R.id.bundle_damage).showOrHide(bundle.damage)
        findViewById<Button>(R.id.bundle_delete).apply {
            contentDescription = host.getString(R.string.delete_model, bundle.title)
            shown(!bundle.builtIn)
            isEnabled = !now.busy
            setOnClickListener { open(DELETE, bundle.id) }
        }
    }

    private fun facts(bundle: InstalledBundle): String {
        val size = texts.bytes(bundle.bytes)
        if (bundle.damage != null) return size
        return texts.join(
            listOf(
                bundle.quantization,
                size,
                if (bundle.hasTokenizer) sight(bundle.hasVision) else host.getString(R.string.no_tokenizer),
                host.getString(R.string.source_limit, bundle.maxSource),
                memory(bundle.memoryBytes),
                bundle.checkpoint,
                if (bundle.builtIn) host.getString(R.string.built_in) else null,
            ),
        )
    }

    private fun sight(hasVision: Boolean) = host.getString(if (hasVision) R.string.sees_pictures else R.string.text_only)

    private fun memory(bytes: Long) = if (bytes > 0) host.getString(R.string.memory_needed, texts.bytes(bytes)) else null

    private fun amount(done: Long, total: Long?) =
        if (total == null) texts.bytes(done) else host.getString(R.string.bytes_of, texts.bytes(done), texts.bytes(total))

    private fun inflate(layout: Int): ViewGroup = LayoutInflater.from(host).inflate(layout, list, false) as ViewGroup

    private fun importZip() {
        val intent = Intent(Intent.ACTION_OPEN_DOCUMENT).addCategory(Intent.CATEGORY_OPENABLE).setType(ANY)
        host.ask(Request.IMPORT_ZIP, intent.putExtra(Intent.EXTRA_MIME_TYPES, ZIPS))
    }

    override fun onResult(request: Request, uri: Uri?) {
        if (uri == null) return
        val resolver = host.applicationContext.contentResolver
        val otherwise = host.getString(R.string.archive_name)
        host.demo.threads.work.execute {
            presenter.importZip(resolver.nameOf(uri, otherwise)) { resolver.openOrThrow(uri) }
        }
    }

    override fun dialog(key: String, about: String?): Dialog? = when (key) {
        URL -> askForUrl()
        DELETE -> presenter.state.bundles.firstOrNull { it.id == about }?.let(::confirmDelete)
        DISCARD -> presenter.state.partials.firstOrNull { it.id == about }?.let(::confirmDiscard)
        else -> null
    }

    private fun askForUrl(): Dialog {
        val content = host.inflate(R.layout.dialog_url)
        val field: EditText = content.findViewById(R.id.url_field)
        val dialog = AlertDialog.Builder(host)
            .setTitle(R.string.url_title)
            .setView(content)
            .setPositiveButton(R.string.look_up) { _, _ -> presenter.lookUp(field.text.toString()) }
            .setNegativeButton(R.string.cancel, null)
            .create()
        field.setOnEditorActionListener { _, _, _ ->
            presenter.lookUp(field.text.toString())
            dialog.dismiss()
            true
        }
        return dialog
    }

    private fun confirmDelete(bundle: InstalledBundle): Dialog = AlertDialog.Builder(host)
        .setTitle(host.getString(R.string.delete_question, bundle.title))
        .setMessage(host.getString(R.string.delete_explained, texts.bytes(bundle.bytes)))
        .setPositiveButton(R.string.delete) { _, _ -> presenter.delete(bundle.id) }
        .setNegativeButton(R.string.cancel, null)
        .create()

    private fun confirmDiscard(partial: PartialBundle): Dialog = AlertDialog.Builder(host)
        .setTitle(host.getString(R.string.discard_question, partial.title))
        .setMessage(host.getString(R.string.discard_explained, texts.bytes(partial.bytesDone)))
        .setPositiveButton(R.string.discard) { _, _ -> presenter.discard(partial.id) }
        .setNegativeButton(R.string.cancel, null)
        .create()

    private companion object {
        const val URL = "url"
        const val DELETE = "delete"
        const val DISCARD = "discard"
        const val ANY = "*/*"
        val ZIPS = arrayOf("application/zip", "application/x-zip-compressed", "application/octet-stream")
    }
}
