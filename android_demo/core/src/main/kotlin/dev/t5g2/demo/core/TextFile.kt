package dev.t5g2.demo.core

import java.io.IOException
import java.io.InputStream
import java.nio.ByteBuffer
import java.nio.charset.CharacterCodingException

/** Far more than a model takes, and little enough to be shown and kept. */
private const val MOST_BYTES = 4 shl 20

/** The text of a file in UTF-8. Throws [Failure], in which it is called [name]. */
internal fun readTextFile(name: String, open: () -> InputStream): String {
    val bytes = try {
        open().use { it.readAtMost(MOST_BYTES + 1) }
    } catch (error: IOException) {
        throw Failure("$name cannot be read (${error.message}); choose another file.", error)
    }
    if (bytes.size > MOST_BYTES) {
        throw Failure("$name is larger than ${megabytes(MOST_BYTES.toLong())}; choose a part of it.")
    }
    return try {
        Charsets.UTF_8.newDecoder().decode(ByteBuffer.wrap(bytes)).toString().removePrefix("\uFEFF")
    } catch (error: CharacterCodingException) {
        throw Failure("$name is not a text in UTF-8; choose a plain text file.", error)
    }
}
