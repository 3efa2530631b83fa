package dev.t5g2.demo.core

import java.io.File
import org.json.JSONArray
import org.json.JSONObject

/** Which text, of [length] characters, was encoded by which bundle: hashes of both. */
internal class SourceKey(val seal: String, val length: Int, val sha256: String) {
    constructor(seal: String, source: String) : this(seal, source.length, hash(source))

    /** The hash comes last: this is asked at each key that is pressed. */
    fun isOf(seal: String, source: String): Boolean = seal == this.seal && source.length == length && hash(source) == sha256

    private companion object {
        fun hash(text: String): String = sha256().digest(text.toByteArray()).hexadecimal()
    }
}

/** A text that was encoded and is in [DocumentStore.sessionFile]. */
internal class KeptReading(val key: SourceKey, val tokens: Int, val seconds: Double)

/**
 * Keeps what the document screen shows, so that it is there again after the app was ended. [save] and [restore] on one thread
 * at a time, the rest on the engine's.
 */
internal class DocumentStore(private val folder: File) {
    private val stateFile = File(folder, "document.json")
    private val textFile = File(folder, "document.txt")
    private val readingFile = File(folder, "session.json")
    private val speedFile = File(folder, "speed.json")
    private var keptText: String? = null

    /** The encoded text. */
    val sessionFile = File(folder, "session")

    fun save(state: DocumentState) {
        if (state.text !== keptText) { // it can be long, and is not changed by asking
            writeAtomically(textFile, state.text)
            keptText = state.text
        }
        val json = JSONObject()
            .putOrNull("name", state.name)
            .put("instruction", state.instruction)
            .put("beginning", state.beginning)
            .put("options", state.options.toJson())
            .put("answers", JSONArray(state.answers.map { it.toJson() }))
        writeAtomically(stateFile, json.toString())
    }

    /** [state] with what was kept; nothing of it where that cannot be read. */
    fun restore(state: DocumentState): DocumentState = fromOurFile {
        val json = JSONObject(readTextIfThere(stateFile) ?: return@fromOurFile null)
        state.copy(
            name = json.textOrNull("name"),
            instruction = json.text("instruction"),
            beginning = json.text("beginning"),
            options = optionsFrom(json.getJSONObject("options")),
            answers = json.getJSONArray("answers").objects().map(::answerFrom),
            text = readTextIfThere(textFile).orEmpty().also { keptText = it },
        )
    } ?: state

    /** Remembers what [sessionFile] holds. */
    fun saveReading(kept: KeptReading) {
        val json = JSONObject()
            .put("seal", kept.key.seal)
            .put("length", kept.key.length)
            .put("sha256", kept.key.sha256)
            .put("tokens", kept.tokens)
            .put("seconds", kept.seconds)
        writeAtomically(readingFile, json.toString())
    }

    /** What [sessionFile] holds, or null. */
    fun restoreReading(): KeptReading? = fromOurFile {
        if (!sessionFile.isFile) return@fromOurFile null
        val json = JSONObject(readTextIfThere(readingFile) ?: return@fromOurFile null)
        val key = SourceKey(json.text("seal"), json.whole("length").toInt(), json.text("sha256"))
        KeptReading(key, json.whole("tokens").toInt(), json.number("seconds"))
    }

    /** Forgets the encoded text. In this order, so that no description is left that belongs to another text. */
    fun removeSession() {
        readingFile.delete()
        sessionFile.delete()
    }

    /** Tokens a second at which that bundle encoded last; null: it never did. */
    fun speed(seal: String): Double? = fromOurFile { readTextIfThere(speedFile)?.let(::JSONObject)?.numberOrNull(seal) }

    fun saveSpeed(seal: String, tokensPerSecond: Double) {
        val all = fromOurFile { readTextIfThere(speedFile)?.let(::JSONObject) } ?: JSONObject()
        writeAtomically(speedFile, all.put(seal, tokensPerSecond).toString())
    }
}
