package dev.t5g2.demo.core

import java.io.File

/**
 * An engine that answers with the words of its source, one token each, and writes down what is asked of it.
 *
 * [onEncode] and [onToken] run inside of its calls, for a test to look or to press a button meanwhile.
 */
class FakeEngine : EngineFactory {
    val calls = mutableListOf<String>()
    var error: Throwable? = null // of the next call
    var onEncode: () -> Unit = {}
    var onToken: (Int) -> Unit = {}
    var open = 0 // engines and sessions that nobody has closed

    override fun open(bundle: File): OpenEngine {
        say("open ${bundle.name}")
        open++
        return Opened()
    }

    private fun say(call: String) {
        calls.add(call)
        error?.let {
            error = null
            throw it
        }
    }

    private inner class Opened : OpenEngine {
        override val kernels = "fake"
        override val threads = 2

        override fun countTokens(text: String, pictures: Int): Int = text.split(' ').size

        override fun encode(text: String, pictures: List<Picture>): SourceSession {
            say("encode $text" + pictures.joinToString("") { " + ${it.width} x ${it.height}" })
            onEncode()
            open++
            return Encoded(text)
        }

        override fun load(file: File): SourceSession {
            say("load")
            open++
            return Encoded(file.readText())
        }

        override fun close() {
            calls.add("close")
            open--
        }
    }

    private inner class Encoded(val text: String) : SourceSession {
        override val tokenCount = text.split(' ').size

        override fun save(file: File) {
            say("save")
            file.writeText(text)
        }

        override fun answer(options: AnswerOptions): Answer {
            say("answer ${options.prefix}".trim())
            return Writing(text.split(' '))
        }

        override fun close() {
            calls.add("close session")
            open--
        }
    }

    private inner class Writing(val words: List<String>) : Answer {
        private var at = 0

        @Volatile
        private var cancelled = false

        override fun next(): AnswerPiece? {
            if (cancelled || at == words.size) return null
            error?.let {
                error = null
                throw it
            }
            onToken(at)
            if (cancelled) return null
            return AnswerPiece((if (at == 0) "" else " ") + words[at++], true)
        }

        override fun cancel() {
            cancelled = true
        }

        override val end get() = if (cancelled) AnswerEnd.STOPPED else AnswerEnd.COMPLETE

        override fun close() = Unit
    }
}
