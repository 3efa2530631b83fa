package dev.t5g2.demo.core

/**
 * Where the document stands: its text is [instruction][DocumentState.instruction] and document, one after the other, encoded
 * together by one call.
 */
enum class Reading {
    /** Not encoded, or changed since. */
    NOT_READ,

    /** Being encoded. */
    READING,

    /** Encoded: it can be asked. */
    READ,
}

/**
 * @property instruction what the model is told before the text; read together with it, so changing it means reading again.
 * @property tokens of instruction and text together; null: not counted yet.
 * @property reading whether instruction and text, as they are, have been encoded.
 * @property elapsedSeconds of the encoding under way.
 * @property estimatedSeconds what that will take, from earlier speed with this model; null: nothing was read before.
 * @property readSeconds what encoding took, once it is read.
 * @property kept the encoded text is in a file and survives the end of the app.
 * @property keepProblem why it is not.
 * @property beginning how the answer is to begin: given to the model as the first words of its answer, which it continues.
 * @property answers oldest first; the last one may still be being written. `question` of each is its beginning.
 */
data class DocumentState(
    val restoring: Boolean = true,
    val model: ModelInfo? = null,
    val name: String? = null,
    val instruction: String = "",
    val text: String = "",
    val tokens: Int? = null,
    val reading: Reading = Reading.NOT_READ,
    val phase: EnginePhase = EnginePhase.IDLE,
    val elapsedSeconds: Double? = null,
    val estimatedSeconds: Double? = null,
    val readSeconds: Double? = null,
    val kept: Boolean = false,
    val keepProblem: String? = null,
    val beginning: String = "",
    val options: AnswerOptions = AnswerOptions(),
    val answers: List<AnswerState> = emptyList(),
    val error: String? = null,
) {
    /** Why it cannot be read, where the user should know. */
    val problem: String?
        get() = when {
            model == null -> null
            !model.hasTokenizer -> "${model.title} has no tokenizer: it can be measured, not asked."
            tokens != null && tokens > model.maxSource ->
                "$tokens tokens are ${tokens - model.maxSource} more than ${model.title} takes; shorten the text."
            else -> null
        }

    val canRead: Boolean
        get() = !restoring && model != null && problem == null && phase == EnginePhase.IDLE && reading == Reading.NOT_READ &&
            text.isNotBlank()

    val canAsk: Boolean
        get() = !restoring && model != null && phase == EnginePhase.IDLE && reading == Reading.READ
}
