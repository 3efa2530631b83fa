package dev.t5g2.engine

import java.io.File

/**
 * An encoded source: ask it any number of targets, also from several threads at a time.
 *
 * Stays usable after its engine is closed. [close] frees its memory once no call is in it and its generations are closed too;
 * functions called after that throw IllegalStateException.
 */
class Session internal constructor(private val handle: Handle) : AutoCloseable {
    /** The ids that were encoded, BOS included. */
    val ids: IntArray = handle.use { session ->
        val ids = arrayOfNulls<IntArray>(1)
        Native.check(Native.sessionIds(session, ids))
        ids[0]!!
    }

    val tokenCount: Int get() = ids.size

    /**
     * Writes the encoded source to a file, which appears whole or not at all, for [Engine.loadSession].
     *
     * @throws EngineException
     */
    fun save(file: File) {
        handle.use { Native.check(Native.sessionSave(it, Engine.pathOf(file))) }
    }

    /**
     * Begins a target.
     *
     * @throws EngineUsageException naming the option that is wrong.
     */
    fun generate(options: GenerationOptions = GenerationOptions()): Generation =
        Generation(handle.use { session -> Native.new("generation", Native::generationFree) { options.start(session, it) } })

    /**
     * The natural log of the model's probability of each of the given target ids after BOS and those before it. The sum scores
     * a target against others; append [EngineInfo.eosId] to score it as a whole answer.
     *
     * @throws EngineException
     */
    fun score(targetIds: IntArray): FloatArray {
        val logprobs = FloatArray(targetIds.size)
        handle.use { Native.check(Native.sessionScore(it, targetIds, logprobs)) }
        return logprobs
    }

    override fun close() = handle.close()
}
