package dev.t5g2.engine

/**
 * How a target is made. The order in which options act: repetition penalty, no repeated n-grams, minNewTokens, suppressed ids,
 * temperature, topK, topP, minP.
 */
data class GenerationOptions(
    /** 0: all that the bundle's maxTarget leaves; never more. */
    val maxNewTokens: Int = 0,
    /** No stop id before that many. */
    val minNewTokens: Int = 0,
    /** 0: greedy, the likeliest token. */
    val temperature: Float = 0f,
    /** Sample from the k likeliest; 0: all. */
    val topK: Int = 0,
    /** Of those, from the likeliest that together reach probability p; 1: all. */
    val topP: Float = 1f,
    /** Of those, from the ones at least minP times as likely as the likeliest; 0: all. */
    val minP: Float = 0f,
    /** Above 1 makes tokens that the target already holds less likely, below 1 more; 1: off. */
    val repetitionPenalty: Float = 1f,
    /** No run of that many tokens twice in a target; 0: off. */
    val noRepeatNgram: Int = 0,
    /** 0 or more: the same seed gives the same tokens; -1: a new one each time. */
    val seed: Long = -1,
    /** Above 1: beam search over that many, at most 64, greedy only and without stop strings; 1: off. */
    val beams: Int = 1,
    /** Of beams: log-probability is divided by length to this power; -10 to 10. */
    val lengthPenalty: Float = 1f,
    /** Of beams: stop when as many targets ended; else when none can become better. */
    val earlyStopping: Boolean = false,
    /** The target begins with this, which is not part of the result. */
    val prefix: String? = null,
    /** [prefix] as ids, instead of it. */
    val prefixIds: List<Int> = emptyList(),
    /** End the target beside the bundle's own stop ids. */
    val stopIds: List<Int> = emptyList(),
    /** The text ends before the first of them. */
    val stopStrings: List<String> = emptyList(),
    /** Never chosen. */
    val suppressedIds: List<Int> = emptyList(),
    /** Never choose the vocabulary's unused and image tokens either. */
    val suppressUnused: Boolean = true,
    /** Log-probabilities in each [Token]; -1: none; 0: of the chosen token; n: of the n likeliest too, at most 100. */
    val logprobs: Int = -1,
) {
    internal fun start(session: Long, generation: LongArray): Int = Native.generationStart(
        session,
        maxNewTokens,
        minNewTokens,
        temperature,
        topK,
        topP,
        minP,
        repetitionPenalty,
        noRepeatNgram,
        seed,
        beams,
        lengthPenalty,
        earlyStopping,
        prefix?.takeIf { it.isNotEmpty() }?.let(Native::bytes),
        prefixIds.toIntArray(),
        stopIds.toIntArray(),
        Array(stopStrings.size) { Native.wholeBytes("stopStrings", stopStrings[it]) },
        suppressedIds.toIntArray(),
        suppressUnused,
        logprobs,
        generation,
    )
}
