package dev.t5g2.demo.core

import java.io.Closeable
import java.io.File

/** The engine, as this module needs it. `T5g2Engine` is the real one. All calls come from one thread but where it says so. */
fun interface EngineFactory {
    /** Opens the bundle in a folder. Throws an exception whose message is for the user. */
    fun open(bundle: File): OpenEngine
}

/** An opened bundle. */
interface OpenEngine : Closeable {
    /** The CPU kernels in use, such as `neon_dotprod`. */
    val kernels: String

    /** How many CPU threads it uses. */
    val threads: Int

    /** Tokens that a source takes, the blocks of its pictures included. */
    fun countTokens(text: String, pictures: Int): Int

    /** Encodes a source; blocks for as long as that takes and cannot be interrupted. */
    fun encode(text: String, pictures: List<Picture>): SourceSession

    /** Reads what [SourceSession.save] wrote. */
    fun load(file: File): SourceSession
}

/** An encoded source, to be asked any number of times. */
interface SourceSession : Closeable {
    val tokenCount: Int

    /** Writes it to a file, which appears whole or not at all. */
    fun save(file: File)

    fun answer(options: AnswerOptions): Answer
}

/** One answer in the making. */
interface Answer : Closeable {
    /** The next piece, or null when the answer has ended. */
    fun next(): AnswerPiece?

    /** From any thread: the call of [next] under way, or else the next one, returns null. */
    fun cancel()

    /** How it ended, once [next] returned null. */
    val end: AnswerEnd
}

/** @property isToken false: only text that had been held back until the end. */
data class AnswerPiece(val text: String, val isToken: Boolean)

enum class AnswerEnd {
    /** The model ended it. */
    COMPLETE,

    /** The longest answer that was asked for or that the bundle takes. */
    LENGTH,

    /** The user stopped it. */
    STOPPED,

    /** The app was ended while it was being written. */
    INTERRUPTED,

    /** The engine failed while it was being written. */
    FAILED,
}

/** A decoded picture: [rgba] has 4 bytes a pixel, rows from top to bottom. Compared by identity. */
class Picture(val rgba: ByteArray, val width: Int, val height: Int) {
    init {
        require(width > 0 && height > 0 && width.toLong() * height * 4 == rgba.size.toLong()) {
            "${rgba.size} bytes are not a picture of $width x $height pixels with 4 bytes each"
        }
    }
}

/**
 * How an answer is chosen.
 *
 * @property maxNewTokens the longest answer in tokens; 0: all that the bundle takes.
 * @property temperature 0: always the likeliest token; above: sampled, the more freely the higher.
 * @property topP sampled from the likeliest tokens that together reach this probability; 1: from all.
 * @property beams above 1: searches for the likeliest whole answer over that many; not together with a temperature.
 */
data class AnswerOptions(
    val maxNewTokens: Int = 0,
    val temperature: Float = 0f,
    val topP: Float = 1f,
    val beams: Int = 1,
    val prefix: String = "",
)
