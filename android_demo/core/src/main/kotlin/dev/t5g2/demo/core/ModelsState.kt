package dev.t5g2.demo.core

import java.io.File

/**
 * A bundle in the library.
 *
 * @property id its folder's name.
 * @property seal the hash that its manifest has of itself: which bundle it is.
 * @property bytes on disk.
 * @property checkpoint what it was exported from, such as `google/t5gemma-2-270m-270m`.
 * @property memoryBytes what running it takes, with a source of 512 tokens.
 * @property builtIn came with the app: it cannot be deleted.
 * @property damage null: whole. Else what is wrong; it can only be deleted.
 */
data class InstalledBundle(
    val id: String,
    val folder: File,
    val title: String,
    val bytes: Long,
    val seal: String = "",
    val quantization: String = "",
    val checkpoint: String = "",
    val backend: String = "",
    val hasVision: Boolean = false,
    val hasTokenizer: Boolean = false,
    val maxSource: Int = 0,
    val maxTarget: Int = 0,
    val memoryBytes: Long = 0,
    val builtIn: Boolean = false,
    val damage: String? = null,
) {
    val info: ModelInfo get() = ModelInfo(id, title, hasVision, hasTokenizer, maxSource, maxTarget)
}

/** A download that was paused or broke off. [url] of its manifest. [bytesDone] of [bytesTotal] bytes are on the device. */
data class PartialBundle(val id: String, val title: String, val url: String, val bytesDone: Long, val bytesTotal: Long)

/**
 * What was found behind a URL, before it is downloaded.
 *
 * @property bytes to download.
 * @property problems why it cannot be downloaded or used, such as too little memory in the device; then
 *   [ModelsPresenter.download] does nothing.
 * @property warnings what the user should know, and may ignore, such as too little memory being free right now.
 */
data class Offer(
    val url: String,
    val title: String,
    val bytes: Long,
    val quantization: String,
    val checkpoint: String,
    val hasVision: Boolean,
    val maxSource: Int,
    val maxTarget: Int,
    val memoryBytes: Long,
    val problems: List<String>,
    val warnings: List<String>,
)

/**
 * A download, import or copy under way.
 *
 * @property file the one being written.
 * @property bytesPerSecond of the last seconds; null: not known yet.
 * @property note such as "connection lost; trying again in 4 s"; null: all is well.
 * @property stopping paused or cancelled; it ends in a moment.
 */
data class Transfer(
    val kind: Kind,
    val title: String,
    val file: String? = null,
    val bytesDone: Long = 0,
    val bytesTotal: Long? = null,
    val bytesPerSecond: Double? = null,
    val secondsLeft: Long? = null,
    val note: String? = null,
    val stopping: Boolean = false,
) {
    enum class Kind {
        /** Can be paused and cancelled. */
        DOWNLOAD,

        /** Can be cancelled. */
        IMPORT,
    }
}

/**
 * @property loading the library is being read, or the built-in model copied out of the app.
 * @property lookingUp a URL's manifest is being fetched.
 * @property chosen id of the bundle in use; null: none.
 */
data class ModelsState(
    val loading: Boolean = true,
    val bundles: List<InstalledBundle> = emptyList(),
    val partials: List<PartialBundle> = emptyList(),
    val chosen: String? = null,
    val lookingUp: Boolean = false,
    val offer: Offer? = null,
    val transfer: Transfer? = null,
    val error: String? = null,
)
