package dev.t5g2.demo.core

import java.io.DataInputStream
import java.io.DataOutputStream
import java.io.File
import org.json.JSONObject

/** Keeps what the ask screen shows, so that it is there again after the app was ended. One thread at a time. */
internal class AskStore(private val folder: File) {
    private val stateFile = File(folder, "ask.json")
    private val pictureFile = File(folder, "picture")
    private var kept: Picture? = null

    fun save(state: AskState) {
        savePicture(state.picture)
        val json = JSONObject()
            .put("prompt", state.prompt)
            .put("options", state.options.toJson())
            .putOrNull("answer", state.answer?.toJson())
        writeAtomically(stateFile, json.toString())
    }

    /** [state] with what was kept; nothing of it where that cannot be read. */
    fun restore(state: AskState): AskState = fromOurFile {
        val json = JSONObject(readTextIfThere(stateFile) ?: return@fromOurFile null)
        state.copy(
            prompt = json.text("prompt"),
            options = optionsFrom(json.getJSONObject("options")),
            answer = json.objectOrNull("answer")?.let(::answerFrom),
            picture = readPicture(),
        )
    } ?: state

    private fun savePicture(picture: Picture?) {
        if (picture === kept) return
        if (picture == null) {
            pictureFile.delete()
        } else {
            writeAtomically(pictureFile) { stream ->
                val data = DataOutputStream(stream)
                data.writeInt(picture.width)
                data.writeInt(picture.height)
                data.write(picture.rgba)
                data.flush()
            }
        }
        kept = picture
    }

    private fun readPicture(): Picture? {
        if (!pictureFile.isFile) return null
        DataInputStream(pictureFile.inputStream().buffered()).use { data ->
            val width = data.readInt()
            val height = data.readInt()
            val bytes = pictureFile.length() - 2 * Int.SIZE_BYTES
            if (width <= 0 || height <= 0 || width.toLong() * height * 4 != bytes) return null
            val rgba = ByteArray(bytes.toInt())
            data.readFully(rgba)
            return Picture(rgba, width, height).also { kept = it }
        }
    }
}
