package dev.t5g2.demo.core

import java.nio.file.Files

/**
 * The text that was encoded last: in memory, in a file, or both. Only the engine's thread may change it; [reading], [isKept]
 * and [isOf] are for any.
 */
internal class EncodedDocument(private val store: DocumentStore) {
    private var session: SourceSession? = null

    /** What was encoded; null: nothing, or it is gone. */
    @Volatile
    var reading: KeptReading? = null
        private set

    /** It is in the file. */
    @Volatile
    var isKept = false
        private set

    /** Finds what an earlier life of the app kept. Before anything else, on any thread. */
    fun restore() {
        reading = store.restoreReading()
        isKept = reading != null
    }

    /** Whether it is that source, encoded by that bundle. */
    fun isOf(seal: String, source: String): Boolean = reading?.key?.isOf(seal, source) == true

    /** Takes the place of what was there, which must have been [forgotten][forget]. */
    fun set(fresh: SourceSession, reading: KeptReading) {
        session = fresh
        this.reading = reading
    }

    /** Writes it to the file. Where that fails it stays in memory, and the error is thrown. */
    fun keep() {
        val reading = reading ?: return
        val session = session ?: return
        try {
            Files.createDirectories(store.sessionFile.parentFile.toPath())
            session.save(store.sessionFile)
            store.saveReading(reading)
            isKept = true
        } catch (error: Exception) {
            store.removeSession()
            throw error
        }
    }

    /** The session, loaded by [engine] where it is in the file only. Throws [Failure], and it is forgotten then. */
    fun session(engine: OpenEngine): SourceSession {
        session?.let { return it }
        try {
            return engine.load(store.sessionFile).also { session = it }
        } catch (error: Exception) {
            forget()
            throw Failure("What was read cannot be used again (${error.forUser()}) Read it anew.", error)
        }
    }

    /** Frees its memory. Where it is in no file, it is gone. */
    fun release() {
        session?.close()
        session = null
        if (!isKept) reading = null
    }

    /** Frees its memory and removes its file. */
    fun forget() {
        isKept = false
        release()
        store.removeSession()
    }
}
