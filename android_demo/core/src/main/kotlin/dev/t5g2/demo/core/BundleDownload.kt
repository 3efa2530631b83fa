package dev.t5g2.demo.core

import java.io.ByteArrayOutputStream
import java.io.File
import java.io.IOException
import java.net.HttpURLConnection
import java.util.concurrent.Executor

/** Room on the storage that a file is on, in bytes. */
internal typealias FreeSpace = (File) -> Long

/**
 * How far a transfer has come.
 *
 * @property file the one being written; null: between two.
 * @property note null: all is well.
 */
internal class Progress(val title: String, val file: String?, val done: Long, val total: Long, val note: String?)

/**
 * Downloads one bundle into a folder of the library. Each file goes on where an earlier try, or an earlier life of the app,
 * ended; its size and hash are checked while it is written, and the bundle takes its name when all are right.
 *
 * @param executor where it waits for the network: one thread at a time, and for a while another one after a stop.
 */
internal class BundleDownload(
    private val address: BundleAddress,
    private val library: ModelLibrary,
    network: NetworkOptions,
    executor: Executor,
    private val freeSpace: FreeSpace = File::getUsableSpace,
    private val open: FileOpener = openFile,
) {
    private val stopper = Stopper()
    private val http = Http(network, stopper, executor)
    private val retry = Retry(network.retryDelays, stopper)
    private var discard = false

    /** Any thread: ends [run] soon, and keeps what has come. */
    fun pause() = stopper.stop()

    /** Any thread: ends [run] soon, and deletes what has come. */
    fun cancel() {
        synchronized(this) { discard = true }
        stopper.stop()
    }

    /** Fetches and checks the manifest. Blocks. Throws [Failure], and [Stopped] after [pause] or [cancel]. */
    fun manifest(): BundleManifest = retry.run { readManifest() }

    /**
     * Downloads the bundle of [known], or of the manifest that is at the address now, and returns its id. Blocks.
     * [onProgress] is called on this thread. Throws [Failure]; and [Stopped] after [pause] or [cancel].
     */
    fun run(known: BundleManifest? = null, onProgress: (Progress) -> Unit): String {
        val partial = library.partialFrom(address.text)
        if (partial != null) return runAs(partial, { known ?: manifest() }, onProgress)
        val manifest = known ?: manifest()
        library.refuseTwice(manifest)
        return runAs(library.newId(manifest), { manifest }, onProgress)
    }

    private fun runAs(id: String, manifest: () -> BundleManifest, onProgress: (Progress) -> Unit): String =
        library.claim(id).use {
            val part = library.partOf(id)
            try {
                download(part, manifest(), onProgress)
                rename(part, library.folderOf(id))
                DownloadRecord.remove(library.folderOf(id))
                id
            } catch (error: IOException) {
                throw storageFailure(part, error)
            } finally {
                if (synchronized(this) { discard }) deleteAll(part)
            }
        }

    private fun readManifest(): BundleManifest {
        val bytes = http.get(address.manifest()).use { answer ->
            if (answer.code != HttpURLConnection.HTTP_OK) throw Failure("${address.text} comes in parts; check the address.")
            val found = ByteArrayOutputStream()
            val buffer = ByteArray(VerifiedFile.BUFFER)
            while (true) {
                val count = http.read(answer, buffer)
                if (count < 0) break
                found.write(buffer, 0, count)
                if (found.size() > BundleManifest.MOST_BYTES) throw Failure("${address.text} is too large for a manifest.")
            }
            found.toByteArray()
        }
        if (bytes.isNotEmpty() && bytes[0] == '<'.code.toByte()) {
            throw Failure(
                "${address.text} is a web page, not a manifest; give the address of the file itself, on huggingface.co the " +
                    "one with /resolve/ in it.",
            )
        }
        return BundleManifest.parse(bytes, address.text)
    }

    /** Makes the folder, or throws away what in it is of another version of the bundle. */
    private fun prepare(part: File, manifest: BundleManifest) {
        val before = try {
            ModelLibrary.readManifest(part).files
        } catch (_: Failure) {
            emptyList() // a new download
        }
        val wanted = manifest.files.associate { it.name to it.sha256 }
        val same = before.filter { wanted[it.name] == it.sha256 }.map { it.name }
        val record = DownloadRecord.read(part)
        part.listFiles()?.filterNot { it.name in same || it.name == DownloadRecord.FILE }?.forEach(::deleteAll)
        DownloadRecord(address.text, record?.versions.orEmpty().filterKeys { it in same }).write(part)
        writeAtomically(File(part, BundleManifest.FILE)) { it.write(manifest.bytes) }
        checkSpace(part, manifest, freeSpace)
    }

    /** Downloads the bundle's files, one after the other. */
    private fun download(part: File, manifest: BundleManifest, onProgress: (Progress) -> Unit) {
        prepare(part, manifest)
        var before = 0L // bytes of the files that are complete
        for (wanted in manifest.files) {
            VerifiedFile(part, wanted, open).use { file ->
                val tell = { note: String? ->
                    onProgress(Progress(manifest.title, wanted.name, before + file.length, manifest.totalBytes, note))
                }
                FileDownload(address.file(wanted.name), file, version(part, wanted.name), http, retry, stopper, tell).run()
            }
            before += wanted.size
        }
    }

    private fun version(part: File, name: String) = object : FileDownload.Version {
        override var value: String?
            get() = DownloadRecord.read(part)?.versions?.get(name)
            set(value) {
                val others = DownloadRecord.read(part)?.versions.orEmpty() - name
                DownloadRecord(address.text, if (value == null) others else others + (name to value)).write(part)
            }
    }

    companion object {
        /** Left free beside a bundle: a full storage breaks other apps too. */
        private const val RESERVE = 64L shl 20

        /** Throws [Failure] where what is missing of a bundle in [folder] does not fit. */
        fun checkSpace(folder: File, manifest: BundleManifest, freeSpace: FreeSpace) {
            val there = manifest.files.sumOf { minOf(File(folder, it.name).length(), it.size) }
            val problem = spaceProblem(manifest.totalBytes - there, freeSpace(folder)) ?: return
            throw Failure(problem)
        }

        /** Why [bytes] more do not fit, or null. */
        fun spaceProblem(bytes: Long, free: Long): String? {
            if (bytes + RESERVE <= free) return null
            return "${megabytes(bytes)} are to be stored and ${megabytes(free)} are free, and ${megabytes(RESERVE)} are " +
                "to stay free; delete other files or models first."
        }
    }
}
