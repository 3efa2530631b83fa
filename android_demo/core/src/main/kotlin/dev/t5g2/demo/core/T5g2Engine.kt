package dev.t5g2.demo.core

import dev.t5g2.engine.Engine
import dev.t5g2.engine.Finish
import dev.t5g2.engine.Generation
import dev.t5g2.engine.GenerationOptions
import dev.t5g2.engine.Image
import dev.t5g2.engine.Session
import java.io.File

/** The real engine, behind this module's interfaces. */
object T5g2Engine {
    /** @param cacheFolder where it is remembered which bundles were hashed, so that each is hashed once. */
    fun factory(cacheFolder: File): EngineFactory =
        EngineFactory { bundle -> Opened(Engine.open(bundle, cacheFolder = cacheFolder)) }

    private class Opened(private val engine: Engine) : OpenEngine {
        override val kernels: String = engine.kernels
        override val threads: Int = engine.info.threads

        override fun countTokens(text: String, pictures: Int): Int = engine.sourceIds(text, pictures).size

        override fun encode(text: String, pictures: List<Picture>): SourceSession =
            Encoded(engine.encode(text, pictures.map { Image(it.rgba, it.width, it.height) }))

        override fun load(file: File): SourceSession = Encoded(engine.loadSession(file))

        override fun close() = engine.close()
    }

    private class Encoded(private val session: Session) : SourceSession {
        override val tokenCount: Int get() = session.tokenCount

        override fun save(file: File) = session.save(file)

        override fun answer(options: AnswerOptions): Answer = Writing(
            session.generate(
                GenerationOptions(
                    maxNewTokens = options.maxNewTokens,
                    temperature = options.temperature,
                    topP = options.topP,
                    beams = options.beams,
                    prefix = options.prefix.ifEmpty { null },
                ),
            ),
        )

        override fun close() = session.close()
    }

    private class Writing(private val generation: Generation) : Answer {
        override fun next(): AnswerPiece? = generation.next()?.let { AnswerPiece(it.text, isToken = it.id >= 0) }

        override fun cancel() = generation.cancel()

        override val end: AnswerEnd
            get() = when (generation.result().finish) {
                Finish.LENGTH -> AnswerEnd.LENGTH
                Finish.CANCELLED -> AnswerEnd.STOPPED
                Finish.STOP, Finish.NONE -> AnswerEnd.COMPLETE
            }

        override fun close() = generation.close()
    }
}
