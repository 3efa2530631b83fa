package dev.t5g2.demo.core

import java.security.MessageDigest
import java.util.Locale
import kotlin.math.min
import org.json.JSONException
import org.json.JSONObject

/** A file of a bundle: [size] in bytes, [sha256] in lower-case hexadecimal. */
class BundleFile(val name: String, val size: Long, val sha256: String)

/** What a bundle's manifest.json says, as far as the app needs it; the engine checks the rest when it opens the bundle. */
class BundleManifest private constructor(val bytes: ByteArray, json: JSONObject) {
    /** The hash that the manifest has of itself: which bundle it is. */
    val seal: String = json.text("manifest_sha256")
    val files: List<BundleFile> = readFiles(json.getJSONObject("files"))
    val name: String = json.getJSONObject("model").text("name")
    val quantization: String = json.getJSONObject("quantization").getJSONObject("text").text("name")
    val backend: String = json.text("backend")
    val maxSource: Int = json.getJSONObject("limits").whole("max_source", 1..MOST_TOKENS)
    val maxTarget: Int = json.getJSONObject("limits").whole("max_target", 1..MOST_TOKENS)
    val hasVision: Boolean = has("vision.pte")
    val hasTokenizer: Boolean = has("tokenizer.bin")
    val totalBytes: Long = files.sumOf { it.size }

    /** What it was exported from. */
    val checkpoint: String = json.getJSONObject("provenance").let {
        when {
            it.has("hub_id") -> it.text("hub_id")
            it.has("folder") -> it.text("folder")
            it.has("shipped") -> it.text("shipped")
            it.has("random_weights") -> "random weights"
            else -> "unknown"
        }
    }

    val title: String get() = "$name $quantization"

    private val maxRows = json.getJSONObject("limits").whole("max_rows", 1..MOST_TOKENS)
    private val selfCacheBytes = json.getJSONObject("memory").whole("self_cache_bytes")
    private val crossBytesPerToken = json.getJSONObject("memory").whole("cross_kv_bytes_per_source_token")
    private val planned = json.getJSONObject("memory").getJSONObject("planned_bytes").let { bytes ->
        bytes.keyList().associateWith { bytes.whole(it) }
    }

    /**
     * Bytes of memory that a source of that many tokens takes: weights, which are used where the file is mapped, caches, and
     * the part of the planned work space that such a source touches.
     */
    fun memoryBytes(source: Int): Long {
        val tokens = min(source, maxSource)
        val weights = files.filter { it.name.endsWith(".pte") }.sumOf { it.size }
        val copies = if (backend == "native") 1 else 2 // XNNPACK packs its own copy
        val encoder = (planned["encoder"] ?: 0).toDouble() * tokens / maxSource
        val space = encoder.toLong() + (planned["decoder_step"] ?: 0) / maxRows + (planned["vision"] ?: 0)
        return weights * copies + selfCacheBytes + crossBytesPerToken * tokens + space
    }

    private fun has(file: String) = files.any { it.name == file }

    companion object {
        const val FILE = "manifest.json"
        const val FORMAT_VERSION = 3L
        const val MOST_BYTES = 16 shl 20

        private const val MOST_TOKENS = 1 shl 24
        private const val MOST_FILES = 64
        private const val MOST_FILE_BYTES = 1L shl 40
        private const val SEAL_LENGTH = 64
        private val NAME = Regex("[A-Za-z0-9_-][A-Za-z0-9._-]{0,127}")
        private val SHA256 = Regex("[0-9a-f]{64}")

        /** Reads a manifest. [where] it came from, for errors. Throws [Failure]. */
        fun parse(bytes: ByteArray, where: String): BundleManifest {
            val json = try {
                JSONObject(bytes.toString(Charsets.UTF_8)).takeIf { it.optString("format") == "t5g2-bundle" }
            } catch (_: JSONException) {
                null
            } ?: throw Failure("$where is not the manifest of a bundle; give the $FILE that t5g2-export made.")
            checkVersion(json, where)
            if (!isSealed(bytes, json.optString("manifest_sha256"))) {
                throw Failure("$where does not match its own hash: it was altered; export the bundle again.")
            }
            return try {
                BundleManifest(bytes, json)
            } catch (error: JSONException) {
                throw damaged(where, error)
            } catch (error: IllegalArgumentException) {
                throw damaged(where, error)
            }
        }

        private fun damaged(where: String, error: Exception) =
            Failure("$where is a damaged manifest (${error.message}); export the bundle again.", error)

        private fun checkVersion(json: JSONObject, where: String) {
            val version = json.opt("format_version")
            val number = (version as? Int)?.toLong() ?: version as? Long
            if (number == FORMAT_VERSION) return
            val remedy = if (number == null || number > FORMAT_VERSION) "update the app, or export" else "export"
            throw Failure("$where has bundle format $version, and this app reads $FORMAT_VERSION; $remedy the bundle again.")
        }

        /** Whether the manifest's hash is that of its bytes with zeros in the hash's place. */
        private fun isSealed(bytes: ByteArray, seal: String): Boolean {
            if (!SHA256.matches(seal)) return false
            val text = bytes.toString(Charsets.ISO_8859_1).replace(seal, "0".repeat(SEAL_LENGTH))
            return sha256().digest(text.toByteArray(Charsets.ISO_8859_1)).hexadecimal() == seal
        }

        private fun readFiles(json: JSONObject): List<BundleFile> {
            val files = json.keyList().map { name ->
                require(NAME.matches(name) && name != FILE) { "'$name' cannot be the name of a bundle's file" }
                val file = json.getJSONObject(name)
                val size = file.whole("size")
                require(size in 0..MOST_FILE_BYTES) { "$name is said to have $size bytes" }
                val sha256 = file.optString("sha256")
                require(SHA256.matches(sha256)) { "$name has no sha256" }
                BundleFile(name, size, sha256)
            }.sortedBy { it.name }
            require(files.size <= MOST_FILES) { "it lists ${files.size} files" }
            require(files.distinctBy { it.name.lowercase(Locale.ROOT) }.size == files.size) { "a file is listed twice" }
            require(files.any { it.name == "text.pte" }) { "text.pte is missing" }
            return files
        }
    }
}

internal fun sha256(): MessageDigest = MessageDigest.getInstance("SHA-256")

internal fun ByteArray.hexadecimal(): String = joinToString("") { String.format(Locale.ROOT, "%02x", it) }
