package dev.t5g2.demo.core

import java.io.File
import java.io.FileNotFoundException
import org.junit.Assert.assertEquals
import org.junit.Assert.assertFalse
import org.junit.Assert.assertNull
import org.junit.Assert.assertTrue
import org.junit.Rule
import org.junit.Test
import org.junit.rules.TemporaryFolder

class ModelLibraryTest {
    @get:Rule
    val temporary = TemporaryFolder()

    private val folder by lazy { File(temporary.root, "models") }
    private val library by lazy { ModelLibrary(folder) }
    private val bundle = TestBundle()

    private fun damage(change: (File) -> Unit): InstalledBundle {
        val place = File(folder, "tiny")
        deleteAll(place)
        bundle.write(place)
        change(place)
        return library.bundles().single()
    }

    @Test
    fun `says what a bundle is`() {
        bundle.write(File(folder, "tiny"))
        val found = library.bundles().single()
        assertEquals("tiny", found.id)
        assertEquals("tiny int4-g32", found.title)
        assertEquals("someone/tiny", found.checkpoint)
        assertEquals(371_000L + bundle.manifest.size, found.bytes)
        assertEquals(ModelInfo("tiny", "tiny int4-g32", hasVision = true, hasTokenizer = true, 1024, 128), found.info)
        assertFalse(found.builtIn)
        assertNull(found.damage)
    }

    @Test
    fun `a damaged bundle is listed with what is wrong`() {
        assertEquals(
            "text.pte is missing; delete the model and download it again.",
            damage { File(it, "text.pte").delete() }.damage,
        )
        assertEquals(
            "text.pte has 7 bytes where 300000 are expected; delete the model and download it again.",
            damage { File(it, "text.pte").writeBytes(ByteArray(7)) }.damage,
        )
        assertTrue("is not the manifest" in damage { File(it, "manifest.json").writeText("hello") }.damage!!)
        assertTrue("manifest.json is missing" in damage { File(it, "manifest.json").delete() }.damage!!)
        assertEquals("an empty folder", "tiny", damage { deleteAll(it); it.mkdir() }.id)
    }

    @Test
    fun `an unfinished download is listed with how far it is`() {
        val part = File(folder, "tiny.part")
        bundle.write(part)
        File(part, "vision.pte").delete()
        File(part, "text.pte").writeBytes(ByteArray(1000))
        assertEquals("without a record nobody knows where from", emptyList<PartialBundle>(), library.partials())
        DownloadRecord("https://example.com/manifest.json", emptyMap()).write(part)
        assertEquals(
            listOf(PartialBundle("tiny", "tiny int4-g32", "https://example.com/manifest.json", 2000, 371_000)),
            library.partials(),
        )
        assertEquals(emptyList<InstalledBundle>(), library.bundles())
    }

    @Test
    fun `what a kill left half done is removed, and nothing else`() {
        bundle.write(File(folder, "tiny"))
        bundle.write(File(folder, "whole.import"))
        bundle.write(File(folder, "gone.deleted"))
        bundle.write(File(folder, "unknown.part"))
        bundle.write(File(folder, "known.part"))
        bundle.write(File(folder, "damaged.part"))
        File(folder, "damaged.part/manifest.json").writeText("{")
        val record = DownloadRecord("https://example.com/manifest.json", emptyMap())
        record.write(File(folder, "known.part"))
        record.write(File(folder, "damaged.part"))
        record.write(File(folder, "tiny")) // killed after its renaming
        library.chosen = "tiny"
        library.cleanUp()
        assertEquals(setOf("tiny", "known.part", "chosen"), folder.list().orEmpty().toSet())
        assertHolds(bundle, File(folder, "tiny"))
    }

    @Test
    fun `deleting removes all of a bundle`() {
        bundle.write(File(folder, "tiny"))
        File(folder, "tiny.deleted").mkdir() // an earlier deletion was cut short
        library.delete("tiny")
        assertEquals(0, folder.list().orEmpty().size)
        library.delete("tiny")
    }

    @Test
    fun `a bundle that is being written is not deleted`() {
        bundle.write(File(folder, "tiny"))
        library.claim("tiny").use {
            assertTrue("is being written" in failure { library.delete("tiny") })
        }
        assertHolds(bundle, File(folder, "tiny"))
        library.delete("tiny")
    }

    @Test
    fun `the choice is remembered`() {
        assertNull(library.chosen)
        library.chosen = "tiny"
        assertEquals("tiny", ModelLibrary(folder).chosen)
        library.chosen = null
        assertNull(ModelLibrary(folder).chosen)
    }

    @Test
    fun `ids are safe file names`() {
        val names = mapOf(
            "../../evil" to "evil-int4-g32",
            "My Model (ü)!" to "my-model-int4-g32",
            "x.part" to "x-part-int4-g32",
            "x".repeat(500) to "x".repeat(80),
        )
        for ((name, id) in names) {
            assertEquals(id, library.newId(BundleManifest.parse(TestBundle(name = name).manifest, "")))
        }
    }

    @Test
    fun `the app's own bundle is copied once, again when it differs, and repaired`() {
        val opened = mutableListOf<String>()
        fun builtIn(bundle: TestBundle) = BuiltInBundle { name ->
            opened.add(name)
            (bundle.files + ("manifest.json" to bundle.manifest)).getValue(name).inputStream()
        }
        builtIn(bundle).install(library)
        assertHolds(bundle, File(folder, "nano"))
        assertTrue(library.bundles().single().builtIn)
        assertEquals(4, opened.size)

        builtIn(bundle).install(library)
        assertEquals("only its manifest was looked at", 5, opened.size)

        File(folder, "nano/text.pte").delete()
        builtIn(bundle).install(library)
        assertHolds(bundle, File(folder, "nano"))

        val newer = TestBundle(maxSource = 2048)
        builtIn(newer).install(library)
        assertHolds(newer, File(folder, "nano"))
        assertEquals(listOf("nano"), folder.list().orEmpty().toList())
    }

    @Test
    fun `a damaged copy of the app's own bundle is not installed`() {
        val broken = BuiltInBundle { name ->
            if (name == "manifest.json") bundle.manifest.inputStream() else ByteArray(1000).inputStream()
        }
        assertTrue("The app's own model is damaged" in failure { broken.install(library) })
        val missing = BuiltInBundle { throw FileNotFoundException(it) }
        assertTrue("cannot be copied (manifest.json)" in failure { missing.install(library) })
        assertEquals(0, folder.list().orEmpty().size)
    }

    @Test
    fun `a record that is damaged is none`() {
        val part = temporary.newFolder("x.part")
        for (text in listOf("", "hello", "{}", "{\"url\": 1, \"versions\": {}}")) {
            File(part, DownloadRecord.FILE).writeText(text)
            assertNull(text, DownloadRecord.read(part))
        }
    }
}
