package dev.t5g2.demo.core

import java.io.ByteArrayOutputStream
import java.io.File
import java.io.FileOutputStream
import java.io.IOException
import java.io.InputStream
import java.io.OutputStream
import java.nio.file.Files
import java.nio.file.StandardCopyOption
import java.util.Locale

/** Writes a file that appears whole or not at all, also when the process is killed meanwhile. Its folder is made. */
internal fun writeAtomically(file: File, write: (OutputStream) -> Unit) {
    Files.createDirectories(file.parentFile.toPath())
    val temporary = File(file.path + ".new")
    try {
        FileOutputStream(temporary).use {
            write(it)
            it.fd.sync()
        }
        rename(temporary, file)
    } finally {
        temporary.delete() // nothing is there once it was renamed
    }
}

internal fun writeAtomically(file: File, text: String) = writeAtomically(file) { it.write(text.toByteArray()) }

/** Renames a file, replacing what is there, or a folder, where nothing may be. One step, whole or not at all. */
internal fun rename(from: File, to: File) {
    Files.move(from.toPath(), to.toPath(), StandardCopyOption.ATOMIC_MOVE)
}

/** Deletes a file or a folder with all in it; links are deleted, not followed. Nothing happens where there is none. */
internal fun deleteAll(file: File) {
    if (!Files.isSymbolicLink(file.toPath())) file.listFiles()?.forEach(::deleteAll)
    Files.deleteIfExists(file.toPath())
}

/** The text of a file, or null where there is none. */
internal fun readTextIfThere(file: File): String? = if (file.isFile) file.readText() else null

/** Such as "1.6 MB" or "956 MB". */
internal fun megabytes(bytes: Long): String {
    val value = bytes / 1e6
    return String.format(Locale.ROOT, if (value < 99.95) "%.1f MB" else "%.0f MB", value)
}

/** A full or broken storage, told apart from a broken connection. */
internal fun storageFailure(file: File, error: IOException) = Failure(
    "${file.name} cannot be written (${error.message ?: error.javaClass.simpleName}); free some storage and try again.",
    error,
)

/** The stream's bytes, but no more than [most]. */
internal fun InputStream.readAtMost(most: Int): ByteArray {
    val found = ByteArrayOutputStream()
    val buffer = ByteArray(1 shl 16)
    while (found.size() < most) {
        val count = read(buffer, 0, minOf(buffer.size, most - found.size()))
        if (count < 0) break
        found.write(buffer, 0, count)
    }
    return found.toByteArray()
}
