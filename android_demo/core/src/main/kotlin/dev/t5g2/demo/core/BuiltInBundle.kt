package dev.t5g2.demo.core

import java.io.File
import java.io.IOException
import java.io.InputStream

/**
 * The bundle that the app brings along: the engine maps files, so it is copied out of the APK once, and again after an update
 * of the app that has another one.
 *
 * @param open opens one of its files by name, such as `manifest.json`; called on a worker thread.
 */
class BuiltInBundle(private val open: (name: String) -> InputStream) {
    /** Copies it where it is not there, whole and the same. Throws [Failure]. */
    internal fun install(library: ModelLibrary) {
        try {
            val manifest = BundleManifest.parse(open(BundleManifest.FILE).use { it.readBytes() }, "the app's own model")
            if (library.bundles().any { it.id == ID && it.seal == manifest.seal && it.damage == null }) return
            library.place()
            library.claim(ID).use { copy(manifest, library) }
        } catch (error: IOException) {
            throw Failure("The app's own model cannot be copied (${error.message}); free some storage and restart.", error)
        }
    }

    private fun copy(manifest: BundleManifest, library: ModelLibrary) {
        val folder = library.importOf(ID)
        try {
            writeAtomically(File(folder, BundleManifest.FILE)) { it.write(manifest.bytes) }
            for (wanted in manifest.files) VerifiedFile(folder, wanted).use { copy(it) }
            library.remove(library.folderOf(ID))
            rename(folder, library.folderOf(ID))
        } finally {
            deleteAll(folder)
        }
    }

    private fun copy(file: VerifiedFile) {
        val buffer = ByteArray(VerifiedFile.BUFFER)
        open(file.wanted.name).use { input ->
            while (true) {
                val count = input.read(buffer)
                if (count < 0) break
                if (!file.write(buffer, count)) throw damaged(file)
            }
        }
        if (file.length != file.wanted.size || !file.isRight()) throw damaged(file)
    }

    private fun damaged(file: VerifiedFile) =
        Failure("The app's own model is damaged (${file.wanted.name}); install the app again.")

    companion object {
        /** The id that it has in the library. */
        const val ID = "nano"
    }
}
