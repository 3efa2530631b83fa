package dev.t5g2.demo

import android.app.Dialog
import android.content.ClipData
import android.content.Intent
import android.content.pm.PackageManager
import android.graphics.Bitmap
import android.net.Uri
import android.os.Build
import android.provider.MediaStore
import android.view.View
import android.widget.Button
import android.widget.ImageView
import android.widget.LinearLayout
import android.widget.TextView
import dev.t5g2.demo.core.AskPresenter
import dev.t5g2.demo.core.AskState
import dev.t5g2.demo.core.EnginePhase
import dev.t5g2.demo.core.Picture
import java.nio.ByteBuffer

/** A question, with a picture where the model can see, and its answer as it is written. */
class AskScreen(host: MainActivity, private val presenter: AskPresenter) :
    Screen<AskState>(host, R.layout.screen_ask, presenter) {

    private val texts = Texts(host)
    private val model: TextView = view.findViewById(R.id.ask_model)
    private val chooseModel: Button = view.findViewById(R.id.ask_choose_model)
    private val prompt = BoundField(view.findViewById(R.id.ask_prompt), presenter::setPrompt)
    private val pictureRow: View = view.findViewById(R.id.ask_picture)
    private val preview: ImageView = view.findViewById(R.id.ask_preview)
    private val pick: Button = view.findViewById(R.id.ask_pick)
    private val camera: Button = view.findViewById(R.id.ask_camera)
    private val options: Button = view.findViewById(R.id.ask_options)
    private val send: Button = view.findViewById(R.id.ask_send)
    private val stop: Button = view.findViewById(R.id.ask_stop)
    private val problem: TextView = view.findViewById(R.id.ask_problem)
    private val error: TextView = view.findViewById(R.id.ask_error)
    private val dismissError: Button = view.findViewById(R.id.ask_dismiss_error)
    private val phase: TextView = view.findViewById(R.id.ask_phase)
    private val answers = AnswerList(view.findViewById<LinearLayout>(R.id.ask_answers), presenter::askAgain)
    private val hasCamera = host.packageManager.hasSystemFeature(PackageManager.FEATURE_CAMERA_ANY)
    private var previewed: Picture? = null

    init {
        chooseModel.setOnClickListener { host.go(Place.MODELS) }
        pick.setOnClickListener { pickPicture() }
        camera.setOnClickListener { takePicture() }
        options.setOnClickListener { open(OPTIONS) }
        send.setOnClickListener {
            host.hideKeyboard()
            presenter.send()
        }
        stop.setOnClickListener { presenter.stop() }
        dismissError.setOnClickListener { presenter.dismissError() }
        view.findViewById<View>(R.id.ask_remove_picture).setOnClickListener { presenter.removePicture() }
    }

    override fun onState(state: AskState) {
        val idle = state.phase == EnginePhase.IDLE
        model.showText(if (state.restoring) "" else texts.model(state.model, state.engine))
        chooseModel.shown(!state.restoring && state.model == null)
        prompt.show(state.prompt, enabled = !state.restoring)
        show(state.picture)
        pick.isEnabled = !state.restoring
        camera.isEnabled = !state.restoring
        val sees = state.model?.hasVision ?: true
        pick.shown(sees)
        camera.shown(sees && hasCamera)
        send.shown(idle)
        send.isEnabled = state.canSend
        stop.shown(!idle)
        stop.isEnabled = state.phase != EnginePhase.STOPPING
        problem.showOrHide(state.problem)
        error.showOrHide(state.error)
        dismissError.shown(state.error != null)
        phase.showOrHide(texts.phase(state.phase))
        answers.show(listOfNotNull(state.answer), canAsk = idle && state.model != null)
        view.keepScreenOn = !idle
    }

    private fun show(picture: Picture?) {
        pictureRow.shown(picture != null)
        if (picture === previewed) return
        previewed = picture
        preview.setImageBitmap(picture?.bitmap())
    }

    private fun Picture.bitmap(): Bitmap = Bitmap.createBitmap(width, height, Bitmap.Config.ARGB_8888).also {
        it.copyPixelsFromBuffer(ByteBuffer.wrap(rgba))
    }

    private fun pickPicture() {
        val documents = Intent(Intent.ACTION_GET_CONTENT).setType(IMAGES).addCategory(Intent.CATEGORY_OPENABLE)
        if (Build.VERSION.SDK_INT < Build.VERSION_CODES.TIRAMISU) return host.ask(Request.PICK_PICTURE, documents)
        host.ask(Request.PICK_PICTURE, Intent(MediaStore.ACTION_PICK_IMAGES).setType(IMAGES), documents)
    }

    private fun takePicture() {
        val uri = SharedFiles.uri(host, SharedFiles.Shared.CAMERA)
        SharedFiles.file(host, SharedFiles.Shared.CAMERA).delete()
        val intent = Intent(MediaStore.ACTION_IMAGE_CAPTURE)
            .putExtra(MediaStore.EXTRA_OUTPUT, uri)
            .addFlags(Intent.FLAG_GRANT_WRITE_URI_PERMISSION or Intent.FLAG_GRANT_READ_URI_PERMISSION)
        intent.clipData = ClipData.newRawUri(null, uri) // what the grant is for, also where the system does not look at extras
        host.ask(Request.TAKE_PICTURE, intent)
    }

    override fun onResult(request: Request, uri: Uri?) {
        val pictures = PictureLoader(host.applicationContext, host.demo)
        when {
            request == Request.TAKE_PICTURE -> pictures.loadFromCamera()
            uri != null -> pictures.load(uri)
        }
    }

    override fun dialog(key: String, about: String?): Dialog =
        OptionsDialog(host, presenter.state.options, presenter::setOptions).create()

    private companion object {
        const val OPTIONS = "options"
        const val IMAGES = "image/*"
    }
}
