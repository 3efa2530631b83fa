package dev.t5g2.demo.core

import java.io.ByteArrayOutputStream
import java.io.File
import java.nio.file.Files
import java.util.zip.ZipEntry
import java.util.zip.ZipOutputStream
import kotlin.random.Random
import org.json.JSONObject

/** A bundle as the app sees it: files of random bytes and a manifest that is right for them. */
class TestBundle(
    val files: Map<String, ByteArray> = mapOf(
        "text.pte" to randomBytes(300_000, 1),
        "tokenizer.bin" to randomBytes(1_000, 2),
        "vision.pte" to randomBytes(70_000, 3),
    ),
    name: String = "tiny",
    maxSource: Int = 1024,
) {
    val json: JSONObject = JSONObject()
        .put("format", "t5g2-bundle")
        .put("format_version", 3)
        .put("model", JSONObject().put("name", name))
        .put("backend", "native")
        .put("quantization", JSONObject().put("text", JSONObject().put("name", "int4-g32")))
        .put("limits", JSONObject().put("max_source", maxSource).put("max_target", 128).put("max_rows", 16))
        .put(
            "memory",
            JSONObject()
                .put("self_cache_bytes", 1000)
                .put("cross_kv_bytes_per_source_token", 10)
                .put("planned_bytes", JSONObject().put("encoder", 1024).put("decoder_step", 160).put("vision", 7)),
        )
        .put("provenance", JSONObject().put("hub_id", "someone/tiny"))
        .put(
            "files",
            JSONObject(files.mapValues { JSONObject().put("size", it.value.size).put("sha256", hash(it.value)) }),
        )

    val manifest: ByteArray get() = sealed(json)

    /** Paths and bytes, as a server has them. */
    fun served(folder: String = "/b"): Map<String, ByteArray> =
        files.mapKeys { "$folder/${it.key}" } + ("$folder/manifest.json" to manifest)

    fun write(folder: File) {
        folder.mkdirs()
        for ((name, bytes) in files + ("manifest.json" to manifest)) File(folder, name).writeBytes(bytes)
    }

    /** As a .zip, with other entries before and after. */
    fun zip(
        prefix: String = "",
        entries: Map<String, ByteArray> = files + ("manifest.json" to manifest),
    ): ByteArray = zipOf(entries.mapKeys { prefix + it.key }.toList())

    companion object {
        fun randomBytes(count: Int, seed: Int): ByteArray = Random(seed).nextBytes(count)

        fun hash(bytes: ByteArray): String = sha256().digest(bytes).hexadecimal()

        /** A manifest's bytes, with its own hash. */
        fun sealed(json: JSONObject): ByteArray {
            val zeros = "0".repeat(64)
            val text = json.put("manifest_sha256", zeros).toString(2)
            return text.replace(zeros, hash(text.toByteArray())).toByteArray()
        }

        fun zipOf(entries: List<Pair<String, ByteArray>>): ByteArray {
            val bytes = ByteArrayOutputStream()
            ZipOutputStream(bytes).use { zip ->
                for ((name, content) in entries) {
                    zip.putNextEntry(ZipEntry(name))
                    zip.write(content)
                    zip.closeEntry()
                }
            }
            return bytes.toByteArray()
        }
    }
}

/** Asserts that a folder holds just a bundle, whole. */
fun assertHolds(bundle: TestBundle, folder: File) {
    val found = folder.listFiles().orEmpty().associate { it.name to Files.readAllBytes(it.toPath()) }
    check(found.keys == bundle.files.keys + "manifest.json") { "$folder holds ${found.keys}" }
    for ((name, bytes) in bundle.files) check(bytes.contentEquals(found[name])) { "$name is not what it should be" }
}
