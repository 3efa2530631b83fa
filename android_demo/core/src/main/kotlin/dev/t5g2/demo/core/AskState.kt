package dev.t5g2.demo.core

/** What an engine is doing for a screen. */
enum class EnginePhase {
    IDLE,

    /** Another screen's answer is being written first. */
    WAITING,

    /** The bundle is being opened; its files are hashed when it is opened for the first time. */
    OPENING,

    /** The source, and its picture, are being read. */
    ENCODING,

    /** The answer is being written. */
    GENERATING,

    /** Stopped by the user; the call that is under way has to end first. */
    STOPPING,
}

/**
 * An answer, whole or as far as it has come.
 *
 * @property question what was asked.
 * @property end null: it is still being written.
 * @property tokensPerSecond from the first token to the last; null for fewer than two tokens and for beams.
 * @property encodeSeconds what reading the source took; null where that was done before.
 */
data class AnswerState(
    val question: String,
    val text: String = "",
    val end: AnswerEnd? = null,
    val tokens: Int = 0,
    val tokensPerSecond: Double? = null,
    val encodeSeconds: Double? = null,
)

/**
 * @property restoring what was saved is still being read: show nothing that could be edited yet.
 * @property model the chosen model; null: none, send the user to the models.
 * @property answer null: nothing was asked yet. `answer.end == INTERRUPTED`: offer to ask again.
 * @property canSend whether [AskPresenter.send] would do something.
 * @property problem why it would not, where the user should know, such as a picture for a model without vision.
 * @property engine what runs, such as "neon_dotprod, 4 threads"; null while no bundle is open.
 */
data class AskState(
    val restoring: Boolean = true,
    val model: ModelInfo? = null,
    val prompt: String = "",
    val picture: Picture? = null,
    val options: AnswerOptions = AnswerOptions(),
    val phase: EnginePhase = EnginePhase.IDLE,
    val answer: AnswerState? = null,
    val error: String? = null,
    val engine: String? = null,
) {
    val problem: String?
        get() = when {
            model == null -> null
            picture != null && !model.hasVision -> "${model.title} cannot see pictures; remove it or choose another model."
            !model.hasTokenizer -> "${model.title} has no tokenizer: it can be measured, not asked."
            else -> null
        }

    val canSend: Boolean
        get() = !restoring && model != null && problem == null && phase == EnginePhase.IDLE &&
            (prompt.isNotBlank() || picture != null)
}

/** What screens show of the chosen model. Lengths in tokens. */
data class ModelInfo(
    val id: String,
    val title: String,
    val hasVision: Boolean,
    val hasTokenizer: Boolean,
    val maxSource: Int,
    val maxTarget: Int,
)
