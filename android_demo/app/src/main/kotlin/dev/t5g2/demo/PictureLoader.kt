package dev.t5g2.demo

import android.content.Context
import android.net.Uri
import android.widget.Toast
import java.io.IOException

/** Brings a picture that the user chose or took to the question, off the main thread; says so where it cannot be read. */
class PictureLoader(private val context: Context, private val demo: Demo) {

    fun load(uri: Uri) = load(uri, whenDone = {})

    /** The picture that the camera wrote; its file is not kept. */
    fun loadFromCamera() = load(SharedFiles.uri(context, SharedFiles.Shared.CAMERA)) {
        SharedFiles.file(context, SharedFiles.Shared.CAMERA).delete()
    }

    private fun load(uri: Uri, whenDone: () -> Unit) = demo.threads.work.execute {
        try {
            demo.ask.setPicture(PictureDecoder(context.contentResolver).decode(uri))
        } catch (_: IOException) {
            tell(R.string.picture_unreadable)
        } catch (_: SecurityException) {
            tell(R.string.picture_unreadable)
        } catch (_: OutOfMemoryError) {
            tell(R.string.picture_too_large)
        } finally {
            whenDone()
        }
    }

    private fun tell(text: Int) = demo.threads.main.execute { Toast.makeText(context, text, Toast.LENGTH_LONG).show() }
}
