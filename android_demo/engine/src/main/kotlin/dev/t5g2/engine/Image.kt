package dev.t5g2.engine

import java.nio.ByteBuffer

/**
 * A decoded picture: [rgba] holds red, green, blue and alpha, a byte each, rows from top to bottom without gaps. The engine
 * lays it over white and scales it as it was done at training, so any size will do; a smaller one is prepared sooner.
 *
 * The pixels are neither copied nor changed here, and are read while [Engine.encode] runs. A direct buffer is read in place.
 *
 * @throws IllegalArgumentException if there are not `4 * width * height` bytes between the buffer's position and its limit.
 */
class Image(val rgba: ByteBuffer, val width: Int, val height: Int) {
    constructor(rgba: ByteArray, width: Int, height: Int) : this(ByteBuffer.wrap(rgba), width, height)

    init {
        require(width > 0 && height > 0) { "a picture of $width x $height pixels: give a width and a height of at least 1" }
        val needed = 4L * width * height
        require(rgba.remaining().toLong() == needed) {
            "a picture of $width x $height pixels: ${rgba.remaining()} bytes where $needed are needed; give 4 a pixel"
        }
    }

    /** The pixels as a direct buffer that begins with them; null where [bytes] has them. */
    internal fun direct(): ByteBuffer? = if (rgba.isDirect) rgba.slice() else null

    /** The pixels as an array that holds nothing else; null where [direct] has them. */
    internal fun bytes(): ByteArray? = when {
        rgba.isDirect -> null
        rgba.hasArray() && rgba.arrayOffset() + rgba.position() == 0 && rgba.array().size == rgba.remaining() -> rgba.array()
        else -> ByteArray(rgba.remaining()).also { rgba.duplicate().get(it) }
    }
}
