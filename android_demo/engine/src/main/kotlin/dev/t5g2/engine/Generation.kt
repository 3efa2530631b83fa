package dev.t5g2.engine

/**
 * One target in the making.
 *
 * [next] and [result] wait for each other when several threads call them; [cancel] and [close] never wait and may be called
 * from any thread, also while another is in [next]: that call then returns null as soon as the program that it waits for ends.
 * Memory is freed after that. [next] and [result] throw IllegalStateException once closed.
 */
class Generation internal constructor(private val handle: Handle) : AutoCloseable {
    private val turn = Any()

    /**
     * Makes the next token; null when the target has ended or was cancelled, which [result] tells apart. With beams the first
     * call searches, and the calls give the tokens of the best target.
     *
     * @throws EngineException if it can't go on; each call after that throws it again.
     */
    fun next(): Token? = synchronized(turn) {
        val ids = arrayOfNulls<IntArray>(1)
        val text = arrayOfNulls<ByteArray>(1)
        val logprobs = arrayOfNulls<FloatArray>(1)
        val status = handle.use { Native.check(Native.generationNext(it, ids, text, logprobs)) }
        if (status == Native.OK) Token(ids[0]!!, Native.text(text[0]!!), logprobs[0]!!) else null
    }

    /** The tokens to come, each made when it is asked for. */
    fun tokens(): Sequence<Token> = generateSequence { next() }

    /** The call of [next] in progress, or else the next one, returns null. Does nothing once closed. */
    fun cancel() = handle.useIfOpen(Native::generationCancel)

    /**
     * What was generated so far.
     *
     * @param index 0; with beams also 1 to `beams - 1`, best first, once the search is over.
     * @throws EngineUsageException if there is no such target.
     */
    fun result(index: Int = 0): Result = synchronized(turn) {
        require(index >= 0) { "index: $index; give 0 or more" }
        val text = arrayOfNulls<ByteArray>(1)
        val ids = arrayOfNulls<IntArray>(1)
        val finish = IntArray(1)
        val score = DoubleArray(1)
        handle.use { Native.check(Native.generationResult(it, index, text, ids, finish, score)) }
        Result(Native.text(text[0]!!), ids[0]!!, Finish.entries[finish[0]], score[0])
    }

    /** Cancels what is in progress, and frees the memory once it has ended. */
    override fun close() {
        cancel()
        handle.close()
    }
}

/** One token of a target. */
class Token internal constructor(ids: IntArray, text: String, logprobs: FloatArray) {
    /** -1: no token, only text that had been held back until the end. */
    val id: Int = ids[0]

    /** What this token makes safe to show: often empty, never part of a character or of a stop string. */
    val text: String = text

    /** Natural log of the model's probability, before all options; NaN unless [GenerationOptions.logprobs] asks for it. */
    val logprob: Float = logprobs[0]

    /** The likeliest tokens, likeliest first, as far as they were asked for. */
    val top: List<TopToken> = List(ids.size - 1) { TopToken(ids[it + 1], logprobs[it + 1]) }
}

/** A token that might have been chosen, and the natural log of its probability. */
data class TopToken(val id: Int, val logprob: Float)

/** Why a target ended, if it did: at a stop id or stop string, at maxNewTokens, or by [Generation.cancel]. */
enum class Finish { NONE, STOP, LENGTH, CANCELLED }

/** A target, finished or so far. */
class Result internal constructor(
    /** Without prefix and stop string. */
    val text: String,
    /** Without BOS, prefix and the id that stopped it. */
    val ids: IntArray,
    val finish: Finish,
    /** Of beams: what they are ranked by, the sum of log-probabilities / length^lengthPenalty; else 0. */
    val score: Double,
)
