package dev.t5g2.engine

/** What an opened bundle can do, and what opening it took. */
data class EngineInfo(
    /** The longest source in tokens, BOS and image tokens included. */
    val maxSource: Int,
    /** The longest target in tokens, BOS included. */
    val maxTarget: Int,
    val vocabSize: Int,
    /** Width of the encoder states. */
    val hiddenSize: Int,
    /** False: only ids can be given, as with random weights. */
    val hasTokenizer: Boolean,
    /** False: no pictures. */
    val hasVision: Boolean,
    /** Pictures become `imageSide` x `imageSide` pixels; 0 without vision. */
    val imageSide: Int,
    /** Source tokens that stand for one picture, without the text around them. */
    val imageTokens: Int,
    val bosId: Int,
    /** The first of the bundle's stop ids. */
    val eosId: Int,
    /** Threads of the process's one pool, on which all engines compute. */
    val threads: Int,
    /** Seconds that reading the manifest and checking hashes took. */
    val readSeconds: Double,
    /** Seconds that loading the programs and the tokenizer took. */
    val loadSeconds: Double,
)
