package dev.t5g2.demo.core

import java.io.File
import java.io.FileOutputStream
import java.io.IOException
import java.io.OutputStream
import java.util.concurrent.Executors
import java.util.concurrent.atomic.AtomicInteger
import kotlin.concurrent.thread
import org.json.JSONObject
import org.junit.After
import org.junit.Assert.assertEquals
import org.junit.Assert.assertFalse
import org.junit.Assert.assertNull
import org.junit.Assert.assertTrue
import org.junit.Rule
import org.junit.Test
import org.junit.rules.TemporaryFolder

class BundleDownloadTest {
    @get:Rule
    val temporary = TemporaryFolder()

    private val bundle = TestBundle()
    private val executor = Executors.newCachedThreadPool()
    private val folder by lazy { File(temporary.root, "models") }
    private val library by lazy { ModelLibrary(folder) }
    private val servers = mutableListOf<TestServer>()
    private val id = "tiny-int4-g32"

    @After
    fun stop() {
        servers.forEach { it.close() }
        executor.shutdownNow()
    }

    private fun serve(
        files: Map<String, ByteArray> = bundle.served(),
        etag: (String) -> String? = { null },
        change: (Request, Reply) -> Reply = { _, reply -> reply },
    ) = fileServer(files, etag, change).also { servers.add(it) }

    private fun serve(answer: (Request) -> Reply) = TestServer(answer = answer).also { servers.add(it) }

    private fun download(
        url: String,
        delays: List<Long> = listOf(1, 1, 1),
        readTimeout: Int = 20_000,
        freeSpace: FreeSpace = { Long.MAX_VALUE },
        open: FileOpener = openFile,
    ) = BundleDownload(BundleAddress.of(url), library, NetworkOptions(20_000, readTimeout, delays), executor, freeSpace, open)

    private fun TestServer.asked(file: String) = requests.filter { it.path == "/b/$file" }

    private fun part(file: String) = File(folder, "$id.part/$file")

    /** What is there is of that server; servers of a test have addresses of their own. */
    private fun recordFrom(server: TestServer) =
        DownloadRecord(server.url + "/b/manifest.json", emptyMap()).write(part(DownloadRecord.FILE).parentFile)

    /** Answers [file] so that only the first [count] bytes of each answer come. */
    private fun breaking(file: String, count: Int) = { request: Request, reply: Reply ->
        if (request.path == "/b/$file") Reply(reply.status, reply.headers, reply.body, breakAfter = count) else reply
    }

    @Test
    fun `a bundle comes whole, from its folder's address too`() {
        val server = serve()
        val seen = mutableListOf<Progress>()
        assertEquals(id, download(server.url + "/b/").run { seen.add(it) })
        assertHolds(bundle, File(folder, id))
        assertEquals(listOf(id), folder.list().orEmpty().toList())
        assertEquals(371_000L, seen.last().done)
        assertEquals(371_000L, seen.last().total)
        assertTrue("progress goes up", seen.zipWithNext().all { (a, b) -> a.done <= b.done })
        assertEquals("tiny int4-g32", library.bundles().single().title)
    }

    @Test
    fun `a connection that is lost again and again costs no byte twice`() {
        val server = serve(change = breaking("text.pte", 40_000))
        val notes = mutableListOf<String?>()
        download(server.url + "/b/manifest.json").run { notes.add(it.note) }
        assertHolds(bundle, File(folder, id))
        assertEquals((0 until 300_000 step 40_000).map { it.takeIf { it > 0 } }, server.asked("text.pte").map { it.from })
        val waits = notes.filterNotNull()
        assertTrue("$waits", waits.all { it.endsWith("0000 of the 300000 bytes of text.pte; trying again in 1 s") })
        assertEquals(7, waits.size)
    }

    @Test
    fun `a server that never gets further is given up`() {
        val server = serve(change = breaking("text.pte", 0))
        val complaint = failure { download(server.url + "/b").run { } }
        assertEquals("127.0.0.1 sent only 0 of the 300000 bytes of text.pte; check the network and try again.", complaint)
        assertEquals("the first try and three more", 4, server.asked("text.pte").size)
        assertTrue("what came stays", part("manifest.json").isFile)
    }

    @Test
    fun `a server that ignores ranges and always breaks off is given up too`() {
        val server = serve { request ->
            val body = bundle.served().getValue(request.path)
            Reply(body = body, breakAfter = if (request.path == "/b/text.pte") 100_000 else null)
        }
        failure { download(server.url + "/b").run { } }
        assertEquals("the first did get further, the three after it did not", 4, server.asked("text.pte").size)
    }

    @Test
    fun `a server that ignores ranges sends all of it again`() {
        val times = AtomicInteger()
        val server = serve { request ->
            val breaks = request.path == "/b/text.pte" && times.incrementAndGet() == 1
            Reply(body = bundle.served().getValue(request.path), breakAfter = if (breaks) 100_000 else null)
        }
        download(server.url + "/b").run { }
        assertHolds(bundle, File(folder, id))
        assertEquals(listOf(null, 100_000), server.asked("text.pte").map { it.from })
    }

    @Test
    fun `another life of the app goes on where this one ended`() {
        serve(change = breaking("text.pte", 123_456)).let { server ->
            failure { download(server.url + "/b", delays = emptyList()).run { } }
            assertEquals(123_456L, part("text.pte").length())
            val partial = PartialBundle(id, "tiny int4-g32", server.url + "/b/manifest.json", 123_456, 371_000)
            assertEquals(listOf(partial), library.partials())
        }
        val again = serve()
        recordFrom(again)
        download(again.url + "/b").run { }
        assertHolds(bundle, File(folder, id))
        assertEquals(listOf(123_456), again.asked("text.pte").map { it.from })
    }

    @Test
    fun `a file that is there whole is not asked for again`() {
        val server = serve(change = breaking("tokenizer.bin", 0))
        failure { download(server.url + "/b", delays = emptyList()).run { } }
        assertEquals(1, server.asked("text.pte").size)
        failure { download(server.url + "/b", delays = emptyList()).run { } }
        assertEquals(1, server.asked("text.pte").size)
    }

    @Test
    fun `what is damaged on the device comes again, once`() {
        val server = serve(change = breaking("text.pte", 150_000))
        failure { download(server.url + "/b", delays = emptyList()).run { } }
        part("text.pte").writeBytes(ByteArray(150_000))
        val good = serve()
        recordFrom(good)
        download(good.url + "/b").run { }
        assertHolds(bundle, File(folder, id))
        assertEquals(listOf(150_000, null), good.asked("text.pte").map { it.from })
    }

    @Test
    fun `416 begins anew`() {
        val server = serve(change = { request, reply ->
            when {
                request.path != "/b/text.pte" -> reply
                request.from == null && request.headers["x"] == null -> reply
                else -> Reply(416)
            }
        })
        part("x").parentFile.mkdirs()
        bundle.write(part("x").parentFile)
        part("text.pte").writeBytes(bundle.files.getValue("text.pte").copyOf(1000))
        recordFrom(server)
        download(server.url + "/b").run { }
        assertHolds(bundle, File(folder, id))
        assertEquals(listOf(1000, null), server.asked("text.pte").map { it.from })
    }

    @Test
    fun `a file that was replaced on the server between two tries is not pieced together`() {
        val other = TestBundle(bundle.files + ("text.pte" to TestBundle.randomBytes(300_000, 9)))
        val times = AtomicInteger()
        // The first connection gives the beginning of another file; its ETag differs from that of the second.
        val server = serve(
            etag = { if (it == "/b/text.pte") "\"v${times.get()}\"" else null },
            change = { request, reply ->
                if (request.path == "/b/text.pte" && times.getAndIncrement() == 0) {
                    Reply(200, reply.headers, other.files.getValue("text.pte"), breakAfter = 50_000)
                } else {
                    reply
                }
            },
        )
        download(server.url + "/b").run { }
        assertHolds(bundle, File(folder, id))
        val asked = server.asked("text.pte")
        assertEquals(listOf(null, 50_000), asked.map { it.from })
        assertEquals("\"v0\"", asked[1].headers["if-range"])
    }

    @Test
    fun `without ETags, pieces of two versions are noticed and loaded anew`() {
        val times = AtomicInteger()
        val server = serve(change = { request, reply ->
            if (request.path == "/b/text.pte" && times.getAndIncrement() == 0) {
                Reply(200, body = TestBundle.randomBytes(300_000, 9), breakAfter = 50_000)
            } else {
                reply
            }
        })
        download(server.url + "/b").run { }
        assertHolds(bundle, File(folder, id))
        assertEquals(listOf(null, 50_000, null), server.asked("text.pte").map { it.from })
    }

    @Test
    fun `weak ETags are not asked for`() {
        val server = serve(etag = { "W/\"1\"" }, change = breaking("text.pte", 200_000))
        download(server.url + "/b").run { }
        assertTrue(server.asked("text.pte").all { it.headers["if-range"] == null })
    }

    @Test
    fun `a wrong hash is refused, and nothing of the file stays`() {
        val server = serve(bundle.served() + ("/b/text.pte" to TestBundle.randomBytes(300_000, 9)))
        assertEquals(
            "text.pte from 127.0.0.1 does not have the sha256 of the manifest: it was altered or replaced; put all files of " +
                "one export there.",
            failure { download(server.url + "/b").run { } },
        )
        assertEquals("a second time would give the same", 1, server.asked("text.pte").size)
        assertFalse(part("text.pte").exists())
        assertEquals(emptyList<InstalledBundle>(), library.bundles())
    }

    @Test
    fun `more or fewer bytes than the manifest says are refused before they come`() {
        for (size in listOf(299_999, 300_001)) {
            val server = serve(bundle.served() + ("/b/text.pte" to ByteArray(size)))
            val complaint = failure { download(server.url + "/b").run { } }
            assertTrue(complaint, "text.pte has $size bytes where the manifest says 300000" in complaint)
        }
    }

    @Test
    fun `more bytes than the manifest says, without a length, are not written`() {
        val server = serve { request ->
            val right = bundle.served().getValue(request.path)
            Reply(body = if (request.path == "/b/text.pte") ByteArray(900_000) else right, length = null)
        }
        val complaint = failure { download(server.url + "/b").run { } }
        assertTrue(complaint, "text.pte has more bytes where the manifest says 300000" in complaint)
        assertFalse(part("text.pte").exists())
    }

    @Test
    fun `a server that stalls is asked again`() {
        val times = AtomicInteger()
        val server = serve(change = { request, reply ->
            val stalls = request.path == "/b/text.pte" && times.getAndIncrement() == 0
            if (stalls) Reply(200, body = reply.body, stallAfter = 100_000) else reply
        })
        val notes = mutableListOf<String>()
        download(server.url + "/b", readTimeout = 1000).run { it.note?.let(notes::add) }
        assertHolds(bundle, File(folder, id))
        assertEquals(listOf("the connection was lost (Read timed out); trying again in 1 s"), notes.distinct().take(1))
        assertEquals(100_000, server.asked("text.pte")[1].from)
    }

    @Test
    fun `redirects are followed, each file's for itself`() {
        val server = serve { request ->
            if (request.path.startsWith("/b/")) {
                Reply(302, mapOf("Location" to request.path.replace("/b/", "/cdn/")))
            } else {
                Reply(body = bundle.served("/cdn").getValue(request.path))
            }
        }
        download(server.url + "/b").run { }
        assertHolds(bundle, File(folder, id))
    }

    @Test
    fun `redirects to where nobody keeps others from reading are refused`() {
        val server = serve { Reply(302, mapOf("Location" to "http://example.com/manifest.json")) }
        assertEquals(
            "${server.url}/b/manifest.json redirects to http://example.com/manifest.json, which is not an https address; " +
                "Android apps load from those only. Give one, or import a .zip.",
            failure { download(server.url + "/b").run { } },
        )
    }

    @Test
    fun `redirects in a circle end`() {
        val server = serve { Reply(302, mapOf("Location" to it.path)) }
        assertTrue("redirects more than 10 times" in failure { download(server.url + "/b").run { } })
    }

    @Test
    fun `only https, but for this machine`() {
        for (url in listOf("http://example.com/b", "http://192.168.1.7/b", "ftp://localhost/b", "file:/etc/passwd")) {
            val complaint = failure { BundleAddress.of(url) }
            assertTrue(complaint, complaint.startsWith("$url is not an https address"))
        }
        for (url in listOf("", "hello", "https://", "https:///x", "https://a b/c")) {
            assertTrue(url, "is not a web address" in failure { BundleAddress.of(url) })
        }
        for (host in listOf("localhost:8000", "[::1]", "10.0.2.2", "LOCALHOST")) BundleAddress.of("http://$host/b")
    }

    @Test
    fun `a query goes along with every file`() {
        val address = BundleAddress.of("https://example.com/a/manifest.json?token=1")
        assertEquals("https://example.com/a/text.pte?token=1", address.file("text.pte").toString())
        assertEquals("https://example.com/a/manifest.json?t=1", BundleAddress.of("https://example.com/a/?t=1").text)
        assertEquals("https://example.com/manifest.json", BundleAddress.of(" https://example.com ").text)
    }

    @Test
    fun `what is not there says so at once`() {
        val server = serve { Reply(404) }
        assertEquals(
            "${server.url}/b/manifest.json does not exist (404); check the address.",
            failure { download(server.url + "/b").run { } },
        )
        assertEquals(1, server.requests.size)
    }

    @Test
    fun `what is private says so`() {
        val server = serve { Reply(403) }
        assertTrue("is not public (403)" in failure { download(server.url + "/b").run { } })
    }

    @Test
    fun `a busy server is asked again`() {
        val times = AtomicInteger()
        val server = serve(change = { _, reply -> if (times.incrementAndGet() % 2 == 1) Reply(503) else reply })
        download(server.url + "/b").run { }
        assertHolds(bundle, File(folder, id))
    }

    @Test
    fun `nobody listens`() {
        val server = serve { Reply(404) }
        server.close()
        val complaint = failure { download(server.url + "/b").run { } }
        assertTrue(complaint, complaint.startsWith("127.0.0.1 does not answer (") && "check the network" in complaint)
    }

    @Test
    fun `a page is not a manifest`() {
        val server = serve { Reply(body = "<!doctype html><title>Sign in</title>".toByteArray()) }
        assertTrue("is a web page, not a manifest" in failure { download(server.url + "/b").run { } })
    }

    @Test
    fun `names that leave the folder write nothing`() {
        bundle.json.getJSONObject("files").put("../../x", JSONObject().put("size", 1).put("sha256", "a".repeat(64)))
        val server = serve(bundle.served())
        assertTrue("cannot be the name of a bundle's file" in failure { download(server.url + "/b").run { } })
        assertEquals(1, server.requests.size)
        assertEquals(0, folder.list().orEmpty().size)
    }

    @Test
    fun `no space, no download`() {
        val server = serve()
        val complaint = failure { download(server.url + "/b", freeSpace = { 67_000_000 }).run { } }
        assertEquals(
            "0.4 MB are to be stored and 67.0 MB are free, and 67.1 MB are to stay free; delete other files or models " +
                "first.",
            complaint,
        )
        assertEquals(1, server.requests.size)
    }

    @Test
    fun `a storage that is full in the middle keeps what is there`() {
        val server = serve()
        val full: FileOpener = { file, append ->
            if (file.name == "text.pte") Full(FileOutputStream(file, append), 128_000) else FileOutputStream(file, append)
        }
        assertEquals(
            "text.pte cannot be written (No space left on device); free some storage and try again.",
            failure { download(server.url + "/b", open = full).run { } },
        )
        assertEquals("no use in trying again", 1, server.asked("text.pte").size)
        val there = part("text.pte").length().toInt()
        assertTrue("$there", there in 1..128_000)
        download(server.url + "/b").run { }
        assertHolds(bundle, File(folder, id))
        assertEquals(there, server.asked("text.pte")[1].from)
    }

    private class Full(private val file: OutputStream, private var room: Int) : OutputStream() {
        override fun write(byte: Int) = write(byteArrayOf(byte.toByte()), 0, 1)

        override fun write(bytes: ByteArray, offset: Int, count: Int) {
            file.write(bytes, offset, minOf(count, room))
            if (count > room) throw IOException("No space left on device")
            room -= count
        }

        override fun close() = file.close()
    }

    /** Runs a download that stalls in the middle, does something to it, and returns how it ended. */
    private fun interrupted(what: (BundleDownload) -> Unit): Throwable? {
        val server = serve(change = { request, reply ->
            if (request.path == "/b/text.pte") Reply(200, body = reply.body, stallAfter = 100_000) else reply
        })
        val download = download(server.url + "/b", readTimeout = 20_000)
        var end: Throwable? = null
        val runner = thread {
            try {
                download.run { }
            } catch (error: Exception) {
                end = error
            }
        }
        await("bytes come") { part("text.pte").length() == 100_000L }
        what(download)
        runner.join(10_000)
        assertFalse("it ends soon, though the server is silent", runner.isAlive)
        return end
    }

    @Test
    fun `pause keeps what has come`() {
        assertTrue(interrupted { it.pause() } is Stopped)
        assertEquals(100_000L, part("text.pte").length())
        assertEquals(1, library.partials().size)
    }

    @Test
    fun `cancel leaves nothing`() {
        assertTrue(interrupted { it.cancel() } is Stopped)
        assertEquals(0, folder.list().orEmpty().size)
    }

    @Test
    fun `cancel leaves nothing of what was there, also before the manifest has come again`() {
        interrupted { it.pause() }
        val server = serve { Reply(stallAfter = 0, length = 9) }
        recordFrom(server)
        val download = download(server.url + "/b")
        val runner = thread {
            try {
                download.run { }
            } catch (_: Stopped) {
                // as it should be
            }
        }
        await("it asks") { server.requests.size == 1 }
        download.cancel()
        runner.join(10_000)
        assertEquals(0, folder.list().orEmpty().size)
    }

    @Test
    fun `a second download of the same bundle is refused while the first runs`() {
        var complaint: String? = null
        interrupted { first ->
            val url = library.partials().single().url
            complaint = failure { download(url).run { } }
            first.pause()
        }
        assertEquals("$id is being written already; wait until that has ended.", complaint)
    }

    @Test
    fun `what is on the device already is not downloaded again`() {
        bundle.write(File(folder, "mine"))
        val server = serve()
        assertEquals("tiny int4-g32 is already on the device.", failure { download(server.url + "/b").run { } })
        assertEquals(1, server.requests.size)
    }

    @Test
    fun `another bundle of the same name gets a name of its own`() {
        TestBundle(maxSource = 2048).write(File(folder, id))
        val server = serve()
        assertEquals("$id-2", download(server.url + "/b").run { })
        assertHolds(bundle, File(folder, "$id-2"))
    }

    @Test
    fun `of a bundle that was exported anew meanwhile, only what is the same is kept`() {
        val server = serve(change = breaking("vision.pte", 10))
        failure { download(server.url + "/b", delays = emptyList()).run { } }
        val newer = TestBundle(bundle.files + ("text.pte" to TestBundle.randomBytes(200_000, 5)))
        val other = serve(newer.served())
        recordFrom(other)
        assertEquals(id, download(other.url + "/b").run { })
        assertHolds(newer, File(folder, id))
        assertEquals(listOf<Int?>(null), other.asked("text.pte").map { it.from })
        assertEquals(listOf<Int?>(10), other.asked("vision.pte").map { it.from })
        assertEquals("the tokenizer was there", 0, other.asked("tokenizer.bin").size)
    }

    @Test
    fun `an empty file is made without being asked for`() {
        val with = TestBundle(bundle.files + ("empty.bin" to ByteArray(0)))
        val server = serve(with.served())
        download(server.url + "/b").run { }
        assertHolds(with, File(folder, id))
        assertEquals(0, server.asked("empty.bin").size)
    }

    @Test
    fun `nothing waits between tries once it is stopped`() {
        val server = serve { Reply(503) }
        val download = download(server.url + "/b", delays = listOf(60_000))
        var end: Throwable? = null
        val runner = thread {
            try {
                download.manifest()
            } catch (error: Exception) {
                end = error
            }
        }
        await("it asks") { server.requests.size == 1 }
        download.cancel()
        runner.join(5_000)
        assertTrue(end is Stopped)
        assertNull(library.chosen)
    }
}
