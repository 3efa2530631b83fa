package dev.t5g2.demo.core

import java.io.File
import java.io.IOException
import java.util.Locale
import org.json.JSONObject

/**
 * The bundles on the device: a folder with one folder for each. Beside them lie unfinished downloads (`<id>.part`), which go
 * on later, and unfinished imports (`<id>.import`) and deletions (`<id>.deleted`), which [cleanUp] removes.
 *
 * Any thread; calls read or write files.
 */
class ModelLibrary(private val folder: File) {
    private val inUse = HashSet<String>()

    /** Id of the bundle in use, remembered in a file; null: none was chosen. */
    var chosen: String?
        @Synchronized get() = readTextIfThere(chosenFile)?.takeIf { it.isNotEmpty() }
        @Synchronized set(id) = writeAtomically(chosenFile, id.orEmpty())

    /** Every bundle, damaged ones too, by title. */
    fun bundles(): List<InstalledBundle> = folders().filter { isId(it.name) }.map(::describe).sortedBy { it.title }

    /** Every download that can go on, by title. */
    fun partials(): List<PartialBundle> = folders().filter { it.name.endsWith(PART) }.mapNotNull { part ->
        val record = DownloadRecord.read(part) ?: return@mapNotNull null
        val manifest = try {
            readManifest(part)
        } catch (_: Failure) {
            return@mapNotNull null
        }
        val done = manifest.files.sumOf { minOf(File(part, it.name).length(), it.size) }
        PartialBundle(part.name.removeSuffix(PART), manifest.title, record.url, done, manifest.totalBytes)
    }.sortedBy { it.title }

    /** Removes what a kill left half done and nobody can go on with. Call before anything else, once. */
    fun cleanUp() {
        val resumable = partials().map { partOf(it.id).name }
        for (file in folders()) {
            val useless = file.name.endsWith(DELETED) || file.name.endsWith(IMPORT) ||
                file.name.endsWith(PART) && file.name !in resumable
            if (useless) deleteAll(file) else if (isId(file.name)) DownloadRecord.remove(file)
        }
    }

    /** Deletes a bundle. Renamed first, so that a kill leaves no half of one. */
    fun delete(id: String) = claim(id).use { remove(folderOf(id)) }

    /** Deletes an unfinished download. */
    fun discard(id: String) = claim(id).use { remove(partOf(id)) }

    /** As [delete], for who has claimed it. */
    internal fun remove(target: File) {
        if (!target.exists()) return
        val deleted = File(folder, target.name.removeSuffix(PART) + DELETED)
        try {
            deleteAll(deleted) // of an earlier kill
            rename(target, deleted)
            deleteAll(deleted)
        } catch (error: IOException) {
            throw Failure("${target.name} cannot be deleted (${error.message}); start the app anew and try again.", error)
        }
    }

    fun folderOf(id: String) = File(folder, id)

    internal fun partOf(id: String) = File(folder, id + PART)

    internal fun importOf(id: String) = File(folder, id + IMPORT)

    /** The folder that everything is in, which is made. */
    internal fun place(): File = folder.apply { mkdirs() }

    /** Throws [Failure] where this very bundle is there already, whole. */
    internal fun refuseTwice(manifest: BundleManifest) {
        val there = bundles().firstOrNull { it.seal == manifest.seal && it.damage == null } ?: return
        throw Failure("${there.title} is already on the device.")
    }

    /** An id for a new bundle, of its name, that neither a bundle nor a download has. */
    internal fun newId(manifest: BundleManifest): String {
        val name = "${manifest.name}-${manifest.quantization}".lowercase(Locale.ROOT)
        val safe = name.replace(Regex("[^a-z0-9]+"), "-").trim('-').take(LONGEST_ID).ifEmpty { "bundle" }
        return sequenceOf(safe).plus(generateSequence(2) { it + 1 }.map { "$safe-$it" })
            .first { !folderOf(it).exists() && !partOf(it).exists() && !importOf(it).exists() }
    }

    /** The unfinished download from that URL of a manifest, or null. */
    internal fun partialFrom(url: String): String? = partials().firstOrNull { it.url == url }?.id

    /** Keeps others from writing a bundle until the claim is closed. Throws [Failure] where somebody has. */
    @Synchronized
    internal fun claim(id: String): AutoCloseable {
        if (!inUse.add(id)) throw Failure("$id is being written already; wait until that has ended.")
        return AutoCloseable { release(id) }
    }

    @Synchronized
    private fun release(id: String) {
        inUse.remove(id)
    }

    private val chosenFile get() = File(folder, "chosen")

    private fun folders(): List<File> = folder.listFiles { file -> file.isDirectory }?.toList().orEmpty()

    private fun isId(name: String) = !name.endsWith(PART) && !name.endsWith(IMPORT) && !name.endsWith(DELETED)

    private fun describe(bundle: File): InstalledBundle {
        val bytes = bundle.listFiles()?.sumOf { it.length() } ?: 0
        val manifest = try {
            readManifest(bundle)
        } catch (failure: Failure) {
            return InstalledBundle(bundle.name, bundle, bundle.name, bytes, damage = failure.message)
        }
        return InstalledBundle(
            id = bundle.name,
            folder = bundle,
            title = manifest.title,
            bytes = bytes,
            seal = manifest.seal,
            quantization = manifest.quantization,
            checkpoint = manifest.checkpoint,
            backend = manifest.backend,
            hasVision = manifest.hasVision,
            hasTokenizer = manifest.hasTokenizer,
            maxSource = manifest.maxSource,
            maxTarget = manifest.maxTarget,
            memoryBytes = manifest.memoryBytes(TYPICAL_SOURCE),
            builtIn = bundle.name == BuiltInBundle.ID,
            damage = damage(bundle, manifest),
        )
    }

    /** What is wrong with a bundle's files, as far as their sizes tell; the engine checks their hashes when it opens them. */
    private fun damage(bundle: File, manifest: BundleManifest): String? {
        for (wanted in manifest.files) {
            val file = File(bundle, wanted.name)
            if (!file.isFile) return "${wanted.name} is missing; delete the model and download it again."
            if (file.length() != wanted.size) {
                return "${wanted.name} has ${file.length()} bytes where ${wanted.size} are expected; delete the model and " +
                    "download it again."
            }
        }
        return null
    }

    companion object {
        /** The source length in tokens that a bundle's memory is given for. */
        const val TYPICAL_SOURCE = 512

        private const val PART = ".part"
        private const val IMPORT = ".import"
        private const val DELETED = ".deleted"
        private const val LONGEST_ID = 80

        internal fun readManifest(bundle: File): BundleManifest {
            val file = File(bundle, BundleManifest.FILE)
            if (!file.isFile) throw Failure("${BundleManifest.FILE} is missing; delete the model and download it again.")
            if (file.length() > BundleManifest.MOST_BYTES) throw Failure("${file.name} is too large; delete the model.")
            return try {
                BundleManifest.parse(file.readBytes(), file.name)
            } catch (error: IOException) {
                throw Failure("${file.name} cannot be read (${error.message}); delete the model.", error)
            }
        }
    }
}

/** What an unfinished download has to remember: where from, and which version of each file its bytes are of. */
internal class DownloadRecord(val url: String, val versions: Map<String, String>) {
    fun write(part: File) {
        val json = JSONObject().put("url", url).put("versions", JSONObject(versions))
        writeAtomically(File(part, FILE), json.toString())
    }

    companion object {
        const val FILE = ".download.json" // no bundle's file begins with a point

        fun read(part: File): DownloadRecord? = fromOurFile {
            readTextIfThere(File(part, FILE))?.let(::JSONObject)?.let { json ->
                val versions = json.getJSONObject("versions")
                DownloadRecord(json.text("url"), versions.keyList().associateWith { versions.text(it) })
            }
        }

        fun remove(bundle: File) {
            File(bundle, FILE).delete()
        }
    }
}
