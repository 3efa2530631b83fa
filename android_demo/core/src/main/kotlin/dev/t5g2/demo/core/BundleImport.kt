package dev.t5g2.demo.core

import java.io.ByteArrayOutputStream
import java.io.File
import java.io.IOException
import java.io.InputStream
import java.util.zip.ZipEntry
import java.util.zip.ZipException
import java.util.zip.ZipInputStream

/**
 * Puts a bundle from a .zip into the library: of the folder in which its manifest.json lies, the files that the manifest
 * lists, and nothing else. The bundle takes its name when all are right.
 *
 * @param name of the .zip, for errors.
 * @param zip opens it, up to two times: once to find the manifest, once for the rest.
 */
internal class BundleImport(
    private val name: String,
    private val zip: () -> InputStream,
    private val library: ModelLibrary,
    private val freeSpace: FreeSpace = File::getUsableSpace,
    private val open: FileOpener = openFile,
) {
    private val stopper = Stopper()
    private val buffer = ByteArray(VerifiedFile.BUFFER)

    /** Any thread: ends [run] soon; nothing stays. */
    fun cancel() = stopper.stop()

    /** Returns the new bundle's id. Blocks. Throws [Failure], and [Stopped] after [cancel]; nothing stays then. */
    fun run(onProgress: (Progress) -> Unit): String {
        try {
            val (prefix, bytes) = reading(::findManifest)
                ?: throw Failure("$name holds no ${BundleManifest.FILE}; zip a bundle's folder.")
            val manifest = BundleManifest.parse(bytes, "${BundleManifest.FILE} in $name")
            library.refuseTwice(manifest)
            BundleDownload.spaceProblem(manifest.totalBytes, freeSpace(library.place()))?.let { throw Failure(it) }
            val id = library.newId(manifest)
            return library.claim(id).use { extract(id, manifest, prefix, onProgress) }
        } catch (error: IOException) {
            throw Failure("$name cannot be read (${error.message ?: error.javaClass.simpleName}); make the .zip again.", error)
        }
    }

    private fun extract(id: String, manifest: BundleManifest, prefix: String, onProgress: (Progress) -> Unit): String {
        val folder = library.importOf(id)
        try {
            write(File(folder, BundleManifest.FILE), manifest)
            val found = reading { zip -> extract(zip, manifest, prefix, folder, onProgress) }
            val missing = manifest.files.map { it.name } - found
            if (missing.isNotEmpty()) throw Failure("${missing.joinToString()} is missing in $name; zip the whole bundle.")
            rename(folder, library.folderOf(id))
            return id
        } finally {
            deleteAll(folder)
        }
    }

    private fun write(file: File, manifest: BundleManifest) {
        try {
            writeAtomically(file) { it.write(manifest.bytes) }
        } catch (error: IOException) {
            throw storageFailure(file, error)
        }
    }

    /** The names of the files that were written. */
    private fun extract(
        zip: ZipInputStream,
        manifest: BundleManifest,
        prefix: String,
        folder: File,
        onProgress: (Progress) -> Unit,
    ): Set<String> {
        val wanted = manifest.files.associateBy { prefix + it.name }
        val found = HashSet<String>()
        var done = 0L
        var skipped = 0L
        for (entry in entries(zip)) {
            val file = wanted[entry.name]
            if (file == null) {
                val bearable = pieces(zip) { count ->
                    skipped += count
                    skipped <= MOST_SKIPPED
                }
                if (!bearable) throw Failure("$name holds too much beside a bundle; zip a bundle's folder only.")
                continue
            }
            if (!found.add(file.name)) throw Failure("${file.name} is twice in $name; zip the bundle's folder anew.")
            VerifiedFile(folder, file, open).use { copy ->
                val fits = pieces(zip) { count ->
                    copy.write(buffer, count).also {
                        onProgress(Progress(manifest.title, file.name, done + copy.length, manifest.totalBytes, null))
                    }
                }
                if (!fits || copy.length < file.size) {
                    val length = if (fits) "${copy.length}" else "more"
                    throw wrong("${file.name} has $length bytes where the manifest says ${file.size}")
                }
                if (!copy.isRight()) throw wrong("${file.name} does not have the sha256 of the manifest")
            }
            done += file.size
        }
        return found
    }

    private fun wrong(what: String) = Failure("$what in $name: it was altered or is damaged; zip the bundle's folder anew.")

    /** The manifest's folder, "" or such as "nano-int4/", and its bytes. */
    private fun findManifest(zip: ZipInputStream): Pair<String, ByteArray>? {
        for (entry in entries(zip)) {
            if (entry.name.substringAfterLast('/') != BundleManifest.FILE || entry.name.startsWith(MAC)) {
                pieces(zip) { true } // in pieces, so that it can be cancelled
                continue
            }
            val bytes = ByteArrayOutputStream()
            val fits = pieces(zip) { count ->
                bytes.write(buffer, 0, count)
                bytes.size() <= BundleManifest.MOST_BYTES
            }
            if (!fits) throw Failure("${entry.name} in $name is too large for a manifest.")
            return entry.name.removeSuffix(BundleManifest.FILE) to bytes.toByteArray()
        }
        return null
    }

    /** The entries that are files. */
    private fun entries(zip: ZipInputStream): Sequence<ZipEntry> = generateSequence {
        stopper.check()
        zip.nextEntry
    }.filter { entry ->
        if (entry.name.startsWith("/") || '\\' in entry.name || entry.name.split('/').any { it == ".." }) {
            throw Failure("$name holds '${entry.name}', which leads out of its folder; do not trust it.")
        }
        !entry.isDirectory
    }

    /** Reads the entry into [buffer] piece by piece, until [take] has had enough. Returns whether it took all. */
    private fun pieces(zip: ZipInputStream, take: (count: Int) -> Boolean): Boolean {
        while (true) {
            stopper.check()
            val count = zip.read(buffer)
            if (count < 0) return true
            if (!take(count)) return false
        }
    }

    private fun <T> reading(read: (ZipInputStream) -> T): T = try {
        ZipInputStream(zip()).use(read)
    } catch (error: ZipException) {
        throw Failure("$name is not a .zip that can be read (${error.message}); make it again.", error)
    }

    private companion object {
        const val MAC = "__MACOSX/" // what macOS adds to a .zip
        const val MOST_SKIPPED = 64L shl 20 // of what the manifest does not list, which is inflated to be skipped
    }
}
