package dev.t5g2.demo.core

import java.io.ByteArrayInputStream
import java.io.File
import org.junit.Assert.assertEquals
import org.junit.Assert.assertTrue
import org.junit.Rule
import org.junit.Test
import org.junit.rules.TemporaryFolder

class BundleImportTest {
    @get:Rule
    val temporary = TemporaryFolder()

    private val bundle = TestBundle()
    private val folder by lazy { File(temporary.root, "models") }
    private val library by lazy { ModelLibrary(folder) }
    private val id = "tiny-int4-g32"
    private val whole get() = (bundle.files + ("manifest.json" to bundle.manifest)).toList()

    private fun import(zip: ByteArray, freeSpace: FreeSpace = { Long.MAX_VALUE }) =
        BundleImport("my.zip", { ByteArrayInputStream(zip) }, library, freeSpace)

    /** What is said of a .zip with these entries, of which nothing may stay. */
    private fun complaint(entries: List<Pair<String, ByteArray>>): String {
        val complaint = failure { import(TestBundle.zipOf(entries)).run { } }
        assertEquals("nothing stays", emptyList<String>(), folder.list().orEmpty().toList())
        return complaint
    }

    @Test
    fun `a bundle comes out of its folder, whatever the order`() {
        for ((n, prefix) in listOf("", "nano/", "a/b/").withIndex()) {
            val entries = if (n == 1) whole.reversed() else whole
            val seen = mutableListOf<Progress>()
            val zip = TestBundle.zipOf(entries.map { (name, bytes) -> prefix + name to bytes })
            assertEquals(id, import(zip).run { seen.add(it) })
            assertHolds(bundle, File(folder, id))
            assertEquals(371_000L, seen.last().done)
            library.delete(id)
        }
    }

    @Test
    fun `what the manifest does not list is not written`() {
        val more = listOf("__MACOSX/manifest.json", ".DS_Store", "notes/readme.txt").map { it to ByteArray(9) }
        import(TestBundle.zipOf(more + whole)).run { }
        assertHolds(bundle, File(folder, id))
        assertEquals(listOf(id), folder.list().orEmpty().toList())
    }

    @Test
    fun `names that lead out of the folder are refused`() {
        for (name in listOf("../evil", "a/../../evil", "/etc/evil", "..\\evil")) {
            assertTrue("which leads out of its folder; do not trust it" in complaint(whole + (name to ByteArray(1))))
        }
        assertEquals(listOf("models"), temporary.root.list()!!.toList())
    }

    @Test
    fun `a file with more bytes than the manifest says is not written to its end`() {
        val bomb = whole.map { (name, bytes) -> name to if (name == "vision.pte") ByteArray(1_000_000) else bytes }
        assertEquals(
            "vision.pte has more bytes where the manifest says 70000 in my.zip: it was altered or is damaged; zip the " +
                "bundle's folder anew.",
            complaint(bomb),
        )
    }

    @Test
    fun `what inflates without end beside the bundle is refused`() {
        val zeros = ByteArray(68_000_000)
        assertTrue("holds too much beside a bundle" in complaint(listOf(whole.last(), "bomb" to zeros)))
    }

    @Test
    fun `a manifest that inflates without end is refused`() {
        assertTrue("is too large for a manifest" in complaint(listOf("manifest.json" to ByteArray(17_000_000))))
    }

    @Test
    fun `a file that is missing is named`() {
        assertEquals(
            "tokenizer.bin, vision.pte is missing in my.zip; zip the whole bundle.",
            complaint(whole.filterNot { it.first in setOf("tokenizer.bin", "vision.pte") }),
        )
    }

    @Test
    fun `a file that is shorter or other than the manifest says is refused`() {
        val short = whole.map { (name, bytes) -> name to if (name == "text.pte") bytes.copyOf(5) else bytes }
        assertTrue("text.pte has 5 bytes where the manifest says 300000" in complaint(short))
        val other = whole.map { (name, bytes) -> name to if (name == "text.pte") ByteArray(300_000) else bytes }
        assertTrue("text.pte does not have the sha256 of the manifest in my.zip" in complaint(other))
    }

    @Test
    fun `what is no zip or holds no bundle says so`() {
        val none = "my.zip holds no manifest.json; zip a bundle's folder."
        assertEquals(none, failure { import("hello".toByteArray()).run { } })
        assertEquals(none, complaint(listOf("a.txt" to ByteArray(1))))
        val cut = bundle.zip().copyOf(200_000)
        assertTrue(failure { import(cut).run { } }.startsWith("my.zip cannot be read ("))
        assertEquals(emptyList<String>(), folder.list().orEmpty().toList())
    }

    @Test
    fun `no space, nothing written`() {
        assertTrue("are to be stored" in failure { import(bundle.zip(), freeSpace = { 1000 }).run { } })
        assertEquals(0, folder.list().orEmpty().size)
    }

    @Test
    fun `cancel leaves nothing`() {
        val import = import(bundle.zip())
        var stopped = false
        try {
            import.run { if (it.done > 100_000) import.cancel() }
        } catch (_: Stopped) {
            stopped = true
        }
        assertTrue(stopped)
        assertEquals(0, folder.list().orEmpty().size)
    }

    @Test
    fun `what is on the device already is not imported again`() {
        import(bundle.zip()).run { }
        assertEquals("tiny int4-g32 is already on the device.", failure { import(bundle.zip()).run { } })
    }
}
