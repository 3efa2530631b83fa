package dev.t5g2.demo.core

/** One answer on its way: written on the engine's thread, stopped from any. */
internal class AnswerJob(private val clock: Clock) {
    @Volatile
    private var answer: Answer? = null

    @Volatile
    var isStopped = false
        private set

    fun stop() {
        isStopped = true
        answer?.cancel()
    }

    /**
     * Writes the answer and returns how it ended; [onPiece] is told of it piece by piece.
     *
     * @param start what is known of it beforehand.
     */
    fun write(
        session: SourceSession,
        options: AnswerOptions,
        start: AnswerState,
        onPiece: (AnswerState) -> Unit,
    ): AnswerState {
        var state = start
        var firstToken = 0L
        return session.answer(options).use { answer ->
            this.answer = answer
            if (isStopped) answer.cancel() // it was not there yet when stop() looked for it
            while (true) {
                val piece = answer.next() ?: break
                val now = clock.nanos()
                val tokens = state.tokens + if (piece.isToken) 1 else 0
                if (tokens == 1 && piece.isToken) firstToken = now
                // Beams are searched for by the first call, so there is no rate of single tokens.
                val rate = if (piece.isToken && tokens > 1 && options.beams <= 1 && now > firstToken) {
                    (tokens - 1) / ((now - firstToken) / 1e9)
                } else {
                    state.tokensPerSecond
                }
                state = state.copy(text = state.text + piece.text, tokens = tokens, tokensPerSecond = rate)
                onPiece(state)
            }
            this.answer = null
            state.copy(end = answer.end)
        }
    }
}
