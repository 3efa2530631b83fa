package dev.t5g2.engine

import java.io.File
import java.net.URLDecoder
import java.util.Properties
import org.junit.Assume.assumeTrue

/**
 * What the tests are about, in a folder that tests/test_android_engine.py makes; the system property t5g2.fixtures names it:
 * `bundle` (nano's, also under a name of all kinds of characters), `altered` (one that is not right), `records.txt` (a long
 * source), `number.rgba` with its size in `number.properties`, and `answers.txt`, what t5g2-run answers.
 */
object Fixtures {
    val folder: File by lazy {
        val name = System.getProperty("t5g2.fixtures")
        assumeTrue("run by tests/test_android_engine.py, which sets t5g2.fixtures", name != null)
        File(name)
    }

    /** Opened once for all tests, and never closed. */
    val engine: Engine by lazy { open() }

    val records: String by lazy { folder.resolve("records.txt").readText() }

    fun open(bundle: String = "bundle"): Engine =
        Engine.open(folder.resolve(bundle), threads = 2, cacheFolder = folder.resolve("cache"))

    fun picture(): Image = Image(folder.resolve("number.rgba").readBytes(), size("width"), size("height"))

    private fun size(name: String): Int {
        val properties = Properties()
        folder.resolve("number.properties").inputStream().use(properties::load)
        return properties.getProperty(name).toInt()
    }

    /** A prompt, the options it was asked with, and the command line's answer. */
    class Case(val prompt: String, val picture: Boolean, val options: GenerationOptions, val answer: String)

    fun answers(): List<Case> = folder.resolve("answers.txt").readLines().map { line ->
        val fields = line.split("&").associate {
            val (name, value) = it.split("=")
            name to URLDecoder.decode(value, "UTF-8")
        }
        val options = GenerationOptions(
            maxNewTokens = fields["max_new_tokens"]?.toInt() ?: 0,
            temperature = fields["temperature"]?.toFloat() ?: 0f,
            topK = fields["top_k"]?.toInt() ?: 0,
            topP = fields["top_p"]?.toFloat() ?: 1f,
            repetitionPenalty = fields["repetition_penalty"]?.toFloat() ?: 1f,
            seed = fields["seed"]?.toLong() ?: -1,
            beams = fields["beams"]?.toInt() ?: 1,
            prefix = fields["prefix"],
            stopStrings = listOfNotNull(fields["stop"]),
        )
        Case(fields.getValue("prompt"), "image" in fields, options, fields.getValue("answer"))
    }
}

/** The answer to a text. */
fun Engine.ask(text: String, images: List<Image> = emptyList(), options: GenerationOptions = GenerationOptions()): String =
    encode(text, images).use { it.answer(options) }

fun Session.answer(options: GenerationOptions = GenerationOptions()): String = generate(options).use { generation ->
    generation.tokens().forEach { _ -> }
    generation.result().text
}
