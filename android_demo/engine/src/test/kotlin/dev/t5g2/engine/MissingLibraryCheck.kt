package dev.t5g2.engine

import java.io.File
import org.junit.Assert.assertThrows
import org.junit.Assert.assertTrue
import org.junit.Test

/** Runs in a process that has no libt5g2_jni.so, so by a name that the other tests' runs do not look for. */
class MissingLibraryCheck {
    @Test
    fun `a library that is not there is an error each time`() {
        repeat(2) {
            val error = assertThrows(EngineException::class.java) { Engine.open(File("bundle")) }
            assertTrue(error.message!!, error.message!!.startsWith("libt5g2_jni.so: does not load (no t5g2_jni in"))
        }
    }
}
