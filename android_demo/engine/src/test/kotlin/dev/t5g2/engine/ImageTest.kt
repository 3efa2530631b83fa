package dev.t5g2.engine

import java.nio.ByteBuffer
import org.junit.Assert.assertArrayEquals
import org.junit.Assert.assertEquals
import org.junit.Assert.assertNull
import org.junit.Assert.assertSame
import org.junit.Assert.assertThrows
import org.junit.Test

class ImageTest {
    @Test
    fun `bytes are handed over as they are`() {
        val bytes = ByteArray(2 * 3 * 4)
        assertSame(bytes, Image(bytes, 2, 3).bytes())
        assertNull(Image(bytes, 2, 3).direct())
    }

    @Test
    fun `a part of a buffer is what lies between position and limit`() {
        val bytes = ByteArray(20) { it.toByte() }
        for (buffer in listOf(ByteBuffer.wrap(bytes), ByteBuffer.wrap(bytes).asReadOnlyBuffer())) {
            buffer.position(8).limit(12)
            assertArrayEquals(byteArrayOf(8, 9, 10, 11), Image(buffer, 1, 1).bytes())
            assertEquals(8, buffer.position())
        }
        val slice = ByteBuffer.wrap(bytes, 4, 4).slice()
        assertArrayEquals(byteArrayOf(4, 5, 6, 7), Image(slice, 1, 1).bytes())
    }

    @Test
    fun `a direct buffer is read in place`() {
        val buffer = ByteBuffer.allocateDirect(20)
        buffer.position(16)
        val image = Image(buffer, 1, 1)
        assertNull(image.bytes())
        assertEquals(0, image.direct()!!.position())
        assertEquals(4, image.direct()!!.remaining())
    }

    @Test
    fun `a size that the bytes do not have is refused`() {
        val error = assertThrows(IllegalArgumentException::class.java) { Image(ByteArray(23), 2, 3) }
        assertEquals("a picture of 2 x 3 pixels: 23 bytes where 24 are needed; give 4 a pixel", error.message)
        assertThrows(IllegalArgumentException::class.java) { Image(ByteArray(0), 0, 3) }
        assertThrows(IllegalArgumentException::class.java) { Image(ByteArray(4), -1, -1) }
        assertThrows(IllegalArgumentException::class.java) { Image(ByteArray(0), 1 shl 30, 1 shl 30) }
    }
}
