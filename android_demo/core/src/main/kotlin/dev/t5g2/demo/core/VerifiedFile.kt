package dev.t5g2.demo.core

import java.io.Closeable
import java.io.File
import java.io.FileOutputStream
import java.io.IOException
import java.io.OutputStream

/** Opens a file to be written, at its end or from its beginning. */
internal typealias FileOpener = (file: File, append: Boolean) -> OutputStream

internal val openFile: FileOpener = { file, append -> FileOutputStream(file, append) }

/** A bundle's file in the making: hashes what it writes, and writes no more than the manifest says. One thread at a time. */
internal class VerifiedFile(folder: File, val wanted: BundleFile, private val open: FileOpener = openFile) : Closeable {
    private val file = File(folder, wanted.name)
    private var digest = sha256()
    private var stream: OutputStream? = null

    /** Bytes written, those of earlier tries included. */
    var length = 0L
        private set

    /** Goes on after the bytes that are there, which are read for their hash. [onRead] is told of each piece and may throw. */
    fun resume(onRead: (length: Long) -> Unit) {
        restart()
        if (!file.isFile) return
        if (file.length() > wanted.size) {
            discard()
            return
        }
        val buffer = ByteArray(BUFFER)
        file.inputStream().use { input ->
            while (true) {
                val count = input.read(buffer)
                if (count < 0) break
                digest.update(buffer, 0, count)
                length += count
                onRead(length)
            }
        }
    }

    /** Begins from zero; what is on disk goes when the first byte is written. */
    fun restart() {
        close()
        digest = sha256()
        length = 0
    }

    /** False, and nothing is written, where this would make the file longer than the manifest says. */
    fun write(bytes: ByteArray, count: Int): Boolean {
        if (length + count > wanted.size) return false
        try {
            val stream = stream ?: open(file, length > 0).also { stream = it }
            stream.write(bytes, 0, count)
        } catch (error: IOException) {
            closeQuietly() // it may hold bytes that were counted by nobody: the next resume reads what is on disk
            throw storageFailure(file, error)
        }
        digest.update(bytes, 0, count)
        length += count
        return true
    }

    /** Whether the file, of the manifest's length, has the manifest's hash; it is on disk then. Ends it. */
    fun isRight(): Boolean {
        check(length == wanted.size)
        try {
            // An empty file has not been opened by any write.
            val stream = stream ?: open(file, length > 0).also { stream = it }
            stream.flush()
            (stream as? FileOutputStream)?.fd?.sync()
        } catch (error: IOException) {
            throw storageFailure(file, error)
        } finally {
            closeQuietly()
        }
        return digest.digest().hexadecimal() == wanted.sha256
    }

    /** Removes it, to begin from zero. */
    fun discard() {
        restart()
        file.delete()
    }

    /** What was written so far stays. */
    override fun close() {
        try {
            stream?.close()
        } catch (error: IOException) {
            throw storageFailure(file, error)
        } finally {
            stream = null
        }
    }

    private fun closeQuietly() {
        try {
            stream?.close()
        } catch (_: IOException) {
            // The error that led here says more.
        }
        stream = null
    }

    companion object {
        const val BUFFER = 1 shl 16
    }
}
