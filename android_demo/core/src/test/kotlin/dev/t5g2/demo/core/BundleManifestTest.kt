package dev.t5g2.demo.core

import java.io.File
import org.json.JSONObject
import org.junit.Assert.assertEquals
import org.junit.Assert.assertTrue
import org.junit.Assume.assumeTrue
import org.junit.Test

class BundleManifestTest {
    private val bundle = TestBundle()

    private fun parse(bytes: ByteArray) = BundleManifest.parse(bytes, "here")

    /** What is said of the manifest once [change] was made to it; its seal is right. */
    private fun complaint(change: (JSONObject) -> Unit): String {
        change(bundle.json)
        return failure { parse(bundle.manifest) }
    }

    private fun withFile(name: String, entry: JSONObject = JSONObject().put("size", 1).put("sha256", "a".repeat(64))) =
        complaint { it.getJSONObject("files").put(name, entry) }

    @Test
    fun `says what the bundle is`() {
        val manifest = parse(bundle.manifest)
        assertEquals("tiny int4-g32", manifest.title)
        assertEquals("someone/tiny", manifest.checkpoint)
        assertEquals(listOf("text.pte", "tokenizer.bin", "vision.pte"), manifest.files.map { it.name })
        assertEquals(371_000L, manifest.totalBytes)
        assertTrue(manifest.hasVision && manifest.hasTokenizer)
        assertEquals(1024, manifest.maxSource)
    }

    @Test
    fun `memory is weights, caches and the work space of that source`() {
        val manifest = parse(bundle.manifest)
        assertEquals(370_000L + 1000 + 512 * 10 + 1024 / 2 + 160 / 16 + 7, manifest.memoryBytes(512))
        assertEquals("no longer than the bundle takes", manifest.memoryBytes(1024), manifest.memoryBytes(9999))
    }

    @Test
    fun `memory of XNNPACK counts its own copy of the weights`() {
        val native = parse(bundle.manifest).memoryBytes(512)
        bundle.json.put("backend", "xnnpack")
        assertEquals(native + 370_000, parse(bundle.manifest).memoryBytes(512))
    }

    @Test
    fun `reads what the exporter wrote`() {
        val folder = System.getProperty("t5g2.bundle")
        assumeTrue("-Dt5g2.bundle: no bundle to read", folder != null)
        val file = File(folder, BundleManifest.FILE)
        val manifest = BundleManifest.parse(file.readBytes(), file.path)
        assertEquals("int4-g32", manifest.quantization)
        assertTrue(manifest.hasVision && manifest.hasTokenizer)
        for (wanted in manifest.files) assertEquals(wanted.size, File(folder, wanted.name).length())
    }

    @Test
    fun `what is no JSON is refused`() {
        for (text in listOf("", "hello", "[1]", "<html>", "{\"format\": \"other\"}")) {
            assertEquals(
                "here is not the manifest of a bundle; give the manifest.json that t5g2-export made.",
                failure { parse(text.toByteArray()) },
            )
        }
    }

    @Test
    fun `a newer format asks for a newer app, an older one for a new export`() {
        assertEquals(
            "here has bundle format 4, and this app reads 3; update the app, or export the bundle again.",
            complaint { it.put("format_version", 4) },
        )
        assertEquals(
            "here has bundle format 2, and this app reads 3; export the bundle again.",
            complaint { it.put("format_version", 2) },
        )
    }

    @Test
    fun `an altered manifest is refused`() {
        val text = bundle.manifest.toString(Charsets.UTF_8).replace("\"tiny\"", "\"tony\"")
        assertEquals(
            "here does not match its own hash: it was altered; export the bundle again.",
            failure { parse(text.toByteArray()) },
        )
    }

    @Test
    fun `file names cannot leave the folder or hide in it`() {
        val outside = listOf("../x", "../../x", "/etc/x", "a/b", "a\\b", "..", ".")
        for (name in outside + listOf(".download.json", "", "x\u0000", "manifest.json")) {
            val complaint = withFile(name)
            assertTrue(complaint, "'$name' cannot be the name of a bundle's file" in complaint)
            bundle.json.getJSONObject("files").remove(name)
        }
    }

    @Test
    fun `a file that is listed twice is refused, in capitals too`() {
        assertTrue("a file is listed twice" in withFile("TEXT.PTE"))
    }

    @Test
    fun `sizes must be possible`() {
        for (size in listOf<Any>(-1, 1L shl 41, 1e300, 1.5, "12")) {
            val complaint = withFile("x.bin", JSONObject().put("size", size).put("sha256", "a".repeat(64)))
            assertTrue(complaint, complaint.startsWith("here is a damaged manifest ("))
        }
    }

    @Test
    fun `hashes must be there`() {
        assertTrue("x.bin has no sha256" in withFile("x.bin", JSONObject().put("size", 1)))
        assertTrue("x.bin has no sha256" in withFile("x.bin", JSONObject().put("size", 1).put("sha256", "A".repeat(64))))
    }

    @Test
    fun `a bundle without a text program is none`() {
        assertTrue("text.pte is missing" in complaint { it.getJSONObject("files").remove("text.pte") })
    }

    @Test
    fun `thousands of files are not a bundle`() {
        val complaint = complaint { json ->
            repeat(100) { json.getJSONObject("files").put("f$it", JSONObject().put("size", 0).put("sha256", "a".repeat(64))) }
        }
        assertTrue(complaint, "it lists 103 files" in complaint)
    }
}
